"""A model to OpenVINO's own files, with a manifest beside them."""

import dataclasses
import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gocor.core.errors import ConfigError, ModelError
from gocor.core.files import check_writable, write_together
from gocor.core.version import __version__
from gocor.export.engine_config import EngineConfig
from gocor.export.engine_source import SourceModel, read_source
from gocor.runtime.manifest import manifest_path
from gocor.runtime.metadata import TensorSpec
from gocor.runtime.openvino_manifest import (
    INFERENCE_PRECISIONS,
    OPENVINO,
    OPENVINO_SUFFIX,
    InferencePrecision,
    OpenVINOManifest,
    weights_path,
)
from gocor.runtime.openvino_session import import_openvino, openvino_core, release_of, tensor_specs


@dataclass(frozen=True)
class OpenVINOReport:
    """What was built.

    Attributes:
        path: of the graph, the ``.xml`` file; the weights, ``.bin``, and the manifest lie beside it.
        manifest: as it stands there.
        bytes: size of graph and weights together.
        seconds: that it took.
        operators: number of each of OpenVINO's operators, constants apart, most frequent first. Every shape
            among them is known: there would be no file otherwise.
    """

    path: Path
    manifest: OpenVINOManifest
    bytes: int
    seconds: float
    operators: Mapping[str, int]


def build_openvino(
    model: str | Path, path: str | Path, inference_precision: InferencePrecision = "f32"
) -> OpenVINOReport:
    """Builds files for OpenVINO of a model that ``gocor export`` made. Needs neither torch nor ONNX Runtime.

    Writes ``<name>.xml``, ``<name>.bin`` and ``<name>.xml.json``, all or none of them.

    Args:
        model: the ONNX file, in FP32, FP16 or with 8-bit convolutions.
        path: of the graph, ``.xml``.
        inference_precision: what it shall compute in, 8 bits apart.

    Raises:
        ModelError: the model is none of ours, is in bf16, or OpenVINO refuses it.
        ConfigError: a name or the precision makes no sense, or one file would be written over another.
        DependencyError: OpenVINO or ``onnx`` is not installed, or too old.
        OutputError: a file cannot be written.
    """
    path = Path(path)
    if inference_precision not in INFERENCE_PRECISIONS:
        got = f"is {inference_precision!r}"
        raise ConfigError("--inference-precision", got, " or ".join(INFERENCE_PRECISIONS))
    if path.suffix != OPENVINO_SUFFIX:
        raise ConfigError(path, f"has suffix {path.suffix!r}", "a name that ends in .xml")
    _check_distinct(Path(model), path)
    source = read_source(model, OPENVINO)
    if source.metadata.precision == "bf16":
        # Told to compute in f32, OpenVINO 2026.4 still runs such a model's convolutions in bf16.
        hint = "the fp32 model with --inference-precision bf16"
        raise ModelError(model, "is in bf16, which OpenVINO takes as an option of its own", hint)
    if source.metadata.dynamic:
        got = f"has sizes that vary ({source.metadata.varying}), which are not built for OpenVINO"
        raise ModelError(model, got, "export without --dynamic, once for each size")
    library = import_openvino()
    check_writable(path)
    start = time.perf_counter()
    converted = _convert(source)
    outputs = _outputs(converted, source)
    graph, weights = _serialize(library, converted, source.path)
    manifest = OpenVINOManifest(
        path=path,
        model=source.path.name,
        model_sha256=source.sha256,
        library_version=release_of(library),
        inputs=source.metadata.inputs,
        outputs=outputs,
        metadata=source.metadata,
        gocor_version=__version__,
        backend=OPENVINO,
        xml_sha256=hashlib.sha256(graph).hexdigest(),
        bin_sha256=hashlib.sha256(weights).hexdigest(),
        inference_precision=inference_precision,
    )
    # Between the renames a graph has the manifest of the one before, and is refused by its hash.
    write_together(
        {manifest_path(path): manifest.to_json().encode(), weights_path(path): weights, path: graph}
    )
    counts = Counter(operator.get_type_name() for operator in converted.get_ops())
    del counts["Constant"]
    seconds = time.perf_counter() - start
    return OpenVINOReport(path, manifest, len(graph) + len(weights), seconds, dict(counts.most_common()))


def check_options(options: EngineConfig) -> None:
    """Raises ConfigError for the first option of an engine that was given and means nothing to OpenVINO."""
    for field in dataclasses.fields(EngineConfig):
        if field.name != "backend" and getattr(options, field.name) != field.default:
            option = f"--{field.name.replace('_', '-').replace('capabilities', 'capability')}"
            raise ConfigError(option, "is for engines, and not there in OpenVINO", "leave it out")


def _check_distinct(model: Path, path: Path) -> None:
    for file in (path, weights_path(path), manifest_path(path)):
        if os.path.realpath(file) == os.path.realpath(model):
            raise ConfigError(file, "is the model itself", "another name, such as model.xml")


def _convert(source: SourceModel) -> Any:
    """OpenVINO's graph, its function bodies inlined and everything constant computed.

    Not by ``openvino.convert_model``: that tells Google Analytics about every call, unasked.
    """
    import onnx
    import onnx.inliner

    from gocor.export.openvino_roundings import drop_roundings

    # Calls of model-local functions have no translation in OpenVINO.
    inlined = onnx.inliner.inline_local_functions(onnx.load_model_from_string(source.content))
    drop_roundings(inlined)
    try:
        from openvino._offline_transformations import apply_moc_transformations

        converted = openvino_core().read_model(inlined.SerializeToString())
        # What convert_model does, too. openvino.passes.ConstantFolding would turn 8-bit weights to floats.
        apply_moc_transformations(converted, True)
    except Exception as error:  # what pybind11 makes of C++ exceptions
        reason = " ".join(str(error).split())[-300:]
        raise ModelError(source.path, f"cannot be read by OpenVINO ({reason})", "export again") from error
    for operator in converted.get_ops():
        if any(output.get_partial_shape().is_dynamic for output in operator.outputs()):
            got = f"has sizes that OpenVINO does not know before it runs ({operator.get_friendly_name()})"
            raise ModelError(source.path, got, "export again")
    return converted


def _serialize(library: Any, converted: Any, where: Path) -> tuple[bytes, bytes]:
    """The two files' contents; OpenVINO itself writes to paths alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.xml")
        try:
            library.save_model(converted, str(path), compress_to_fp16=False)
            return path.read_bytes(), weights_path(path).read_bytes()
        except Exception as error:  # what pybind11 makes of C++ exceptions
            reason = " ".join(str(error).split())[-300:]
            raise ModelError(
                where, f"cannot be saved by OpenVINO ({reason})", f"is {folder} full?"
            ) from error


def _outputs(converted: Any, source: SourceModel) -> tuple[TensorSpec, ...]:
    """What the graph gives, once it is known to be what the model's metadata promises."""
    described = source.metadata
    inputs = tensor_specs(converted.inputs, [spec.name for spec in described.inputs])
    outputs = tensor_specs(converted.outputs, described.output_names)
    named = [spec.name for spec in outputs] == list(described.output_names)
    if inputs != described.inputs or not named or described.flow not in outputs:
        promised = "; ".join(map(str, (*described.inputs, described.flow)))
        raise ModelError(source.path, f"is not what its metadata says ({promised})", "export again")
    return outputs
