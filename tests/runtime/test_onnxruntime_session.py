"""What only a machine with another ONNX Runtime, or with a broken one, would show."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_models import save_toy

from gocor.core.errors import DependencyError, ModelError, ProviderError
from gocor.runtime import onnxruntime_session
from gocor.runtime.onnxruntime_session import EXECUTION_PROVIDERS
from gocor.runtime.session import load

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_toy(tmp_path / "toy.onnx")


def test_a_provider_that_this_build_lacks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "__version__", "1.99")
    with pytest.raises(ProviderError) as caught:
        load(path, "cuda")
    assert str(caught.value) == (
        "provider: 'cuda' is not in this build of onnxruntime 1.99 (it has cpu); "
        'pip uninstall onnxruntime, then pip install "gocor-deploy[gpu]"'
    )


def test_a_provider_that_does_not_start_is_an_error_and_no_fallback(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = onnxruntime.InferenceSession
    asked: dict[str, Any] = {}

    def without_cuda(path: str, options: object, **arguments: object) -> object:
        asked.update(arguments)
        return create(path, options, providers=["CPUExecutionProvider"])

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", without_cuda)
    with pytest.raises(ProviderError) as caught:
        load(path, "cuda")
    assert str(caught.value) == (
        "provider: 'cuda' did not start on this machine (ONNX Runtime would have used CPUExecutionProvider); "
        "see gocor doctor for what is missing"
    )
    assert asked["enable_fallback"] == 0
    assert asked["providers"][0] == ("CUDAExecutionProvider", {"use_tf32": "0"})


def test_tensorrt_may_leave_operators_to_cuda_in_full_precision() -> None:
    assert ("CUDAExecutionProvider", {"use_tf32": "0"}) in EXECUTION_PROVIDERS["tensorrt"]


@pytest.mark.parametrize(
    ("provider", "variable", "notes"),
    [("tensorrt", None, 1), ("tensorrt", "1", 1), ("tensorrt", "0", 0), ("cuda", None, 0)],
)
def test_tf32_that_cannot_be_switched_off_is_said_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    provider: str, variable: str | None, notes: int,
) -> None:  # fmt: skip
    create, (name, _) = onnxruntime.InferenceSession, EXECUTION_PROVIDERS[provider][0]

    def started(path: str, options: object, **_: object) -> object:
        session = create(path, options, providers=["CPUExecutionProvider"])
        monkeypatch.setattr(session, "get_providers", lambda: [name])
        return session

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [name])
    monkeypatch.setattr(onnxruntime, "InferenceSession", started)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if variable is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", variable)
    onnxruntime_session._note_tf32.cache_clear()
    for _ in range(2):
        load(path, provider)
    said = [record.getMessage() for record in caplog.records if "TF32" in record.getMessage()]
    assert len(said) == notes
    assert all("for full float32 set NVIDIA_TF32_OVERRIDE=0 in the environment" in text for text in said)
    assert os.environ.get("NVIDIA_TF32_OVERRIDE") == variable


def test_onnxruntime_is_not_installed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError) as caught:
        load(path)
    assert str(caught.value).startswith("onnxruntime: cannot be imported (")
    assert str(caught.value).endswith('; pip install "gocor-deploy[cpu]" (or [gpu])')


def test_a_failure_while_running_is_one_line(path: Path) -> None:
    estimator = load(path)

    class Failing:
        def get_outputs(self) -> list:
            return []

        def run(self, *_: object) -> None:
            raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : out of memory.\nin node 7")

    estimator._session = Failing()  # type: ignore[attr-defined]
    image = np.zeros((32, 64, 3), np.uint8)
    with pytest.raises(ModelError) as caught:
        estimator(image, image)
    assert str(caught.value) == f"{path}: failed in ONNX Runtime (out of memory); see gocor doctor"


def test_threads_reach_the_session(path: Path) -> None:
    session = load(path, threads=1)._session  # type: ignore[attr-defined]
    assert session.get_session_options().intra_op_num_threads == 1


def test_placement_counts_the_operators_of_each_provider(path: Path) -> None:
    placement = load(path).placement
    if hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        assert list(placement) == ["CPUExecutionProvider"]
        assert placement["CPUExecutionProvider"] >= 3


def test_no_noise_of_the_library_reaches_the_user(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ModelError):
        load(path)
    assert capfd.readouterr() == ("", "")


def test_nothing_is_told_to_others_and_the_home_folder_stays_empty(path: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # Tests and continuous integration are left alone by ONNX Runtime itself.
    quiet = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME", "GITHUB_ACTIONS")
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    command = (
        "import os, sys; from gocor.runtime.session import load; load(sys.argv[1]); "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", command, str(path)],
        env=environment | {"HOME": str(home)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "1\n"
    assert not list(home.rglob("*"))
