"""Lower precision where it does no harm: which parts of a network compute in FP16 or BF16, and what casts.

TensorRT 11 and TensorRT-RTX have no switch for it: the graph decides. So a declared policy is applied to the
exported graph, whose nodes are named after the network's modules: convolutions and the correlation operators,
where nearly all time and all weights are, run low; flows, coordinates, sums, norms and quotients keep FP32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from gocor.core.errors import ConfigError, ModelError
from gocor.plugins.registry import OPERATORS
from gocor.plugins.schema import DOMAIN
from gocor.runtime.metadata import Precision

ELEMENTS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, *ELEMENTS.values())
CORRELATIONS = frozenset(OPERATORS)  # LocalGOCor, too, which casts its features to FP32 and back inside

# What may run low inside of the modules that do: nothing that sums, but for convolutions.
FEATURE_KINDS = frozenset({"Conv", "LeakyRelu", "Relu", "MaxPool", "Pad", "Concat", "Split"})
# BF16 would leave a score two digits, and the correlations' kernels have no such variant; TensorRT-RTX 1.7
# cannot compile a BF16 ConvTranspose ("Could not infer output types").
LOW_KINDS = {"fp16": FEATURE_KINDS | {"ConvTranspose"} | CORRELATIONS, "bf16": FEATURE_KINDS}
# Between modules these go with what they get: they compute nothing, and casting around them would be waste.
FOLLOWING_KINDS = frozenset({"Concat", "LeakyRelu", "Pad", "Split"})


@dataclass(frozen=True)
class PrecisionPolicy:
    """Where a network may compute in low precision, as patterns of module paths such as ``conv2_*``.

    The correlation operators run in FP16 wherever they are, since their kernels accumulate in FP32.
    Everything else is FP32.

    Attributes:
        low: modules that compute features from features.
        keep: exceptions from them, and modules that must never get into ``low``.
        returned: modules that stay in FP32 with everything in them, correlations too, for a flow within a
            budget.
    """

    low: tuple[str, ...]
    keep: tuple[str, ...]
    returned: tuple[str, ...] = ()

    def allows(self, node: onnx.NodeProto, precision: Precision) -> bool:
        """A node may run low by its own module and kind."""
        scope = scope_of(node)
        if node.op_type not in LOW_KINDS.get(precision, ()) or _matches(scope, self.returned):
            return False
        return node.op_type in CORRELATIONS or (_matches(scope, self.low) and not _matches(scope, self.keep))


# predict_flow*.0 gives the summands of a flow, from hundreds of channels that would all have to be cast;
# predict_flow*.1 sums them up. deconv* makes a flow from a flow, dc_conv7 adds to one: a few channels each.
_PWCNET = PrecisionPolicy(
    low=("conv*", "entry", "predict_flow*.0", "upfeat*", "dc_conv[1-6].*"),
    keep=("resize", "predict_flow*.1", "deconv*", "dc_conv7"),
)
_GLUNET = PrecisionPolicy(
    low=("pyramid.*", "decoder?", "decoder?.*", "upfeat2.?", "dc_conv[1-6].*", "l_dc_conv[1-6].*"),
    keep=("resize", "resize_coarse", "decoder?.predict_flow.1", "decoder4.final", "deconv?", "*dc_conv7"),
)
# GOCor's step: λ/C² and the floor 1e-8 are zero in FP16, and a score is multiplied by 1e30 for its sign.
POLICIES: dict[str, PrecisionPolicy] = {
    "PWCNet": _PWCNET,
    "PWCNet_GOCor": PrecisionPolicy(_PWCNET.low, (*_PWCNET.keep, "local_corr_*")),
    "GLUNet": _GLUNET,
    "GLUNet_GOCor": PrecisionPolicy(_GLUNET.low, (*_GLUNET.keep, "local_corr", "local_corr.*", "corr.*")),
}


@dataclass(frozen=True)
class Casts:
    """Casts between floating-point types in a graph.

    Attributes:
        total: of them.
        cancelling: that undo the one before: a value went into low precision, or out of it, for nothing.
    """

    total: int
    cancelling: int


def lower(model: onnx.ModelProto, policy: PrecisionPolicy, precision: Precision) -> None:
    """Puts the parts of an FP32 model that the policy names into ``precision``, in place.

    Inputs and outputs stay as they are. Weights are stored once, in the precision that they are used in.

    Args:
        model: from ``export_onnx``, with its functions, and nodes named after modules.
        policy: of its network.
        precision: ``fp16`` or ``bf16``; ``fp32`` leaves the model alone.

    Raises:
        ModelError: the model has low precision already, or a weight that it cannot hold.
        ConfigError: a pattern of the policy's ``low`` matches nothing.
    """
    if precision == "fp32":
        return
    where = model.graph.name or "the model"
    if any(tensor.data_type in ELEMENTS.values() for tensor in model.graph.initializer):
        raise ModelError(where, "computes in low precision already", "give a model exported with fp32")
    scopes = {scope_of(node) for node in model.graph.node}
    for pattern in policy.low:
        if not any(_matches(scope, (pattern,)) for scope in scopes):
            raise ConfigError(
                where, f"has no module {pattern!r}", "a pattern of module paths, as gocor export names them"
            )
    _Lowering(model, low_nodes(model.graph, policy, precision), ELEMENTS[precision]).run()


def low_nodes(graph: onnx.GraphProto, policy: PrecisionPolicy, precision: Precision) -> list[bool]:
    """Which nodes of an FP32 graph run low, in their order: those allowed, and what follows them."""
    low_values: set[str] = set()
    decisions = []
    for node in graph.node:
        low = policy.allows(node, precision) or (_follows(node) and not low_values.isdisjoint(node.input))
        if low:
            low_values.update(node.output)
        decisions.append(low)
    return decisions


def check_policy(model: onnx.ModelProto, policy: PrecisionPolicy, precision: Precision) -> None:
    """Proves from the types in a model that nothing runs low that must not, and no operator mixes types.

    Function bodies of the correlation operators are theirs to decide.

    Raises:
        ModelError: something does; the text names the node.
    """
    types = value_types(model)
    for node in model.graph.node:
        if node.op_type == "Cast":
            continue
        names = (*_lowered_inputs(node), *node.output)
        found = {types[name] for name in names if types.get(name) in FLOATS}
        if found <= {TensorProto.FLOAT}:
            continue
        kinds = " and ".join(sorted(TensorProto.DataType.Name(kind).lower() for kind in found))
        if len(found) > 1:
            raise ModelError(node.name, f"mixes {kinds}", "one type for each operator; report this")
        if not _follows(node) and not policy.allows(node, precision):
            raise ModelError(node.name, f"runs in {kinds}", "the policy keeps it in float; report this")


def count_casts(model: onnx.ModelProto) -> Casts:
    """Counts the casts between floating-point types outside of function bodies."""
    types = value_types(model)
    casts = [
        node
        for node in model.graph.node
        if node.op_type == "Cast" and {types[node.input[0]], types[node.output[0]]} <= set(FLOATS)
    ]
    produced = {node.output[0] for node in casts}
    return Casts(len(casts), sum(node.input[0] in produced for node in casts))


def value_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value of the graph, from strict inference.

    Raises:
        ModelError: types or shapes contradict each other.
    """
    # Conv takes BF16 from opset 22 on, and GridSample is wrong from 20 on: TensorRT takes both at 19.
    beyond = any(
        node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.BFLOAT16
        for node in model.graph.node
    )
    try:
        graph = shape_inference.infer_shapes(model, check_type=not beyond, strict_mode=True).graph
    except Exception as error:  # its exceptions have no common base but this
        reason = " ".join(str(error).split())[:300]
        raise ModelError(model.graph.name, f"has contradictory types ({reason})", "report this") from error
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def scope_of(node: onnx.NodeProto) -> str:
    """Path of the module that a node comes from; empty between modules."""
    return node.name.rpartition("/")[0]


