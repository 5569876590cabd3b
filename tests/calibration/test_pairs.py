from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gocor.calibration.pairs import HELD_OUT, PairChecks, from_source, load_pair, spread, synthetic
from gocor.core.errors import ConfigError, ImageError
from gocor.runtime.pairs import Pair, PairSource, find_pairs
from gocor.runtime.sample_pair import sample_pair


class Counted(PairSource):
    """Pairs that know their place; ``expected`` may be wrong, as a video's header."""

    def __init__(self, count: int, expected: int | None) -> None:
        self.count, self.expected = count, expected

    def __iter__(self) -> Iterator[Pair]:
        image = np.zeros((4, 4, 3), np.uint8)
        return (Pair(str(place), (), None, lambda: (image, image)) for place in range(self.count))


@pytest.mark.parametrize(
    ("expected", "samples", "calibrated", "held"),
    [(1, 64, 1, 0), (4, 64, 4, 0), (5, 64, 4, 1), (40, 64, 32, 8), (1000, 64, 64, 8), (10, 2, 2, 2)],
)
def test_pairs_are_spread_and_some_held_out(expected: int, samples: int, calibrated: int, held: int) -> None:
    places, held_out = spread(expected, samples)
    assert (len(places), len(held_out)) == (calibrated, held)
    assert not places & held_out
    assert places | held_out <= set(range(expected))
    if expected > 100:
        gaps = np.diff(sorted(places))
        assert gaps.max() <= 2 * gaps.min()
        assert max(places) > 0.9 * expected


def test_of_an_unknown_number_the_first_are_taken() -> None:
    places, held_out = spread(None, 12)
    assert places | held_out == set(range(15))


def test_a_source_is_gone_through_twice_and_given_one_by_one() -> None:
    pairs = from_source(Counted(30, 30), 6)
    assert pairs.apart
    assert len(pairs.held_out) == 6
    names = [pair.name for pair in pairs.calibration()]
    assert names == [pair.name for pair in pairs.calibration()]
    assert len(names) == pairs.count == 6
    assert not set(names) & {pair.name for pair in pairs.held_out}


def test_too_few_pairs_are_all_used_for_both() -> None:
    pairs = from_source(Counted(3, 3), 64)
    assert not pairs.apart
    assert [pair.name for pair in pairs.held_out] == [pair.name for pair in pairs.calibration()]


def test_a_video_that_ends_early_gives_what_it_has() -> None:
    pairs = from_source(Counted(7, 100), 50)
    assert 0 < len(list(pairs.calibration())) <= 7


def test_synthetic_pairs_have_the_models_size_and_splits_of_their_own() -> None:
    for package in ("torch", "skimage"):
        pytest.importorskip(package)
    pairs = synthetic(3, 64, 96)
    first = next(iter(pairs.calibration()))
    reference, query = load_pair(first)
    assert reference.shape == query.shape == (1, 64, 96, 3)
    assert np.array_equal(reference, load_pair(first)[0])
    assert [pair.name for pair in pairs.calibration()] == [f"train-000{i}" for i in range(3)]
    assert [pair.name for pair in pairs.held_out] == [f"evaluation-000{i}" for i in range(HELD_OUT)]
    assert not np.array_equal(reference, load_pair(pairs.held_out[0])[0])


def test_no_synthetic_pairs_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        synthetic(0, 64, 64)
    assert str(error.value) == "--synthetic: is 0; at least 1"


def test_images_of_two_sizes_are_refused_by_the_pairs_name() -> None:
    pair = Pair("left_1", (), None, lambda: (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)))
    with pytest.raises(ImageError) as error:
        load_pair(pair)
    assert str(error.value) == "left_1: has shape (4, 5, 3); that of the reference, (4, 4, 3)"


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    pair = next(iter(find_pairs(tmp_path / "a.png", tmp_path / "b.png")))
    with pytest.raises(ImageError, match=r"a\.png: "):
        load_pair(pair)


def checked(*pairs: tuple[np.ndarray, np.ndarray]) -> PairChecks:
    checks = PairChecks()
    for index, (reference, query) in enumerate(pairs):
        checks.add(f"p{index}", reference, query)
    return checks


def good(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    reference, query, _ = sample_pair(32, 32)
    return [(np.roll(reference, shift, axis=1), np.roll(query, shift, axis=1)) for shift in range(count)]


def test_good_pairs_need_no_note() -> None:
    assert checked(*good(8)).notes() == []


def test_few_pairs_are_noticed() -> None:
    assert checked(*good(1)).notes() == ["1 pair is few: ranges miss what other scenes show; give 32 or more"]
    assert checked(*good(7)).notes()[0].startswith("7 pairs are few")


def test_uniform_exposed_and_repeated_pairs_are_noticed() -> None:
    image = good(1)[0][0]
    noise = np.random.default_rng(0).integers(118, 122, image.shape, np.uint8)
    white = image.copy()
    white[:22] = 255
    notes = checked(*good(8), (image, noise), (noise, noise), (white, white), good(8)[3]).notes()
    assert notes == [
        "2 of 12 pairs are nearly uniform (grey levels deviate by less than 4 of 255): p8, p9",
        "1 of 12 pairs is under- or overexposed (more than 30 % of values at 0 or 255): p10",
        "1 of 12 pairs is the same as an earlier one: p11",
    ]


def test_the_hash_is_of_all_images_in_order() -> None:
    one, other = good(3), good(3)
    assert checked(*one).sha256 == checked(*other).sha256
    assert checked(*one).sha256 != checked(*reversed(other)).sha256
    assert len(checked().sha256) == 64
