"""The CUDA runtime through cuda-python: its errors as exceptions; memory, streams and graphs that clean up.

Everything here belongs to the device that is current when it is made, and is given back by ``close()`` or, if
nobody calls that, with the object.
"""

import contextlib
import ctypes
import importlib
import re
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gocor.core.errors import DependencyError, GocorError, ProviderError
from gocor.core.garbage import no_garbage_collection

LEGACY_STREAM, PER_THREAD_STREAM = 1, 2  # CUDA's own names for its two default streams
_DEVICE, _NO_DRIVER = "GPU", "no NVIDIA driver is installed on this machine"
_SEE = "nvidia-smi shows what the driver sees"


class CudaError(GocorError):
    """The GPU, or a library that runs on it, failed."""

    @property
    def out_of_memory(self) -> bool:
        """There was too little of the GPU's memory."""
        return bool(re.search(r"out ?of ?memory|MemoryAllocation|not be allocated", self.got, re.IGNORECASE))


def import_cuda() -> Any:
    """The module ``cuda.bindings.runtime``.

    Raises:
        DependencyError: cuda-python is not installed, or too old.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        hint = 'pip install "gocor-deploy[tensorrt]" (or [rtx])'
        raise DependencyError("cuda-python", f"cannot be imported ({reason})", hint) from error


def check(outcome: tuple[Any, ...]) -> Any:
    """Result of a call of the CUDA runtime, which are tuples of an error code and values.

    Raises:
        CudaError: the code is one of an error.
    """
    code, *values = outcome
    if code:
        raise CudaError("CUDA", f"{code.name} ({_words(code)})", "see gocor doctor")
    return values[0] if len(values) == 1 else tuple(values)


def _words(code: Any) -> str:
    return import_cuda().cudaGetErrorString(code)[1].decode()


def current_device() -> int:
    """Index of the GPU that is current in this thread.

    Raises:
        DependencyError: cuda-python is not installed.
        ProviderError: there is no driver, or no GPU.
    """
    cuda = import_cuda()
    try:
        code, count = cuda.cudaGetDeviceCount()
    except RuntimeError as error:  # cuda-python 12, where there is no libcuda.so.1
        raise ProviderError(_DEVICE, _NO_DRIVER, _SEE) from error
    if code or not count:
        raise ProviderError(_DEVICE, _why_none(cuda, code), _SEE)
    return check(cuda.cudaGetDevice())


def _why_none(cuda: Any, code: Any) -> str:
    driver = cuda.cudaDriverGetVersion()[1]
    if not driver:
        return _NO_DRIVER
    if code.name == "cudaErrorInsufficientDriver":
        needed = cuda.cudaRuntimeGetVersion()[1]
        return (
            f"the driver is made for CUDA {_version(driver)} and cuda-python for CUDA {_version(needed)}; "
            f'update the driver, or pip install "cuda-python=={driver // 1000}.*"'
        )
    return f"none can be used ({_words(code) if code else 'the driver finds none'})"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def compute_capability(device: int) -> str:
    """Of a GPU, as ``sm_90``."""
    cuda = import_cuda()
    names = cuda.cudaDeviceAttr
    attributes = (names.cudaDevAttrComputeCapabilityMajor, names.cudaDevAttrComputeCapabilityMinor)
    major, minor = (check(cuda.cudaDeviceGetAttribute(name, device)) for name in attributes)
    return f"sm_{major}{minor}"


@contextlib.contextmanager
def on_device(device: int) -> Iterator[None]:
    """Makes a GPU the current one of this thread while the block runs; every thread starts with GPU 0."""
    cuda = import_cuda()
    before = check(cuda.cudaGetDevice())
    if before == device:
        yield
        return
    check(cuda.cudaSetDevice(device))
    try:
        yield
    finally:
        check(cuda.cudaSetDevice(before))


class _Owned:
    """Something of CUDA's that is given back once.

    Attributes:
        handle: as CUDA knows it.
    """

    def __init__(self, handle: Any, free: Callable[..., object], *arguments: object) -> None:
        self.handle = handle
        # At the end of the process the driver gives everything back, and is in no state to be asked.
        self._free = weakref.finalize(self, free, handle, *arguments)
        self._free.atexit = False

    @property
    def closed(self) -> bool:
        """It was given back."""
        return not self._free.alive

    def close(self) -> None:
        """Gives it back, now."""
        self._free()


class DeviceMemory(_Owned):
    """Memory of the GPU; to free it waits for all work there."""

    def __init__(self, size: int) -> None:
        cuda = import_cuda()
        super().__init__(check(cuda.cudaMalloc(size)), cuda.cudaFree)

    @property
    def pointer(self) -> int:
        """Address."""
        return int(self.handle)


class StreamMemory(_Owned):
    """Memory of the GPU that is there, and goes, in the order of a stream, without waiting.

    ``stream`` is kept until then.
    """

    def __init__(self, size: int, stream: "Stream | BorrowedStream") -> None:
        cuda = import_cuda()
        handle = check(cuda.cudaMallocAsync(size, stream.handle))
        super().__init__(handle, _free_in_order, cuda, stream)

    @property
    def pointer(self) -> int:
        """Address."""
        return int(self.handle)


def _free_in_order(pointer: Any, cuda: Any, stream: "Stream | BorrowedStream") -> None:
    cuda.cudaFreeAsync(pointer, stream.handle)


class PinnedArray(_Owned):
    """A NumPy array in memory that the GPU copies from and to by itself.

    Attributes:
        array: valid until ``close()``.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        cuda = import_cuda()
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        super().__init__(check(cuda.cudaHostAlloc(size, cuda.cudaHostAllocDefault)), cuda.cudaFreeHost)
        memory = (ctypes.c_uint8 * size).from_address(int(self.handle))
        self.array: np.ndarray = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    @property
    def pointer(self) -> int:
        """Address."""
        return int(self.handle)


