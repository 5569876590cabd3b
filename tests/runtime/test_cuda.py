"""The wrappers of CUDA's runtime, on the fake one, and its errors in the words of the real one."""

import contextlib
import gc
import sys
from collections.abc import Iterator

import fake_gpu
import pytest
from fake_gpu import Gpu, cudaError_t

from gocor.core.errors import DependencyError, ProviderError
from gocor.runtime import cuda
from gocor.runtime.cuda import CudaError


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    gpu = Gpu(devices=3)
    fake_gpu.install(monkeypatch, gpu)
    yield gpu
    assert gpu.violations == []


def test_results_come_without_the_code() -> None:
    ok = cudaError_t.cudaSuccess
    assert cuda.check((ok,)) == ()
    assert cuda.check((ok, 5)) == 5
    assert cuda.check((ok, 5, 6)) == (5, 6)


def test_errors_have_a_name_and_words(gpu: Gpu) -> None:
    gpu.free = 10
    with pytest.raises(CudaError) as caught:
        cuda.DeviceMemory(100)
    assert str(caught.value) == "CUDA: cudaErrorMemoryAllocation (out of memory); see gocor doctor"
    assert caught.value.out_of_memory
    with pytest.raises(CudaError) as other:
        cuda.check((cudaError_t.cudaErrorInvalidValue,))
    assert not other.value.out_of_memory


def test_the_real_runtime_fails_in_the_same_way() -> None:
    real = pytest.importorskip("cuda.bindings.runtime")
    with pytest.raises(CudaError) as caught:
        cuda.check((real.cudaError_t.cudaErrorMemoryAllocation, None))
    assert str(caught.value) == "CUDA: cudaErrorMemoryAllocation (out of memory); see gocor doctor"
    assert cuda.check((real.cudaError_t.cudaSuccess, 5)) == 5


def test_the_real_runtime_on_a_machine_without_a_gpu() -> None:
    real = pytest.importorskip("cuda.bindings.runtime")
    with contextlib.suppress(RuntimeError):  # of cuda-python 12, without a driver
        if not real.cudaGetDeviceCount()[0]:
            pytest.skip("there is a GPU")
    with pytest.raises(ProviderError, match=r"^GPU: .*; nvidia-smi shows what the driver sees$"):
        cuda.current_device()


def test_cuda_python_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(DependencyError, match=r"^cuda-python: cannot be imported"):
        cuda.current_device()


def test_the_callers_gpu_is_current_again_afterwards(gpu: Gpu) -> None:
    with cuda.on_device(2):
        assert cuda.current_device() == 2
    assert cuda.current_device() == 0
    with pytest.raises(KeyError), cuda.on_device(1):
        raise KeyError
    assert cuda.current_device() == 0


def test_compute_capability(gpu: Gpu) -> None:
    gpu.capability = (12, 1)
    assert cuda.compute_capability(0) == "sm_121"


@pytest.mark.parametrize("make", [lambda: cuda.DeviceMemory(64), lambda: cuda.PinnedArray((4, 4), "float32")])
def test_memory_is_given_back_once(gpu: Gpu, make: object) -> None:
    memory = make()  # type: ignore[operator]
    assert len(gpu.live()) == 1
    memory.close()
    memory.close()
    del memory
    gc.collect()
    assert gpu.live() == []


def test_pinned_memory_is_an_array(gpu: Gpu) -> None:
    pinned = cuda.PinnedArray((2, 3), "float32")
    assert (pinned.array.shape, pinned.array.dtype) == ((2, 3), "float32")
    assert pinned.array.ctypes.data == pinned.pointer
    pinned.array[:] = 1


def test_streams_and_events_are_given_back(gpu: Gpu) -> None:
    stream, event = cuda.Stream(), cuda.Event()
    handle = stream.handle
    event.record(handle)
    event.synchronize()
    del stream, event
    gc.collect()
    assert gpu.streams[handle].destroyed
    assert gpu.events == {}


def test_other_peoples_streams(gpu: Gpu) -> None:
    class AsMethod:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 7

    class AsProperty:
        __cuda_stream__ = (0, 8)

    assert cuda.BorrowedStream(AsMethod()).handle == 7
    assert cuda.BorrowedStream(AsProperty()).handle == 8
    assert cuda.BorrowedStream(9).handle == 9
    with pytest.raises(TypeError, match="list has no __cuda_stream__"):
        cuda.BorrowedStream([])


def test_a_graph_repeats_what_was_captured(gpu: Gpu) -> None:
    stream, done = cuda.Stream(), []
    graph = cuda.Graph(stream, lambda: gpu.enqueue(stream.handle, lambda: done.append(1)))
    stream.synchronize()
    assert done == []
    graph.launch(stream.handle)
    graph.launch(stream.handle)
    stream.synchronize()
    assert done == [1, 1]
    assert len(gpu.graphs) == 1  # the captured form is not kept beside the one to launch
    graph.close()
    assert gpu.graphs == {}


def test_a_capture_that_fails_leaves_nothing_behind(gpu: Gpu) -> None:
    stream = cuda.Stream()

    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        cuda.Graph(stream, fail)
    with pytest.raises(CudaError, match="cudaErrorStreamCaptureUnsupported"):
        cuda.Graph(stream, lambda: cuda.DeviceMemory(64))
    with pytest.raises(CudaError, match="cudaErrorStreamCaptureUnsupported"):
        cuda.Graph(stream, stream.synchronize)
    assert gpu.graphs == {}
    assert not cuda.is_capturing(stream.handle)
    assert gc.isenabled()


def test_garbage_does_not_spoil_a_capture(gpu: Gpu) -> None:
    garbage: list[object] = [cuda.DeviceMemory(64)]
    garbage.append(garbage)
    del garbage
    kept: list[object] = []
    cuda.Graph(cuda.Stream(), lambda: kept.extend([] for _ in range(10_000)))  # Python would look for garbage
    gc.collect()
    assert gpu.live() == []


def test_default_streams_cannot_be_captured(gpu: Gpu) -> None:
    assert not cuda.is_capturing(0)
    assert not cuda.is_capturing(cuda.LEGACY_STREAM)
    stream = cuda.Stream()
    seen = []
    cuda.Graph(stream, lambda: seen.append(cuda.is_capturing(stream.handle)))
    assert seen == [True]
