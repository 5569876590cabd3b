"""Which convolutions may run in 8 bits: a table for each family of networks, read by a node's scope.

A node is named after its module, such as ``conv4_2.0/Conv``; the part before the slash is its scope.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from gocor.core.errors import ConfigError, ModelError
from gocor.runtime.spec import Family

if TYPE_CHECKING:
    import onnx

CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Rule:
    """What becomes of the convolutions of some scopes.

    Attributes:
        scope: pattern of the whole scope.
        part: of the network that they are; groups of the pattern are put in for ``{}``.
        kept: why they stay as they are; "" if they are quantised.
    """

    scope: str
    part: str
    kept: str = ""


FLOW = "its output is the flow, where a step of 8 bits would be seen"
UPSAMPLING = "it carries flow and features to the next level, with few weights"
FIRST = "first layer: it sees the image itself, and costs next to nothing"
OPTIMIZER = "GOCor's optimiser: its steps are too small for 8 bits"
FINE = "it sees the finest detail: most of the error would come from here, and few of the weights are"
UNKNOWN = "no rule names its scope"
COMPUTED = "its weights are computed, not stored"
ASKED = "asked for with --keep"

_GOCOR = Rule(r"(?:local_)?corr\w*(?:\..*)?", "GOCor", OPTIMIZER)
_CONTEXT = (
    Rule(r"(?:l_)?dc_conv7", "context network", FLOW),
    Rule(r"l_dc_conv\d\.0", "fine context network"),
    Rule(r"dc_conv\d\.0", "context network"),
)
# The first rule that fits holds.
RULES: dict[Family, tuple[Rule, ...]] = {
    "pwcnet": (
        Rule(r"conv1a\.0", "pyramid 1", FIRST),
        Rule(r"conv([12])(?:a|aa|b)\.0", "pyramid {}", FINE),
        Rule(r"conv(\d)(?:a|aa|b)\.0", "pyramid {}"),
        Rule(r"conv(\d)_\d\.0", "decoder {}"),
        Rule(r"predict_flow(\d)(?:\.\d)?", "decoder {}", FLOW),
        Rule(r"(?:deconv|upfeat)(\d)(?:\.\d)?", "decoder {}", UPSAMPLING),
        *_CONTEXT,
        _GOCOR,
    ),
    "glunet": (
        Rule(r"pyramid\.level_0\.0", "pyramid 0", FIRST),
        Rule(r"pyramid\.level_(\d)\.\d", "pyramid {}"),
        Rule(r"decoder(\d)\.conv_?\d\.0", "decoder {}"),
        Rule(r"decoder(\d)\.(?:final|predict_flow)(?:\.\d)?", "decoder {}", FLOW),
        Rule(r"(?:deconv|upfeat)(\d)(?:\.\d)?", "decoder {}", UPSAMPLING),
        *_CONTEXT,
        _GOCOR,
    ),
}


@dataclass(frozen=True)
class Convolution:
    """One convolution of a model.

    Attributes:
        name: of the node.
        part: of the network that it belongs to, such as ``decoder 3``.
        tensor: its input, whose range is measured if it is quantised.
        weight: name of its weights.
        kept: why it stays as it is; "" if it is to be quantised.
    """

    name: str
    part: str
    tensor: str
    weight: str
    kept: str

    @property
    def scope(self) -> str:
        """The name without the operator."""
        return scope_of(self.name)


def scope_of(name: str) -> str:
    """``conv4_2.0`` of ``conv4_2.0/Conv``."""
    return name.rpartition("/")[0]


def select(
    model: "onnx.ModelProto", family: Family, keep: Sequence[str] = (), where: object = "model"
) -> tuple[Convolution, ...]:
    """All convolutions of a model, in order, each with what is to become of it.

    Args:
        model: of ``gocor export``.
        family: of its network.
        keep: shell patterns of nodes (``conv2_*/Conv``), scopes (``decoder1.*``) or parts (``decoder 3``)
            that stay as they are, beyond the rules.
        where: for the text of errors.

    Raises:
        ConfigError: a pattern matches no convolution that would be quantised, or nothing is left to quantise.
        ModelError: the model has no convolution that the rules would quantise.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    found = [_classify(node, family, stored) for node in model.graph.node if node.op_type in CONVOLUTIONS]
    free = [convolution for convolution in found if not convolution.kept]
    if not free:
        raise ModelError(where, f"has no convolution to quantise among its {len(found)}", "see gocor inspect")
    kept: set[str] = set()
    for pattern in keep:
        matched = {convolution.name for convolution in free if _matches(convolution, pattern)}
        if not matched:
            parts = ", ".join(Counter(convolution.part for convolution in free))
            expected = f"a node, a scope such as {free[0].scope}, or one of the parts {parts}"
            got = f"{pattern!r} matches none of the {len(free)} convolutions that would be quantised"
            raise ConfigError("--keep", got, expected)
        kept |= matched
    if len(kept) == len(free):
        raise ConfigError("--keep", f"leaves none of the {len(free)} convolutions to quantise", "keep fewer")
    return tuple(
        Convolution(c.name, c.part, c.tensor, c.weight, ASKED) if c.name in kept else c for c in found
    )


def _classify(node: "onnx.NodeProto", family: Family, stored: set[str]) -> Convolution:
    part, kept = _rule(scope_of(node.name), family)
    if not kept and node.input[1] not in stored:
        kept = COMPUTED
    return Convolution(node.name, part, node.input[0], node.input[1], kept)


def _rule(scope: str, family: Family) -> tuple[str, str]:
    for rule in RULES[family]:
        if match := re.fullmatch(rule.scope, scope):
            return rule.part.format(*match.groups()), rule.kept
    return scope or "pipeline", UNKNOWN


def _matches(convolution: Convolution, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (convolution.name, convolution.scope, convolution.part))
