"""CUDA C++ to PTX through NVRTC 12.4: no GPU, no driver, no CUDA toolkit and no headers, only one wheel.

The version is a choice, not a leftover: an engine carries the PTX, and the driver that loads it must know the
PTX version. NVRTC 12.4 writes 8.4, which drivers since 550 (March 2024) read; 13.5 writes 9.5, which the
ptxas of CUDA 13.0 already refuses.
"""

import contextlib
import ctypes
import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path

from gocor.core.errors import DependencyError, ModelError

VERSION = (12, 4)
WHEEL = "nvidia-cuda-nvrtc-cu12"
LIBRARY = "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
INSTALL = 'pip install "nvidia-cuda-nvrtc-cu12==12.4.*"'


class Nvrtc:
    """The library, loaded and of the right version.

    Raises:
        DependencyError: the wheel is missing, or of another version than 12.4.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(_library()))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        check_version((major.value, minor.value))

    def compile(self, source: str, name: str, options: Sequence[str] = ()) -> str:
        """PTX of a translation unit.

        Args:
            source: CUDA C++.
            name: of the unit in messages. It ends up in the PTX, so it must not depend on the machine.
            options: of NVRTC.

        Raises:
            ModelError: the source does not compile; the text ends with the compiler's first error.
        """
        program = ctypes.c_void_p()
        created = self._library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), name.encode(), 0, None, None
        )
        if created != 0:
            raise ModelError(name, f"NVRTC made no program of it (error {created})")
        try:
            array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            with _locale_kept():
                failure = self._library.nvrtcCompileProgram(program, len(options), array)
            if failure != 0:
                raise ModelError(name, "does not compile", _first_error(self._text(program, "ProgramLog")))
            return self._text(program, "PTX")
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, what: str) -> str:
        size = ctypes.c_size_t()
        getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self._library, f"nvrtcGet{what}")(program, buffer)
        return buffer.value.decode()


@contextlib.contextmanager
def _locale_kept() -> Iterator[None]:
    """NVRTC 12.4 leaves its thread in the locale "C", where Python then reads files as ASCII."""
    uselocale = ctypes.CDLL(None).uselocale
    uselocale.argtypes, uselocale.restype = [ctypes.c_void_p], ctypes.c_void_p
    before = uselocale(None)
    try:
        yield
    finally:
        uselocale(before)


def check_version(version: tuple[int, int]) -> None:
    """Raises DependencyError unless NVRTC is the version whose PTX we ship."""
    if version != VERSION:
        found = "{}.{}".format(*version)
        raise DependencyError("NVRTC", f"is {found}, whose PTX many drivers refuse", f"12.4: {INSTALL}")


def _library() -> Path:
    try:
        located = Path(str(importlib.metadata.distribution(WHEEL).locate_file(LIBRARY)))
    except importlib.metadata.PackageNotFoundError as error:
        raise DependencyError(WHEEL, "is not installed", INSTALL) from error
    if not located.exists():
        raise DependencyError(WHEEL, f"lacks {LIBRARY}", INSTALL)
    return located


def _first_error(log: str) -> str:
    return next((line for line in log.splitlines() if "error" in line), log[:200])
