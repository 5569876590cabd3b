"""PWC-Net (arXiv 1709.02371) and PWC-Net-GOCor: optical flow in five levels."""

import torch
from torch import Tensor, nn

from gocor.export.networks.info import CheckpointInfo
from gocor.export.networks.layers import (
    CONTEXT_CHANNELS,
    CONTEXT_DILATIONS,
    GROWTH,
    conv,
    dense,
    flow_head,
    halves,
    initialize,
    leaky,
    upsampler,
    warp,
)
from gocor.export.networks.local_gocor import LocalGOCor
from gocor.plugins.schema import displacements
from gocor.plugins.torch_ops import local_correlation
from gocor.runtime.spec import SPECS

CHANNELS = {1: 16, 2: 32, 3: 64, 4: 96, 5: 128, 6: 196}  # of the pyramid's levels
PYRAMID = {level: (f"conv{level}a", f"conv{level}aa", f"conv{level}b") for level in range(1, 6)}
PYRAMID[6] = ("conv6aa", "conv6a", "conv6b")  # the checkpoints' order differs here
COARSEST, FINEST = 6, 2


class PWCNet(nn.Module):
    """PWC-Net.

    Args:
        radius: search radius of the correlations; the public checkpoints use 4.
    """

    spec = SPECS["PWCNet"]
    info: CheckpointInfo | None = None
    global_iterations: int | None = None
    local_iterations: int | None = None

    def __init__(self, radius: int = 4) -> None:
        super().__init__()
        self.radius = radius
        self._build_pyramid()
        for level in range(COARSEST, FINEST - 1, -1):
            self._build_decoder(level)
        self.dc_conv7 = flow_head(CONTEXT_CHANNELS[-1])
        self.entry = nn.Identity()  # of the decoders; export puts something else there
        self._build_correlations()
        initialize(self)

    def forward(self, reference: Tensor, query: Tensor) -> tuple[Tensor, ...]:
        """Flows of all levels.

        Args:
            reference: image ``(B, 3, H, W)``, BGR in [0, 1], sides multiples of 64.
            query: likewise.

        Returns:
            flow6 … flow2, ``(B, 2, H/2^l, W/2^l)``, in units of 20 pixels of the input.
        """
        references, queries = self.pyramid(reference, query)
        flows: list[Tensor] = []
        x = leaky(self.correlate(COARSEST, references[COARSEST], queries[COARSEST]))
        for level in range(COARSEST, FINEST - 1, -1):
            if level < COARSEST:
                up_flow, up_features = self._upsample(level + 1, flows[-1], x)
                warped = warp(queries[level], up_flow * (20 / 2**level), mask_border=True)
                volume = leaky(self.correlate(level, references[level], warped))
                x = torch.cat((volume, references[level], up_flow, up_features), dim=1)
            x = self.decode(level, x)
            flows.append(self.get_submodule(f"predict_flow{level}")(x))
        flows[-1] = flows[-1] + self._context(x)
        return tuple(flows)

    def pyramid(self, reference: Tensor, query: Tensor) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Features of both images by level, computed as one batch."""
        x = torch.cat((reference, query))
        levels = {}
        for level, names in PYRAMID.items():
            for name in names:
                x = self.get_submodule(name)(x)
            levels[level] = halves(x, reference.shape[0])
        return {n: pair[0] for n, pair in levels.items()}, {n: pair[1] for n, pair in levels.items()}

    def decode(self, level: int, x: Tensor) -> Tensor:
        """Features of a level from its decoder's input."""
        return dense([self.get_submodule(f"conv{level}_{k}") for k in range(len(GROWTH))], x, self.entry)

    def correlate(self, level: int, reference: Tensor, query: Tensor) -> Tensor:
        """Correlation volume of a level, before its activation."""
        return local_correlation(reference, query, self.radius)

    def _build_correlations(self) -> None:
        """Modules of the correlations; plain ones have none."""

    def _build_pyramid(self) -> None:
        inputs = 3
        for level, names in PYRAMID.items():
            for position, name in enumerate(names):
                self.add_module(name, conv(inputs, CHANNELS[level], stride=1 if position else 2))
                inputs = CHANNELS[level]

    def _build_decoder(self, level: int) -> None:
        volume = displacements(self.radius)
        channels = volume if level == COARSEST else volume + CHANNELS[level] + 4
        for k, outputs in enumerate(GROWTH):
            self.add_module(f"conv{level}_{k}", conv(channels, outputs))
            channels += outputs
        self.add_module(f"predict_flow{level}", flow_head(channels))
        self.add_module(f"deconv{level}", upsampler(2))  # deconv2 is in the checkpoints, never used
        if level > FINEST:
            self.add_module(f"upfeat{level}", upsampler(channels))
            return
        for k, (outputs, dilation) in enumerate(
            zip(CONTEXT_CHANNELS, CONTEXT_DILATIONS, strict=True), start=1
        ):
            self.add_module(f"dc_conv{k}", conv(channels, outputs, dilation=dilation))
            channels = outputs

    def _upsample(self, level: int, flow: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.get_submodule(f"deconv{level}")(flow), self.get_submodule(f"upfeat{level}")(x)

    def _context(self, x: Tensor) -> Tensor:
        for k in range(1, len(CONTEXT_CHANNELS) + 1):
            x = self.get_submodule(f"dc_conv{k}")(x)
        return self.dc_conv7(x)


class PWCNet_GOCor(PWCNet):  # noqa: N801  the name users know
    """PWC-Net with a local GOCor in each level.

    Args:
        iterations: of every local GOCor, ≥ 0; the public checkpoints are used with 3.
        radius: search radius; the public checkpoints use 4.
    """

    spec = SPECS["PWCNet_GOCor"]
    local_iterations: int

    def __init__(self, iterations: int = 3, radius: int = 4) -> None:
        self.local_iterations = iterations
        super().__init__(radius)

    def correlate(self, level: int, reference: Tensor, query: Tensor) -> Tensor:
        """Optimised correlation volume of a level, before its activation."""
        return self.get_submodule(f"local_corr_{level}")(reference, query)

    def _build_correlations(self) -> None:
        for level in range(COARSEST, FINEST - 1, -1):
            self.add_module(f"local_corr_{level}", LocalGOCor(self.local_iterations, self.radius))
