from pathlib import Path

import numpy as np
import pytest
from evaluation_pairs import HEIGHT, WIDTH, left_half, write_constant, write_image, write_mask

from gocor.core.errors import ImageError
from gocor.evaluation.datasets import open_dataset


def sintel(root: Path, masks: bool = True) -> Path:
    training = root / "training"
    for scene, frames in (("alley_1", 3), ("market_2", 2)):
        for frame in range(1, frames + 1):
            name = f"{scene}/frame_{frame:04d}"
            write_image(training / f"clean/{name}.png", seed=frame)
            write_image(training / f"final/{name}.png", seed=10 + frame)
            if masks:
                write_mask(training / f"invalid/{name}.png", np.arange(HEIGHT)[:, None].repeat(WIDTH, 1) < 2)
            if frame < frames:  # the last frame of a scene has neither flow nor occlusions
                write_constant(training / f"flow/{name}.flo", frame, 0)
                if masks:
                    write_mask(training / f"occlusions/{name}.png", left_half())
    return root


def test_every_frame_with_the_next_in_both_passes(tmp_path: Path) -> None:
    dataset = open_dataset("sintel", sintel(tmp_path))
    assert dataset.groups == ("clean", "final")
    names = [sample.name for sample in dataset.samples if sample.group == "final"]
    assert names == ["final/alley_1/frame_0001", "final/alley_1/frame_0002", "final/market_2/frame_0001"]
    truth = dataset.samples[1].load()
    assert (truth.flow[0] == 2).all()
    assert truth.valid.all()
    assert truth.visible is not None
    assert truth.visible.sum() == (HEIGHT - 2) * WIDTH // 2  # neither occluded nor invalid


def test_without_masks_and_with_one_pass(tmp_path: Path) -> None:
    import shutil

    shutil.rmtree(sintel(tmp_path, masks=False) / "training/clean")
    dataset = open_dataset("sintel", tmp_path / "training")
    assert dataset.groups == ("final",)
    assert dataset.samples[0].load().visible is None


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("flow/alley_1/frame_0002.flo", "ground truth"),
        ("occlusions/market_2/frame_0001.png", "mask"),
        ("invalid/alley_1/frame_0001.png", "mask"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, path: str, role: str) -> None:
    (sintel(tmp_path) / "training" / path).unlink()
    with pytest.raises(ImageError, match=rf"{path}: does not exist; {role} of .*{Path(path).stem}\.png$"):
        open_dataset("sintel", tmp_path)


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r": has no folder clean or final; MPI-Sintel's training set"):
        open_dataset("sintel", tmp_path)
    (tmp_path / "clean/alley_1").mkdir(parents=True)
    with pytest.raises(ImageError, match=r": has no folder flow; MPI-Sintel's training set"):
        open_dataset("sintel", tmp_path)
    (tmp_path / "flow").mkdir()
    with pytest.raises(ImageError, match=r"alley_1: holds 0 frames; at least two files frame_\*\.png$"):
        open_dataset("sintel", tmp_path)
