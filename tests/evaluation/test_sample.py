from pathlib import Path

import numpy as np
import pytest
from evaluation_pairs import image, left_half, write_mask

from gocor.core.errors import ConfigError, ImageError
from gocor.evaluation.sample import Dataset, Protocol, Sample, Truth, checked, load_mask


def dataset(*groups: str) -> Dataset:
    samples = [Sample(f"{i}", lambda: pytest.fail("loaded"), group) for i, group in enumerate(groups)]
    return Dataset("toy", samples, Protocol(source="toy"))


def names(chosen: Dataset) -> list[str]:
    return [sample.name for sample in chosen.samples]


def test_a_limit_takes_samples_from_all_over_the_dataset() -> None:
    assert names(dataset(*["a"] * 5, *["b"] * 5).select(limit=4)) == ["0", "2", "5", "7"]
    assert names(dataset("", "").select(limit=9)) == ["0", "1"]


def test_groups_keep_their_order_and_can_be_chosen() -> None:
    both = dataset("late", "early", "late")
    assert both.groups == ("late", "early")
    assert names(both.select("late", 1)) == ["0"]


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        (("a", "b"), "group: unknown name 'c'; one of a, b"),
        (("",), "group: unknown name 'c'; toy has no groups"),
    ],
)
def test_an_unknown_group(groups: tuple[str, ...], text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{text}$"):
        dataset(*groups).select("c")


def test_a_limit_below_1() -> None:
    with pytest.raises(ConfigError, match=r"^limit: is 0; at least 1$"):
        dataset("").select(limit=0)


def truth(height: int, width: int, known: bool = True) -> Truth:
    return Truth(image(), image(), np.zeros((2, height, width), np.float32), np.full((height, width), known))


def test_a_flow_of_another_size_names_both_files() -> None:
    text = r"^f\.flo: holds a flow of 30×20 pixels; the size of r\.png, 32×20$"
    with pytest.raises(ImageError, match=text):
        checked(truth(20, 30), "f.flo", "r.png")


def test_a_flow_known_nowhere() -> None:
    with pytest.raises(
        ImageError, match=r"^f\.flo: knows the flow of no pixel; ground truth for at least one$"
    ):
        checked(truth(20, 32, known=False), "f.flo", "r.png")


def test_masks(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", left_half())
    np.testing.assert_array_equal(load_mask(tmp_path / "mask.png", image(), "r.png"), left_half())
    with pytest.raises(ImageError, match=r"mask\.png: has 32×20 pixels; the size of r\.png, 30×20$"):
        load_mask(tmp_path / "mask.png", image(width=30), "r.png")
