"""Resampling as products with precomputed matrices: linear and separable, so it exports for any pair of sizes."""

import numpy as np
import numpy.typing as npt
from torch import Tensor


def area_matrix(size: int, new_size: int, average: bool = True) -> npt.NDArray[np.float32]:
    """Adaptive average pooling along one side, ``(new_size, size)``; sums instead of means if asked for."""
    matrix = np.zeros((new_size, size), np.float32)
    for row in range(new_size):
        start, end = row * size // new_size, -(-(row + 1) * size // new_size)
        matrix[row, start:end] = 1 / (end - start) if average else 1
    return matrix


def resize_separable(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``(B, C, H, W)`` to ``rows @ maps @ columns.T``."""
    return rows @ (maps @ columns.mT)
