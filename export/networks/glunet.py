"""GLU-Net (arXiv 1912.05524) and GLU-Net-GOCor: geometric and semantic matching from coarse to fine."""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gocor.export.networks.global_gocor import GlobalGOCor
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
    pad_channels,
    pixel_grid,
    upsampler,
    warp,
)
from gocor.export.networks.local_gocor import LocalGOCor
from gocor.export.resample import area_weights, resize_separable
from gocor.plugins.schema import displacements
from gocor.plugins.torch_ops import local_correlation
from gocor.runtime.spec import GLUNET_COARSE_SIDE, SPECS, extra_levels

COARSE_GRID = 16
VGG = ((3, 64), (64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512))


class GLUNetOutput(NamedTuple):
    """What a GLU-Net returns.

    Attributes:
        flow4: ``(B, 2, 16, 16)``, pixels of the 256×256 copies.
        flow3: the last estimate before level 2, pixels of the H×W input; 32×32 without extra levels.
        flow2: ``(B, 2, H/8, W/8)``, pixels of the H×W input.
        flow1: ``(B, 2, H/4, W/4)``, pixels of the H×W input.
        global_volume: ``(B, 256, 16, 16)``, after its non-linearity; channel = query position.
    """

    flow4: Tensor
    flow3: Tensor
    flow2: Tensor
    flow1: Tensor
    global_volume: Tensor


class VGGPyramid(nn.Module):
    """VGG-16 features; level k is at 1/2^k of the image."""

    def __init__(self) -> None:
        super().__init__()
        for level, channels in enumerate(VGG):
            layers: list[nn.Module] = []
            for inputs, outputs in itertools.pairwise(channels):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            self.add_module(f"level_{level}", nn.Sequential(*layers, *([nn.MaxPool2d(2)] if level else [])))

    def forward(self, image: Tensor, levels: int) -> list[Tensor]:
        """Features of levels 0 … ``levels`` of an image ``(B, 3, H, W)``."""
        features = []
        for level in range(levels + 1):
            image = self.get_submodule(f"level_{level}")(image)
            features.append(image)
        return features


class CoarseDecoder(nn.Module):
    """Global volume to a mapping in [-1, 1]: a plain chain of convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for k, outputs in enumerate(GROWTH):
            self.add_module(f"conv{k}", conv(channels, outputs, batch_norm=True, relu=True))
            channels = outputs
        self.final = flow_head(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 256, 16, 16)``, to which two zero channels are added, to ``(B, 2, 16, 16)``."""
        x = pad_channels(x, self.get_submodule("conv0"))
        for k in range(len(GROWTH)):
            x = self.get_submodule(f"conv{k}")(x)
        return self.final(x)


class DenseDecoder(nn.Module):
    """Densely connected convolutions with a flow head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for k, outputs in enumerate(GROWTH):
            self.add_module(f"conv_{k}", conv(channels, outputs, batch_norm=True))
            channels += outputs
        self.channels = channels
        self.predict_flow = flow_head(channels)
        self.entry = nn.Identity()  # export puts something else there

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input to all features and the residual flow."""
        x = dense([self.get_submodule(f"conv_{k}") for k in range(len(GROWTH))], x, self.entry)
        return x, self.predict_flow(x)


