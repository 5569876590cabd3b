"""``gocor export``: a checkpoint becomes an ONNX model."""

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gocor import console
from gocor.commands.verify import pair_source
from gocor.console import Report, examples, facts_table, print_figures, progress, stdout
from gocor.core.errors import ConfigError
from gocor.precision_report import count_of_pairs, parse_budget, repair_facts, sensitivity_table

if TYPE_CHECKING:
    from gocor.calibration.half import HalfConfig, HalfReport
    from gocor.calibration.repair import Repaired
    from gocor.export.networks import Network
    from gocor.export.onnx_export import ExportConfig, ExportReport

EPILOG = examples(
    "gocor export their.pth -o model.onnx --size 384x512",
    "gocor export their.pth -o model.onnx --size 384x512 --iterations 5 --batch 4",
    "gocor export their.pth -o network.onnx --size 384x512 --io tensors",
    "gocor export their.pth -o any.onnx --size 384x512 --io tensors --dynamic batch,height,width",
    "gocor export their.pth -o model.fp16.onnx --size 384x512 --precision fp16",
    "gocor export their.pth -o model.fp16.onnx --size 384x512 --precision fp16 --budget 0.02px",
)


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint: .pth, .pth.tar or .safetensors; or pwcnet-gocor-demo.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model to write, .onnx.")],
    size: Annotated[str, typer.Option(metavar="HxW", help="Height and width of the images, as 384x512.")],
    iterations: Annotated[
        int | None, typer.Option(help="GOCor's iterations; the trained count, or 3, if not given.")
    ] = None,
    global_iterations: Annotated[int | None, typer.Option(help="Of the global GOCor alone.")] = None,
    local_iterations: Annotated[int | None, typer.Option(help="Of the local GOCor alone.")] = None,
    batch: Annotated[int, typer.Option(help="Image pairs in a call.")] = 1,
    io: Annotated[
        str,
        typer.Option(help="images: uint8 in, flow in pixels out. tensors: preprocessed in, all flows out."),
    ] = "images",
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, fp16 or bf16: of convolutions and, in fp16, correlations; flows stay in fp32. "
            "bf16 is for engines alone."
        ),
    ] = "fp32",
    gocor: Annotated[
        str,
        typer.Option(help="fused: every local GOCor is one operator. unrolled: all its correlations are."),
    ] = "fused",
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="PX",
            help="In lower precision: keep what the flow needs most in fp32, until the mean error is within "
            "this, as 0.02px.",
        ),
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity", help="In lower precision: measure what each part does to the flow alone."
        ),
    ] = False,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Pairs for --budget and --sensitivity: CSV file with columns reference and query, or a "
            "video; given twice, two folders. Generated ones if not given."
        ),
    ] = None,
    dynamic: Annotated[
        str | None,
        typer.Option(
            metavar="AXES",
            help="What varies from call to call, some of batch,height,width; --size and --batch are then "
            "what it is meant for most. Sides need --io tensors.",
        ),
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="PWCNet, PWCNet_GOCor, …; recognised from the checkpoint if not given.")
    ] = None,
) -> None:
    """Turn a checkpoint into an ONNX model.

    One file with the weights, the iterations unrolled, and pre- and post-processing as in the official
    code. It runs in ONNX Runtime as it is, and knows the checkpoint that it was made of.
    """
    height, width = parse_size(size)
    from gocor.calibration.half import HalfConfig
    from gocor.export.checkpoint import load_network
    from gocor.export.onnx_export import ExportConfig

    axes = tuple(dynamic.split(",")) if dynamic is not None else ()
    config = ExportConfig(height, width, batch, io, precision, gocor, axes)  # type: ignore[arg-type]
    asked = HalfConfig(parse_budget(budget), sensitivity, pair_source(pairs or []))
    asked.check(config.precision)
    module = load_network(
        checkpoint, iterations, global_iterations=global_iterations, local_iterations=local_iterations,
        network=network,
    )  # fmt: skip
    with progress(f"export {module.spec.name}") as show:
        report = _export(module, output, config, asked, show)
    stdout.print(facts_table(_facts(report.export, report.repaired)))
    if found := report.sensitivities:
        pairs_used = count_of_pairs(len(found.together.pairs))
        print_figures(sensitivity_table(found, f"in {precision}", "modules", pairs_used))


def _export(
    module: "Network", output: Path, config: "ExportConfig", asked: "HalfConfig", show: Report
) -> "HalfReport":
    from gocor.calibration.half import HalfReport, export_within
    from gocor.export.onnx_export import export_onnx

    if asked.budget or asked.sensitivity:
        return export_within(module, output, config, asked, show)
    return HalfReport(export_onnx(module, output, **dataclasses.asdict(config), progress=show))


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of ``HxW``.

    Raises:
        ConfigError: the text is something else.
    """
    if not (match := re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", text)):
        raise ConfigError("--size", f"is {text!r}", "height x width in pixels, as 384x512")
    return int(match[1]), int(match[2])


def _facts(report: "ExportReport", repaired: "Repaired | None") -> dict[str, object]:
    metadata = report.metadata
    return {
        "model": report.path,
        "network": metadata.network,
        "iterations": console.iterations(metadata.global_iterations, metadata.local_iterations),
        "local GOCor": metadata.gocor,
        "varying": metadata.varying,
        "inputs": "\n".join(map(str, metadata.inputs)),
        "outputs": ", ".join(metadata.output_names),
        "precision": metadata.precision + (f", {report.casts.total} casts" if report.casts.total else ""),
        "budget": repair_facts(repaired) if repaired else None,
        "size": f"{report.bytes / 1e6:.1f} MB, {report.nodes:,} nodes",
        "time": f"{report.seconds:.1f} s",
    }
