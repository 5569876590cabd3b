"""Smooth motions of whole images: homographies and thin-plate splines, in closed form at each pixel."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from gocor.evaluation.synthetic.config import SyntheticConfig
from gocor.evaluation.synthetic.randomness import Variates

CONTROL_POINTS = 4  # of the spline, along each axis
# Shares of an image's shorter side that a part of the motion may reach, however large the displacements:
# beyond, the image would fold over or shrink to nothing.
LARGEST_DEFORMATION, LARGEST_BEND = 0.2, 0.05


def random_motions(variates: Variates, config: SyntheticConfig, layers: int, device: torch.device) -> Tensor:
    """Flows of ``layers`` independent motions for each pair, none longer than ``max_displacement``.

    A motion is a translation, a homography around it (of which rotation, zoom and shear are the usual parts),
    and a thin-plate spline on top, in random proportions; a third of the motions have only the first two
    parts, a sixth only the first.

    Returns:
        float32 ``(B, layers, 2, H, W)`` on the reference grid.
    """
    side = min(config.height, config.width)
    length = config.max_displacement * variates.uniform(0.05, 1, layers)
    kind, share = variates.uniform(0, 1, layers), variates.uniform(0, 1, layers)
    deformation = torch.where(kind < 1 / 6, 0, length * (1 - share)).clamp(max=LARGEST_DEFORMATION * side)
    bend = torch.where(kind < 1 / 2, 0, deformation * variates.uniform(0, 0.6, layers)).clamp(
        max=LARGEST_BEND * side
    )
    angle = variates.uniform(0, 2 * math.pi, layers)
    direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
    shift = (length - deformation)[..., None] * direction
    corners = shift[..., None, :] + deformation[..., None, None] * _corner_moves(variates, config, layers)
    knots = bend[..., None, None] * variates.uniform(-1, 1, layers, 2, CONTROL_POINTS**2)
    flow = homography_flow(corners.flatten(0, 1), config.height, config.width)
    flow += spline_flow(knots.flatten(0, 1), config.height, config.width)
    longest = flow.square().sum(dim=1).amax(dim=(1, 2)).sqrt()
    flow *= (config.max_displacement / longest.clamp(min=1e-6)).clamp(max=1)[:, None, None, None]
    return flow.reshape(-1, layers, 2, config.height, config.width)


def _corner_moves(variates: Variates, config: SyntheticConfig, layers: int) -> Tensor:
    """Displacements ``(B, layers, 4, 2)`` of the corners, the longest of each image 1."""
    corners = _corners(config.height, config.width, torch.device("cpu")).to(torch.float32)
    corners = (corners / corners.abs().max()).to(variates.uniform(0, 1).device)
    turn, zoom, stretch, shear = (variates.uniform(-1, 1, layers, 1) for _ in range(4))
    x, y = corners[:, 0], corners[:, 1]
    affine = torch.stack(
        (
            (zoom + 0.5 * stretch) * x + (0.5 * shear - turn) * y,
            (zoom - 0.5 * stretch) * y + (0.5 * shear + turn) * x,
        ),
        dim=-1,
    )
    moves = affine + variates.uniform(0, 0.7, layers, 1, 1) * variates.uniform(-1, 1, layers, 4, 2)
    return moves / moves.norm(dim=-1).amax(dim=-1).clamp(min=1e-6)[..., None, None]


def homography_flow(corner_moves: Tensor, height: int, width: int) -> Tensor:
    """Flow of the homographies that move an image's corners in a given way.

    Args:
        corner_moves: ``(N, 4, 2)``: x and y in pixels, for the corners upper left, upper right, lower
            left, lower right.
        height: of the image.
        width: of the image.

    Returns:
        float32 ``(N, 2, H, W)``.
    """
    device = corner_moves.device
    scale = (max(height, width) - 1) / 2  # coordinates within ±1 keep float32 exact to 1e-5 px
    start = (_corners(height, width, device) / scale).expand(len(corner_moves), 4, 2)
    rows = _homographies(start, start + corner_moves / scale).to(torch.float32)[..., None, None].unbind(1)
    x, y = ((torch.arange(side, device=device) - (side - 1) / 2) / scale for side in (width, height))
    y = y[:, None]
    u, v, w = (row[:, 0] * x + row[:, 1] * y + row[:, 2] for row in rows)
    return torch.stack((u / w - x, v / w - y), dim=1) * scale


def _corners(height: int, width: int, device: torch.device) -> Tensor:
    """Positions ``(4, 2)`` of the corner pixels from the image's centre, float64."""
    x, y = (width - 1) / 2, (height - 1) / 2
    return torch.tensor([[-x, -y], [x, -y], [-x, y], [x, y]], dtype=torch.float64, device=device)


def _homographies(start: Tensor, end: Tensor) -> Tensor:
    """Matrices ``(N, 3, 3)`` that take four points ``(N, 4, 2)`` each to four others."""
    (x, y), (u, v) = start.unbind(-1), end.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows_u = torch.stack((x, y, one, zero, zero, zero, -u * x, -u * y), dim=-1)
    rows_v = torch.stack((zero, zero, zero, x, y, one, -v * x, -v * y), dim=-1)
    solution = torch.linalg.solve(torch.cat((rows_u, rows_v), dim=1), torch.cat((u, v), dim=1))
    return torch.cat((solution, torch.ones_like(solution[:, :1])), dim=1).reshape(-1, 3, 3)


def spline_flow(knot_moves: Tensor, height: int, width: int) -> Tensor:
    """Flow of thin-plate splines through the displacements of a regular grid of points.

    Args:
        knot_moves: ``(N, 2, CONTROL_POINTS**2)``: x and y in pixels, row by row; the outer points lie on
            the border.
        height: of the image.
        width: of the image.

    Returns:
        float32 ``(N, 2, H, W)``.

    Source:
        Bookstein: Principal warps, PAMI 1989.
    """
    basis = _spline_basis(height, width, knot_moves.device)
    return (knot_moves @ basis).reshape(-1, 2, height, width)


@lru_cache(maxsize=8)
def _spline_basis(height: int, width: int, device: torch.device) -> Tensor:
    """What a unit move of each knot does to each pixel, ``(knots, H*W)``: splines are linear in them."""
    scale = max(height, width)
    rows, columns = (torch.linspace(0, (side - 1) / scale, CONTROL_POINTS, dtype=torch.float64)
                     for side in (height, width))  # fmt: skip
    knots = torch.cartesian_prod(rows, columns)
    pixels = torch.cartesian_prod(
        *(torch.arange(side, dtype=torch.float64) / scale for side in (height, width))
    )
    count = len(knots)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    system[:count, :count] = _thin_plate(torch.cdist(knots, knots))
    system[:count, count:] = torch.cat((torch.ones(count, 1, dtype=torch.float64), knots), dim=1)
    system[count:, :count] = system[:count, count:].T
    ones = torch.ones(len(pixels), 1, dtype=torch.float64)
    terms = torch.cat((_thin_plate(torch.cdist(pixels, knots)), ones, pixels), dim=1)
    return (terms @ torch.linalg.inv(system)[:, :count]).T.to(device, torch.float32).contiguous()


def _thin_plate(distance: Tensor) -> Tensor:
    return torch.where(distance > 0, distance.square() * distance.clamp(min=1e-12).log(), 0)
