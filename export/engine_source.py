"""The model that an engine is built from, read and refused without TensorRT."""

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gocor.core.errors import DependencyError, ModelError
from gocor.core.reading import MODEL, read_bytes
from gocor.export.engine_plugins import OperatorCall, operator_calls
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.session import CHECKPOINT_SUFFIXES, check_model_file


@dataclass(frozen=True)
class SourceModel:
    """An ONNX file that ``gocor export`` made.

    Attributes:
        path: of the file.
        content: its bytes.
        metadata: what it says about itself.
        calls: its nodes of the domain ``gocor``.
        outputs: shape of each, by name.
    """

    path: Path
    content: bytes
    metadata: ModelMetadata
    calls: tuple[OperatorCall, ...]
    outputs: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes that were read."""
        return hashlib.sha256(self.content).hexdigest()


def read_source(path: str | Path, extra: str = "tensorrt") -> SourceModel:
    """Reads a model and checks that TensorRT would not build it wrongly without a word.

    Args:
        path: of the model.
        extra: that brings ``onnx`` to those who build this way.

    Raises:
        ModelError: there is no such file, or it is none of ours, damaged, or not fit for TensorRT.
        DependencyError: ``onnx`` is not installed.
    """
    path = check_model_file(path)
    if path.suffix in CHECKPOINT_SUFFIXES:
        raise ModelError(path, "is a checkpoint", f"make a model of it: gocor export {path} -o model.onnx")
    if importlib.util.find_spec("onnx") is None:
        hint = f'pip install "gocor-deploy[{extra}]"' + " (or [rtx])" * (extra == "tensorrt")
        raise DependencyError("onnx", "is not installed", hint)
    import onnx

    from gocor.export.graph import check_portable

    content = read_bytes(path, MODEL, ModelError)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # whatever protobuf's implementation of the day raises
        raise ModelError(path, "is damaged or no ONNX model", "give a model made by gocor export") from error
    properties = {entry.key: entry.value for entry in model.metadata_props}
    metadata = ModelMetadata.from_properties(properties, path)
    check_portable(model, path)
    shapes = {
        value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in model.graph.output
    }
    return SourceModel(path, content, metadata, tuple(operator_calls(model)), shapes)
