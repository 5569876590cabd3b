"""``gocor inspect``: what a file is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gocor.commands.export import parse_size
from gocor.console import examples, facts_table, iterations, print_json, stdout
from gocor.package_report import print_inspection, refuse
from gocor.precision_report import count_of_pairs

if TYPE_CHECKING:
    from gocor.export.inspection import CheckpointInspection, Contents, ModelInspection
    from gocor.runtime.manifest import EngineManifest
    from gocor.runtime.metadata import ModelMetadata, Repair
    from gocor.runtime.openvino_manifest import OpenVINOManifest

EPILOG = examples(
    "gocor inspect model.onnx",
    "gocor inspect model.engine",
    "gocor inspect their.pth --json",
    "gocor inspect package/ --size 480x640",
)


def inspect(
    file: Annotated[
        Path,
        typer.Argument(help="An ONNX model, of gocor or not, an engine, .xml, checkpoint or package."),
    ],
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="HxW", help="Of a package: which model runs for images of this size."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of a package: among its models in this precision; fp32 if not given.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Of a package: among its models that run on this provider.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what a checkpoint, model, engine or package is.

    Network, iterations, sizes, parameters, operators, opsets and hashes, as far as the file tells. Of a
    package also what runs here, and which model for which images.
    """
    if file.is_dir():
        _inspect_package(file, size or [], precision, provider, json)
        return
    refuse({"--size": size, "--precision": precision, "--provider": provider}, "a file")
    from gocor.export.inspection import ModelInspection, inspect_file
    from gocor.runtime.manifest import EngineManifest
    from gocor.runtime.openvino_manifest import OpenVINOManifest

    found = inspect_file(file)
    if json:
        print_json(found)
    elif isinstance(found, ModelInspection):
        stdout.print(facts_table(_model_facts(found), title=f"{file}"))
    elif isinstance(found, EngineManifest):
        stdout.print(facts_table(_engine_facts(found), title=f"{file}"))
    elif isinstance(found, OpenVINOManifest):
        stdout.print(facts_table(_openvino_facts(found), title=f"{file}"))
    else:
        stdout.print(facts_table(_checkpoint_facts(found), title=f"{file}"))


def _inspect_package(
    folder: Path, sizes: list[str], precision: str | None, provider: str | None, json: bool
) -> None:
    from gocor.runtime.package_inspection import inspect_package

    wanted = tuple(map(parse_size, sizes))
    print_inspection(inspect_package(folder, wanted, precision, provider), json)  # type: ignore[arg-type]


def _checkpoint_facts(found: "CheckpointInspection") -> dict[str, object]:
    counts = iterations(found.global_iterations, found.local_iterations) or "not recorded in the file"
    return {
        "kind": "checkpoint",
        "network": found.network,
        "size": _size(found.bytes),
        "parameters": f"{found.parameters:,} in {found.tensors} tensors (with buffers)",
        "trained iterations": counts if "GOCor" in found.network else None,
        "SHA-256 of the file": found.sha256,
        "SHA-256 of the weights": found.weights_sha256,
    }


def _model_facts(found: "ModelInspection") -> dict[str, object]:
    facts: dict[str, object] = {"kind": "ONNX model, not made by gocor"}
    if described := found.metadata:
        facts = {"kind": f"ONNX model made by gocor {described.gocor_version}"} | _origin(described)
    facts |= {
        "SHA-256 of the file": found.sha256,
        "size": _size(found.bytes),
        "inputs": "\n".join(map(str, found.inputs)),
        "outputs": "\n".join(map(str, found.outputs)),
    }
    if found.contents is None:
        return facts | {"operators": 'to list them: pip install "gocor-deploy[export]"'}
    return facts | _contents_facts(found.contents)


def _engine_facts(manifest: "EngineManifest") -> dict[str, object]:
    facts: dict[str, object] = {
        "kind": f"engine of {manifest.library}, built by gocor {manifest.gocor_version}"
    }
    return facts | _origin(manifest.narrowed) | {
        "model": manifest.model,
        "SHA-256 of the model": manifest.model_sha256,
        "SHA-256 of the file": manifest.engine_sha256,
        "GPU": manifest.target,
        "runs with later versions": "yes" if manifest.version_compatible else "no",
        "plugins": manifest.plugins,
        "TF32": "allowed" if manifest.tf32 else "off",
        "inputs": "\n".join(map(str, manifest.inputs)),
        "outputs": "\n".join(map(str, manifest.outputs)),
    }  # fmt: skip


def _openvino_facts(manifest: "OpenVINOManifest") -> dict[str, object]:
    kind = f"model for {manifest.library} or later, built by gocor {manifest.gocor_version}"
    return {"kind": kind} | _origin(manifest.metadata) | {
        "computes in": manifest.inference_precision,
        "model": manifest.model,
        "SHA-256 of the model": manifest.model_sha256,
        "SHA-256 of the file": manifest.xml_sha256,
        "SHA-256 of the weights' file": manifest.bin_sha256,
        "inputs": "\n".join(map(str, manifest.inputs)),
        "outputs": "\n".join(map(str, manifest.outputs)),
    }  # fmt: skip


def _origin(described: "ModelMetadata") -> dict[str, object]:
    return {
        "network": described.network,
        "iterations": iterations(described.global_iterations, described.local_iterations),
        "local GOCor": described.gocor,
        "images": f"{described.images}, io {described.io}",
        "precision": _precision(described),
        "8 bits": _int8(described),
        "checkpoint": described.checkpoint or None,
        "SHA-256 of the checkpoint": described.checkpoint_sha256 or None,
        "SHA-256 of the weights": described.weights_sha256,
    }


def _precision(described: "ModelMetadata") -> str:
    rest = " of what is not in 8 bits" if described.int8 else ""
    return described.precision + rest + _repair(described.repair)


def _int8(described: "ModelMetadata") -> str | None:
    if (int8 := described.int8) is None:
        return None
    ranges = f"ranges by {int8.method} of {count_of_pairs(int8.samples)}"
    return f"{int8.convolutions} convolutions for {int8.target}, {ranges}{_repair(int8.repair)}"


def _repair(repair: "Repair | None") -> str:
    if repair is None:
        return ""
    names = ", ".join(name.rpartition("/")[0] or name for name in repair.kept) or "nothing"
    return (
        f"\nkept for a budget of {repair.budget:g} px: {names}\n"
        f"AEPE {repair.aepe:.3g} px from the model before"
    )


def _contents_facts(contents: "Contents") -> dict[str, object]:
    total = sum(contents.operators.values())
    histogram = ", ".join(f"{name} {count}" for name, count in contents.operators.items())
    return {
        "stored values": f"{contents.stored_values:,}",
        "opsets": ", ".join(f"{domain} {version}" for domain, version in contents.opsets.items()),
        "producer": contents.producer or None,
        "operators": f"{total:,}: {histogram}",
        "functions": ", ".join(f"{name} ({n} operators)" for name, n in contents.functions.items()) or None,
    }


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB ({count:,} bytes)"
