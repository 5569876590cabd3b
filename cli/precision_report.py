"""What lower precision did to the flow, as ``gocor calibrate`` and ``gocor export`` print it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from gocor.console import print_line
from gocor.core.errors import ConfigError
from gocor.core.files import check_writable
from gocor.runtime.report import write_json

if TYPE_CHECKING:
    from rich.table import Table

    from gocor.calibration.drift import Drift
    from gocor.calibration.repair import Repaired, Sensitivities


def parse_budget(text: str | None) -> float | None:
    """Pixels of ``0.1px``, ``0.1 px`` or ``0.1``; None of None.

    Raises:
        ConfigError: the text is something else, or not above 0.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(?:px)?\s*", text)
    if not match or not float(match[1]):
        raise ConfigError("--budget", f"is {text!r}", "pixels above 0, as 0.1px")
    return float(match[1])


def count_of_pairs(pairs: int) -> str:
    """``1 pair``, ``2 pairs``."""
    return "1 pair" if pairs == 1 else f"{pairs} pairs"


def drift_pairs(drift: "Drift") -> str:
    """How many pairs a drift was measured on, and how they were chosen."""
    which = "held out" if drift.apart else "calibrated with, too few to hold some out"
    return f"{count_of_pairs(len(drift.pairs))} {which}"


def drift_facts(drift: "Drift") -> str:
    """Its errors in one line."""
    if drift.aepe is None:
        return "the flow is NaN or infinite"
    return f"AEPE {pixels(drift.aepe)} px, 99 % {pixels(drift.p99)} px, max {pixels(drift.maximum)} px"


def repair_facts(repaired: "Repaired") -> str:
    """What was kept for a budget, and what it costs."""
    if not repaired.kept:
        return f"{repaired.budget:g} px, met with nothing kept"
    names = ", ".join(name.rpartition("/")[0] or name for name in repaired.kept)
    cost = f"{repaired.weight_bytes / 1e6:.2f} MB of weights and {100 * repaired.work:.1f} % of the "
    errors = f"AEPE {pixels(repaired.before.aepe)} → {pixels(repaired.after.aepe)} px"
    return (
        f"{repaired.budget:g} px, met: {errors}\nkept {len(repaired.kept)}: {names}\n"
        f"cost {cost}convolutions' multiply-adds"
    )


def sensitivity_table(found: "Sensitivities", lowered: str, members: str, pairs: str) -> "Table":
    """One row for each part, the worst first.

    Args:
        found: what was measured.
        lowered: what was done to the parts, such as ``in 8 bits``.
        members: what parts consist of, such as ``convolutions``.
        pairs: that it was measured on, in words.
    """
    from rich.table import Table

    title = f"one part alone {lowered}, on {pairs}"
    table = Table(title=title, title_justify="left")
    table.add_column("part")
    for name in (members, "AEPE px", "99 % px", "weights saved", "multiply-adds"):
        table.add_column(name, justify="right")
    for part in found.parts:
        costs = f"{part.saved_bytes / 1e6:.2f} MB", f"{100 * part.work:.1f} %"
        table.add_row(part.part, str(len(part.members)), pixels(part.aepe), pixels(part.p99), *costs)
    table.add_section()
    together = found.together
    count = str(sum(len(part.members) for part in found.parts))
    costs = f"{found.saved_bytes / 1e6:.2f} MB", f"{100 * sum(part.work for part in found.parts):.1f} %"
    table.add_row("all of them", count, pixels(together.aepe), pixels(together.p99), *costs)
    return table


def check_reports(json: Path | None, plot: Path | None, sensitivity: bool) -> None:
    """Finds out before long work whether the reports can be written.

    Raises:
        ConfigError: a plot, and nothing to draw, or no picture's suffix.
        DependencyError: a plot, and matplotlib is not installed.
        OutputError: a file cannot be written.
    """
    from gocor.runtime.benchmark import check_plot

    if plot and not sensitivity:
        raise ConfigError("--plot", "draws sensitivities", "add --sensitivity")
    if plot:
        check_plot(plot)
    if json:
        check_writable(json)


def write_report(path: Path, report: object) -> None:
    """Writes a report as JSON, and says so."""
    write_json(path, report)
    print_line("written", path, "green")


def write_plot(path: Path, found: "Sensitivities", lowered: str) -> None:
    """Draws sensitivities, and says so."""
    from gocor.calibration.plot import plot

    plot(found, path, lowered)
    print_line("written", path, "green")


def pixels(value: float | None) -> str:
    """Three digits; ``not finite`` for None."""
    return "not finite" if value is None else f"{value:.3g}"
