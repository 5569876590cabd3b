"""The CUDA driver through ctypes: enough to run a kernel on arrays, without torch or a toolkit."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gocor.core.errors import GocorError, ProviderError

LIBRARY = "libcuda.so.1"
LOG_BYTES = 4096
_ERROR_LOG, _ERROR_LOG_BYTES = 5, 6  # of CUjit_option
_SHARED_BYTES, _LOCAL_BYTES, _REGISTERS = 1, 3, 4  # of CUfunction_attribute


class DriverError(GocorError):
    """A call of the CUDA driver failed."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that is loaded, and what the driver made of it.

    Attributes:
        name: entry point.
        registers: of a thread.
        local_bytes: of a thread, in device memory; more than 0 means that registers were spilled.
        shared_bytes: static, of a block.
        function: the driver's handle.
    """

    name: str
    registers: int
    local_bytes: int
    shared_bytes: int
    function: ctypes.c_void_p = field(repr=False, compare=False)


class Driver:
    """The driver's library. Calls go to the device that is current in this thread.

    Args:
        library: its file name.

    Raises:
        ProviderError: there is no such library.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise ProviderError("GPU", f"no CUDA GPU; {library} cannot be loaded", str(error)) from error

    def take_device(self) -> None:
        """Makes the first GPU current, for programs in which nobody else does, as torch would.

        Raises:
            DriverError: there is none.
        """
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def load(self, image: bytes, name: str) -> Kernel:
        """Loads PTX or machine code and finds an entry point in it. It stays loaded.

        Raises:
            DriverError: the driver cannot translate it; the text has what its compiler said.
        """
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        log = ctypes.create_string_buffer(LOG_BYTES)
        options = (ctypes.c_int * 2)(_ERROR_LOG, _ERROR_LOG_BYTES)
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), LOG_BYTES)
        text = ctypes.c_char_p(image)  # ends with a zero byte, as PTX has to
        arguments = (ctypes.byref(module), text, ctypes.c_uint(2), options, values)
        self._call("cuModuleLoadDataEx", *arguments, about=name, log=log)
        self._call("cuModuleGetFunction", ctypes.byref(function), module, name.encode(), about=name)
        return Kernel(
            name,
            self._attribute(_REGISTERS, function),
            self._attribute(_LOCAL_BYTES, function),
            self._attribute(_SHARED_BYTES, function),
            function,
        )

    def launch(
        self,
        kernel: Kernel,
        grid: Sequence[int],
        block: int,
        shared: int,
        stream: int,
        arguments: Sequence[ctypes.c_void_p | ctypes.c_int],
    ) -> None:
        """Enqueues a kernel.

        Args:
            kernel: to be run.
            grid: blocks along x, y and z.
            block: threads of a block.
            shared: bytes of dynamic shared memory.
            stream: the driver's handle; 0 is the default stream.
            arguments: of the kernel.

        Raises:
            DriverError: the driver refuses; a fault inside the kernel shows in a later call.
        """
        addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        sizes = (ctypes.c_uint(n) for n in (*grid, block, 1, 1, shared))
        self._call(
            "cuLaunchKernel",
            kernel.function,
            *sizes,
            ctypes.c_void_p(stream),
            addresses,
            None,
            about=kernel.name,
        )

    def allocate(self, size: int) -> int:
        """Device memory of exactly ``size`` bytes; the address is a multiple of 256."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def free(self, address: int) -> None:
        """Gives device memory back."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copies a contiguous array to the device."""
        source = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), source, ctypes.c_size_t(array.nbytes))

    def download(self, array: np.ndarray, address: int) -> None:
        """Waits for the default stream and copies from the device into a contiguous array."""
        target = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyDtoH_v2", target, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))

    def synchronize(self) -> None:
        """Waits for everything.

        Raises:
            DriverError: something that was enqueued went wrong.
        """
        self._call("cuCtxSynchronize")

    def _attribute(self, number: int, function: ctypes.c_void_p) -> int:
        value = ctypes.c_int()
        self._call("cuFuncGetAttribute", ctypes.byref(value), ctypes.c_int(number), function)
        return value.value

    def _call(
        self, name: str, *arguments: object, about: str = "", log: ctypes.Array[ctypes.c_char] | None = None
    ) -> None:
        code = getattr(self._library, name)(*arguments)
        if code == 0:
            return
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(ctypes.c_int(code), ctypes.byref(text))
        said = (log.value if log else b"").decode(errors="replace")
        reason = (text.value or b"unknown").decode(errors="replace")
        raise DriverError(about or "CUDA driver", f"{name} failed: error {code}, {reason}", said)
