"""Where 8-bit numbers go: what TensorRT and CPUs each need around the same convolutions.

TensorRT wants int8, symmetric, and only the inputs of convolutions in 8 bits: it computes what follows a
convolution in the same kernel. ONNX Runtime computes a convolution in 8 bits only if its output is in 8 bits,
too, and fast only if activations are unsigned: with AVX512-VNNI int8 ones take 25 times as long (ONNX Runtime
1.32). So for CPUs activations are uint8 with a zero point, which also halves the step where
values are mostly positive, and the activation functions, poolings and concatenations between convolutions
stay in 8 bits.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from gocor.calibration.selection import Convolution

if TYPE_CHECKING:
    import onnx

Target = Literal["tensorrt", "cpu"]
TARGETS: tuple[Target, ...] = get_args(Target)
ACTIVATIONS = ("LeakyRelu", "Relu")


@dataclass(frozen=True)
class Placement:
    """What becomes 8-bit around the convolutions to quantise.

    Attributes:
        nodes: that compute with 8-bit numbers, in the order of the graph.
        tensors: that are 8-bit, each with the name of a node that reads or makes it.
        families: tensors that have one range, so that concatenating them only copies.
    """

    nodes: tuple[str, ...]
    tensors: Mapping[str, str]
    families: tuple[tuple[str, ...], ...] = ()


def prepare(model: "onnx.ModelProto", target: Target) -> "onnx.ModelProto":
    """A copy without what only float32 needs: for CPUs, the poolings of single pixels go.

    They keep ONNX Runtime in its blocked layout for float32, and cost a pass over the features in 8 bits.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if target == "tensorrt":
        return copy
    kept: list[onnx.NodeProto] = []
    sources: dict[str, str] = {}  # of the tensors that went
    for node in copy.graph.node:
        node.input[:] = [sources.get(name, name) for name in node.input]
        if _is_idle_pooling(node):
            sources[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


def place(model: "onnx.ModelProto", convolutions: Sequence[Convolution], target: Target) -> Placement:
    """Finds the nodes and tensors that become 8-bit for a target.

    Args:
        model: of ``prepare``.
        convolutions: of ``select``; those that are kept stay as they are.
        target: where the model is to run fast; it runs everywhere.
    """
    chosen = {convolution.name: convolution for convolution in convolutions if not convolution.kept}
    readers: dict[str, str] = {}
    for convolution in chosen.values():
        readers.setdefault(convolution.tensor, convolution.name)
    if target == "tensorrt":
        return Placement(tuple(chosen), readers)
    return _Walk(model, readers).run(chosen)


class _Walk:
    """Follows 8-bit numbers from convolution to convolution."""

    def __init__(self, model: "onnx.ModelProto", readers: dict[str, str]) -> None:
        self.graph, self.wanted = model.graph, set(readers)
        self.tensors = dict(readers)
        self.made: set[str] = set()  # tensors that an 8-bit node makes
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                self.consumers[name].append(node)

    def run(self, chosen: Mapping[str, Convolution]) -> Placement:
        nodes, families = [], []
        for node in self.graph.node:  # in topological order
            if node.name not in chosen and not self._passes(node):
                continue
            nodes.append(node.name)
            self.made.update(node.output)
            if not self._is_cut_off(node):
                self.tensors.setdefault(node.output[0], node.name)
            if node.op_type == "Concat":
                families.append({*node.input, *node.output})
        return Placement(tuple(nodes), self.tensors, _merged(families))

    def _is_cut_off(self, node: "onnx.NodeProto") -> bool:
        """Whether a ReLU follows, which rounding to unsigned numbers contains."""
        return [consumer.op_type for consumer in self.consumers[node.output[0]]] == ["Relu"]

    def _passes(self, node: "onnx.NodeProto") -> bool:
        """Whether a node of another kind keeps 8-bit numbers 8-bit."""
        if node.op_type in ACTIVATIONS:
            return node.input[0] in self.made
        reaches = any(name in self.wanted for name in node.output)
        if node.op_type == "Concat":
            known = self.made | self.wanted
            return reaches and set(node.input) <= known
        return node.op_type == "MaxPool" and reaches and node.input[0] in self.made


def _is_idle_pooling(node: "onnx.NodeProto") -> bool:
    from onnx import helper

    if node.op_type != "MaxPool":
        return False
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return set(attributes["kernel_shape"]) == {1} and set(attributes.get("strides", (1,))) == {1}


def _merged(families: Sequence[set[str]]) -> tuple[tuple[str, ...], ...]:
    """Families with a tensor in common as one."""
    merged: list[set[str]] = []
    for family in families:
        together = set(family)
        apart = []
        for other in merged:
            if other & together:
                together |= other
            else:
                apart.append(other)
        merged = [*apart, together]
    return tuple(tuple(sorted(family)) for family in merged)
