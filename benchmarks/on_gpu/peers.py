"""The operators as others would compute them in PyTorch."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gocor.plugins.tiles import correlate, correlate_transpose
from gocor.plugins.torch_ops import local_gocor
from on_gpu.correctness import SHIFTS
from on_gpu.kernels import Kernels
from on_gpu.levels import ITERATIONS
from on_gpu.operators import kernel_correlations

Operator = Callable[..., Tensor]  # of all inputs and the radius


def window_correlation(reference: Tensor, query: Tensor, radius: int) -> Tensor:
    """``LocalCorrelation`` as one product and mean over a view of all windows, for ``torch.compile``.

    It becomes a single kernel, where the loop over 81 shifts becomes 81. Not compiled, it would make a tensor
    of 81 times the features.
    """
    return (reference[:, :, None, None] * _windows(query, radius)).mean(1).flatten(1, 2)


def window_correlation_transpose(volume: Tensor, query: Tensor, radius: int) -> Tensor:
    """``LocalCorrelationTranspose`` in the same way."""
    side = 2 * radius + 1
    weights = volume.unflatten(1, (1, side, side))
    return (weights * _windows(query, radius)).sum((2, 3)) / query.shape[1]


def _windows(query: Tensor, radius: int) -> Tensor:
    """A view ``(N, C, 2r+1, 2r+1, H, W)``."""
    side = 2 * radius + 1
    windows = F.pad(query, (radius,) * 4).unfold(2, side, 1).unfold(3, side, 1)
    return windows.permute(0, 1, 4, 5, 2, 3)


WINDOWS: dict[str, Operator] = {
    "LocalCorrelation": window_correlation,
    "LocalCorrelationTranspose": window_correlation_transpose,
}
TILES: dict[str, Operator] = {
    "LocalCorrelation": correlate,
    "LocalCorrelationTranspose": correlate_transpose,
    "LocalGOCor": lambda *inputs: local_gocor(*inputs, ITERATIONS),  # type: ignore[call-arg]
}


def peers(operator: str, kernels: Kernels) -> dict[str, Operator]:
    """By name. ``unrolled`` is LocalGOCor step by step, with our kernels of both correlations."""
    if operator == "LocalGOCor":

        def unrolled(*inputs: Tensor | int) -> Tensor:
            with kernel_correlations(kernels):
                return TILES[operator](*inputs)

        return {"shifts": SHIFTS[operator], "unrolled": unrolled, "tiles": TILES[operator]}
    # Without a reset, the ninth shape would silently run uncompiled.
    torch.compiler.reset()
    compiled = torch.compile(WINDOWS[operator], fullgraph=True, dynamic=False)
    return {"shifts": SHIFTS[operator], "compiled": compiled, "tiles": TILES[operator]}
