"""``gocor calibrate``: a model becomes one with 8-bit convolutions."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gocor.commands.verify import pair_source
from gocor.console import examples, facts_table, print_figures, print_line, progress, stdout
from gocor.core.files import check_writable

if TYPE_CHECKING:
    from rich.table import Table

    from gocor.calibration.calibrate import CalibrationReport

EPILOG = examples(
    "gocor calibrate model.onnx -o model.int8.onnx --pairs pairs.csv",
    "gocor calibrate model.onnx -o model.int8.onnx --pairs left/ --pairs right/ --method minmax",
    "gocor calibrate model.onnx -o model.int8.onnx --synthetic 64 --keep 'decoder 2'",
    "gocor calibrate model.onnx -o other.onnx --ranges model.int8.onnx.ranges.json --keep 'conv2_*'",
)


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model of gocor export, in fp32 or fp16.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="8-bit model to write, .onnx.")],
    pairs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Pairs to calibrate with: CSV file with columns reference and query, or a video; given "
            "twice, two folders. Some are held out to measure the drift."
        ),
    ] = None,
    synthetic: Annotated[
        int | None, typer.Option(metavar="N", help="Rather than --pairs: generate so many.")
    ] = None,
    samples: Annotated[int, typer.Option(help="At most so many of the pairs, spread evenly.")] = 64,
    method: Annotated[
        str | None, typer.Option(help="How ranges are chosen: percentile (default), minmax or entropy.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave these as they are, too: nodes, scopes or parts, as 'decoder 2' or 'conv2_*'.",
        ),
    ] = None,
    ranges: Annotated[
        Path | None, typer.Option(help="Take the ranges of an earlier run and measure none.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; one for each core if not given.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything here.")] = None,
) -> None:
    """Make the 8-bit form of a model.

    The convolutions of pyramids, decoders and context networks get 8-bit weights and inputs; correlations,
    GOCor, warps and what gives the flow stay as they are. Beside the model lies the table of ranges
    (model.int8.onnx.ranges.json), which --ranges takes again.
    """
    from gocor.calibration.calibrate import CalibrationConfig
    from gocor.calibration.calibrate import calibrate as calibrate_model
    from gocor.runtime.report import write_json

    config = CalibrationConfig(
        method=method, samples=samples, keep=tuple(keep or ()), ranges=ranges,  # type: ignore[arg-type]
        synthetic=synthetic, threads=threads,
    )  # fmt: skip
    source = pair_source(pairs or [])
    if json:
        check_writable(json)
    with progress(f"calibrate {output.name}") as show:
        report = calibrate_model(model, output, source, config, show)
    _print(report)
    if json:
        write_json(json, report)
        print_line("written", json, "green")


def _print(report: "CalibrationReport") -> None:
    for note in report.notes:
        print_line("warning", note, "yellow")
    table, drift = report.ranges, report.drift
    facts = {
        "model": report.path,
        "network": report.metadata.network,
        "ranges": f"{report.table}, {table.method} of {_count(table.samples)}",
        "weights": _shrunk(report.weight_bytes, report.quantized_weight_bytes),
        "file": _shrunk(report.bytes, report.quantized_bytes),
    }
    if drift:
        which = "held out" if drift.apart else "calibrated with, too few to hold some out"
        errors = f"AEPE {drift.aepe:.3g} px, 99 % {drift.p99:.3g} px, max {drift.maximum:.3g} px"
        facts["drift"] = f"{errors} from the model before, on {_count(len(drift.pairs))} {which}"
    stdout.print(facts_table(facts), "")
    print_figures(_convolutions(report))


def _count(pairs: int) -> str:
    return "1 pair" if pairs == 1 else f"{pairs} pairs"


def _shrunk(before: int, after: int) -> str:
    return f"{before / 1e6:.1f} → {after / 1e6:.1f} MB ({100 * after / before:.1f} %)"


def _convolutions(report: "CalibrationReport") -> "Table":
    """How many of each part, and why the others stay."""
    from rich.table import Table

    table = Table(title="convolutions", title_justify="left")
    for name in ("part", "8-bit", "kept", "why"):
        table.add_column(name, justify="right" if name in ("8-bit", "kept") else "left")
    for part in dict.fromkeys(convolution.part for convolution in report.convolutions):
        reasons = Counter(c.kept for c in report.convolutions if c.part == part)
        quantised = reasons.pop("", 0)
        why = "\n".join(f"{count}: {reason}" for reason, count in reasons.items())
        table.add_row(part, str(quantised), str(sum(reasons.values())), why)
    return table
