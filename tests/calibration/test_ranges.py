import json
from pathlib import Path

import pytest

from gocor.calibration.ranges import Range, RangeTable
from gocor.core.errors import ConfigError

TABLE = RangeTable(
    method="percentile",
    samples=3,
    pairs_sha256="12" * 32,
    model="m.onnx",
    model_sha256="ab" * 32,
    ranges={"cat_2": Range(-1.5, 2.5, -1.25, 2.0, 0.001), "relu": Range(0, 1, 0, 1, 0)},
)


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        RangeTable.load(path)
    return str(error.value)


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "r.json")
    assert RangeTable.load(tmp_path / "r.json") == TABLE
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["ranges"]["cat_2"] == {
        "minimum": -1.5, "maximum": 2.5, "low": -1.25, "high": 2.0, "clipped": 0.001,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format 2"),
        ({"method": "guess"}, "method 'guess'"),
        ({"ranges": None}, "'NoneType' object has no attribute 'items'"),
        ({"ranges": {"x": {"minimum": 0}}}, "required"),
        ({"ranges": {"x": [1, 2]}}, "must be a mapping"),
        ({"extra": 1}, "unexpected keyword argument 'extra'"),
        ({"ranges": {"x": dict.fromkeys(("minimum", "maximum", "low", "high", "clipped"), "a")}}, "numbers"),
        (
            {"ranges": {"x": {"minimum": 0, "maximum": 1, "low": 1, "high": 0, "clipped": 0}}},
            "x is 1..0",
        ),
    ],
)
def test_something_else_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    TABLE.save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text()) | change
    (tmp_path / "r.json").write_text(json.dumps(content))
    text = refusal(tmp_path / "r.json")
    assert text.startswith(f"{tmp_path / 'r.json'}: is no table of ranges (")
    assert reason in text
    assert text.endswith("; a file that gocor calibrate wrote, model.onnx.ranges.json")


@pytest.mark.parametrize("content", ["", "[1]", "{", "\x00"])
def test_what_is_no_table_at_all_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    assert "is no table of ranges" in refusal(tmp_path / "r.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "r.json: cannot be read (No such file or directory); a file that" in refusal(tmp_path / "r.json")


def test_ranges_of_another_model_are_refused() -> None:
    TABLE.check_fits("ab" * 32, {"relu"}, "r.json")
    with pytest.raises(ConfigError) as error:
        TABLE.check_fits("cd" * 32, {"relu"}, "r.json")
    assert str(error.value) == (
        "r.json: was measured on another model (m.onnx, abababababab); measure this one: leave --ranges out "
        "and give --pairs"
    )


def test_ranges_that_lack_a_tensor_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        TABLE.check_fits("ab" * 32, {"relu", "cat_3", "cat_4"}, "r.json")
    assert str(error.value) == (
        "r.json: has no range of cat_3 (2 are missing); "
        "it was measured with --keep or for another --target; measure again"
    )
