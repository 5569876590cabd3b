"""What a model's convolutions cost, counted in its graph: without a clock, so the same on every machine."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from gocor.calibration.selection import CONVOLUTIONS

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Cost:
    """Of some convolutions.

    Attributes:
        multiply_adds: that they compute.
        weights: numbers that they store.
    """

    multiply_adds: int
    weights: int


class Costs:
    """Costs of convolutions by name, as shares of those of all."""

    def __init__(self, of: Mapping[str, Cost]) -> None:
        self._of = of
        self._all = self._sum(of)

    def work(self, names: Iterable[str]) -> float:
        """Share of the multiply-adds, 0 to 1; what has no cost is passed over."""
        return self._sum(names).multiply_adds / max(1, self._all.multiply_adds)

    def both(self, names: Iterable[str]) -> float:
        """Share of the multiply-adds and share of the weights, 0 to 2: what lower precision saves on them."""
        names = tuple(names)
        return self.work(names) + self._sum(names).weights / max(1, self._all.weights)

    def _sum(self, names: Iterable[str]) -> Cost:
        found = [self._of[name] for name in names if name in self._of]
        return Cost(sum(cost.multiply_adds for cost in found), sum(cost.weights for cost in found))


def convolution_costs(model: "onnx.ModelProto") -> dict[str, Cost]:
    """Cost of each convolution by the name of its node, in a model of static shapes."""
    from onnx import shape_inference

    # Shapes are computed inside of the operators' function bodies: without data_prop what follows has none.
    graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return {node.name: _of(node, shapes) for node in graph.node if node.op_type in CONVOLUTIONS}


def _of(node: "onnx.NodeProto", shapes: Mapping[str, tuple[int, ...]]) -> Cost:
    """Each weight meets every pixel of the output once; a transposed convolution's, of the input."""
    batch, _, *pixels = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
    weights = prod(shapes[node.input[1]])
    return Cost(weights * batch * prod(pixels), weights)
