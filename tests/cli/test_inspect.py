import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_models import METADATA, save_toy

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


def test_no_such_file(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "absent.onnx"
    code, out, err = invoke("inspect", path)
    assert (code, out) == (2, "")
    assert err == f"error: {path}: no such file; give a model made by gocor export\n"
