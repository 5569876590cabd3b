import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

for _package in ("torch", "onnxruntime", "polygraphy"):
    pytest.importorskip(_package)
Invoke = Callable[..., tuple[int, str, str]]


def test_a_model_is_its_checkpoint(exported: Any, invoke: Invoke, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, out, err = invoke("verify", exported.model, exported.checkpoint, "--json", report)
    assert (code, err) == (0, f"written: {report}\n")
    assert "PASSED on 1 pair; allowed are AEPE 0.005 px" in out
    assert "local 1" in out
    assert re.search(r"^precision +fp32 *$", out, re.MULTILINE)
    written = json.loads(report.read_text())
    assert written["passed"] is True
    assert written["provider"] == "cpu"
    assert written["metadata"]["network"] == "PWCNet_GOCor"
    assert written["metadata"]["weights_sha256"][:12] in out
    assert written["worst"][0]["pair"] == "built-in 0"
    assert written["worst"][0]["output"]["aepe"] < 0.005


def test_outside_of_the_tolerance_it_says_where_and_ends_with_1(
    exported: Any, invoke: Invoke, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    code, out, err = invoke(
        "verify", exported.model, exported.checkpoint, "--tolerance", "1e-12", "--json", report
    )
    assert code == 1
    assert "FAILED on 1 pair" in out
    assert err.startswith("flow, built-in 0: AEPE ")
    assert "; worst at x=" in err
    assert json.loads(report.read_text())["passed"] is False


def test_another_checkpoint_is_refused(exported: Any, invoke: Invoke, tmp_path: Path) -> None:
    import torch

    from gocor.export.checkpoint import seeded_network

    torch.save(seeded_network("PWCNet_GOCor", seed=1).state_dict(), tmp_path / "other.pth")
    code, out, err = invoke("verify", exported.model, tmp_path / "other.pth")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {exported.model}: was made from weights ")
    assert f"(seeded.pth), those of {tmp_path / 'other.pth'} are " in err
    assert len(err.splitlines()) == 1


def test_pairs_of_a_table_and_of_two_folders(exported: Any, invoke: Invoke, tmp_path: Path) -> None:
    from gocor.runtime.images import save_image
    from gocor.runtime.sample_pair import sample_pair

    for name, image in zip(("l/a[1]", "r/a[1]"), sample_pair(70, 90), strict=False):
        save_image(tmp_path / f"{name}.png", image)
    (tmp_path / "pairs.csv").write_text("reference,query\nl/a[1].png,r/a[1].png\nr/a[1].png,l/a[1].png\n")
    code, out, err = invoke("verify", exported.model, exported.checkpoint, "--pairs", tmp_path / "pairs.csv")
    assert code == 0
    assert "PASSED on 2 pairs" in out
    assert "a[1]" in out  # brackets are no markup
    assert err == (
        "note: images of 70x90 are resized to the model's 64x64, for PyTorch and the model alike\n"
    )
    folders = ("--pairs", tmp_path / "l", "--pairs", tmp_path / "r")
    code, out, _ = invoke("verify", exported.model, exported.checkpoint, *folders)
    assert code == 0
    assert "PASSED on 1 pair;" in out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--tolerance", "0"], "--tolerance: is 0.0; pixels above 0, such as 0.005"),
        (["--oracle"], "--oracle: is for fp16 and bf16, and "),
        (["--tolerance", "nan"], "--tolerance: is nan; "),
        (["--provider", "abacus"], "provider: unknown name 'abacus'; one of cpu, cuda, tensorrt"),
        (["--pairs", "absent.csv"], "absent.csv: cannot be read (No such file or directory)"),
        (["--pairs", "."], "--pairs: . is one folder; a second folder (--pairs . --pairs queries/)"),
        (["--pairs", "a", "--pairs", "b", "--pairs", "c"], "--pairs: was given 3 times; once, or twice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_one_line(exported: Any, invoke: Invoke, options: list[str], text: str) -> None:
    code, out, err = invoke("verify", exported.model, exported.checkpoint, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {text}")
    assert len(err.splitlines()) == 1


def test_bad_files_are_one_line(exported: Any, invoke: Invoke, tmp_path: Path) -> None:
    for model, checkpoint, text in (
        (tmp_path / "absent.onnx", exported.checkpoint, "absent.onnx: no such file"),
        (exported.checkpoint, exported.model, "seeded.pth: is a checkpoint"),
        (exported.model, tmp_path / "absent.pth", "absent.pth: no such file"),
        (exported.model, exported.model, "model.onnx: "),
    ):
        code, out, err = invoke("verify", model, checkpoint)
        assert (code, out) == (2, "")
        assert text in err
        assert len(err.splitlines()) == 1


def test_low_precision_on_a_cpu_and_as_an_oracle(exported: Any, invoke: Invoke, tmp_path: Path) -> None:
    model = tmp_path / "low.onnx"
    options = ("--size", "64x64", "--iterations", "1", "--precision", "fp16")
    code, out, _ = invoke("export", exported.checkpoint, "-o", model, *options)
    assert code == 0
    assert re.search(r"^precision +fp16, 19 casts *$", out, re.MULTILINE)
    assert re.search(r"^precision +fp16 *$", invoke("inspect", model)[1], re.MULTILINE)
    # Random weights amplify roundings: what is allowed for trained ones says nothing about them.
    report = tmp_path / "report.json"
    code, out, err = invoke("verify", model, exported.checkpoint, "--tolerance", "2", "--json", report)
    assert code == 0
    assert re.search(r"^precision +fp16, computed in fp32 *$", out, re.MULTILINE)
    assert "note: low.onnx: ONNX Runtime computes fp16 in fp32 on the CPU; --oracle rounds as a GPU" in err
    code, out, err = invoke("verify", model, exported.checkpoint, "--tolerance", "2", "--oracle")
    assert (code, err) == (0, "")
    assert "fp16, each operator of the oracle rounds to it" in out
    assert "allowed are AEPE 2 px of the final flow, 99 % within 20 px and relative L2 1" in out
    assert json.loads(report.read_text())["metadata"]["precision"] == "fp16"


def test_an_8_bit_model_has_a_tolerance_of_its_own(exported: Any, invoke: Invoke, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(exported.model)  # which only says that it is in 8 bits
    facts = '{"method": "minmax", "samples": 9, "convolutions": 43}'
    model.metadata_props.add(key="gocor.int8", value=facts)
    onnx.save(model, tmp_path / "m.onnx")
    code, out, err = invoke("verify", tmp_path / "m.onnx", exported.checkpoint)
    assert (code, err) == (0, "")
    assert "allowed are AEPE 0.2 px of the final flow, 99 % within 1 px" in out
    assert re.search(r"^8 bits +43 convolutions *$", out, re.MULTILINE)
    code, out, err = invoke("verify", tmp_path / "m.onnx", exported.checkpoint, "--tolerance", "1e-12")
    assert code == 1
    assert "allowed are AEPE 1e-12 px" in out
    assert err.splitlines()[-1] == (
        "note: 8 bits move the flow, as far as gocor calibrate says; --tolerance allows more, and --budget "
        "of that command keeps it near"
    )
