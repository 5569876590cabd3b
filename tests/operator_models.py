"""ONNX models that hold nothing but calls of our operators, and what is needed to try them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from gocor.plugins.local_correlation.onnx_function import onnx_function as local_correlation
from gocor.plugins.local_correlation_transpose.onnx_function import (
    onnx_function as local_correlation_transpose,
)
from gocor.plugins.onnx_tiles import OPSET
from gocor.plugins.registry import CORRELATIONS
from gocor.plugins.schema import DOMAIN, displacements

FUNCTIONS = {"LocalCorrelation": local_correlation, "LocalCorrelationTranspose": local_correlation_transpose}
Dims = Sequence[int | str]


@dataclass(frozen=True)
class Call:
    """One node: its operator, radius and the shapes of its inputs, numbers or names."""

    operator: str
    radius: int
    first: Dims
    query: Dims


def first_shape(operator: str, shape: tuple[int, ...], radius: int) -> tuple[int, ...]:
    """Shape of an operator's first input for a query ``(N, C, H, W)``."""
    if operator == "LocalCorrelation":
        return shape
    return shape[0], displacements(radius), *shape[2:]


def random_inputs(
    operator: str, shape: tuple[int, ...], radius: int, dtype: np.typing.DTypeLike = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Reproducible normal numbers as an operator's two inputs."""
    rng = np.random.default_rng(sum(shape) + radius)
    first = rng.standard_normal(first_shape(operator, shape, radius)).astype(dtype)
    return first, rng.standard_normal(shape).astype(dtype)


def model_of(calls: Sequence[Call], element: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A model whose call number i has the inputs ``first{i}``, ``query{i}`` and the output ``out{i}``."""
    nodes, inputs, outputs = [], [], []
    for i, call in enumerate(calls):
        names = [f"first{i}", f"query{i}"]
        attributes = CORRELATIONS[call.operator].node_attributes(radius=call.radius)
        nodes.append(helper.make_node(call.operator, names, [f"out{i}"], domain=DOMAIN, **attributes))
        for name, dims in zip(names, (call.first, call.query), strict=True):
            inputs.append(helper.make_tensor_value_info(name, element, list(dims)))
        outputs.append(helper.make_tensor_value_info(f"out{i}", element, [None] * 4))
    functions = [FUNCTIONS[name]() for name in dict.fromkeys(call.operator for call in calls)]
    return helper.make_model(
        helper.make_graph(nodes, "calls", inputs, outputs),
        functions=functions,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        ir_version=9,
    )
