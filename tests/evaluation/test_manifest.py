from pathlib import Path

import numpy as np
import pytest
from evaluation_pairs import left_half, write_constant, write_image

from gocor.core.errors import ImageError
from gocor.evaluation.datasets import open_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png")
    write_constant(tmp_path / "ab.flo", 1.5, 2, left_half())
    (tmp_path / "H").write_text("1 0 3 0 1 0 0 0 1")
    return tmp_path


def write(folder: Path, *lines: str) -> Path:
    path = folder / "pairs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_flows_and_homographies_in_one_table(folder: Path) -> None:
    lines = ("name,reference,query,flow,homography", "first,a.png,b.png,ab.flo,", ",a.png,b.png,,H")
    samples = open_dataset("manifest", write(folder, *lines)).samples
    assert [sample.name for sample in samples] == ["first", "line 3"]
    first, second = (sample.load() for sample in samples)
    np.testing.assert_array_equal(first.valid, left_half())
    assert first.flow[:, 0, 0].tolist() == [1.5, 2]
    assert second.flow[:, 0, 0].tolist() == [3, 0]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (
            ("reference,query", "a.png,b.png"),
            r"pairs\.csv:2: has no ground truth; a value in the column flow or homography$",
        ),
        (
            ("reference,query,flow,homography", "a.png,b.png,ab.flo,H"),
            r"pairs\.csv:2: has both a flow and a homography; ",
        ),
        (("reference,query,flow", "a.png,c.png,ab.flo"), r"c\.png: does not exist; query in .*pairs\.csv:2$"),
        (("reference,query,flow", "a.png,b.png,c.flo"), r"c\.flo: does not exist; flow in .*pairs\.csv:2$"),
        (("reference,flow", "a.png,ab.flo"), r"pairs\.csv: has no column 'query'"),
        (("reference,query,flow",), r"pairs\.csv: holds no pairs of manifest"),
        (
            ("name,reference,query,flow", "x,a.png,b.png,ab.flo", "x,a.png,b.png,ab.flo"),
            r"pairs\.csv:3: the name 'x' was given before; a name of its own for each pair$",
        ),
    ],
)
def test_what_is_wrong_with_a_table(folder: Path, lines: tuple[str, ...], text: str) -> None:
    with pytest.raises(ImageError, match=text):
        open_dataset("manifest", write(folder, *lines))


def test_a_folder_is_no_table(folder: Path) -> None:
    with pytest.raises(
        ImageError, match=r": is a folder; a CSV file with columns reference, query, flow or homography$"
    ):
        open_dataset("manifest", folder)
