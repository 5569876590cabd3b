"""Building blocks that the networks share; attribute names are those of the public checkpoints."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1
GROWTH = (128, 128, 96, 64, 32)  # output channels of a decoder's five convolutions
CONTEXT_CHANNELS = (128, 128, 128, 96, 64, 32)
CONTEXT_DILATIONS = (1, 2, 4, 8, 16, 1)


def leaky(x: Tensor) -> Tensor:
    """The leaky ReLU of all four networks."""
    return F.leaky_relu(x, SLOPE)


def conv(
    inputs: int,
    outputs: int,
    stride: int = 1,
    dilation: int = 1,
    batch_norm: bool = False,
    relu: bool = False,
) -> nn.Sequential:
    """3×3 convolution, batch norm if asked for, and (leaky) ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=True)
    ]
    if batch_norm:
        layers.append(nn.BatchNorm2d(outputs))
    layers.append(nn.ReLU() if relu else nn.LeakyReLU(SLOPE))
    return nn.Sequential(*layers)


def flow_head(inputs: int) -> nn.Conv2d:
    """3×3 convolution to a flow, no activation."""
    return nn.Conv2d(inputs, 2, 3, padding=1)


def upsampler(inputs: int) -> nn.ConvTranspose2d:
    """Doubles height and width, to two channels."""
    return nn.ConvTranspose2d(inputs, 2, 4, stride=2, padding=1)


def halves(x: Tensor, batch: int) -> Sequence[Tensor]:
    """The first and the second ``batch`` of ``2 * batch`` images."""
    # While a model of any batch is traced that is a symbol, for which chunk would take a number.
    return x.chunk(2) if isinstance(batch, int) else x.split([batch, batch])


def dense(convolutions: list[nn.Module], x: Tensor, entry: nn.Module) -> Tensor:
    """Densely connected convolutions: each one's output is put before its input, after ``entry``."""
    x = entry(pad_channels(x, convolutions[0]))
    for convolution in convolutions:
        x = torch.cat((convolution(x), x), dim=1)
    return x


def pad_channels(x: Tensor, convolution: nn.Module) -> Tensor:
    """Appends the zero channels that a convolution (or the first one in a sequence) has inputs for."""
    missing = next(m for m in convolution.modules() if isinstance(m, nn.Conv2d)).in_channels - x.shape[1]
    return F.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x


def initialize(module: nn.Module) -> None:
    """Kaiming-normal (fan-in) convolutions, zero biases, batch-norm weights uniform in [0, 1]."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d) and child.bias is not None:
            nn.init.kaiming_normal_(child.weight, mode="fan_in")
            nn.init.zeros_(child.bias)
        elif isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight)


def pixel_grid(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel coordinates x ``(1, 1, 1, W)`` and y ``(1, 1, H, 1)`` in the flow's dtype."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device).reshape(1, 1, 1, -1)
    y = torch.arange(height, dtype=flow.dtype, device=flow.device).reshape(1, 1, -1, 1)
    return x, y


def warp(features: Tensor, flow: Tensor, mask_border: bool = False) -> Tensor:
    """Samples ``features`` ``(B, C, H, W)`` where ``flow`` ``(B, 2, H, W)``, in their pixels, points to.

    Bilinear, zero outside. With ``mask_border`` a vector that is not wholly inside (bilinear weights inside
    summing to less than 0.9999) is zero, too.
    """
    height, width = features.shape[-2:]
    x, y = pixel_grid(flow)
    grid_x = 2 * (x + flow[:, :1]) / max(width - 1, 1) - 1
    grid_y = 2 * (y + flow[:, 1:]) / max(height - 1, 1) - 1
    grid = torch.cat((grid_x, grid_y), dim=1).permute(0, 2, 3, 1)
    warped = F.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    if not mask_border:
        return warped
    inside = _weight_inside(grid_x, width) * _weight_inside(grid_y, height)
    return warped * (inside >= 0.9999).to(warped.dtype)


def _weight_inside(coordinate: Tensor, size: int) -> Tensor:
    """Sum of the linear weights inside: what sampling an image of ones would give along one side."""
    position = (coordinate + 1) / 2 * (size - 1)
    return torch.minimum(position + 1, size - position).clamp(0, 1)
