import logging
import sys
from types import ModuleType

import pytest

from gocor.core.errors import DependencyError
from gocor.runtime.manifest import Backend
from gocor.runtime.tensorrt_library import import_library, library_log, plain


def refusal(backend: Backend) -> str:
    with pytest.raises(DependencyError) as caught:
        import_library(backend)
    return str(caught.value)


@pytest.mark.parametrize(
    ("backend", "module", "name", "extra"),
    [
        ("tensorrt", "tensorrt", "TensorRT", "tensorrt"),
        ("tensorrt-rtx", "tensorrt_rtx", "TensorRT-RTX", "rtx"),
    ],
)
def test_a_library_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, module: str, name: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    text = refusal(backend)
    assert text.startswith(f"{name}: cannot be imported (")
    assert text.endswith(f'); pip install "gocor-deploy[{extra}]"')


def test_a_library_without_its_shared_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    assert refusal("tensorrt") == (
        'TensorRT: is installed without its libraries; pip install "gocor-deploy[tensorrt]", '
        "on a machine with network"
    )


@pytest.mark.parametrize("version", ["8.6.2", "10.3.0", "10.8.0.43"])
def test_old_libraries_are_refused_by_name_and_version(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    library = ModuleType("tensorrt")
    library.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    assert refusal("tensorrt") == (
        f"TensorRT: {version} is too old; 10.9 or later is needed (JetPack 6 has an older one): "
        'pip install "gocor-deploy[tensorrt]"'
    )


@pytest.mark.parametrize("version", ["10.9.0.34", "10.14.1", "11.4.0.106"])
def test_newer_libraries_are_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    library = ModuleType("tensorrt")
    library.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    assert import_library("tensorrt") is library


def test_what_the_real_library_says_is_heard_once(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("tensorrt_rtx")
    library = import_library("tensorrt-rtx")
    log = library_log(library)
    assert library_log(library) is log
    log.take_error()
    with caplog.at_level(logging.DEBUG, "gocor"):
        assert library.Runtime(log).deserialize_cuda_engine(b"hello" * 100) is None
    assert log.take_error().startswith("Serialization (Serialization assertion header.magicTag == ")
    assert log.take_error() == ""
    assert all(record.levelno == logging.DEBUG for record in caplog.records)
    assert caplog.records


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            "[runtime.cpp::readHeader::765] Error Code 2: Internal Error (Assertion size > 0 failed. )",
            "Internal Error (Assertion size > 0 failed. )",
        ),
        (
            "IRuntime::deserialize: Error Code 1: Cuda Runtime (out of memory. In alloc at /_src/a.cpp:4)",
            "Cuda Runtime (out of memory)",
        ),
        (
            "[a.cpp::check::2] Error Code 1: Cuda Runtime (In check at /_src/a.cpp:2 (cudaError 35: driver))",
            "Cuda Runtime (cudaError 35: driver)",
        ),
        ("two\n lines", "two lines"),
    ],
)
def test_messages_without_what_only_authors_can_use(message: str, text: str) -> None:
    assert plain(message) == text
