"""What a file is: one of our models or engines, somebody else's ONNX model, or a checkpoint."""

import importlib.util
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gocor.core.errors import DependencyError, ModelError
from gocor.core.files import sha256
from gocor.export.weights import checkpoint_path
from gocor.runtime.manifest import EngineManifest
from gocor.runtime.metadata import PREFIX, ModelMetadata, TensorSpec
from gocor.runtime.openvino_manifest import OpenVINOManifest, read_manifest
from gocor.runtime.session import BUILT_SUFFIXES, CHECKPOINT_SUFFIXES, check_model_file

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Contents:
    """What is inside of an ONNX file, function bodies apart.

    Attributes:
        ir_version: of the file.
        opsets: version of each operator set by domain; the standard one is ``ai.onnx``.
        producer: program that wrote the file.
        stored_values: floating-point numbers in the file, weights and constants.
        operators: how often each occurs, those of other domains as ``domain::name``, most frequent first.
        functions: operators in the body of each model-local function.
    """

    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    stored_values: int
    operators: Mapping[str, int]
    functions: Mapping[str, int]


@dataclass(frozen=True)
class ModelInspection:
    """An ONNX file.

    Attributes:
        path: of the file.
        bytes: its size.
        sha256: of the file.
        metadata: what it says about itself; None if it was not made by gocor.
        inputs: name, dtype and shape of each.
        outputs: likewise.
        contents: None without the package ``onnx``, which reads them.
    """

    path: Path
    bytes: int
    sha256: str
    metadata: ModelMetadata | None
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    contents: Contents | None


@dataclass(frozen=True)
class CheckpointInspection:
    """A checkpoint of a network known here.

    Attributes:
        path: of the file.
        bytes: its size.
        sha256: of the file.
        weights_sha256: of the weights by content.
        network: recognised from the keys.
        tensors: in the checkpoint.
        parameters: trainable numbers.
        global_iterations: trained count, where the network has a global GOCor and the checkpoint says so.
        local_iterations: likewise of the local GOCor.
    """

    path: Path
    bytes: int
    sha256: str
    weights_sha256: str
    network: str
    tensors: int
    parameters: int
    global_iterations: int | None
    local_iterations: int | None


def inspect_file(
    path: str | Path,
) -> ModelInspection | CheckpointInspection | EngineManifest | OpenVINOManifest:
    """Says what a file is; of what ``gocor build`` made, what its manifest says, once it is known to be that.

    Raises:
        ModelError: there is no such file; it was built and is without its manifest, or not as it was built;
            or it is, by its name, none of the files known here.
        CheckpointError: it is named like a checkpoint and holds none of a network known here.
        DependencyError: a package that reads such files is not installed.
    """
    path = check_model_file(checkpoint_path(path))
    if path.suffix == ".onnx":
        return inspect_model(path)
    if path.suffix in BUILT_SUFFIXES:
        manifest = read_manifest(path)
        manifest.check_file()
        return manifest
    if path.suffix in CHECKPOINT_SUFFIXES:
        return inspect_checkpoint(path)
    known = " ".join((".onnx", *BUILT_SUFFIXES, *CHECKPOINT_SUFFIXES))
    raise ModelError(path, f"has the unknown suffix {path.suffix!r}", f"known are {known}")


def inspect_checkpoint(path: Path) -> CheckpointInspection:
    """Reads a checkpoint and recognises its network."""
    if importlib.util.find_spec("torch") is None:
        raise DependencyError("torch", "is not installed", 'pip install "gocor-deploy[export]"')
    from gocor.export.checkpoint import CheckpointInfo, load_network

    network = load_network(path)
    info = cast(CheckpointInfo, network.info)
    return CheckpointInspection(
        path=path,
        bytes=path.stat().st_size,
        sha256=info.sha256,
        weights_sha256=info.weights_sha256,
        network=network.spec.name,
        tensors=len(network.state_dict()),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        global_iterations=info.global_iterations if network.spec.global_gocor else None,
        local_iterations=info.local_iterations if network.spec.local_gocor else None,
    )


def inspect_model(path: Path) -> ModelInspection:
    """Reads an ONNX file: all of it with ``onnx``, its interface and metadata with ONNX Runtime alone."""
    if importlib.util.find_spec("onnx") is None:
        properties, inputs, outputs = _read_with_onnxruntime(path)
        contents = None
    else:
        model = _read_with_onnx(path)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        inputs, outputs = _tensor_specs(model.graph.input), _tensor_specs(model.graph.output)
        contents = _contents(model)
    ours = PREFIX + "network" in properties
    return ModelInspection(
        path=path,
        bytes=path.stat().st_size,
        sha256=sha256(path),
        metadata=ModelMetadata.from_properties(properties, path) if ours else None,
        inputs=inputs,
        outputs=outputs,
        contents=contents,
    )


def _read_with_onnxruntime(path: Path) -> tuple[dict[str, str], list[TensorSpec], list[TensorSpec]]:
    from gocor.runtime.onnxruntime_session import decoding_names, open_session, tensor_spec

    session = open_session(path, "cpu")
    with decoding_names(path):
        inputs = [tensor_spec(node) for node in session.get_inputs()]
        outputs = [tensor_spec(node) for node in session.get_outputs()]
        return session.get_modelmeta().custom_metadata_map, inputs, outputs


def _read_with_onnx(path: Path) -> "onnx.ModelProto":
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # whatever protobuf's implementation of the day raises
        raise ModelError(path, "is damaged or no ONNX model", "give a file made by gocor export") from error
    if not model.graph.node:  # almost any short text is a valid, empty message
        raise ModelError(path, "is no ONNX model: it has no graph", "give a file made by gocor export")
    return model


def _tensor_specs(values: Iterable[Any]) -> list[TensorSpec]:
    specs = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(dimension.dim_param or dimension.dim_value for dimension in tensor.shape.dim)
        specs.append(TensorSpec(value.name, _dtype(tensor.elem_type), shape))
    return specs


def _dtype(number: int) -> str:
    from onnx import TensorProto, helper

    if not number:
        return "no tensor"
    if number not in TensorProto.DataType.values():
        return f"type {number}"  # of a newer ONNX, or damaged
    return str(helper.tensor_dtype_to_np_dtype(number))


def _contents(model: "onnx.ModelProto") -> Contents:
    operators = Counter(_operator(node) for node in _nodes(model.graph.node))
    return Contents(
        ir_version=model.ir_version,
        opsets={opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        stored_values=sum(_float_values(tensor) for tensor in _tensors(model)),
        operators=dict(operators.most_common()),
        functions={_qualified(f.domain, f.name): len(f.node) for f in model.functions},
    )


def _nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    """Nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g.node)


def _operator(node: Any) -> str:
    return _qualified(node.domain, node.op_type)


def _qualified(domain: str, name: str) -> str:
    return f"{domain}::{name}" if domain not in ("", "ai.onnx") else name


def _tensors(model: "onnx.ModelProto") -> Iterator[Any]:
    yield from model.graph.initializer
    for node in _nodes(model.graph.node):
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _float_values(tensor: Any) -> int:
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    return prod(tensor.dims) if tensor.data_type in floats else 0
