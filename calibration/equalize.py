"""Evens out channels before ranges are measured: the same function, with weights that share the work better.

One scale for a whole tensor leaves a channel of small values few of its 255 steps: in PWC-Net's decoders
correlations lie beside features ten times as large. Dividing a channel by a constant and multiplying the
weights that read it changes nothing in exact arithmetic, and weights have a scale for each output anyway. The
constants go into the weights of the convolution that makes the channel, through a leaky ReLU, which commutes
with them; at the entry of a decoder, where correlations and flow come in, they are a multiplication.

Source: Nagel et al., *Data-Free Quantization*, ICCV 2019 (through ReLUs); Xiao et al., *SmoothQuant*, ICML
2023 (how large the constants are).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gocor.calibration.collect import Probe, Progress
from gocor.calibration.pairs import load_pair
from gocor.calibration.selection import CONVOLUTIONS, Convolution
from gocor.runtime.pairs import Pair

if TYPE_CHECKING:
    import onnx

Scales = Mapping[str, Sequence[float]]  # by the tensor that is measured, one for each channel
ENTRIES = ("Concat", "Pad")  # what a decoder's input comes from, if not from a convolution
HOMOGENEOUS = ("LeakyRelu", "Relu", "MaxPool")  # f(c·x) = c·f(x) for c > 0
# Share of the unevenness that goes from activations to weights. Demo checkpoint at 384×512, drift in px for
# 0 (nothing) / 0.5 / 0.75 / 1: 0.54 / 0.39 / 0.32 / 0.36.
STRENGTH = 0.75
SMALLEST = 1e-3  # of the largest channel or weight: what is smaller than that is nearly unused
PAIRS = 16  # whose largest values are looked at


@dataclass(frozen=True)
class Source:
    """Channels that can be divided by constants.

    Attributes:
        tensor: holds them, and is measured.
        maker: convolution whose weights take the constants; "" where a multiplication has to be put in.
        readers: convolutions to make up for it, each with the channel of its input at which these begin.
    """

    tensor: str
    maker: str
    readers: tuple[tuple[str, int], ...]


def find_sources(model: "onnx.ModelProto") -> tuple[Source, ...]:
    """Channels that only convolutions read."""
    return tuple(_Graph(model).sources())


def feeding(sources: Iterable[Source], convolutions: Sequence[Convolution]) -> tuple[Source, ...]:
    """Those that a convolution to be quantised reads."""
    chosen = {convolution.name for convolution in convolutions if not convolution.kept}
    return tuple(source for source in sources if chosen & {name for name, _ in source.readers})


def largest_values(
    probe: Probe, pairs: Iterable[Pair], total: int | None, progress: Progress | None
) -> dict[str, np.ndarray]:
    """Largest magnitude ``(C,)`` of each channel of the probe's tensors over the first ``PAIRS`` pairs.

    Raises:
        ImageError: a pair cannot be read.
        ModelError: a tensor is not finite.
    """
    largest: dict[str, np.ndarray] = {}
    count = PAIRS if total is None else min(total, PAIRS)
    for number, pair in zip(range(PAIRS), pairs, strict=False):
        if progress:
            progress(number, count, f"channels of {pair.name}")
        for name, values in probe.run(*load_pair(pair), pair.name).items():
            found = np.abs(values).max(axis=(0, 2, 3)).astype(np.float64)
            largest[name] = np.maximum(largest.get(name, 0), found)
    return largest


def choose_scales(
    model: "onnx.ModelProto",
    convolutions: Sequence[Convolution],
    sources: Sequence[Source],
    largest: Mapping[str, np.ndarray],
) -> dict[str, tuple[float, ...]]:
    """What to divide each channel by: more where it is large, less where weights that read it are.

    Args:
        model: the sources are in.
        convolutions: of ``select``; how large weights are is asked of those to be quantised.
        sources: of ``find_sources``.
        largest: of ``largest_values``.
    """
    nodes = {node.name: node for node in model.graph.node}
    weights = _Weights(model)
    chosen = {convolution.name for convolution in convolutions if not convolution.kept}
    scales = {}
    for source in sources:
        values = largest[source.tensor]
        if not values.any():
            continue
        use = np.zeros_like(values)
        for name, start in source.readers:
            if name in chosen:
                use = np.maximum(use, weights.use(nodes[name])[start : start + len(values)])
        values, use = np.maximum(values, SMALLEST * values.max()), np.maximum(use, SMALLEST)
        scales[source.tensor] = tuple(map(float, values**STRENGTH / use ** (1 - STRENGTH)))
    return scales


def equalize(model: "onnx.ModelProto", sources: Sequence[Source], scales: Scales) -> "onnx.ModelProto":
    """A copy of a model with its channels divided by ``scales``, and the same output.

    Args:
        model: the sources are in.
        sources: of ``find_sources``.
        scales: of ``choose_scales``.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes, weights = {node.name: node for node in copy.graph.node}, _Weights(copy)
    entries = {}
    for source in sources:
        if source.tensor not in scales:
            continue
        scale = np.asarray(scales[source.tensor], np.float64)
        if source.maker:
            weights.divide_outputs(nodes[source.maker], scale)
        else:
            entries[source.tensor] = (1 / scale).astype(weights.dtype(nodes[source.readers[0][0]]))
        for name, start in source.readers:
            weights.multiply_inputs(nodes[name], start, scale)
    weights.store()
    _insert(copy, entries)
    return copy


