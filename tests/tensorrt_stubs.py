"""NVIDIA's real Python bindings of TensorRT on a machine that has no TensorRT.

The wheel ``tensorrt_cu13_bindings`` is a few megabytes and links three libraries of gigabytes, of which it
takes nine functions. Stub libraries with these functions, all returning NULL, let it be imported: enums,
signatures and the whole of ``tensorrt.plugin``, which is Python, are then real. Nothing can be built.

That happens in a process of its own, since a stub TensorRT in this one would mislead other tests.
"""

import ctypes
import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BINDINGS = "tensorrt_bindings"
FUNCTIONS = {
    "nvinfer": (
        *(f"createInfer{what}_INTERNAL" for what in ("Builder", "Refitter", "Runtime")),
        *("getBuilderPluginRegistry", "getPluginRegistry"),
    ),
    "nvinfer_plugin": ("initLibNvInferPlugins",),
    "nvonnxparser": (
        *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL"),
        "getNvOnnxParserVersion",
    ),
}

InTensorRT = Callable[..., Any]


@contextmanager
def process_with_tensorrt(folder: Path, nvinfer: Path | None = None) -> Iterator[InTensorRT]:
    """Gives ``run(function, *arguments)``, which runs in a process where ``import tensorrt`` works.

    Functions must be importable by name, arguments and results picklable; errors come back as they are.
    Skips the test, with the reason, where the bindings or a C compiler are missing.

    Args:
        folder: for the stub libraries.
        nvinfer: a library to take in place of the stub of ``libnvinfer``.
    """
    if importlib.util.find_spec(BINDINGS) is None:
        pytest.skip("the real plugin layer needs: pip install tensorrt_cu13_bindings (x86-64 Linux)")
    if not (compiler := shutil.which("cc")):
        pytest.skip("stub libraries need a C compiler (cc)")
    libraries = [str(nvinfer)] if nvinfer else [_stub(compiler, folder, "nvinfer")]
    libraries += [_stub(compiler, folder, library) for library in list(FUNCTIONS)[1:]]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_load, initargs=(libraries,)) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result(timeout=120)


def compile_nvinfer(source: Path, folder: Path) -> Path:
    """A ``libnvinfer`` from a C++ source; skips the test where there are no headers of TensorRT."""
    if not (headers := os.environ.get("TENSORRT_INCLUDE_DIR")):
        pytest.skip(
            "TENSORRT_INCLUDE_DIR is not set: the folder of NvInfer.h, of the version of the bindings"
        )
    if not (compiler := shutil.which("g++")):
        pytest.skip("native tests need g++")
    name = f"libnvinfer.so.{_major_version()}"
    # All that the headers need of CUDA's.
    streams = "typedef struct CUstream_st *cudaStream_t; typedef struct CUevent_st *cudaEvent_t;\n"
    (folder / "cuda_runtime_api.h").write_text(streams)
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{name}"]
    includes = ["-isystem", headers, "-isystem", str(folder)]
    subprocess.run([compiler, *options, *includes, str(source), "-o", str(folder / name)], check=True)
    return folder / name


def _stub(compiler: str, folder: Path, library: str) -> str:
    name = f"lib{library}.so.{_major_version()}"
    source = "".join(f"void *{function}(void) {{ return 0; }}\n" for function in FUNCTIONS[library])
    command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", str(folder / name)]
    subprocess.run(command, input=source, text=True, check=True)
    return str(folder / name)


def _major_version() -> str:
    """The bindings look for libraries of their own version, which is that of their wheel."""
    from importlib.metadata import packages_distributions, version

    return version(packages_distributions()[BINDINGS][0]).split(".")[0]


def _load(libraries: list[str]) -> None:
    for library in libraries:
        ctypes.CDLL(library)  # found again by its soname when the bindings ask for it
    import tensorrt_bindings

    sys.modules["tensorrt"] = tensorrt_bindings  # the wheel `tensorrt` is no more than this alias
    if tensorrt_bindings.get_plugin_registry() is None:
        tensorrt_bindings.get_plugin_registry = Registry()


class Registry:
    """Stands in for ``IPluginRegistry`` and for the function that gives it."""

    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def __call__(self) -> "Registry":
        return self

    def register_creator(self, creator: Any, namespace: str) -> bool:
        self.creators[creator.name, creator.plugin_version, namespace] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators.get((name, version, namespace))
