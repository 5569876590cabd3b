import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            (),
            "--pairs: is missing; --pairs pairs.csv, a video or two folders; or --synthetic 64; or --ranges",
        ),
        (("--synthetic", "2", "--keep", "conv99*"), "--keep: 'conv99*' matches none of the 48 convolutions"),
        (("--pairs", "none.csv"), "none.csv: cannot be read (No such file or directory); a CSV file"),
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
