import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gocor.precision_report import parse_budget
from gocor.runtime.images import save_image
from gocor.runtime.sample_pair import sample_pair

for _package in ("torch", "onnxruntime"):
    pytest.importorskip(_package)
Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six pairs in a CSV file."""
    lines = ["reference,query"]
    for index in range(6):
        for name, image in zip(("l", "r"), sample_pair(64, 64), strict=False):
            save_image(tmp_path / f"{name}{index}.png", np.roll(image, 7 * index, axis=1))
        lines.append(f"l{index}.png,r{index}.png")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    return tmp_path / "pairs.csv"


def test_a_model_becomes_an_8_bit_one(exported: Any, invoke: Invoke, table: Path, tmp_path: Path) -> None:
    output, report = tmp_path / "m.int8.onnx", tmp_path / "report.json"
    arguments = ["calibrate", exported.model, "-o", output, "--pairs", table]
    code, out, err = invoke(*arguments, "--json", report, "--keep", "decoder 6")
    assert code == 0
    assert err == (
        f"warning: 5 pairs are few: ranges miss what other scenes show; give 32 or more\nwritten: {report}\n"
    )
    assert f"{output}.ranges.json, percentile of 5 pairs" in out
    assert "on 1 pair held out" in out
    assert "asked for with --keep" in out
    assert "its output is the flow" in out
    written = json.loads(report.read_text())
    assert written["quantized_bytes"] == output.stat().st_size
    assert written["drift"]["pairs"] == ["l3"]
    again = tmp_path / "again.onnx"
    ranges = f"{output}.ranges.json"
    code, out, err = invoke(
        "calibrate", exported.model, "-o", again, "--ranges", ranges, "--keep", "decoder 6"
    )
    assert (code, err) == (0, "")
    assert "drift" not in out
    assert again.read_bytes() == output.read_bytes()


KEPT = ("--keep", "decoder [2345]", "--keep", "pyramid [12456]", "--keep", "context*")  # to save time


def test_sensitivity_alone_writes_reports_and_no_model(
    exported: Any, invoke: Invoke, table: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    before = set(tmp_path.iterdir())
    report, plot = tmp_path / "report.json", tmp_path / "sensitivity.png"
    code, out, err = invoke(
        *("calibrate", exported.model, "--sensitivity", "--pairs", table, *KEPT),
        *("--json", report, "--plot", plot),
    )
    assert code == 0
    assert err.splitlines()[1:] == [f"written: {report}", f"written: {plot}"]
    assert "one part alone in 8 bits, on 1 pair held out" in out
    rows = [re.split(r" *│ *", line)[1:-1] for line in out.splitlines() if line.startswith("│")]
    assert {row[0]: row[1] for row in rows} == {"pyramid 3": "3", "decoder 6": "5", "all of them": "8"}
    written = json.loads(report.read_text())["sensitivities"]
    errors = [part["aepe"] for part in written["parts"]]
    assert errors == sorted(errors, reverse=True)
    assert [f"{error:.3g}" for error in (*errors, written["together"]["aepe"])] == [row[2] for row in rows]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert set(tmp_path.iterdir()) - before == {report, plot}


def test_a_budget_is_reported_and_shown_by_inspect(
    exported: Any, invoke: Invoke, table: Path, tmp_path: Path
) -> None:
    output, report = tmp_path / "m.onnx", tmp_path / "report.json"
    arguments = ("calibrate", exported.model, "-o", output, "--pairs", table, *KEPT)
    code, out, _ = invoke(*arguments, "--budget", "1000 px", "--sensitivity", "--json", report)
    assert code == 0
    assert "1000 px, met with nothing kept" in out
    found = json.loads(report.read_text())["sensitivities"]
    budget = round((found["parts"][-1]["aepe"] + found["together"]["aepe"]) / 2, 4)
    ranges = ("--ranges", f"{output}.ranges.json")
    code, out, _ = invoke(*arguments, *ranges, "--budget", f"{budget}px", "--json", report)
    assert code == 0
    repaired = json.loads(report.read_text())["repaired"]
    kept = ", ".join(name.removesuffix("/Conv") for name in repaired["kept"])
    assert f"{budget:g} px, met: AEPE " in out
    assert f"kept {len(repaired['kept'])}: {kept}\n" in re.sub(r" +\n", "\n", out)
    assert f"{len(repaired['kept'])}: returned for the budget" in out
    code, out, _ = invoke("inspect", output)
    assert code == 0
    assert f"kept for a budget of {budget:g} px: {kept}" in out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--synthetic", "2"), "--output: is missing; -o model.int8.onnx, or only --sensitivity"),
        (
            ("--synthetic", "2", "--sensitivity", "--budget", "1px"),
            "--output: is missing; -o model.int8.onnx, or only --sensitivity",
        ),
        (("-o", "m.onnx", "--synthetic", "2", "--plot", "s.png"), "--plot: draws sensitivities; add"),
        (
            ("-o", "m.onnx", "--synthetic", "2", "--budget", "-1"),
            "--budget: is '-1'; pixels above 0, as 0.1px",
        ),
        (("-o", "m.onnx", "--synthetic", "2", "--budget", "0px"), "--budget: is '0px'; pixels above 0"),
        (("-o", "m.onnx", "--synthetic", "2", "--budget", "small"), "--budget: is 'small'; pixels above 0"),
        (("-o", "m.onnx", "--synthetic", "2", "--budget", "1 mm"), "--budget: is '1 mm'; pixels above 0"),
        (("-o", "m.onnx", "--synthetic", "2", "--budget", "nan"), "--budget: is 'nan'; pixels above 0"),
        (("--sensitivity",), "--pairs: is missing; "),
        (
            ("--sensitivity", "--ranges", "r.json"),
            "--sensitivity: compares flows, and there are no pairs; add",
        ),
        (("--sensitivity", "--synthetic", "2", "--plot", "s.txt"), "s.txt: has suffix '.txt'; one of .png"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    options: tuple[str, ...], text: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = invoke("calibrate", "model.onnx", *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {text}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["0.1px", "0.1 px", " 0.1", ".1px", "0.1"])
def test_a_budget_is_pixels(text: str) -> None:
    assert parse_budget(text) == 0.1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            (),
            "--pairs: is missing; --pairs pairs.csv, a video or two folders; or --synthetic 64; or --ranges",
        ),
        (("--synthetic", "2", "--keep", "conv99*"), "--keep: 'conv99*' matches none of the 43 convolutions"),
        (("--pairs", "none.csv"), "none.csv: cannot be read (No such file or directory); a table"),
        (
            ("--ranges", "none.json"),
            "none.json: cannot be read (No such file or directory); a file that gocor",
        ),
    ],
)
def test_bad_input_is_one_line(
    options: tuple[str, ...], text: str, exported: Any, invoke: Invoke, tmp_path: Path
) -> None:
    code, out, err = invoke("calibrate", exported.model, "-o", tmp_path / "m.onnx", *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {text}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
