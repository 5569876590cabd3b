"""The fakes cannot promise what the real modules do not have: names, parameters and values are the same."""

import enum
import inspect
import re
from collections.abc import Callable
from typing import Any

import fake_gpu
import pytest
from fake_gpu import Gpu, runtime_module, tensorrt_module

FAKE_RUNTIME = runtime_module(Gpu())
FUNCTIONS = sorted(n for n, f in vars(FAKE_RUNTIME).items() if n.startswith("cuda") and inspect.isfunction(f))
CONSTANTS = sorted(n for n, v in vars(FAKE_RUNTIME).items() if n.startswith("cuda") and isinstance(v, int))
ENUMS = sorted(n for n, v in vars(FAKE_RUNTIME).items() if isinstance(v, enum.EnumMeta))
CLASSES = (
    "ILogger", "Runtime", "ICudaEngine", "IExecutionContext", "DataType", "TensorIOMode", "PluginRegistry",
)  # fmt: skip


@pytest.fixture(scope="module")
def cuda() -> Any:
    return pytest.importorskip("cuda.bindings.runtime")


@pytest.fixture(scope="module")
def tensorrt() -> Any:
    return pytest.importorskip("tensorrt_rtx")


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


def overloads(method: Any) -> list[list[str]]:
    """Parameter names of a method, from what pybind writes into its docstring."""
    found = re.findall(rf"^(?:\d+\. )?{method.__name__}\(self: [^)]*\) -> .*$", method.__doc__, re.MULTILINE)
    return [re.findall(r"[(,] ?(\w+): ", line)[1:] for line in found]


@pytest.mark.parametrize("name", CLASSES)
def test_classes_of_tensorrt(tensorrt: Any, name: str) -> None:
    fake = getattr(fake_gpu, name)
    if name == "PluginRegistry":
        name = "IPluginRegistry"
    real = getattr(tensorrt, name)
    if isinstance(fake, enum.EnumMeta):
        assert {m.name for m in fake} <= set(real.__members__)
        assert all(int(real.__members__[m.name]) == m.value for m in fake)
        return
    own = {"compute", "alone", "infer", "say"}
    for attribute, value in vars(fake).items():
        if attribute.startswith("_") or attribute in {*own, "gpu"}:
            continue
        assert hasattr(real, attribute), attribute
        if inspect.isfunction(value):
            compare(attribute, value, getattr(real, attribute))


def compare(name: str, fake: Callable[..., Any], real: Any) -> None:
    parameters = list(inspect.signature(fake).parameters)[1:]
    known = overloads(real)
    assert known, f"{name}: no signature in {real.__doc__!r}"
    # Defaults may be left out.
    assert any(parameters == other[: len(parameters)] for other in known), f"{name}: {parameters} {known}"


def test_functions_of_tensorrt(tensorrt: Any) -> None:
    fake = tensorrt_module(Gpu(), "tensorrt_rtx", "1.7.1.116")
    for dtype in fake_gpu.DataType:
        assert tensorrt.nptype(getattr(tensorrt, dtype.name.lower(), None) or tensorrt.DataType(dtype.value))
    public = {n for n in vars(fake) if not n.startswith("_")}
    assert all(hasattr(tensorrt, name) for name in public)
    assert fake.nptype(fake_gpu.DataType.UINT8) == tensorrt.nptype(tensorrt.DataType.UINT8)


def test_severities_of_tensorrt(tensorrt: Any) -> None:
    for severity in fake_gpu.Severity:
        assert int(tensorrt.ILogger.Severity.__members__[severity.name]) == severity
        assert getattr(tensorrt.ILogger, severity.name) == getattr(tensorrt.ILogger.Severity, severity.name)
