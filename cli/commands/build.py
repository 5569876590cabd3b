"""``gocor build``: a model becomes an engine of TensorRT, or files for OpenVINO."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gocor.console import examples, facts_table, print_json, progress, stdout

if TYPE_CHECKING:
    from gocor.export.engine import EngineReport
    from gocor.export.engine_layers import EngineLayers
    from gocor.export.openvino import OpenVINOReport

EPILOG = examples(
    "gocor build model.onnx -o model.engine",
    "gocor build model.onnx -o model.engine --workspace 4GiB --timing-cache timing.cache",
    "gocor build model.onnx -o model.engine --backend tensorrt-rtx  # needs no GPU",
    "gocor build any.onnx -o any.engine --shapes 1x256x256/1x384x512/4x768x1024  # of varying sizes",
    "gocor build model.onnx -o model.xml --backend openvino  # for CPUs",
)
SHOWN = 3  # names of layers
_IMPLEMENTATIONS = {
    "quick": "in our plugin, whose code is in the engine",
    "library": "in our plugin, of the plugin library",
    "none": "in layers of {library} itself",
}


def build(
    model: Annotated[Path, typer.Argument(help="Model that gocor export made.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Engine to write, .engine; .xml for openvino.")
    ],
    backend: Annotated[
        str,
        typer.Option(help="tensorrt builds on the GPU it builds for, tensorrt-rtx and openvino anywhere."),
    ] = "tensorrt",
    inference_precision: Annotated[
        str | None,
        typer.Option(help="openvino only: f32 (default), or bf16, which is faster only on CPUs with AMX."),
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(metavar="SIZE", help="GPU memory for scratch, as 4GiB; all if not given.")
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option(help="0 builds fastest, 5 runs fastest; TensorRT's own is 3.")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="File that keeps measurements; later builds take less time.")
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SM",
            help="GPU to build for, as sm_89; once for each. tensorrt-rtx only; all from Ampere on.",
        ),
    ] = None,
    plugins: Annotated[
        str, typer.Option(help="auto: local correlations in our plugin. none: in TensorRT's own layers.")
    ] = "auto",
    plugin_library: Annotated[
        Path | None, typer.Option(help="libgocor_plugins.so, to be used rather than the built-in plugins.")
    ] = None,
    inspect: Annotated[
        Path | None, typer.Option(help="Write what the engine inspector says of every layer, as JSON.")
    ] = None,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="For every GPU from Ampere on; slower.")
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For later TensorRT of the same major version, too.")
    ] = False,
    tf32: Annotated[
        bool,
        typer.Option("--tf32", help="Let float32 products lose 13 bits of mantissa. Faster, less exact."),
    ] = False,
    shapes: Annotated[
        str | None,
        typer.Option(
            metavar="LEAST/USUAL/MOST",
            help="For a model of varying sizes, batch x height x width: 1x256x256/1x384x512/4x768x1024.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Build an engine for TensorRT or TensorRT-RTX, or a model for OpenVINO.

    Precision is that of the model. Beside the engine lie its manifest (model.engine.json), which gocor checks
    before it loads the engine, and the build log (model.engine.log). OpenVINO's model is two files, model.xml
    and model.bin, with a manifest, model.xml.json.
    """
    from gocor.export.build import build as build_model
    from gocor.export.engine import EngineReport
    from gocor.export.engine_config import EngineConfig, parse_bytes
    from gocor.export.engine_config import compute_capability as parsed
    from gocor.export.engine_shapes import parse_shapes

    config = EngineConfig(
        backend=backend, workspace=parse_bytes(workspace) if workspace else None,  # type: ignore[arg-type]
        optimization_level=optimization_level, timing_cache=timing_cache,
        compute_capabilities=tuple(parsed(text) for text in compute_capability or ()),
        plugins=plugins, plugin_library=plugin_library, inspect=inspect,  # type: ignore[arg-type]
        hardware_compatible=hardware_compatible, version_compatible=version_compatible, tf32=tf32,
        shapes=parse_shapes(shapes) if shapes is not None else None,
    )  # fmt: skip
    with progress(f"build {output.name}") as show:
        report = build_model(model, output, config, inference_precision, show)
    facts = _facts(report) if isinstance(report, EngineReport) else _openvino_facts(report)
    print_json(report) if json else stdout.print(facts_table(facts))


def _facts(report: "EngineReport") -> dict[str, object]:
    manifest = report.manifest
    operators = ", ".join(f"{count} {name}" for name, count in report.operators.items())
    implementation = _IMPLEMENTATIONS[manifest.plugins].format(library=manifest.library)
    facts: dict[str, object] = {
        "engine": report.path,
        "network": manifest.metadata.network,
        "library": manifest.library,
        "GPU": manifest.target,
        "inputs": "\n".join(map(str, manifest.inputs)),
        "outputs": "\n".join(map(str, manifest.outputs)),
        "operators": f"{operators}, {implementation}" if operators else None,
        "TF32": "allowed" if manifest.tf32 else "off",
    }
    facts |= _layer_facts(report.layers) if report.layers else {
        "layers": f"{sum(report.network.values()):,} parsed; those of the engine are shown only by its GPU"
    }  # fmt: skip
    return facts | {
        "size": f"{report.bytes / 1e6:.1f} MB",
        "time": f"{report.parse_seconds:.1f} s to parse, {report.build_seconds:.1f} s to build",
        "log": report.log,
    }


def _openvino_facts(report: "OpenVINOReport") -> dict[str, object]:
    manifest = report.manifest
    operators = ", ".join(f"{name} {count}" for name, count in report.operators.items())
    return {
        "model": report.path,
        "network": manifest.metadata.network,
        "library": manifest.library,
        "computes in": manifest.inference_precision,
        "inputs": "\n".join(map(str, manifest.inputs)),
        "outputs": "\n".join(map(str, manifest.outputs)),
        "operators": f"{sum(report.operators.values()):,}, every size known: {operators}",
        "size": f"{report.bytes / 1e6:.1f} MB",
        "time": f"{report.seconds:.1f} s",
    }


def _layer_facts(layers: "EngineLayers") -> dict[str, object]:
    counts = ", ".join(f"{name} {count}" for name, count in layers.counts.items())
    return {
        "layers": f"{sum(layers.counts.values()):,}: {counts}",
        "float32 among float16": _named(layers.fp32_islands),
        "reformats": _named(layers.reformats),
    }


def _named(names: Sequence[str]) -> str:
    """How many, and the first of them: there may be hundreds."""
    rest = f" and {len(names) - SHOWN} more; --json has all" if len(names) > SHOWN else ""
    return f"{len(names)}: {', '.join(names[:SHOWN])}{rest}" if names else "none"