class BorrowedStream:
    """A stream of somebody else, who keeps it alive.

    Args:
        stream: its handle, or an object with ``__cuda_stream__``, which is kept.

    Raises:
        TypeError: it is neither.
    """

    def __init__(self, stream: object) -> None:
        if isinstance(stream, int):
            self.handle = stream
        elif hasattr(stream, "__cuda_stream__"):
            protocol = stream.__cuda_stream__
            self.handle = int((protocol() if callable(protocol) else protocol)[1])
        else:
            raise TypeError(f"{type(stream).__name__} has no __cuda_stream__")
        self._kept = stream


class Stream(_Owned):
    """A stream that does not wait for the default stream."""

    def __init__(self) -> None:
        cuda = import_cuda()
        stream = check(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        super().__init__(stream, cuda.cudaStreamDestroy)

    def synchronize(self) -> None:
        """Waits until all its work is done."""
        check(import_cuda().cudaStreamSynchronize(self.handle))


class Event(_Owned):
    """A point in the work of a stream."""

    def __init__(self) -> None:
        cuda = import_cuda()
        event = check(cuda.cudaEventCreateWithFlags(cuda.cudaEventDisableTiming))
        super().__init__(event, cuda.cudaEventDestroy)

    def record(self, stream: Any) -> None:
        """The point is behind all work that the stream has now."""
        check(import_cuda().cudaEventRecord(self.handle, stream))

    def hold(self, stream: Any) -> None:
        """Work that the stream gets from now on starts behind the point."""
        check(import_cuda().cudaStreamWaitEvent(stream, self.handle, 0))

    def synchronize(self) -> None:
        """Waits until the point is reached."""
        check(import_cuda().cudaEventSynchronize(self.handle))


class Graph(_Owned):
    """Work that was captured, to be launched as one.

    Args:
        stream: to capture on; it must not be a default stream.
        work: enqueues the work on it. Nothing of it is done yet.

    Raises:
        CudaError: the work cannot be captured.
        Exception: what ``work`` raises.
    """

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        cuda = import_cuda()
        # Calls of other threads, an allocation for example, must not spoil it, nor be errors in their turn.
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        with no_garbage_collection():  # it could free memory of the GPU, which spoils a capture
            check(cuda.cudaStreamBeginCapture(stream.handle, mode))
            try:
                work()
            except BaseException:
                _drop_graph(cuda, cuda.cudaStreamEndCapture(stream.handle))
                raise
            captured = cuda.cudaStreamEndCapture(stream.handle)
        graph = check(captured)
        try:
            super().__init__(check(cuda.cudaGraphInstantiate(graph, 0)), cuda.cudaGraphExecDestroy)
        finally:
            _drop_graph(cuda, captured)

    def launch(self, stream: Any) -> None:
        """Enqueues all of it on any stream."""
        check(import_cuda().cudaGraphLaunch(self.handle, stream))


def _drop_graph(cuda: Any, captured: tuple[Any, Any]) -> None:
    code, graph = captured
    if not code:
        cuda.cudaGraphDestroy(graph)


def copy(destination: int, source: int, size: int, stream: Any) -> None:
    """Enqueues a copy; the driver sees from the addresses where they are."""
    cuda = import_cuda()
    check(cuda.cudaMemcpyAsync(destination, source, size, cuda.cudaMemcpyKind.cudaMemcpyDefault, stream))


def is_capturing(stream: Any) -> bool:
    """Whether work on a stream is being captured into a graph at the moment."""
    if int(stream) in (0, LEGACY_STREAM, PER_THREAD_STREAM):  # they cannot be
        return False
    cuda = import_cuda()
    status = check(cuda.cudaStreamIsCapturing(stream))
    return bool(status != cuda.cudaStreamCaptureStatus.cudaStreamCaptureStatusNone)
