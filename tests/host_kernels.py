"""The kernels compiled for this CPU by g++, with the shim in plugins/native/host."""

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from gocor.plugins.registry import KERNELS
from gocor.plugins.schema import OpSchema

PLUGINS = Path(__file__).parents[1] / "plugins"
HARNESS = Path(__file__).parent / "plugins" / "native"
OLDEST_GCC = 12  # has _Float16


class Problem(ctypes.Structure):
    """``gocor::Problem``."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("batch", "channels", "height", "width", "radius")),
        ("half", ctypes.c_bool),
        ("iterations", ctypes.c_int),
    )


class Geometry(ctypes.Structure):
    """``gocor::Geometry``, flat."""

    _fields_ = (
        ("kernel", ctypes.c_char * 64),
        ("grid", ctypes.c_int * 3),
        ("threads", ctypes.c_int),
        ("shared", ctypes.c_int),
        ("inputs", ctypes.c_int),
        ("count", ctypes.c_int),
        ("numbers", ctypes.c_int * 5),
    )


def compile_host(
    target: Path, sources: Sequence[Path], flags: Sequence[str] = (), plugins: Path = PLUGINS
) -> Path:
    """Compiles ``sources`` and the kernels in ``plugins`` to a program or a library; skips without g++."""
    if not (compiler := shutil.which("g++")):
        pytest.skip("kernels run on the CPU only where there is g++")
    version = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True, check=True).stdout
    if int(version.split(".")[0]) < OLDEST_GCC:
        pytest.skip(f"g++ {version.strip()} has no _Float16; kernels run on the CPU from g++ {OLDEST_GCC} on")
    every = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{plugins}"]
    inputs = [plugins / "native/host/launch.cpp", *sources]
    command = [compiler, *every, *flags, *map(str, inputs), "-o", str(target)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return target


class HostKernels:
    """All kernels in one library.

    Args:
        path: of the library, made from ``table.cpp``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _library(self) -> ctypes.CDLL:
        library = ctypes.CDLL(str(self.path))
        problem = ctypes.POINTER(Problem)
        library.gocor_run.argtypes = [ctypes.c_int, problem, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p]
        library.gocor_run.restype = ctypes.c_char_p
        library.gocor_geometry.argtypes = [ctypes.c_int, problem, ctypes.POINTER(Geometry)]
        library.gocor_geometry.restype = None
        library.gocor_multiply.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_bool]
        library.gocor_multiply.restype = None
        return library

    def run(
        self, schema: OpSchema, problem: Problem, inputs: Sequence[np.ndarray], out: np.ndarray
    ) -> str | None:
        """Runs a kernel on contiguous arrays; gives what went wrong."""
        assert all(array.flags.c_contiguous for array in (*inputs, out))
        addresses = (ctypes.c_void_p * len(inputs))(*(array.ctypes.data for array in inputs))
        failure = self._library.gocor_run(_number(schema), ctypes.byref(problem), addresses, out.ctypes.data)
        return failure.decode() if failure else None

    def geometry(self, schema: OpSchema, problem: Problem) -> Geometry:
        """What ``launch.h`` says."""
        geometry = Geometry()
        self._library.gocor_geometry(_number(schema), ctypes.byref(problem), ctypes.byref(geometry))
        return geometry

    def multiply(self, a: np.ndarray, b: np.ndarray, loaded: bool) -> np.ndarray:
        """Product (16, 8) of float16 matrices (16, 16) and (16, 8) by the tensor-core operation."""
        product = np.empty((16, 8), np.float32)
        self._library.gocor_multiply(a.ctypes.data, b.ctypes.data, product.ctypes.data, loaded)
        return product


def _number(schema: OpSchema) -> int:
    return list(KERNELS).index(schema.name)
