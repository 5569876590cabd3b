import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_models import save_toy

from gocor import console

pytest.importorskip("onnxruntime")
Invoke = Callable[..., tuple[int, str, str]]


def test_models_side_by_side_with_every_run_in_json(invoke: Invoke, tmp_path: Path) -> None:
    first, second = save_toy(tmp_path / "first.onnx"), save_toy(tmp_path / "second[1].onnx")
    report = tmp_path / "bench.json"
    code, out, _ = invoke(
        "bench", first, second, "--rounds", 3, "--warmup", 0, "--threads", 1, "--json", report
    )
    assert code == 0
    assert "3 interleaved rounds" in out
    assert "second[1].onnx · cpu" in out  # brackets are no markup
    results = json.loads(report.read_text())["results"]
    assert [len(result["times_ms"]) for result in results] == [3, 3]
    assert results[0]["facts"]["provider"] == "cpu"


def test_in_a_narrow_terminal_no_column_vanishes(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.stdout, "width", 60)
    model = save_toy(tmp_path / "a_rather_long_name_of_a_model.onnx")
    code, out, _ = invoke("bench", model, "--rounds", 1, "--warmup", 0)
    assert code == 0
    words = [line.split() for line in out.splitlines() if line.strip()]
    assert ["pairs", "of", "size", "median", "IQR", "p95", "p99", "pairs/s", "MiB", "first"] in words
    assert "a_rather_long_name_of_a_model.onnx" in "".join(line[0] for line in words)  # folded
    assert "…" not in out


def test_plot(invoke: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model, picture = save_toy(tmp_path / "toy.onnx"), tmp_path / "bench.svg"
    assert invoke("bench", model, "--rounds", 2, "--warmup", 0, "--plot", picture)[0] == 0
    assert "<svg" in picture.read_text()


def test_a_wrong_picture_format_is_found_before_the_benchmark(invoke: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code, out, err = invoke("bench", tmp_path / "absent.onnx", "--plot", tmp_path / "bench.txt")
    assert (code, out) == (2, "")
    assert "bench.txt: has suffix '.txt'; one of .png .svg .pdf" in err


def test_what_is_wrong_is_one_line_and_nothing_is_written(invoke: Invoke, tmp_path: Path) -> None:
    model, report = save_toy(tmp_path / "toy.onnx"), tmp_path / "bench.json"
    code, _, err = invoke("bench", model, "--provider", "gpu", "--json", report)
    assert (code, err) == (2, "error: provider: unknown name 'gpu'; one of cpu, cuda, tensorrt\n")
    code, _, err = invoke("bench", model, tmp_path / "absent.onnx", "--json", report)
    assert code == 2
    assert err.endswith("absent.onnx: no such file; give a model made by gocor export\n")
    assert not report.exists()
    code, out, err = invoke("bench", tmp_path / "absent.onnx", "--json", model / "bench.json")
    assert (code, out) == (2, "")  # before anything is loaded
    assert "bench.json: cannot be written" in err
