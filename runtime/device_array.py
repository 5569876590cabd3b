"""Tensors that stay on the GPU: the results of an engine, and what callers give it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gocor.core.errors import ShapeError
from gocor.runtime import cuda, dlpack
from gocor.runtime.metadata import TensorSpec

ALIGNMENT = 256  # bytes; what TensorRT asks of every address
_NO_WAITING = -1  # DLPack: the consumer does without an order of streams


class DeviceArray:
    """A float32 array in a GPU's memory, which it owns.

    ``torch.from_dlpack(array)``, ``cupy.from_dlpack(array)`` and ``__cuda_array_interface__`` take it without
    a copy; ``numpy()`` copies it to the host.

    Attributes:
        shape: sizes; the array is contiguous.
        dtype: ``float32``.
        device: index of the GPU.
    """

    dtype = np.dtype("float32")

    def __init__(self, shape: tuple[int, ...], device: int, stream: cuda.BorrowedStream | None) -> None:
        """Allocates it on the current device, which must be ``device``.

        With a stream its values are there in the order of that stream, and so does its memory go: work of
        another stream that uses it must be done, or awaited by this one, before the array is dropped.
        Without one its values are there at once, and dropping it waits for all work of the GPU.
        """
        self.shape, self.device, self._stream = shape, device, stream
        self._memory = cuda.StreamMemory(self.nbytes, stream) if stream else cuda.DeviceMemory(self.nbytes)

    @property
    def pointer(self) -> int:
        """Address of the first value."""
        return self._memory.pointer

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def numpy(self) -> np.ndarray:
        """A copy in main memory; waits for the values."""
        array = np.empty(self.shape, self.dtype)
        with cuda.on_device(self.device):
            stream = cuda.Stream()
            self._let_wait(int(stream.handle))
            cuda.copy(array.ctypes.data, self.pointer, self.nbytes, stream.handle)
            stream.synchronize()
            stream.close()
        return array

    def __repr__(self) -> str:
        return f"<DeviceArray float32 {self.shape} on cuda:{self.device}>"

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's name of the GPU."""
        return dlpack.CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule; ``stream`` will wait for the values (-1: it need not).

        Raises:
            BufferError: a copy, or another device, was asked for.
        """
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("gives its own memory only; numpy() copies to the host")
        if stream != _NO_WAITING:
            with cuda.on_device(self.device):
                self._let_wait(stream or cuda.LEGACY_STREAM)
        versioned = max_version is not None and max_version[0] >= dlpack.VERSION[0]
        return dlpack.make_capsule(
            self, self.pointer, self.shape, self.__dlpack_device__(), versioned=versioned
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of Numba's interface, which CuPy and PyTorch know, too."""
        stream = None if self._stream is None else int(self._stream.handle) or cuda.LEGACY_STREAM
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "stream": stream,
            "version": 3,
        }

    def _let_wait(self, stream: int) -> None:
        """Lets a stream wait for the values."""
        if self._stream is None or stream == (int(self._stream.handle) or cuda.LEGACY_STREAM):
            return
        event = cuda.Event()
        event.record(self._stream.handle)
        event.hold(stream)
        event.close()  # what waits for it already still does


@dataclass(frozen=True)
class BorrowedTensor:
    """A caller's tensor on the GPU; its memory stays as long as this does.

    Attributes:
        pointer: address of the first element.
    """

    pointer: int
    _capsule: object = field(repr=False)


def borrow(
    name: str, tensor: Any, spec: TensorSpec, device: int, stream: int, *, write: bool = False
) -> BorrowedTensor:
    """Takes a tensor of the caller as it is, without a copy, once its values are there for a stream.

    Args:
        name: for errors.
        tensor: with ``__dlpack__``, in the memory of the GPU, contiguous.
        spec: dtype and shape that it must have.
        device: index of the GPU.
        stream: handle of the stream that will use it.
        write: it is to be written to.

    Raises:
        ShapeError: wrong kind, device, dtype, shape or strides.
    """
    expected = f"a contiguous {spec.dtype} tensor {spec.shape} on cuda:{device}"
    if not (hasattr(tensor, "__dlpack__") and hasattr(tensor, "__dlpack_device__")):
        raise ShapeError(name, f"is a {type(tensor).__name__} without __dlpack__", expected)
    kind, index = map(int, tensor.__dlpack_device__())
    if (kind, index) != (dlpack.CUDA, device):
        where = {dlpack.CPU: "in main memory", dlpack.CUDA: f"on cuda:{index}"}
        came = where.get(kind, f"on another kind of device ({kind})")
        raise ShapeError(name, f"is {came}", expected)
    capsule = _capsule_of(name, tensor, stream or cuda.LEGACY_STREAM)
    view = dlpack.read_capsule(capsule)
    if (view.dtype, view.shape) != (spec.dtype, spec.shape):
        raise ShapeError(name, f"is {view.dtype} {view.shape}", expected)
    if not view.contiguous:
        raise ShapeError(name, "is not contiguous", f"{expected}, as .contiguous() gives")
    if view.pointer % ALIGNMENT:
        got = f"starts at an address that is no multiple of {ALIGNMENT}"
        raise ShapeError(name, got, "a tensor of its own, as .clone() gives")
    if write and view.read_only:
        raise ShapeError(name, "is read-only", "a tensor to write to")
    return BorrowedTensor(view.pointer, capsule)


def _capsule_of(name: str, tensor: Any, stream: int) -> object:
    try:
        try:
            return tensor.__dlpack__(stream=stream, max_version=dlpack.VERSION)
        except TypeError:  # made before DLPack 1.0
            return tensor.__dlpack__(stream=stream)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ShapeError(name, f"cannot be taken ({reason})", "a plain tensor, as .detach() gives") from error
