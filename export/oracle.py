"""What a low-precision model computes where operators really round: an oracle that runs on any CPU.

ONNX Runtime's CPU provider computes FP16 models in FP32 and drops the rounding between operators, so running
one there proves nothing about a GPU. The oracle is the same graph in FP32, with a cast to the low precision
and back wherever an operator gives a low result; these casts ONNX Runtime keeps. It means exact products,
FP32 sums and one rounding for each operator: what tensor cores do, but for the order of their sums.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper, numpy_helper

from gocor.core.errors import ConfigError
from gocor.export.engine_source import read_source
from gocor.export.precision import ELEMENTS, value_types
from gocor.runtime.session import FlowEstimator, load

LOW = frozenset(ELEMENTS.values())
# Results of these are among their inputs, which are rounded already.
MOVING_KINDS = frozenset(
    (
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Relu"),
        *("Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze", "Where"),
    )
)


def oracle_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in FP32 with every rounding of its low-precision operators written out.

    Function bodies are inlined first, so that each of their operators rounds, too: the plugins' kernels round
    less, once for a whole correlation.

    Args:
        model: with parts in FP16 or BF16; it stays as it is.
    """
    inlined = onnx.inliner.inline_local_functions(model)
    types = value_types(inlined)
    graph = inlined.graph
    nodes = [new for node in graph.node for new in _rounded(node, types)]
    weights = [_widened(tensor) for tensor in graph.initializer]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    return inlined


@contextlib.contextmanager
def load_oracle(path: str | Path, threads: int | None = None) -> Iterator[FlowEstimator]:
    """The oracle of a model file as an estimator on the CPU, which names that file as its own.

    Raises:
        ConfigError: the model computes in FP32 anyway.
        GocorError: what ``load`` says about a model.
    """
    source = read_source(path)
    if source.metadata.precision == "fp32":
        raise ConfigError("--oracle", f"is for fp16 and bf16, and {path} computes in fp32", "leave it out")
    model = oracle_model(onnx.load_from_string(source.content))
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / source.path.name
        onnx.save(model, written)
        with load(written, "cpu", threads) as estimator:
            estimator.path = source.path
            yield estimator


def _rounded(node: onnx.NodeProto, types: dict[str, int]) -> Iterator[onnx.NodeProto]:
    """A node in FP32, and the casts that round its low results."""
    outputs = [name for name in node.output if types.get(name) in LOW]
    if node.op_type in ("Cast", "CastLike") and (outputs or types[node.input[0]] in LOW):
        kind = types[node.output[0]]
        back = TensorProto.FLOAT if kind in LOW else kind
        yield from _casts(node.input[0], node.output[0], [kind, back] if outputs else [back])
        return
    for attribute in node.attribute:
        if attribute.HasField("t"):
            attribute.t.CopyFrom(_widened(attribute.t))
    if not outputs or node.op_type in MOVING_KINDS:
        yield node
        return
    node.output[:] = [f"{name}.exact" if name in outputs else name for name in node.output]
    yield node
    for name in outputs:
        yield from _casts(f"{name}.exact", name, [types[name], TensorProto.FLOAT])


def _casts(value: str, result: str, kinds: list[int]) -> Iterator[onnx.NodeProto]:
    for kind in kinds[:-1]:
        rounded = f"{result}.rounded"
        yield helper.make_node("Cast", [value], [rounded], f"{rounded}/Cast", to=kind)
        value = rounded
    yield helper.make_node("Cast", [value], [result], f"{result}/Cast", to=kinds[-1])


def _widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type not in LOW:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
