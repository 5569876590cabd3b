"""Whole networks in PyTorch, to see what the correlations weigh in them."""

import contextlib

import torch
from shift_correlation import shift_correlations

from gocor.export.checkpoint import seeded_network
from gocor.runtime.preprocess import preprocess
from gocor.runtime.sample_pair import sample_pair
from on_gpu.correctness import errors
from on_gpu.kernels import Kernels
from on_gpu.levels import SIZES
from on_gpu.operators import fused_kernels, kernel_correlations
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
    if network.spec.local_gocor:
        ways["fused"] = lambda: fused_kernels(kernels, network)
    times, flows = {}, {}
    # Without TF32, as everywhere else in this project.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        for way, replace in ways.items():
            with replace():
                flows[way] = network(*tensors)[len(network.spec.outputs) - 1]
                times[way] = call_time(lambda _: network(*tensors), 1, samples)
    error = max(
        errors(flows[way], flows["tiles"].double())[0] for way in ("kernels", "fused") if way in flows
    )
    return NetworkRow(name, SIZES[name], "float32", times, error)
