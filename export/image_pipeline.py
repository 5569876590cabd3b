"""The official pipeline around a network as part of the graph: uint8 images in, flow in pixels out.

The resized images are bit-exact, although everything is computed in float32: all sums are whole numbers below
2**24, where float32 is exact in any order of summation (TF32 is not: a GPU has to have it switched off).
"""

import numpy as np
import torch
from torch import Tensor, nn

from gocor.export.estimate import upsample_flow
from gocor.export.networks import GLUNet, Network, PWCNet
from gocor.export.resample import PILLOW_BITS, area_matrix, pillow_bilinear_matrix, resize_separable
from gocor.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD
from gocor.runtime.spec import GLUNET_COARSE_SIDE

HALF_BITS = PILLOW_BITS // 2


class PillowResize(nn.Module):
    """Resizes whole-numbered ``(B, C, H, W)`` in 0..255 as Pillow's bilinear filter does, to the bit.

    The 22-bit weights are split into 11 + 11 bits, so that the sums of both halves are exact.
    """

    def __init__(self, size: tuple[int, int], new_size: tuple[int, int]) -> None:
        super().__init__()
        self.rows = _halves(size[0], new_size[0])
        self.columns = _halves(size[1], new_size[1])

    def forward(self, x: Tensor) -> Tensor:
        """Columns first, rounded, then rows, as Pillow does; a side that stays is left alone."""
        if self.columns is not None:
            high, low = self.columns
            x = _round(x @ high.mT, x @ low.mT)
        if self.rows is not None:
            high, low = self.rows
            x = _round(high @ x, low @ x)
        return x


class AreaResize(nn.Module):
    """Adaptive average pooling of whole-numbered ``(B, C, H, W)``, truncated: exact sums, one division."""

    def __init__(self, size: tuple[int, int], new_size: tuple[int, int]) -> None:
        super().__init__()
        self.same = size == new_size
        rows, columns = (
            area_matrix(old, new, average=False) for old, new in zip(size, new_size, strict=True)
        )
        self.rows, self.columns = torch.from_numpy(rows), torch.from_numpy(columns)
        self.counts = torch.from_numpy(np.outer(rows.sum(1), columns.sum(1)).astype(np.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Averages, truncated to whole numbers."""
        return x if self.same else torch.floor(resize_separable(x, self.rows, self.columns) / self.counts)


class ImagePipeline(nn.Module):
    """uint8 RGB images ``(B, H, W, 3)`` to the flow ``(B, 2, H, W)`` in pixels, as ``estimate_flow`` does.

    A GLU-Net also gives its orientation score ``(B,)``.

    Args:
        network: the network, in evaluation mode.
        height: of the images.
        width: of the images.
    """

    def __init__(self, network: Network, height: int, width: int) -> None:
        super().__init__()
        self.network = network
        self.size = height, width
        self.working_size = network.spec.working_size(height, width)
        if isinstance(network, PWCNet):
            self.resize: nn.Module = PillowResize(self.size, self.working_size)
            self.bgr = torch.tensor([2, 1, 0])
        else:
            self.resize = AreaResize(self.size, self.working_size)
            self.resize_coarse = AreaResize(self.size, (GLUNET_COARSE_SIDE, GLUNET_COARSE_SIDE))
            self.mean = torch.from_numpy(IMAGENET_MEAN.reshape(-1, 1, 1))
            self.std = torch.from_numpy(IMAGENET_STD.reshape(-1, 1, 1))

    def forward(self, reference: Tensor, query: Tensor) -> tuple[Tensor, ...]:
        """The flow, and with a GLU-Net the orientation score."""
        # TensorRT takes uint8 only if the cast comes first.
        reference, query = (images.float().permute(0, 3, 1, 2) for images in (reference, query))
        if isinstance(self.network, PWCNet):
            flows = self.network(
                *(self.resize(x).index_select(1, self.bgr) / 255 for x in (reference, query))
            )
            return (self._full_size(flows[-1]),)
        images = [
            self.resize(reference),
            self.resize(query),
            self.resize_coarse(reference),
            self.resize_coarse(query),
        ]
        outputs = self.network(*((x / 255 - self.mean) / self.std for x in images))
        score = self.network.orientation_score(outputs.global_volume, outputs.flow4)
        return self._full_size(outputs.flow1), score

    def _full_size(self, flow: Tensor) -> Tensor:
        return upsample_flow(flow * self.network.spec.flow_unit, *self.size, self.working_size)


class TensorPipeline(nn.Module):
    """Preprocessed tensors to all flows as the network returns them; a GLU-Net adds its orientation score."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The network's flows, coarsest first."""
        outputs = self.network(*tensors)
        if not isinstance(self.network, GLUNet):
            return outputs
        return *outputs[:-1], self.network.orientation_score(outputs.global_volume, outputs.flow4)


def _halves(size: int, new_size: int) -> tuple[Tensor, Tensor] | None:
    if size == new_size:
        return None
    matrix = pillow_bilinear_matrix(size, new_size)
    high, low = np.divmod(matrix, 2**HALF_BITS)
    assert 255 * max(high.sum(1).max(), low.sum(1).max()) < 2**24, "a sum would not be exact in float32"
    return torch.from_numpy(high.astype(np.float32)), torch.from_numpy(low.astype(np.float32))


def _round(high: Tensor, low: Tensor) -> Tensor:
    """``(high * 2**11 + low + 2**21) >> 22`` in exact float32 arithmetic, clipped to a byte."""
    carried = high + 2 ** (HALF_BITS - 1) + torch.floor(low * 2.0**-HALF_BITS)
    return torch.floor(carried * 2.0**-HALF_BITS).clamp(0, 255)
