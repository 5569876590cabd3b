"""``libgocor.so`` for tests: building it with CMake, and its C interface by way of ctypes."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "tests/runtime/cpp"
OK, INVALID_ARGUMENT, BAD_IMAGE, BAD_MODEL, UNAVAILABLE, FAILED = range(6)
RGB, BGR = range(2)


def run(command: list[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"text": True, "encoding": "utf-8", "timeout": 600} | options
    return subprocess.run(list(map(str, command)), capture_output=True, **options)


def cmake(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which(
        "cmake", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    )
    if not program:
        pytest.skip("cmake is missing: pip install cmake")
    if not shutil.which("c++"):
        pytest.skip("a C++ compiler (c++) is missing")
    return run([program, *arguments])


def build(source: Path, folder: Path, *options: str) -> Path:
    for arguments in (("-S", source, "-B", folder, *options), ("--build", folder, "--parallel", "2")):
        done = cmake(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Options(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t), ("threads", ctypes.c_int32), ("parallel", ctypes.c_int32),
        ("plugin_library", ctypes.c_char_p),
    )  # fmt: skip


class Info(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("height", "width", "batch", "orientation_score", "int8")),
        *((name, ctypes.c_char_p) for name in ("network", "backend", "precision", "gocor_version")),
    )


class Image(ctypes.Structure):
    _fields_ = (
        ("pixels", ctypes.c_void_p), ("height", ctypes.c_int32), ("width", ctypes.c_int32),
        ("row_stride", ctypes.c_ssize_t), ("order", ctypes.c_int),
    )  # fmt: skip


def image(array: np.ndarray, order: int = RGB) -> Image:
    return Image(array.ctypes.data, *array.shape[:2], array.strides[0], order)


def images(arrays: np.ndarray) -> Any:
    return (Image * len(arrays))(*map(image, arrays))


class RefusedError(Exception):
    """A status and the line of text that came with it."""


class Library:
    """``gocor.h`` by way of ctypes, which lets other threads run meanwhile."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.gocor_last_error.restype = ctypes.c_char_p
        self._library.gocor_version.restype = ctypes.c_char_p
        self._library.gocor_get_info.restype = ctypes.POINTER(Info)
        self._library.gocor_get_info.argtypes = [ctypes.c_void_p]
        self._library.gocor_release.argtypes = [ctypes.c_void_p]
        self._library.gocor_estimate.argtypes = [
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
            *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
        ]

    @property
    def version(self) -> str:
        return self._library.gocor_version().decode()

    def call(self, function: str, *arguments: object) -> None:
        """Calls a function that returns a status."""
        status = getattr(self._library, f"gocor_{function}")(*arguments)
        text = self._library.gocor_last_error().decode()
        assert "\n" not in text
        if status != OK:
            raise RefusedError(status, text)
        assert text == ""

    def load(self, path: Path, options: Options | None = None) -> "Estimator":
        handle = ctypes.c_void_p(1)
        try:
            self.call("create", os.fsencode(path), options and ctypes.byref(options), ctypes.byref(handle))
        except RefusedError:
            assert handle.value is None
            raise
        return Estimator(self, handle)


class Estimator:
    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        self.library, self.handle = library, handle

    @property
    def info(self) -> Info:
        return self.library._library.gocor_get_info(self.handle).contents

    def __call__(
        self, references: Any, queries: Any, count: int = 1, scores: np.ndarray | None = None
    ) -> Any:
        one = references if isinstance(references, Image) or not count else references[0]
        size = (one.height, one.width) if count else (1, 1)
        flow = np.full((count, 2, *size), np.nan, np.float32)
        self.library.call(
            *("estimate", self.handle, ctypes.byref(references), ctypes.byref(queries), count),
            *(flow.ctypes.data, flow.size, None if scores is None else scores.ctypes.data),
        )
        return flow

    def release(self) -> None:
        self.library._library.gocor_release(self.handle)


def refusal(run: Callable[[], object], status: int) -> str:
    with pytest.raises(RefusedError) as caught:
        run()
    assert caught.value.args[0] == status
    return caught.value.args[1]
