"""Resampling as products with precomputed matrices, which exports for any pair of sizes."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def area_matrix(size: int, new_size: int, average: bool = True) -> npt.NDArray[np.float32]:
    """Adaptive average pooling along one side, ``(new_size, size)``; sums instead of means if asked for."""
    matrix = np.zeros((new_size, size), np.float32)
    for row in range(new_size):
        start, end = row * size // new_size, -(-(row + 1) * size // new_size)
        matrix[row, start:end] = 1 / (end - start) if average else 1
    return matrix


def area_weights(size: int, new_size: int) -> Tensor:
    """``area_matrix`` as a tensor, which the graph makes where sizes vary while a model is traced."""
    known = all(isinstance(side, int) for side in (size, new_size))  # while tracing they may be symbols
    if known:
        return torch.from_numpy(area_matrix(size, new_size))
    rows, columns = torch.arange(new_size)[:, None], torch.arange(size)
    starts, ends = rows * size // new_size, ((rows + 1) * size + (new_size - 1)) // new_size
    return ((columns >= starts) & (columns < ends)).float() / (ends - starts)


def resize_separable(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``(B, C, H, W)`` to ``rows @ maps @ columns.T``."""
    return rows @ (maps @ columns.mT)


PILLOW_BITS = 22  # Pillow rounds its filter weights for 8-bit images to multiples of 2**-22


def pillow_bilinear_matrix(size: int, new_size: int) -> npt.NDArray[np.int64]:
    """Pillow's bilinear filter (antialiased) along one side as integers, ``(new_size, size)``.

    ``(matrix @ pixels + 2**21) >> 22`` is what Pillow makes of 8-bit pixels.

    Source:
        Pillow's documented resampling: a triangle filter of radius ``max(scale, 1)`` around each centre,
        normalised, in 22-bit fixed point.
    """
    scale = size / new_size
    radius = max(scale, 1.0)
    matrix = np.zeros((new_size, size), np.int64)
    for row in range(new_size):
        centre = (row + 0.5) * scale
        start, end = max(int(centre - radius + 0.5), 0), min(int(centre + radius + 0.5), size)
        weights = np.maximum(1 - np.abs((np.arange(start, end) + 0.5 - centre) / radius), 0)
        matrix[row, start:end] = np.floor(weights / weights.sum() * 2**PILLOW_BITS + 0.5)
    return matrix
