import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluation_pairs import left_half, write_constant, write_image, write_mask

from gocor.core.errors import ImageError
from gocor.evaluation.datasets import open_dataset


def tss(root: Path) -> Path:
    for subset in ("FG3DCar", "JODS", "PASCAL"):
        folder = root / subset / "pair_1"
        write_image(folder / "image1.png", seed=1)
        write_image(folder / "image2.png", seed=2, width=40)
        write_constant(folder / "flow1.flo", 3, 0)
        write_constant(folder / "flow2.flo", -3, 0, width=40)
        write_mask(folder / "mask1.png", left_half())
        write_mask(folder / "mask2.png", np.ones((20, 40), bool))
        (folder / "flip_gt.txt").write_text("1\n" if subset == "JODS" else "0")
    return root


def test_both_directions_of_every_pair(tmp_path: Path) -> None:
    dataset = open_dataset("tss", tss(tmp_path))
    assert dataset.groups == ("FG3DCar", "JODS", "PASCAL")
    assert [sample.name for sample in dataset.samples[:2]] == ["FG3DCar/pair_1 1→2", "FG3DCar/pair_1 2→1"]
    there, back = (sample.load() for sample in dataset.samples[:2])
    np.testing.assert_array_equal(there.valid, left_half())
    assert (there.reference.shape[1], there.query.shape[1]) == (32, 40)
    assert (back.reference.shape[1], back.flow.shape[2]) == (40, 40)
    np.testing.assert_array_equal(there.query, back.reference)
    assert dataset.protocol.alpha == 0.05


def test_the_query_is_mirrored_where_the_flow_was_drawn_so(tmp_path: Path) -> None:
    dataset = open_dataset("tss", tss(tmp_path))
    plain, mirrored = (dataset.select(group).samples[0].load() for group in ("FG3DCar", "JODS"))
    np.testing.assert_array_equal(mirrored.reference, plain.reference)
    np.testing.assert_array_equal(mirrored.query, plain.query[:, ::-1])


def test_some_subsets_alone(tmp_path: Path) -> None:
    shutil.rmtree(tss(tmp_path) / "JODS")
    assert open_dataset("tss", tmp_path).groups == ("FG3DCar", "PASCAL")


@pytest.mark.parametrize("name", ["image2.png", "flow2.flo", "mask1.png", "flip_gt.txt"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (tss(tmp_path) / "PASCAL/pair_1" / name).unlink()
    with pytest.raises(
        ImageError, match=rf"PASCAL/pair_1/{name}: does not exist; a file of every pair of TSS$"
    ):
        open_dataset("tss", tmp_path)


def test_damaged_pairs(tmp_path: Path) -> None:
    folder = tss(tmp_path) / "FG3DCar/pair_1"
    samples = open_dataset("tss", tmp_path).samples
    (folder / "flip_gt.txt").write_text("maybe")
    with pytest.raises(ImageError, match=r"flip_gt\.txt: says 'maybe'; 0 or 1$"):
        samples[0].load()
    write_mask(folder / "mask1.png", np.zeros_like(left_half()))
    (folder / "flip_gt.txt").write_text("0")
    with pytest.raises(ImageError, match=r"mask1\.png: knows the flow of no pixel"):
        samples[0].load()


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r": has no folder FG3DCar or JODS or PASCAL; the folder TSS_CVPR2016$"
    ):
        open_dataset("tss", tmp_path)
    with pytest.raises(ImageError, match=r"absent: is no folder; the folder TSS_CVPR2016$"):
        open_dataset("tss", tmp_path / "absent")