class GLUNet(nn.Module):
    """GLU-Net.

    Args:
        radius: search radius of the local correlations; the public checkpoints use 4.

    Attributes:
        levels: that refine the flow between 32×32 and 1/8 of the input, where the width is not known, as when
            a model of varying sizes is exported; as many as the width asks for if None.
    """

    spec = SPECS["GLUNet"]
    info: CheckpointInfo | None = None
    global_iterations: int | None = None
    local_iterations: int | None = None
    levels: int | None = None

    def __init__(self, radius: int = 4) -> None:
        super().__init__()
        self.radius = radius
        volume = displacements(radius)
        self.decoder4 = CoarseDecoder(COARSE_GRID**2 + 2)
        self.deconv4 = upsampler(2)
        self.decoder3 = DenseDecoder(volume + 2)
        self._build_context("dc_conv", self.decoder3.channels)
        self.decoder2 = DenseDecoder(volume + 2)
        self.upfeat2 = upsampler(self.decoder2.channels)
        self.deconv2 = upsampler(2)
        self.decoder1 = DenseDecoder(volume + 4)
        self._build_context("l_dc_conv", self.decoder1.channels)
        self._build_correlations()
        self.pyramid = VGGPyramid()
        initialize(self)

    def forward(
        self, reference: Tensor, query: Tensor, reference_256: Tensor, query_256: Tensor
    ) -> GLUNetOutput:
        """Flows of all levels.

        Args:
            reference: image ``(B, 3, H, W)``, RGB, normalised by ImageNet's mean and deviation, sides
                multiples of 8 and ≥ 256.
            query: likewise.
            reference_256: 256×256 copy of the reference.
            query_256: 256×256 copy of the query.
        """
        coarse_reference, coarse_query = self._features(reference_256, query_256, levels=4)
        fine_reference, fine_query = self._features(reference, query, levels=3)
        volume, flow4 = self.coarse(coarse_reference[4], coarse_query[4])
        flow3 = self._level3(coarse_reference[3], coarse_query[3], flow4)
        height, width = reference.shape[-2:]
        flow3 = torch.cat(
            (flow3[:, :1] * (width / GLUNET_COARSE_SIDE), flow3[:, 1:] * (height / GLUNET_COARSE_SIDE)), 1
        )
        flow3 = self._extra_levels(fine_reference[3], fine_query[3], flow3, height, width)
        flow2, flow1 = self._fine(fine_reference, fine_query, flow3)
        return GLUNetOutput(flow4, flow3, flow2, flow1, volume)

    def coarse_flow(self, reference_256: Tensor, query_256: Tensor) -> tuple[Tensor, Tensor]:
        """Global volume and flow4 of two 256×256 images ``(B, 3, 256, 256)``."""
        reference, query = self._features(reference_256, query_256, levels=4)
        return self.coarse(reference[4], query[4])

    def coarse(self, reference: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Global volume and flow4 of two feature maps ``(B, 512, 16, 16)``."""
        volume = self.correlate_globally(normalize(reference), normalize(query))
        mapping = self.decoder4(volume)
        x, y = pixel_grid(mapping)
        pixels = (mapping + 1) * ((COARSE_GRID - 1) / 2)
        flow = torch.cat((pixels[:, :1] - x, pixels[:, 1:] - y), dim=1)
        return volume, flow * (GLUNET_COARSE_SIDE / COARSE_GRID)

    def orientation_score(self, volume: Tensor, flow4: Tensor) -> Tensor:
        """How well two images match, ``(B,)``, to compare an image with its mirror; the lower the better."""
        return flow4[:, 0].abs().mean(dim=(1, 2))

    def correlate_globally(self, reference: Tensor, query: Tensor) -> Tensor:
        """Global volume of normalised features, then mutual matching, ReLU and normalisation."""
        grid = reference.shape[-2:]
        volume = query.flatten(2).mT @ reference.flatten(2)
        query_share = volume / (volume.amax(dim=1, keepdim=True) + 1e-5)
        reference_share = volume / (volume.amax(dim=2, keepdim=True) + 1e-5)
        return normalize(F.relu(volume * query_share * reference_share).unflatten(2, grid))

    def correlate(self, reference: Tensor, query: Tensor) -> Tensor:
        """Local correlation volume of two feature maps, before its activation."""
        return local_correlation(reference, query, self.radius)

    def _build_correlations(self) -> None:
        """Modules of the correlations; plain ones have none."""

    def _build_context(self, prefix: str, channels: int) -> None:
        for k, (outputs, dilation) in enumerate(
            zip(CONTEXT_CHANNELS, CONTEXT_DILATIONS, strict=True), start=1
        ):
            self.add_module(f"{prefix}{k}", conv(channels, outputs, dilation=dilation, batch_norm=True))
            channels = outputs
        self.add_module(f"{prefix}7", flow_head(channels))

    def _context(self, prefix: str, x: Tensor) -> Tensor:
        for k in range(1, len(CONTEXT_CHANNELS) + 2):
            x = self.get_submodule(f"{prefix}{k}")(x)
        return x

    def _features(self, reference: Tensor, query: Tensor, levels: int) -> tuple[list[Tensor], list[Tensor]]:
        features = self.pyramid(torch.cat((reference, query)), levels)
        pairs = [halves(level, reference.shape[0]) for level in features]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def _match(self, reference: Tensor, query: Tensor, flow: Tensor, scale: float) -> Tensor:
        """Activated local volume of the reference and the query warped by ``flow * scale``."""
        return leaky(self.correlate(reference, warp(query, flow * scale)))

    def _level3(self, reference: Tensor, query: Tensor, flow4: Tensor) -> Tensor:
        up_flow = self.deconv4(flow4)
        volume = self._match(reference, query, up_flow, 32 / GLUNET_COARSE_SIDE)
        x, residual = self.decoder3(torch.cat((volume, up_flow), dim=1))
        return residual + self._context("dc_conv", x) + up_flow

    def _extra_levels(
        self, reference: Tensor, query: Tensor, flow: Tensor, height: int, width: int
    ) -> Tensor:
        """Refines the flow at scales between 32×32 and 1/8 of a large input.

        The number of levels follows from the width alone, as in the public code: checkpoints depend on it.
        """
        levels = extra_levels(width) if self.levels is None else self.levels
        for k in range(levels):
            stride = 8 * 2 ** (levels - k)
            size = height // stride, width // stride
            flow = F.interpolate(flow, size=size, mode="bilinear", align_corners=False)
            small_reference, small_query = (area_resize(f, size) for f in (reference, query))
            volume = self._match(small_reference, small_query, flow, 1 / stride)
            _, residual = self.decoder2(torch.cat((volume, flow), dim=1))
            flow = residual + flow
        return flow

    def _fine(self, reference: list[Tensor], query: list[Tensor], flow3: Tensor) -> tuple[Tensor, Tensor]:
        flow = F.interpolate(flow3, size=reference[3].shape[-2:], mode="bilinear", align_corners=False)
        volume = self._match(reference[3], query[3], flow, 1 / 8)
        x, residual = self.decoder2(torch.cat((volume, flow), dim=1))
        flow2 = residual + flow
        up_flow, up_features = self.deconv2(flow2), self.upfeat2(x)
        volume = self._match(reference[2], query[2], up_flow, 1 / 4)
        x, residual = self.decoder1(torch.cat((volume, up_flow, up_features), dim=1))
        return flow2, residual + self._context("l_dc_conv", x) + up_flow


class GLUNet_GOCor(GLUNet):  # noqa: N801  the name users know
    """GLU-Net with a global GOCor and one local GOCor that all levels share.

    Args:
        global_iterations: of the global GOCor, ≥ 0; the public checkpoints are used with 3.
        local_iterations: of the local GOCor, likewise.
        radius: search radius of the local GOCor; the public checkpoints use 4.
    """

    spec = SPECS["GLUNet_GOCor"]
    global_iterations: int
    local_iterations: int

    def __init__(self, global_iterations: int = 3, local_iterations: int = 3, radius: int = 4) -> None:
        self.global_iterations, self.local_iterations = global_iterations, local_iterations
        super().__init__(radius)

    def correlate_globally(self, reference: Tensor, query: Tensor) -> Tensor:
        """Optimised global volume of normalised features after its non-linearity."""
        return leaky(self.get_submodule("corr.corr_module")(reference, query))

    def correlate(self, reference: Tensor, query: Tensor) -> Tensor:
        """Optimised local correlation volume of two feature maps, before its activation."""
        return self.local_corr(reference, query)

    def orientation_score(self, volume: Tensor, flow4: Tensor) -> Tensor:
        """How well two images match, ``(B,)``, to compare an image with its mirror; the higher the better."""
        return volume.flatten(2).amax(dim=2).sum(dim=1)

    def _build_correlations(self) -> None:
        self.corr = nn.Module()  # the checkpoints' keys have this level
        self.corr.corr_module = GlobalGOCor(self.global_iterations, channels=VGG[4][-1])
        self.local_corr = LocalGOCor(self.local_iterations, self.radius)


def normalize(features: Tensor) -> Tensor:
    """Divides each channel vector by its L2 norm."""
    features = (
        features.contiguous()
    )  # CPU convolutions may leave channels last; what follows is faster on rows
    return features / (features * features).sum(dim=1, keepdim=True).add(1e-6).sqrt()


def area_resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Adaptive average pooling to ``size``; as matrix products it exports for any size."""
    height, width = features.shape[-2:]
    rows, columns = (area_weights(*sides).to(features) for sides in ((height, size[0]), (width, size[1])))
    return resize_separable(features, rows, columns)
