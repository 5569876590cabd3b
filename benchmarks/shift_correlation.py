"""The correlation as it is usually written in PyTorch: one shifted product for each of the 81 displacements.

The baseline of the benchmarks. Outputs are preallocated and sums fused where eager PyTorch can, which was the
fastest of the variants tried (concatenation, einsum, channels last).
"""

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

Operator = Callable[[Tensor, Tensor, int], Tensor]

# Where the networks look the operators up.
CORRELATIONS = (
    "gocor.export.networks.pwcnet.local_correlation",
    "gocor.export.networks.glunet.local_correlation",
    "gocor.export.networks.local_gocor.local_correlation",
    "gocor.plugins.local_gocor.torch_op.local_correlation",
)
TRANSPOSES = (
    "gocor.export.networks.local_gocor.local_correlation_transpose",
    "gocor.plugins.local_gocor.torch_op.local_correlation_transpose",
)


def shift_correlation(reference: Tensor, query: Tensor, radius: int) -> Tensor:
    """``LocalCorrelation`` by shifts; for inference."""
    batch, _, height, width = reference.shape
    volume = reference.new_empty(batch, (2 * radius + 1) ** 2, height, width)
    product = torch.empty_like(reference)
    for d, shifted in enumerate(_shifts(query, radius)):
        torch.mul(reference, shifted, out=product)
        torch.mean(product, dim=1, out=volume[:, d])
    return volume


def shift_correlation_transpose(volume: Tensor, query: Tensor, radius: int) -> Tensor:
    """``LocalCorrelationTranspose`` by shifts; for inference."""
    features = torch.zeros_like(query)
    for d, shifted in enumerate(_shifts(query, radius)):
        features.addcmul_(volume[:, d : d + 1], shifted)
    return features.div_(query.shape[1])


def shift_correlations() -> contextlib.AbstractContextManager[None]:
    """While the block runs, the networks compute their correlations by shifts."""
    return replaced_correlations(shift_correlation, shift_correlation_transpose)


@contextlib.contextmanager
def replaced_correlations(correlation: Operator, transpose: Operator) -> Iterator[None]:
    """While the block runs, the networks compute their correlations by these functions."""
    with contextlib.ExitStack() as stack:
        for name in CORRELATIONS:
            stack.enter_context(mock.patch(name, correlation))
        for name in TRANSPOSES:
            stack.enter_context(mock.patch(name, transpose))
        yield


def _shifts(query: Tensor, radius: int) -> Iterator[Tensor]:
    height, width = query.shape[-2:]
    padded = F.pad(query, (radius,) * 4)
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            yield padded[:, :, dy : dy + height, dx : dx + width]