class _Graph:
    """Which tensors may carry divided channels."""

    def __init__(self, model: "onnx.ModelProto") -> None:
        self.nodes = model.graph.node
        uses = Counter(name for node in self.nodes for name in node.input)
        # Weights that several nodes share stay as they are.
        self.shapes = {t.name: tuple(t.dims) for t in model.graph.initializer if uses[t.name] == 1}
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.consumers[name].append(node)
        self.outputs = {output.name for output in model.graph.output}

    def sources(self) -> list[Source]:
        free = self._free()
        layouts: dict[str, list[tuple[str, int]]] = {}  # of a tensor: whose channels it holds, and how many
        readers: dict[str, list[tuple[str, int]]] = {}
        for node in self.nodes:
            name = node.output[0]
            if node.op_type in CONVOLUTIONS and node.input[0] in free:
                start = 0
                for source, channels in layouts[node.input[0]]:
                    readers[source].append((node.name, start))
                    start += channels
            if name not in free:
                continue
            if node.op_type in HOMOGENEOUS:
                layouts[name] = layouts[node.input[0]]
            elif node.op_type == "Concat" and node.input[0] in free:
                layouts[name] = [part for source in node.input for part in layouts[source]]
            else:
                layouts[name] = [(name, self._channels(name))]
                readers[name] = []
        return [self._source(name, tuple(found)) for name, found in readers.items()]

    def _free(self) -> set[str]:
        free = set()
        for node in self.nodes:
            made = self._is_scalable(node) or node.op_type in ENTRIES
            if made or (node.op_type in HOMOGENEOUS and node.input[0] in free):
                free.add(node.output[0])
        while bound := {name for name in free if not self._stays(name, free)}:
            free -= bound
        return free

    def _is_scalable(self, node: "onnx.NodeProto") -> bool:
        """Whether a node is a convolution with weights of its own."""
        from onnx import helper

        groups = [helper.get_attribute_value(a) for a in node.attribute if a.name == "group"]
        return (
            node.op_type in CONVOLUTIONS
            and groups in ([], [1])
            and all(n in self.shapes for n in node.input[1:])
        )

    def _stays(self, name: str, free: set[str]) -> bool:
        maker = self.makers[name]
        if maker.op_type in HOMOGENEOUS and maker.input[0] not in free:
            return False
        if maker.op_type in ENTRIES and not free & set(maker.input) and not self._channels(name):
            return False
        return name not in self.outputs and all(
            self._follows(node, name, free) for node in self.consumers[name]
        )

    def _follows(self, node: "onnx.NodeProto", name: str, free: set[str]) -> bool:
        """Whether a reader can make up for divided channels, or pass them on."""
        if node.op_type in CONVOLUTIONS:
            return self._is_scalable(node) and node.input[0] == name
        if node.op_type == "Concat":
            return node.output[0] in free and free.issuperset(node.input)
        return node.op_type in HOMOGENEOUS and node.output[0] in free

    def _channels(self, name: str) -> int:
        """Channels of a tensor by the weights that make it, or that read it alone; 0 if there are none."""
        maker = self.makers[name]
        if maker.op_type in CONVOLUTIONS:
            return self.shapes[maker.input[1]][_output_axis(maker)]
        for node in self.consumers[name]:
            if self._is_scalable(node) and node.input[0] == name:
                return self.shapes[node.input[1]][1 - _output_axis(node)]
            if node.op_type in HOMOGENEOUS and (found := self._channels(node.output[0])):
                return found
        return 0

    def _source(self, name: str, readers: tuple[tuple[str, int], ...]) -> Source:
        maker = self.makers[name]
        if maker.op_type not in CONVOLUTIONS:
            return Source(name, "", readers)
        following = self.consumers[name]
        activation = [node for node in following if node.op_type in HOMOGENEOUS]
        return Source(activation[0].output[0] if activation else name, maker.name, readers)


