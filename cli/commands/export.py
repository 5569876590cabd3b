"""``gocor export``: a checkpoint becomes an ONNX model."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gocor import console
from gocor.console import examples, facts_table, progress, stdout
from gocor.core.errors import ConfigError

if TYPE_CHECKING:
    from gocor.export.onnx_export import ExportReport

EPILOG = examples(
    "gocor export their.pth -o model.onnx --size 384x512",
    "gocor export their.pth -o model.onnx --size 384x512 --iterations 5 --batch 4",
    "gocor export their.pth -o network.onnx --size 384x512 --io tensors",
    "gocor export their.pth -o model.fp16.onnx --size 384x512 --precision fp16",
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
    network: Annotated[
        str | None, typer.Option(help="PWCNet, PWCNet_GOCor, …; recognised from the checkpoint if not given.")
    ] = None,
) -> None:
    """Turn a checkpoint into an ONNX model.

    One file with the weights, the iterations unrolled, and pre- and post-processing as in the official
    code. It runs in ONNX Runtime as it is, and knows the checkpoint that it was made of.
    """
    height, width = parse_size(size)
    from gocor.export.checkpoint import load_network
    from gocor.export.onnx_export import export_onnx

    module = load_network(
        checkpoint, iterations, global_iterations=global_iterations, local_iterations=local_iterations,
        network=network,
    )  # fmt: skip
    with progress(f"export {module.spec.name}") as show:
        report = export_onnx(
            module, output, height=height, width=width, batch=batch,
            io=io, precision=precision, gocor=gocor, progress=show,  # type: ignore[arg-type]
        )  # fmt: skip
    stdout.print(facts_table(_facts(report)))


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of ``HxW``.

    Raises:
        ConfigError: the text is something else.
    """
    if not (match := re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", text)):
        raise ConfigError("--size", f"is {text!r}", "height x width in pixels, as 384x512")
    return int(match[1]), int(match[2])


def _facts(report: "ExportReport") -> dict[str, object]:
    metadata = report.metadata
    return {
        "model": report.path,
        "network": metadata.network,
        "iterations": console.iterations(metadata.global_iterations, metadata.local_iterations),
        "local GOCor": metadata.gocor,
        "inputs": "\n".join(map(str, metadata.inputs)),
        "outputs": ", ".join(metadata.output_names),
        "precision": metadata.precision + (f", {report.casts.total} casts" if report.casts.total else ""),
        "size": f"{report.bytes / 1e6:.1f} MB, {report.nodes:,} nodes",
        "time": f"{report.seconds:.1f} s",
    }
