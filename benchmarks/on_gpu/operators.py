"""Our kernels as operators of PyTorch tensors, for networks and step-by-step computations."""

import contextlib
from collections.abc import Iterator
from unittest import mock

from shift_correlation import replaced_correlations
from torch import Tensor, nn

from gocor.export.networks.local_gocor import LocalGOCor
from on_gpu.correctness import current_stream
from on_gpu.kernels import Kernels
from on_gpu.levels import ITERATIONS, output_shape

FUSED = "gocor.export.networks.local_gocor.local_gocor"  # where the networks look it up


def run(kernels: Kernels, operator: str, *inputs: Tensor, radius: int) -> Tensor:
    """An operator by our kernel."""
    tensors = [tensor.contiguous() for tensor in inputs]
    query = tensors[1]
    shape = tuple(query.shape)
    output = query.new_empty(output_shape(operator, shape, radius))
    addresses = [tensor.data_ptr() for tensor in (*tensors, output)]
    dtype = str(query.dtype).removeprefix("torch.")
    kernels.launch(operator, dtype, radius, shape, addresses, current_stream(query))
    return output


def kernel_correlations(kernels: Kernels) -> contextlib.AbstractContextManager[None]:
    """While the block runs, correlations are computed with our kernels."""

    def correlation(reference: Tensor, query: Tensor, radius: int) -> Tensor:
        return run(kernels, "LocalCorrelation", reference, query, radius=radius)

    def transpose(volume: Tensor, query: Tensor, radius: int) -> Tensor:
        return run(kernels, "LocalCorrelationTranspose", volume, query, radius=radius)

    return replaced_correlations(correlation, transpose)


@contextlib.contextmanager
def fused_kernels(kernels: Kernels, network: nn.Module) -> Iterator[None]:
    """While the block runs, a network computes its local GOCor modules with one launch each."""

    def gocor(*inputs: Tensor | int) -> Tensor:
        *tensors, radius, iterations = inputs
        assert iterations == ITERATIONS, "LAUNCHES are for so many"
        return run(kernels, "LocalGOCor", *tensors, radius=radius)  # type: ignore[arg-type]

    modules = [module for module in network.modules() if isinstance(module, LocalGOCor)]
    before = [module.fused for module in modules]
    try:
        for module in modules:
            module.fused = True
        with kernel_correlations(kernels), mock.patch(FUSED, gocor):
            yield
    finally:
        for module, fused in zip(modules, before, strict=True):
            module.fused = fused
