"""All operators at every level: our kernels, the floors and the peers, on the same tensors."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from on_gpu.correctness import SHIFTS, current_stream, errors
from on_gpu.kernels import Kernels
from on_gpu.levels import RADIUS, Limits, Work, parameters
from on_gpu.peers import Operator, peers
from on_gpu.results import TimeRow
from on_gpu.timing import call_time, graph_time

PEER_CALLS = 10  # in a sample
MOST_SETS = 4096


@torch.no_grad()
def time_row(kernels: Kernels, work: Work, limits: Limits, samples: int) -> TimeRow:
    """Measures one operator at one level.

    The calls of a sample go round through sets of tensors that together are three times the L2 cache, so that
    each finds its inputs in device memory; ``kernel, L2`` takes one set only.
    """
    sets = tensor_sets(work.bytes, torch.cuda.get_device_properties(0).L2_cache_size)
    dtype = getattr(torch, work.dtype)
    features = [torch.randn(sets, *shape, device="cuda", dtype=dtype) for shape in work.feature_shapes]
    others = parameters(work.operator, work.level.shape[1], RADIUS)
    rest = [torch.from_numpy(array).to(torch.device("cuda")) for array in others]
    inputs = [(*chosen, *rest) for chosen in zip(*features, strict=True)]
    outputs = torch.empty(sets, *work.output_shape, device="cuda", dtype=dtype)
    launch = _launcher(kernels, work, inputs, outputs)
    times = {
        "kernel": graph_time(launch, max(sets, 100), samples),
        "kernel, L2": graph_time(lambda _: launch(0), 100, samples),
    }
    expected = SHIFTS[work.operator](*(tensor.double() for tensor in inputs[0]), RADIUS)
    wrong = {"kernel": errors(outputs[0], expected)[0]}
    failed: dict[str, str] = {}
    for name, operator in peers(work.operator, kernels).items():
        call = partial(_run, operator, inputs)
        try:
            wrong[name] = errors(call(0), expected)[0]
            times[name] = call_time(call, PEER_CALLS, samples)
            times[f"{name}, graph"] = graph_time(call, PEER_CALLS, samples)
        except RuntimeError as error:  # torch.compile without a compiler, for one
            failed[name] = " ".join(str(error).split())[:200]
    kernel = kernels.kernel(work.operator, work.dtype, RADIUS)
    return TimeRow(
        work.operator,
        work.level.network,
        work.level.name,
        work.level.shape,
        work.dtype,
        work.bytes,
        work.flops,
        limits.memory_us(work),
        limits.arithmetic_us(work),
        kernel.registers,
        kernel.local_bytes,
        times,
        wrong,
        failed,
    )


def tensor_sets(bytes_of_one: int, l2_bytes: int) -> int:
    """How many sets of tensors do not fit into L2 by far."""
    return min(MOST_SETS, 1 + 3 * l2_bytes // bytes_of_one)


def _launcher(
    kernels: Kernels, work: Work, inputs: Sequence[Sequence[Tensor]], outputs: Tensor
) -> Callable[[int], None]:
    addresses = [
        tuple(tensor.data_ptr() for tensor in (*tensors, output))
        for tensors, output in zip(inputs, outputs, strict=True)
    ]

    def launch(number: int) -> None:
        chosen = addresses[number % len(addresses)]
        kernels.launch(work.operator, work.dtype, RADIUS, work.level.shape, chosen, current_stream(outputs))

    return launch


def _run(operator: Operator, inputs: Sequence[Sequence[Tensor]], number: int) -> Tensor:
    return operator(*inputs[number % len(inputs)], RADIUS)
