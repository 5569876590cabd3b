"""``gocor calibrate``: a model becomes one with 8-bit convolutions."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gocor.commands.verify import pair_source
from gocor.console import Report, examples, facts_table, print_figures, print_line, progress, stdout
from gocor.core.errors import ConfigError
from gocor.precision_report import (
    check_reports,
    count_of_pairs,
    drift_facts,
    drift_pairs,
    parse_budget,
    repair_facts,
    sensitivity_table,
    write_plot,
    write_report,
)

if TYPE_CHECKING:
    from rich.table import Table

    from gocor.calibration.calibrate import CalibrationConfig, CalibrationReport, SensitivityReport
    from gocor.runtime.pairs import PairSource

LOWERED = "in 8 bits"

EPILOG = examples(
    "gocor calibrate model.onnx -o model.int8.onnx --pairs pairs.csv",
    "gocor calibrate model.onnx -o model.int8.onnx --pairs left/ --pairs right/ --method minmax",
    "gocor calibrate model.onnx -o model.int8.onnx --synthetic 64 --target cpu",
    "gocor calibrate model.onnx -o model.int8.onnx --synthetic 64 --keep 'decoder 2'",
    "gocor calibrate model.onnx --synthetic 64 --sensitivity --plot sensitivity.png",
    "gocor calibrate model.onnx -o model.int8.onnx --synthetic 64 --budget 0.1px",
    "gocor calibrate model.onnx -o other.onnx --ranges model.int8.onnx.ranges.json --keep 'conv2_*'",
)


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model of gocor export, in fp32 or fp16.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="8-bit model to write, .onnx; needless for --sensitivity."),
    ] = None,
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
    target: Annotated[
        str,
        typer.Option(
            help="Where the model is to be fast: tensorrt, or cpu for ONNX Runtime and OpenVINO. A CPU runs "
            "either; TensorRT takes its own alone."
        ),
    ] = "tensorrt",
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
    equalize: Annotated[
        bool, typer.Option(help="Even out channels first, which costs nothing later.")
    ] = True,
    ranges: Annotated[
        Path | None, typer.Option(help="Take the ranges of an earlier run and measure none.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="PX",
            help="Keep what the flow needs most as it is, until the mean error on held-out pairs is within "
            "this, as 0.1px.",
        ),
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity", help="Measure what each part does to the flow alone; without -o, nothing else."
        ),
    ] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads; one for each core if not given.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything here.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the sensitivities here, .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Make the 8-bit form of a model.

    The convolutions of pyramids, decoders and context networks get 8-bit weights and inputs; correlations,
    GOCor, warps and what gives the flow stay as they are. Beside the model lies the table of ranges
    (model.int8.onnx.ranges.json), which --ranges takes again.

    --sensitivity says which part of the network 8 bits hurt; --budget keeps such parts, as few and as cheap
    as it can, so that the flow stays as good as you say.
    """
    from gocor.calibration.calibrate import CalibrationConfig

    config = CalibrationConfig(
        target=target, method=method, samples=samples, keep=tuple(keep or ()),  # type: ignore[arg-type]
        equalize=equalize, ranges=ranges, synthetic=synthetic, threads=threads, sensitivity=sensitivity,
        budget=parse_budget(budget),
    )  # fmt: skip
    source = pair_source(pairs or [])
    _check(output, config, json, plot)
    with progress(f"calibrate {model.name}") as show:
        report = _run(model, output, source, config, show)
    _print(report)
    if json:
        write_report(json, report)
    if plot and report.sensitivities:
        write_plot(plot, report.sensitivities, LOWERED)


def _check(output: Path | None, config: "CalibrationConfig", json: Path | None, plot: Path | None) -> None:
    """Refuses options that do not go together, before anything long."""
    if output is None and (config.budget is not None or not config.sensitivity):
        raise ConfigError("--output", "is missing", "-o model.int8.onnx, or only --sensitivity")
    check_reports(json, plot, config.sensitivity)


def _run(
    model: Path, output: Path | None, pairs: "PairSource | None", config: "CalibrationConfig", show: Report
) -> "CalibrationReport | SensitivityReport":
    from gocor.calibration import calibrate as library

    if output is None:
        return library.measure_sensitivities(model, pairs, config, show)
    return library.calibrate(model, output, pairs, config, show)


def _print(report: "CalibrationReport | SensitivityReport") -> None:
    from gocor.calibration.calibrate import CalibrationReport

    for note in report.notes:
        print_line("warning", note, "yellow")
    if isinstance(report, CalibrationReport):
        stdout.print(facts_table(_facts(report)), "")
    if found := report.sensitivities:
        print_figures(sensitivity_table(found, LOWERED, "convolutions", drift_pairs(found.together)))
    if isinstance(report, CalibrationReport):
        print_figures(_convolutions(report))


def _facts(report: "CalibrationReport") -> dict[str, object]:
    table, drift, repaired = report.ranges, report.drift, report.repaired
    return {
        "model": report.path,
        "network": report.metadata.network,
        "ranges": f"{report.table}, {table.method} of {count_of_pairs(table.samples)}",
        "weights": _shrunk(report.weight_bytes, report.quantized_weight_bytes),
        "file": _shrunk(report.bytes, report.quantized_bytes),
        "drift": f"{drift_facts(drift)} from the model before, on {drift_pairs(drift)}" if drift else None,
        "budget": repair_facts(repaired) if repaired else None,
    }


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