class _Lowering:
    """One pass over a graph, which takes note of every value's type as it goes."""

    def __init__(self, model: onnx.ModelProto, low: list[bool], element: int) -> None:
        self.graph, self.low, self.element = model.graph, low, element
        self.suffix = "." + TensorProto.DataType.Name(element).lower()
        self.types = {"": TensorProto.UNDEFINED} | value_types(model)  # an input left out is none
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.made: set[str] = set()  # names of casts' outputs and of weights in another precision

    def run(self) -> None:
        """Rewrites nodes, then weights: those that no node uses any more go."""
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.graph.node]
        for node, low in zip(nodes, self.low, strict=True):
            features = _lowered_inputs(node)
            node.input[: len(features)] = [
                self._as(value, self.element if low else TensorProto.FLOAT) for value in features
            ]
            self.types.update(dict.fromkeys(node.output, self.element) if low else {})
            self.nodes.append(node)
        used = {value for node in self.nodes for value in node.input}
        weights = [tensor for name, tensor in self.weights.items() if name in used]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(weights)

    def _as(self, value: str, element: int) -> str:
        """Name of a value in a floating-point type; the value itself if it has it, or is no such number."""
        if self.types[value] not in FLOATS or self.types[value] == element:
            return value
        name = value + (self.suffix if element == self.element else ".float")
        if name not in self.made:
            self.made.add(name)
            if value in self.weights:
                self.weights[name] = _converted(self.weights[value], name, element)
            else:
                self.nodes.append(helper.make_node("Cast", [value], [name], f"{name}/Cast", to=element))
        return name


def _converted(tensor: onnx.TensorProto, name: str, element: int) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        converted = values.astype(helper.tensor_dtype_to_np_dtype(element))
    if np.isfinite(values).all() and not np.isfinite(converted.astype(np.float32)).all():
        largest = f"{np.abs(values).max():.3g}"
        kind = TensorProto.DataType.Name(element).lower()
        raise ModelError(
            tensor.name, f"has a weight of {largest}, which {kind} cannot hold", "use --precision bf16"
        )
    return numpy_helper.from_array(converted, name)


def _lowered_inputs(node: onnx.NodeProto) -> Sequence[str]:
    """Inputs that go with a node's precision: all but the parameters of our operators, which stay FP32."""
    ours = OPERATORS.get(node.op_type) if node.domain == DOMAIN else None
    return node.input[: len(ours.inputs)] if ours else node.input


def _follows(node: onnx.NodeProto) -> bool:
    """A node between modules that goes with the precision of what it gets."""
    return node.op_type in FOLLOWING_KINDS and not scope_of(node)


def _matches(scope: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(scope, pattern) for pattern in patterns)
