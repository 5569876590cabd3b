"""``gocor eval``: errors of models on pairs whose flow is known, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gocor.console import examples, print_figures, print_line, progress
from gocor.core.files import check_writable

if TYPE_CHECKING:
    from rich.table import Table

    from gocor.evaluation.evaluate import EvaluationReport, MethodResult

EPILOG = examples(
    "gocor eval model.onnx --dataset motorcycle",
    "gocor eval their.pth fp32.onnx fp16.onnx --dataset kitti2015 --root kitti2015 --json eval.json",
    "gocor eval model.onnx --dataset sintel --root MPI-Sintel --group final --limit 50 --peers dis",
    "gocor eval model.onnx --dataset manifest --root pairs.csv  # columns reference, query, flow",
)
ROWS = (  # name, unit, attribute of Scores, more is better
    ("AEPE", "px", "aepe", False),
    ("AEPE visible", "px", "aepe_visible", False),
    ("Fl-all", "%", "fl_all", False),
    ("PCK-1", "%", "pck_1", True),
    ("PCK-3", "%", "pck_3", True),
    ("PCK-5", "%", "pck_5", True),
    ("PCK@{alpha:g}", "%", "pck_alpha", True),
)


def eval(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models, engines, .xml and checkpoints; the others are compared with the first."),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(help="kitti2012, kitti2015, sintel, hpatches, tss, manifest, motorcycle or synthetic."),
    ] = "synthetic",
    root: Annotated[
        Path | None, typer.Option(help="Folder of the dataset, or the manifest's CSV file.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="One part of it only: final, JODS, 1-6, …")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many pairs, spread evenly.")] = None,
    peers: Annotated[str, typer.Option(help="Beside them: dis, farneback (OpenCV); comma-separated.")] = "",
    provider: Annotated[
        str | None, typer.Option(help="Where to run: cpu (default), cuda or tensorrt. Engines and .xml know.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; one for each core if not given.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all figures, of every pair, here.")] = None,
) -> None:
    """Measure the errors of models and checkpoints where the true flow is known.

    Checkpoints run in PyTorch at the images' size, models at their own. Beside each figure of the others
    stands the difference to the first; the zero flow, at the end, is what a model without any idea would
    reach.
    """
    from gocor.evaluation.datasets import open_dataset
    from gocor.evaluation.evaluate import evaluate
    from gocor.evaluation.methods import open_methods
    from gocor.runtime.report import write_json

    if json:
        check_writable(json)
    pairs = open_dataset(dataset, root).select(group, limit)
    others = [name.strip() for name in peers.split(",") if name.strip()]
    with open_methods(models or [], others, provider, threads) as methods, progress("eval") as show:
        report = evaluate(methods, pairs, show)
    print_figures(_table(report))
    print_line("note", report.protocol.source, "cyan")
    if json:
        write_json(json, report)
        print_line("written", json, "green")


def _table(report: "EvaluationReport") -> "Table":
    from rich.table import Table
    from rich.text import Text

    pairs = "1 pair" if report.pairs == 1 else f"{report.pairs} pairs"
    table = Table(title=f"{report.dataset}: {pairs}", title_justify="left")
    table.add_column("")
    for result in report.results:
        table.add_column(Text(f"{result.name}\n{result.runs}", justify="right"), justify="right")
    for group in report.results[0].groups:
        if len(report.results[0].groups) > 1:
            table.add_row(Text(group, style="bold"))
        for name, unit, attribute, more in ROWS:
            label = name.format(alpha=report.protocol.alpha or 0)
            if cells := _cells(report.results, group, attribute, more):
                table.add_row(f"{label}, {unit}", *cells)
        table.add_row("of zero flow's AEPE, %", *_shares(report.results, group), end_section=True)
    table.add_row("time, ms", *(f"{result.milliseconds:.1f}" for result in report.results))
    return table


def _cells(
    results: "tuple[MethodResult, ...]", group: str, attribute: str, more_is_better: bool
) -> list[str]:
    """Figures of all methods with the difference to the first; empty if the dataset has none."""
    values = [getattr(result.groups[group], attribute) for result in results]
    if values[0] is None:
        return []
    cells = [f"{values[0]:.3f}"]
    for value in values[1:]:
        difference = round(value - values[0], 3) or 0.0  # never -0.000
        style = "dim" if not difference else "green" if (difference > 0) == more_is_better else "red"
        cells.append(f"{value:.3f} [{style}]{difference:+.3f}[/]")
    return cells


def _shares(results: "tuple[MethodResult, ...]", group: str) -> list[str]:
    """AEPE of each method over that of the last one, the zero flow."""
    zero = results[-1].groups[group].aepe
    return [f"{100 * result.groups[group].aepe / zero:.1f}" if zero else "–" for result in results]
