"""What a model's convolutions cost, counted in its graph: without a clock, so the same on every machine."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from gocor.calibration.collect import open_widened
from gocor.calibration.selection import CONVOLUTIONS

if TYPE_CHECKING:
    import onnx

_DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


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
    """Cost of each convolution by the name of its node, in a model of static shapes.

    The model is run once for its shapes: inference gives up in function bodies, which compute some.
    """
    nodes = [node for node in model.graph.node if node.op_type in CONVOLUTIONS]
    names = list(dict.fromkeys(name for node in nodes for name in (*node.input[:2], node.output[0])))
    session = open_widened(model, names)
    inputs = {entry.name: np.zeros(entry.shape, _DTYPES[entry.type]) for entry in session.get_inputs()}
    shapes = {name: value.shape for name, value in zip(names, session.run(names, inputs), strict=True)}
    return {node.name: _of(node, shapes) for node in nodes}


def _of(node: "onnx.NodeProto", shapes: Mapping[str, tuple[int, ...]]) -> Cost:
    """Each weight meets every pixel of the output once; a transposed convolution's, of the input."""
    batch, _, *pixels = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
    weights = prod(shapes[node.input[1]])
    return Cost(weights * batch * prod(pixels), weights)
