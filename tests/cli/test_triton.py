import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_models import metadata, save_toy

pytest.importorskip("onnx")
Invoke = Callable[..., tuple[int, str, str]]


def test_it_says_what_was_written(invoke: Invoke, tmp_path: Path) -> None:
    model, root = save_toy(tmp_path / "toy.onnx"), tmp_path / "models"
    code, out, err = invoke("triton", model, "-o", root, "--name", "flow")
    assert (code, err) == (0, "")
    assert all(
        text in out for text in (str(root), "flow", "version 1, onnxruntime, PWCNet_GOCor", "README.md")
    )
    save_toy(model, metadata(weights_sha256="ee" * 32))
    code, out, _ = invoke("triton", model, "-o", root, "--name", "flow", "--update", "--json")
    assert code == 0
    assert [(e["model"], e["version"]) for e in json.loads(out)["added"]] == [("flow", 2)]


def test_a_repository_is_not_overwritten(invoke: Invoke, tmp_path: Path) -> None:
    model, root = save_toy(tmp_path / "toy.onnx"), tmp_path / "models"
    assert invoke("triton", model, "-o", root)[0] == 0
    code, out, err = invoke("triton", model, "-o", root)
    assert (code, out) == (2, "")
    assert err == f"error: {root}: is a model repository already; --update adds a version to it\n"


def test_what_openvino_does_otherwise_is_said(invoke: Invoke, tmp_path: Path) -> None:
    from openvino_models import save_xml

    code, _, err = invoke("triton", save_xml(tmp_path / "toy.xml"), "-o", tmp_path / "models")
    assert code == 0
    assert err.startswith("note: Triton's OpenVINO backend has no option for float32; ")
    assert err.count("\n") == 1
