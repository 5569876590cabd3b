from pathlib import Path

import numpy as np
import pytest
from evaluation_pairs import left_half, write_constant, write_image

from gocor.core.errors import ImageError
from gocor.evaluation.datasets import open_dataset


def kitti(root: Path, images: str, noc: bool = True) -> Path:
    for number in (0, 3):
        for frame in (10, 11):
            write_image(root / f"training/{images}/{number:06d}_{frame}.png", seed=frame)
        known = np.ones_like(left_half())
        known[:4] = False
        write_constant(root / f"training/flow_occ/{number:06d}_10.png", 2.5, -1.25, known)
        if noc:
            write_constant(root / f"training/flow_noc/{number:06d}_10.png", 2.5, -1.25, known & left_half())
    return root


@pytest.mark.parametrize(
    ("name", "images"), [("kitti2012", "colored_0"), ("kitti2012", "image_0"), ("kitti2015", "image_2")]
)
def test_both_years(tmp_path: Path, name: str, images: str) -> None:
    root = kitti(tmp_path, images)
    dataset = open_dataset(name, root)
    assert [sample.name for sample in dataset.samples] == ["000000_10", "000003_10"]
    truth = dataset.samples[0].load()
    assert truth.reference[0, 0].tolist() != truth.query[0, 0].tolist()
    assert truth.valid.sum() == 16 * 32
    assert truth.visible is not None
    assert truth.visible.sum() == 16 * 16
    assert set(map(tuple, truth.flow[:, truth.valid].T.tolist())) == {(2.5, -1.25)}
    assert len(open_dataset(name, root / "training").samples) == 2


def test_without_the_mask_of_occlusions(tmp_path: Path) -> None:
    assert open_dataset("kitti2015", kitti(tmp_path, "image_2", noc=False)).samples[0].load().visible is None


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "flow_occ/000003_10.png",
            r"flow_occ/000003_10.png: does not exist; ground truth of .*/000003_10.png$",
        ),
        (
            "flow_noc/000003_10.png",
            r"flow_noc/000003_10.png: does not exist; ground truth of .*/000003_10.png$",
        ),
        ("image_2/000000_11.png", r"image_2/000000_11.png: does not exist; query of .*/000000_10.png$"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, path: str, text: str) -> None:
    (kitti(tmp_path, "image_2") / "training" / path).unlink()
    with pytest.raises(ImageError, match=text):
        open_dataset("kitti2015", tmp_path)


def test_a_flow_of_another_size_is_named(tmp_path: Path) -> None:
    kitti(tmp_path, "image_2")
    write_constant(tmp_path / "training/flow_noc/000000_10.png", 0, 0, width=30)
    with pytest.raises(
        ImageError, match=r"flow_noc/000000_10\.png: holds a flow of 30×20 pixels; the size of .*, 32×20$"
    ):
        open_dataset("kitti2015", tmp_path).samples[0].load()


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r": has no folder image_2; KITTI's training set with image_2/ and flow_occ/$"
    ):
        open_dataset("kitti2015", tmp_path)
    with pytest.raises(
        ImageError, match=r"absent: does not exist; KITTI's training set with colored_0/ and flow_occ/$"
    ):
        open_dataset("kitti2012", tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=r"file: is no folder; KITTI's training set"):
        open_dataset("kitti2012", tmp_path / "file")
