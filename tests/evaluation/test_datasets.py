from pathlib import Path

import pytest

from gocor.core.errors import ConfigError, ImageError
from gocor.evaluation.datasets import open_dataset


@pytest.mark.parametrize(
    ("name", "root", "text"),
    [
        (
            "kitti",
            "x",
            "dataset: unknown name 'kitti'; one of kitti2012, kitti2015, sintel, hpatches, tss, manifest",
        ),
        (
            "sintel",
            None,
            "--root: is missing; the folder with the dataset, as in --dataset sintel --root DIR",
        ),
        ("manifest", None, "--root: is missing; the CSV file, as in --dataset manifest --root DIR"),
        ("motorcycle", "x", "--root: was given with motorcycle; leave it out; motorcycle needs no files"),
    ],
)
def test_wrong_names_and_roots(name: str, root: str | None, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{text}"):
        open_dataset(name, root)


def test_a_dataset_without_pairs(tmp_path: Path) -> None:
    for folder in ("image_2", "flow_occ"):
        (tmp_path / folder).mkdir()
    with pytest.raises(
        ImageError, match=r": holds no pairs of kitti2015; the folder that the dataset was unpacked to$"
    ):
        open_dataset("kitti2015", tmp_path)
