"""``libgocor.so`` with TensorRT on machines without it: stand-ins for its library and CUDA's, and engines."""

import ctypes
import hashlib
import os
import re
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cpp_library import NATIVE, build
from fake_gpu import engine_of
from sampler_models import save_sampler

from gocor.runtime.metadata import ORIENTATION_SCORE, ModelMetadata

CLASSES = {  # what the stand-in implements, and the classes of TensorRT's headers that have it
    "Runtime": ("IRuntime", "apiv::VRuntime"),
    "Engine": ("ICudaEngine", "apiv::VCudaEngine"),
    "Context": ("IExecutionContext", "apiv::VExecutionContext"),
    "Registry": ("IPluginRegistry",),
}


def headers() -> str:
    """The folder of TensorRT's headers; skips the test where there is none."""
    if not (folder := os.environ.get("TENSORRT_INCLUDE_DIR")):
        pytest.skip(
            "no TensorRT headers (github.com/NVIDIA/TensorRT): make test-native TENSORRT_INCLUDE_DIR=…"
        )
    return folder


def write_defaults(path: Path, folder: str) -> None:
    """Writes a header with a class for each of ``CLASSES`` all of whose functions end the program.

    The list of what is to be overridden differs from version to version, so that it is read from the headers.
    """
    text = "".join(file.read_text(encoding="utf-8") for file in sorted(Path(folder).glob("NvInfer*.h")))
    lines = [
        "#pragma once",
        "#include <NvInferRuntime.h>",
        "#include <cstdio>",
        "#include <cstdlib>",
        '#pragma GCC diagnostic ignored "-Wunused-parameter"',
        "namespace nvinfer1 {",
        "[[noreturn]] inline void not_here(char const* what) {",
        '    std::fprintf(stderr, "not in the fake TensorRT: %s\\n", what);',
        "    std::abort();",
        "}",
    ]
    for name, bases in CLASSES.items():
        lines.append(f"class {name}Defaults : {', '.join(f'public {base}' for base in bases)} {{\npublic:")
        body = re.search(
            rf"^class {bases[-1].removeprefix('apiv::')}\b[^;{{]*\n{{\n(.*?)\n}};",
            text,
            re.MULTILINE | re.DOTALL,
        )
        assert body, f"{bases[-1]} is not in TensorRT's headers"
        for function in re.findall(r"virtual ([^~;]*?) = 0;", body[1]):
            what = re.sub(r"\s+", " ", function.replace("TRT_NODISCARD", ""))
            what = re.sub(r" = [^,)]*(?=[,)])", "", what)  # defaults of arguments stay the base's
            lines.append(f'    {what} override {{ not_here("{name}: {what.split("(")[0].split()[-1]}"); }}')
        lines.append("};")
    path.write_text("\n".join([*lines, "}  // namespace nvinfer1", ""]), encoding="utf-8")


def build_with_gpu(folder: Path, *options: str) -> Path:
    """Builds the stand-ins, the library with TensorRT, and the harnesses; returns their folder."""
    include = headers()
    fakes = folder / "fakes"
    fakes.mkdir()
    write_defaults(fakes / "defaults.h", include)
    common = (
        f"-DTENSORRT_INCLUDE_DIR={include}",
        f"-DNVIDIA_WHEELS={sysconfig.get_path('purelib')}/nvidia",
        *options,
    )
    build(NATIVE / "fake_gpu", fakes, f"-DDEFAULTS_FOLDER={fakes}", *common)
    with_gpu = ("-DGOCOR_BACKENDS=tensorrt", f"-DGOCOR_FAKE_GPU={fakes}")
    return build(
        NATIVE, folder / "library", f"-DTENSORRT_LIBRARY={fakes / 'libnvinfer.so'}", *with_gpu, *common
    )


def save_engine(path: Path, described: ModelMetadata, lines: tuple[str, ...] = (), **changes: Any) -> Path:
    """Writes an engine of the stand-in, which computes what ``save_sampler``'s model beside it does.

    Args:
        path: of the engine.
        described: the model.
        lines: of the engine besides its inputs and outputs: see ``fake_tensorrt.cpp``.
        changes: of the manifest.
    """
    model = save_sampler(path.with_suffix(".onnx"), described)
    shapes = dict.fromkeys(described.output_names, described.flow.shape)
    shapes |= {ORIENTATION_SCORE: described.flow.shape[:1]}
    plan = ["FAKE", *lines]
    plan += [f"input {spec.name} {spec.dtype} {_sizes(spec.shape)}" for spec in described.inputs]
    plan += [f"output {name} {_sizes(shapes[name])}" for name in described.output_names]
    content = "\n".join([*plan, ""]).encode()
    hashed = {"engine_sha256": hashlib.sha256(content).hexdigest()}
    engine_of(model, path, described, **(hashed | changes))
    path.write_bytes(content)
    return path


def _sizes(shape: tuple[int | str, ...]) -> str:
    return " ".join(str(-1 if isinstance(size, str) else size) for size in shape)


class FakeGpu:
    """The stand-in for CUDA, in this process."""

    def __init__(self, folder: Path) -> None:
        self.cuda = ctypes.CDLL(str(folder / "fakes/libcudart.so"))
        self.cuda.fake_problems.restype = ctypes.c_char_p
        self.cuda.cudaFree.argtypes = [ctypes.c_void_p]
        self.cuda.cudaStreamSynchronize.argtypes = [ctypes.c_void_p]
        self.cuda.cudaStreamDestroy.argtypes = [ctypes.c_void_p]

    @contextmanager
    def fresh(self, devices: int = 1, capability: tuple[int, int] = (9, 0)) -> Iterator[None]:
        """Nothing on it before; after it, nothing was wrong and nothing is left."""
        self.cuda.fake_reset(devices, *capability)
        yield
        assert self.cuda.fake_problems().decode() == ""
        assert self.cuda.fake_alive() == 0

    def fail(self, function: str, skip: int = 0) -> None:
        self.cuda.fake_fail(function.encode(), skip)

    def allocate(self, content: bytes) -> int:
        """Memory on the GPU, which has ``content`` already."""
        address = ctypes.c_void_p()
        assert self.cuda.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(len(content))) == 0
        assert address.value
        ctypes.memmove(address.value, content, len(content))
        return address.value

    def stream(self) -> int:
        handle = ctypes.c_void_p()
        assert self.cuda.cudaStreamCreateWithFlags(ctypes.byref(handle), 1) == 0
        assert handle.value
        return handle.value