class _Weights:
    """The weights and biases of a model's convolutions, changed in double precision."""

    def __init__(self, model: "onnx.ModelProto") -> None:
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._arrays: dict[str, np.ndarray] = {}

    def use(self, node: "onnx.NodeProto") -> np.ndarray:
        """How much each input channel counts, ``(C,)``: its largest weight over that of the whole output."""
        largest = np.abs(self._get(node.input[1])).max(axis=(2, 3))
        by_output = largest if _output_axis(node) == 0 else largest.T
        whole = by_output.max(axis=1, keepdims=True)
        return np.divide(by_output, whole, out=np.zeros_like(by_output), where=whole > 0).max(axis=0)

    def divide_outputs(self, node: "onnx.NodeProto", scale: np.ndarray) -> None:
        self._get(node.input[1])[:] /= _along(scale, _output_axis(node))
        for bias in node.input[2:]:
            self._get(bias)[:] /= scale

    def multiply_inputs(self, node: "onnx.NodeProto", start: int, scale: np.ndarray) -> None:
        axis = 1 - _output_axis(node)
        channels = np.moveaxis(self._get(node.input[1]), axis, 1)[:, start : start + len(scale)]
        channels *= _along(scale, 1)

    def dtype(self, node: "onnx.NodeProto") -> np.dtype:
        """Of a convolution's weights."""
        from onnx import helper

        return helper.tensor_dtype_to_np_dtype(self._tensors[node.input[1]].data_type)

    def store(self) -> None:
        """Writes what was changed into the model."""
        from onnx import helper, numpy_helper

        for name, array in self._arrays.items():
            dtype = helper.tensor_dtype_to_np_dtype(self._tensors[name].data_type)
            self._tensors[name].CopyFrom(numpy_helper.from_array(array.astype(dtype), name))

    def _get(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._tensors[name]).astype(np.float64)
        return self._arrays[name]


def _insert(model: "onnx.ModelProto", factors: Mapping[str, np.ndarray]) -> None:
    """Multiplies tensors by constants where they are made; their readers see no other name."""
    from onnx import helper, numpy_helper

    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        name = node.output[0]
        if name in factors:
            node.output[0], constant = f"{name}_uneven", f"network.{name}_even"
            model.graph.initializer.append(numpy_helper.from_array(_along(factors[name], 1), constant))
            nodes.append(helper.make_node("Mul", [node.output[0], constant], [name], f"{name}/Even"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _output_axis(node: "onnx.NodeProto") -> int:
    """Of its weights: 0, and 1 in a transposed convolution."""
    return int(node.op_type == "ConvTranspose")


def _along(vector: np.ndarray, axis: int) -> np.ndarray:
    return vector.reshape([-1 if i == axis else 1 for i in range(4)])
