"""The facts of each network that pre- and post-processing, export and reports need, written once."""

import math
from dataclasses import dataclass
from typing import Literal

from gocor.core.errors import ConfigError

Family = Literal["pwcnet", "glunet"]
GLUNET_COARSE_SIDE = 256  # GLU-Net sees each image a second time at 256×256


@dataclass(frozen=True)
class NetworkSpec:
    """What is fixed about a network, whatever its weights.

    Attributes:
        name: as users write it, such as ``PWCNet_GOCor``.
        family: ``pwcnet`` (optical flow) or ``glunet`` (geometric and semantic matching).
        local_gocor: its local correlations are GOCor modules.
        global_gocor: its global correlation is a GOCor module.
        side_multiple: the sides of the network's input are multiples of this.
        minimum_side: shortest side of the network's input.
        outputs: flows of the network, coarsest first, as a model with ``io="tensors"`` names them.
        flow_unit: pixels of the network's input that one unit of the last flow stands for.
        flow_stride: the last flow has a height and width of the network's input over this.
    """

    name: str
    family: Family
    local_gocor: bool
    global_gocor: bool
    side_multiple: int
    minimum_side: int
    outputs: tuple[str, ...]
    flow_unit: float
    flow_stride: int = 4

    @property
    def tensor_inputs(self) -> tuple[str, ...]:
        """Input names of a model with ``io="tensors"``: float32 ``(B, 3, H, W)``, the last two 256×256."""
        names = ("reference", "query")
        return names if self.family == "pwcnet" else (*names, "reference_256", "query_256")

    @property
    def orientation_higher_wins(self) -> bool:
        """Of two ``orientation_score``s GOCor's higher one wins, plain GLU-Net's lower one."""
        return self.global_gocor

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Size ``(height, width)`` that an image is resized to for the network."""
        return self._working_side(height), self._working_side(width)

    def side_range(self, side: Literal["height", "width"], size: int) -> tuple[int, int | None]:
        """Shortest and longest ``side`` of inputs that the network treats as it does one of ``size``.

        A GLU-Net's width decides how many levels refine its flow; PWC-Net and heights have no such limit.
        """
        if self.family == "pwcnet" or side == "height":
            return self.minimum_side, None
        levels, step = extra_levels(size), self.side_multiple
        shortest = longest = size
        while shortest - step >= self.minimum_side and extra_levels(shortest - step) == levels:
            shortest -= step
        while extra_levels(longest + step) == levels:
            longest += step
        return shortest, longest

    def _working_side(self, side: int) -> int:
        if self.family == "pwcnet":
            return -(-side // self.side_multiple) * self.side_multiple
        return max(self.minimum_side, side // self.side_multiple * self.side_multiple)


def extra_levels(width: int) -> int:
    """Levels of a GLU-Net between 32×32 and 1/8 of its input: by the width alone, as checkpoints need it."""
    return max(0, round(math.log2(width / 8 / 32 / 3)))


def _pwcnet(name: str, gocor: bool) -> NetworkSpec:
    outputs = ("flow6", "flow5", "flow4", "flow3", "flow2")
    return NetworkSpec(name, "pwcnet", gocor, False, 64, 64, outputs, flow_unit=20.0)


def _glunet(name: str, gocor: bool) -> NetworkSpec:
    outputs = ("flow4", "flow3", "flow2", "flow1")
    return NetworkSpec(name, "glunet", gocor, gocor, 8, 256, outputs, flow_unit=1.0)


SPECS: dict[str, NetworkSpec] = {
    spec.name: spec
    for spec in (
        _pwcnet("PWCNet", gocor=False),
        _pwcnet("PWCNet_GOCor", gocor=True),
        _glunet("GLUNet", gocor=False),
        _glunet("GLUNet_GOCor", gocor=True),
    )
}


def network_spec(name: str) -> NetworkSpec:
    """Spec of the network called ``name``.

    Raises:
        ConfigError: there is no such network; the text lists those there are.
    """
    if name not in SPECS:
        raise ConfigError("network", f"unknown name {name!r}", f"one of {', '.join(SPECS)}")
    return SPECS[name]
