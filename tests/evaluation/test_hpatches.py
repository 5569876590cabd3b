from pathlib import Path

import numpy as np
import pytest
from evaluation_pairs import write_image

from gocor.core.errors import ImageError
from gocor.evaluation.datasets import open_dataset


def hpatches(root: Path) -> Path:
    for sequence in ("v_wall", "v_boat", "i_dome"):
        for index in range(1, 7):
            write_image(root / f"{sequence}/{index}.ppm", seed=index, height=20 + 2 * (index == 4))
            if index > 1:
                text = f"1 0 {index}\n0 1 0\n0 0 1\n"
                (root / f"{sequence}/H_1_{index}").write_text(text)
    return root


def test_five_pairs_of_each_sequence_of_viewpoints(tmp_path: Path) -> None:
    dataset = open_dataset("hpatches", hpatches(tmp_path))
    assert dataset.groups == ("1-2", "1-3", "1-4", "1-5", "1-6")
    assert [sample.name for sample in dataset.samples[:3]] == ["v_boat/1-2", "v_wall/1-2", "v_boat/1-3"]
    truth = dataset.samples[-1].load()
    assert truth.valid.sum() == 20 * (32 - 6)  # 6 columns move out of the query
    assert (truth.flow[0][truth.valid] == 6).all()


def test_images_of_a_sequence_may_have_different_sizes(tmp_path: Path) -> None:
    truth = open_dataset("hpatches", hpatches(tmp_path)).select("1-4").samples[0].load()
    assert (truth.reference.shape[0], truth.query.shape[0], truth.flow.shape[1]) == (20, 22, 20)


def test_a_pair_without_overlap_names_its_homography(tmp_path: Path) -> None:
    (hpatches(tmp_path) / "v_boat/H_1_2").write_text("1 0 500 0 1 0 0 0 1")
    with pytest.raises(ImageError, match=r"v_boat/H_1_2: knows the flow of no pixel"):
        open_dataset("hpatches", tmp_path).samples[0].load()


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("v_wall/H_1_3", "homography from .*"),
        ("v_boat/5.ppm", "image 5 of the sequence"),
        ("v_wall/1.ppm", "the sequence's reference"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, path: str, role: str) -> None:
    (hpatches(tmp_path) / path).unlink()
    with pytest.raises(ImageError, match=rf"{path}: does not exist; {role}"):
        open_dataset("hpatches", tmp_path)


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r": holds no folders v_\*; the folder hpatches-sequences-release$"):
        open_dataset("hpatches", tmp_path)
    with pytest.raises(
        ImageError, match=r"absent: cannot be read \(No such file or directory\); a dataset's folder$"
    ):
        open_dataset("hpatches", tmp_path / "absent")


def test_flow_points_from_image_1_into_the_other(tmp_path: Path) -> None:
    hpatches(tmp_path)
    moved = np.roll(write_image(tmp_path / "v_boat/1.ppm"), 2, axis=1)
    from gocor.runtime.flow import warp
    from gocor.runtime.images import save_image

    save_image(tmp_path / "v_boat/2.ppm", moved)
    truth = open_dataset("hpatches", tmp_path).samples[0].load()
    np.testing.assert_array_equal(warp(truth.query, truth.flow)[truth.valid], truth.reference[truth.valid])
