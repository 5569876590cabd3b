import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_gpu import save_engine
from toy_models import METADATA, save_toy

from gocor.core.files import sha256

pytest.importorskip("onnx")
Invoke = Callable[..., tuple[int, str, str]]


def test_a_model(invoke: Invoke, tmp_path: Path) -> None:
    code, out, _ = invoke("inspect", save_toy(tmp_path / "toy.onnx"))
    assert code == 0
    assert all(
        text in out
        for text in (
            "PWCNet_GOCor",
            "local 3",
            "32x64, batch 1",
            METADATA.weights_sha256,
            "ReduceMean 2",
            "ai.onnx 19",
        )
    )


def test_a_model_of_someone_else(invoke: Invoke, tmp_path: Path) -> None:
    code, out, _ = invoke("inspect", save_toy(tmp_path / "toy.onnx", properties={}))
    assert code == 0
    assert "ONNX model, not made by gocor" in out
    assert "reference uint8 (1, 32, 64, 3)" in out


def test_json(invoke: Invoke, tmp_path: Path) -> None:
    code, out, _ = invoke("inspect", save_toy(tmp_path / "toy.onnx"), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["metadata"]["local_iterations"] == 3
    assert found["contents"]["operators"]["Concat"] == 1


def test_without_onnx_it_says_how_to_see_the_operators(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_toy(tmp_path / "toy.onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out, _ = invoke("inspect", path)
    assert code == 0
    assert 'to list them: pip install "gocor-deploy[export]"' in out


def test_an_engine(invoke: Invoke, tmp_path: Path) -> None:
    path = save_engine(tmp_path / "model.engine")
    code, out, _ = invoke("inspect", path)
    assert code == 0
    assert "engine of TensorRT 11.4.0.106, built by gocor" in out
    assert all(text in out for text in ("sm_90 (NVIDIA H100)", "toy.onnx", METADATA.weights_sha256, "quick"))
    assert json.loads(invoke("inspect", path, "--json")[1])["engine_sha256"] == sha256(path)


def test_an_engine_that_was_changed_is_not_described_as_the_one_that_was_built(
    invoke: Invoke, tmp_path: Path
) -> None:
    path = save_engine(tmp_path / "model.engine")
    path.write_bytes(b"another plan")
    code, out, err = invoke("inspect", path)
    assert (code, out) == (2, "")
    assert "is not the file that was built" in err


def test_a_checkpoint(invoke: Invoke, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from gocor.export.checkpoint import seeded_network

    path = tmp_path / "their.pth"
    torch.save(seeded_network("PWCNet").state_dict(), path)
    code, out, _ = invoke("inspect", path)
    assert code == 0
    assert "PWCNet" in out
    assert "trained iterations" not in out
    torch.save(seeded_network("PWCNet_GOCor").state_dict(), path)
    assert "not recorded in the file" in invoke("inspect", path)[1]
    torch.save({"state_dict": seeded_network("PWCNet_GOCor").state_dict(), "iterations": 5}, path)
    assert "trained iterations      local 5" in invoke("inspect", path)[1], "it has no global GOCor"


def test_no_such_file(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "absent.onnx"
    code, out, err = invoke("inspect", path)
    assert (code, out) == (2, "")
    assert err == f"error: {path}: no such file; give a model made by gocor export\n"
