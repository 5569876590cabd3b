"""The tile product behind both operators in PyTorch.

For a tile of T×T pixels and the (T+2r)² pixels around it, all correlations are one matrix product
``(T² × C) · (C × (T+2r)²)``, of which the band ``(ty+dy, tx+dx)`` is the answer. The band of a dense product
is a view with constant strides, so nothing is gathered. On 2 CPU cores this is 3 to 5 times faster than
(2r+1)² shifted products (`benchmarks/cpu.py`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 8  # the fastest of 4, 8 and 16 at every level of PWC-Net


@dataclass(frozen=True)
class Tiling:
    """How feature maps ``(N, C, H, W)`` of one size are cut into tiles of ``TILE²`` pixels."""

    batch: int
    height: int
    width: int
    radius: int

    @property
    def window(self) -> int:
        """Side of a tile's neighbourhood."""
        return TILE + 2 * self.radius

    @property
    def rows(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.height // TILE)

    @property
    def columns(self) -> int:
        """Tiles from left to right."""
        return -(-self.width // TILE)

    @property
    def count(self) -> int:
        """Tiles of all images."""
        return self.batch * self.rows * self.columns

    def split(self, maps: Tensor) -> Tensor:
        """``(N, C, H, W)`` to a view or copy ``(N, rows, columns, T, T, C)``; missing pixels are zero."""
        bottom, right = self.rows * TILE - self.height, self.columns * TILE - self.width
        padded = F.pad(maps, (0, right, 0, bottom)) if bottom or right else maps
        tiled = padded.reshape(self.batch, maps.shape[1], self.rows, TILE, self.columns, TILE)
        return tiled.permute(0, 2, 4, 3, 5, 1)

    def join(self, tiles: Tensor) -> Tensor:
        """Inverse of ``split``: ``(N, rows, columns, T, T, C)`` to ``(N, C, H, W)``, contiguous."""
        size = (self.batch, tiles.shape[5], self.rows * TILE, self.columns * TILE)
        maps = tiles.permute(0, 5, 1, 3, 2, 4).reshape(size)
        return maps[:, :, : self.height, : self.width].contiguous()

    def windows(self, maps: Tensor) -> Tensor:
        """Neighbourhood of every tile, ``(tiles, C, window²)``; zero outside the image."""
        r = self.radius
        bottom, right = self.rows * TILE - self.height + r, self.columns * TILE - self.width + r
        padded = F.pad(maps, (r, right, r, bottom)).contiguous()
        n, c, y, x = padded.stride()
        size = (self.batch, self.rows, self.columns, maps.shape[1], self.window, self.window)
        view = padded.as_strided(size, (n, TILE * y, TILE * x, c, y, x))
        return view.reshape(self.count, maps.shape[1], self.window**2)

    def band(self, dense: Tensor) -> Tensor:
        """The entries of a dense ``(tiles, T², window²)`` that belong to displacements.

        Returns:
            A view ``(N, rows, columns, T, T, D, D)``; writing to it writes to ``dense``.
        """
        w, d = self.window, 2 * self.radius + 1
        tile = TILE * TILE * w * w
        size = (self.batch, self.rows, self.columns, TILE, TILE, d, d)
        strides = (
            self.rows * self.columns * tile,
            self.columns * tile,
            tile,
            TILE * w * w + w,
            w * w + 1,
            w,
            1,
        )
        return dense.as_strided(size, strides)


def correlate(reference: Tensor, query: Tensor, radius: int) -> Tensor:
    """``LocalCorrelation`` as tile products; float16 and bfloat16 are computed in float32."""
    batch, channels, height, width = reference.shape
    tiling = Tiling(batch, height, width, radius)
    dtype = torch.promote_types(reference.dtype, torch.float32)
    tiles = tiling.split(reference.to(dtype)).reshape(tiling.count, TILE * TILE, channels)
    dense = torch.bmm(tiles, tiling.windows(query.to(dtype)))
    volume = tiling.join(tiling.band(dense).flatten(5))
    return volume.div_(channels).to(reference.dtype)


def correlate_transpose(volume: Tensor, query: Tensor, radius: int) -> Tensor:
    """``LocalCorrelationTranspose`` as tile products; float16 and bfloat16 are computed in float32."""
    batch, channels, height, width = query.shape
    tiling = Tiling(batch, height, width, radius)
    dtype = torch.promote_types(query.dtype, torch.float32)
    dense = torch.zeros(tiling.count, TILE * TILE, tiling.window**2, dtype=dtype, device=query.device)
    side = 2 * radius + 1
    tiling.band(dense).copy_(tiling.split(volume).unflatten(5, (side, side)))
    tiles = torch.bmm(dense, tiling.windows(query.to(dtype)).transpose(1, 2))
    features = tiling.join(tiles.reshape(batch, tiling.rows, tiling.columns, TILE, TILE, channels))
    return features.div_(channels).to(query.dtype)


def reverse(volume: Tensor, radius: int) -> Tensor:
    """The volume seen from the query: ``out[d, p] = volume[-d, p + d]``, zero outside.

    With it the gradient of either operator in its query is a ``LocalCorrelationTranspose``.
    """
    batch, _, height, width = volume.shape
    side, r = 2 * radius + 1, radius
    mirrored = volume.flip(1).unflatten(1, (side, side))
    padded = F.pad(mirrored, (r, r, r, r)).contiguous()
    n, dy, dx, y, x = padded.stride()
    shifted = padded.as_strided((batch, side, side, height, width), (n, dy + y, dx + x, y, x))
    return shifted.reshape(batch, side * side, height, width)
