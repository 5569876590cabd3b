"""A picture of what each part of a network does to the flow in lower precision."""

from pathlib import Path

from gocor.calibration.repair import Sensitivities
from gocor.core.files import atomic_path
from gocor.runtime.benchmark import check_plot


def plot(found: Sensitivities, path: str | Path, lowered: str) -> None:
    """Draws the error that each part causes alone, in the format of the path's suffix.

    Args:
        found: what was measured.
        path: of the picture.
        lowered: what was done to the parts, such as ``in 8 bits``.

    Raises:
        DependencyError: matplotlib is not installed.
        ConfigError: the suffix is that of no picture.
        OutputError: the file cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    rows = [("all of them", found.together.aepe, found.together.p99)]
    rows += [(part.part, part.aepe, part.p99) for part in found.parts]
    figure = Figure(figsize=(8, 1.4 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for row, (_, aepe, p99) in enumerate(rows):
        if aepe is None or p99 is None:
            axes.annotate("not finite", (0.02, row), xycoords=("axes fraction", "data"), va="center")
            continue
        color = "tab:blue" if row else "black"
        axes.hlines(row, aepe, p99, linewidth=5, color=color, alpha=0.2)
        axes.plot(aepe, row, "o", color=color)
        axes.plot(p99, row, "|", color=color, markersize=10)
        axes.annotate(
            f"{aepe:.2g}", (aepe, row), (-6, 0), textcoords="offset points", ha="right", va="center"
        )
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel("end-point error against the model before, px: mean and 99 %")
    axes.set_title(f"If only one part is {lowered}, on {len(found.together.pairs)} pairs", fontsize="medium")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
