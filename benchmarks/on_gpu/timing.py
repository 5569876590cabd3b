"""Time on the GPU, by CUDA events."""

from collections.abc import Callable

import numpy as np
import torch

from on_gpu.correctness import current_stream
from on_gpu.kernels import Kernels
from on_gpu.levels import Limits
from on_gpu.results import Timing

WARM_UP = 3
COPY_ELEMENTS = 1 << 28  # 1 GiB of float32, far more than any L2
MATMUL_SIDES = {"float32": 4096, "float16": 8192}
Call = Callable[[int], object]  # told its number, so that it can take other tensors each time


def graph_time(call: Call, calls: int, samples: int) -> Timing:
    """Work of the GPU alone: ``calls`` calls captured in a CUDA graph, which is replayed."""
    for number in range(WARM_UP):
        call(number)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for number in range(calls):
            call(number)
    graph.replay()
    return _sample(graph.replay, calls, samples)


def call_time(call: Call, calls: int, samples: int) -> Timing:
    """As a program sees it that calls again and again: the longer one of enqueueing and running."""
    for number in range(WARM_UP):
        call(number)

    def run() -> None:
        for number in range(calls):
            call(number)

    return _sample(run, calls, samples)


def timing(samples_us: list[float], calls: int) -> Timing:
    """Statistics of samples."""
    lower, median, upper = np.percentile(samples_us, (25, 50, 75)).tolist()
    return Timing(median, upper - lower, min(samples_us), calls, tuple(samples_us))


def _sample(run: Callable[[], object], calls: int, samples: int) -> Timing:
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(samples)]
    torch.cuda.synchronize()
    # While the GPU does this, the first samples queue up: none of them waits for the CPU if it can keep up.
    ballast = torch.empty(COPY_ELEMENTS, device="cuda")
    for _ in range(4):
        ballast.zero_()
    for start, stop in events:
        start.record()
        run()
        stop.record()
    torch.cuda.synchronize()
    return timing([start.elapsed_time(stop) * 1e3 / calls for start, stop in events], calls)


def measure_limits(kernels: Kernels, samples: int) -> Limits:
    """Bandwidth, arithmetic and launches of this GPU, which it warms up."""
    tflops = {
        dtype: _matmul_tflops(size, getattr(torch, dtype), samples) for dtype, size in MATMUL_SIDES.items()
    }
    return Limits(_copy_bandwidth(samples), tflops, _launch_time(kernels, samples))


def _copy_bandwidth(samples: int) -> float:
    source = torch.ones(COPY_ELEMENTS, device="cuda")
    target = torch.empty_like(source)
    time = graph_time(lambda _: target.copy_(source), 1, samples)
    return 2 * source.nbytes / time.median_us / 1e3


def _matmul_tflops(size: int, dtype: torch.dtype, samples: int) -> float:
    first, second = torch.randn(2, size, size, device="cuda", dtype=dtype)
    target = torch.empty_like(first)
    time = call_time(lambda _: torch.mm(first, second, out=target), 1, samples)
    return 2 * size**3 / time.median_us / 1e6


def _launch_time(kernels: Kernels, samples: int) -> float:
    pixel = torch.ones(3, 81, device="cuda")
    addresses = [row.data_ptr() for row in pixel]

    def call(_: int) -> None:
        kernels.launch("LocalCorrelation", "float32", 4, (1, 1, 1, 1), addresses, current_stream(pixel))

    return graph_time(call, 200, samples).median_us
