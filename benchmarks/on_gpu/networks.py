"""Whole networks in PyTorch, to see what the correlations weigh in them."""

import contextlib

import torch
from shift_correlation import replaced_correlations, shift_correlations
from torch import Tensor

from gocor.export.checkpoint import seeded_network
from gocor.plugins.registry import CORRELATIONS
from gocor.runtime.preprocess import preprocess
from gocor.runtime.sample_pair import sample_pair
from on_gpu.correctness import current_stream, errors
from on_gpu.kernels import Kernels
from on_gpu.levels import SIZES
from on_gpu.results import NetworkRow
from on_gpu.timing import call_time


def time_network(kernels: Kernels, name: str, samples: int) -> NetworkRow:
    """One network in float32 at its usual size, batch 1, from preprocessed tensors to all its flows."""
    device = torch.device("cuda")
    network = seeded_network(name).to(device)
    arrays = preprocess(network.spec, *sample_pair(*SIZES[name])[:2]).values()
    tensors = [torch.from_numpy(array).to(device) for array in arrays]
    ways = {
        "kernels": lambda: kernel_correlations(kernels),
        "tiles": contextlib.nullcontext,
        "shifts": shift_correlations,
    }
    times, flows = {}, {}
    # Without TF32, as everywhere else in this project.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        for way, replace in ways.items():
            with replace():
                flows[way] = network(*tensors)[len(network.spec.outputs) - 1]
                times[way] = call_time(lambda _: network(*tensors), 1, samples)
    error, _ = errors(flows["kernels"], flows["tiles"].double())
    return NetworkRow(name, SIZES[name], "float32", times, error)


def kernel_correlations(kernels: Kernels) -> contextlib.AbstractContextManager[None]:
    """While the block runs, the networks compute their correlations with our kernels."""

    def operator(name: str, first: Tensor, query: Tensor, radius: int) -> Tensor:
        first, query = first.contiguous(), query.contiguous()
        output = query.new_empty(CORRELATIONS[name].check(first.shape, query.shape, radius=radius))
        addresses = (first.data_ptr(), query.data_ptr(), output.data_ptr())
        dtype = str(query.dtype).removeprefix("torch.")
        kernels.launch(name, dtype, radius, query.shape, addresses, current_stream(query))
        return output

    return replaced_correlations(
        lambda *inputs: operator("LocalCorrelation", *inputs),
        lambda *inputs: operator("LocalCorrelationTranspose", *inputs),
    )
