"""Results as pictures."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gocor.core.files import atomic_path
from on_cpu.results import Group
from on_cpu.show import NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 90
COLOURS = {"PWCNet": "#9aa5b1", "PWCNet_GOCor": "#1f77b4", "GLUNet": "#9aa5b1", "GLUNet_GOCor": "#1f77b4"}
STYLES = {"ONNX Runtime": "o-", "OpenVINO": "s--"}


def draw_networks(groups: dict[str, Group], path: Path) -> Path:
    """Bars, a panel for each group; whiskers are the quartiles' distance."""
    figure, panels = _panels(len(groups), 3.6)
    for axes, (name, group) in zip(panels, groups.items(), strict=True):
        ways = group.ways
        for number, case in enumerate(group.cases):
            rows = [(i, row) for i, way in enumerate(ways) if (row := group.find(case, way))]
            places = [i + 0.4 * (number - 0.5) for i, _ in rows]
            axes.barh(
                places, [r.median_ms for _, r in rows], 0.38, color=COLOURS[case], label=NAMES[case],
                xerr=[r.spread_ms / 2 for _, r in rows], error_kw={"linewidth": 1},
            )  # fmt: skip
        axes.set_yticks(range(len(ways)), ways)
        axes.invert_yaxis()
        axes.set_title(name.partition(": ")[2], fontsize="medium")
        axes.set_xlabel("ms")
        axes.legend(fontsize="small")
    return _save(figure, path)


def draw_growth(groups: dict[str, Group], path: Path) -> Path:
    """Lines, a panel for each thing that grows."""
    figure, panels = _panels(len(groups), 3.4)
    for axes, (name, group) in zip(panels, groups.items(), strict=True):
        cases = group.cases
        for way in group.ways:
            network, library = way.split(" · ")
            rows = [(_place(case), row) for case in cases if (row := group.find(case, way))]
            axes.plot(
                [place for place, _ in rows], [r.median_ms for _, r in rows], STYLES[library],
                color=COLOURS[network], label=f"{NAMES[network]}, {library}", markersize=4,
            )  # fmt: skip
        axes.set_xticks([_place(case) for case in cases], cases)
        axes.set_ylim(bottom=0)
        axes.set_title(f"by {name.partition(': ')[2]}", fontsize="medium")
        axes.set_ylabel("ms")
        axes.legend(fontsize="x-small")
    return _save(figure, path)


def _place(case: str) -> int:
    """Where on the axis: pixels of ``256×320``, the number of ``3``, and what has none before all."""
    numbers = re.findall(r"\d+", case)
    return math.prod(map(int, numbers)) if numbers else -1


def _panels(count: int, height: float) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    columns = min(count, 3) if count != 4 else 2
    rows = -(-count // columns)
    figure = Figure(figsize=(5 * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _save(figure: "Figure", path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    return path
