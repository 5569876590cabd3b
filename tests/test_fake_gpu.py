"""The fakes cannot promise what the real modules do not have: names, parameters and values are the same."""

import enum
import inspect
from pathlib import Path
from typing import Any

import fake_gpu
import pytest
from fake_gpu import Gpu, runtime_module
from tensorrt_stubs import process_with_tensorrt

FAKE_RUNTIME = runtime_module(Gpu())
FUNCTIONS = sorted(n for n, f in vars(FAKE_RUNTIME).items() if n.startswith("cuda") and inspect.isfunction(f))
CONSTANTS = sorted(n for n, v in vars(FAKE_RUNTIME).items() if n.startswith("cuda") and isinstance(v, int))
ENUMS = sorted(n for n, v in vars(FAKE_RUNTIME).items() if isinstance(v, enum.EnumMeta))


@pytest.fixture(scope="module")
def cuda() -> Any:
    return pytest.importorskip("cuda.bindings.runtime")


def test_there_is_something_to_compare() -> None:
    assert {"cudaMalloc", "cudaGraphLaunch", "cudaStreamWaitEvent"} <= set(FUNCTIONS)
    assert "cudaStreamNonBlocking" in CONSTANTS
    assert "cudaError_t" in ENUMS


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_the_cuda_runtime(cuda: Any, name: str) -> None:
    real = inspect.signature(getattr(cuda, name)).parameters
    assert list(inspect.signature(getattr(FAKE_RUNTIME, name)).parameters) == list(real)


@pytest.mark.parametrize("name", ["cudaGetDeviceCount", "cudaDriverGetVersion", "cudaMalloc", "cudaFree"])
def test_results_are_tuples_of_an_error_and_values(cuda: Any, name: str) -> None:
    arguments = {"cudaMalloc": (256,), "cudaFree": (0,)}.get(name, ())
    real = getattr(cuda, name)(*arguments)
    assert isinstance(real[0], cuda.cudaError_t)
    if name != "cudaFree":
        assert len(real) == len(getattr(FAKE_RUNTIME, name)(*arguments))


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_of_the_cuda_runtime(cuda: Any, name: str) -> None:
    assert getattr(FAKE_RUNTIME, name) == getattr(cuda, name)


@pytest.mark.parametrize("name", ENUMS)
def test_values_of_the_cuda_runtime(cuda: Any, name: str) -> None:
    for member in getattr(FAKE_RUNTIME, name):
        assert int(getattr(getattr(cuda, name), member.name)) == int(member), member.name


def test_error_codes_name_and_explain_themselves_alike(cuda: Any) -> None:
    code = cuda.cudaError_t.cudaErrorMemoryAllocation
    assert code.name == fake_gpu.cudaError_t.cudaErrorMemoryAllocation.name
    assert cuda.cudaGetErrorString(code)[1] == FAKE_RUNTIME.cudaGetErrorString(code)[1]
    assert not cuda.cudaError_t.cudaSuccess


def test_cudas_handles_are_numbers(cuda: Any) -> None:
    assert int(cuda.cudaStream_t(init_value=7)) == 7


def test_tensorrt_rtx_has_what_the_fake_has() -> None:
    pytest.importorskip("tensorrt_rtx")
    assert fake_gpu.differences("tensorrt_rtx") == []


def test_tensorrt_has_what_the_fake_has(tmp_path: Path) -> None:
    with process_with_tensorrt(tmp_path) as in_tensorrt:
        # TensorRT can capture, and does not say so before.
        assert in_tensorrt(fake_gpu.differences, "tensorrt") == ["IExecutionContext.is_stream_capturable"]
