import json
import os
from pathlib import Path

import numpy as np
import pytest
from toy_models import METADATA

from gocor.core.errors import OutputError
from gocor.runtime.report import to_json, write_json


def test_what_reports_are_made_of(tmp_path: Path) -> None:
    report = {
        "metadata": METADATA,
        "path": Path("a.onnx"),
        "n": np.float32(0.5),
        "flow": np.ones((1, 2)),
        "t": (1,),
    }
    write_json(tmp_path / "deep" / "report.json", report)
    read = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert read["metadata"]["network"] == "PWCNet_GOCor"
    assert read["metadata"]["operators"] == {"LocalCorrelation": 1}
    assert {k: read[k] for k in ("path", "n", "flow", "t")} == {
        "path": "a.onnx", "n": 0.5, "flow": [[1, 1]], "t": [1],
    }  # fmt: skip


def test_what_has_no_place_in_a_report_is_no_text_by_accident() -> None:
    with pytest.raises(TypeError, match="object has no place in a report"):
        to_json({"a": object()})


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_json(tmp_path / "file" / "report.json", {})


def test_a_file_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(b"m\xff\xc3\xa4.onnx"))
    write_json(tmp_path / "report.json", {"model": path})
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert "\\udcffä.onnx" in text
    assert json.loads(text) == {"model": str(path)}
