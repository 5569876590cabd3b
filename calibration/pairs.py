"""The pairs that a model is calibrated with: which of many, generated ones, and what is wrong with them."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gocor.core.errors import ConfigError, GocorError, ImageError
from gocor.runtime.pairs import Pair, PairSource
from gocor.runtime.preprocess import as_batches

if TYPE_CHECKING:
    from gocor.evaluation.sample import Sample
    from gocor.evaluation.synthetic.config import Split

FEW = 8
HELD_OUT = 8  # at most, of the pairs that a user gives
MOTION = 24 / 256  # largest displacement of synthetic pairs over their longer side, as in training
UNIFORM = 4.0  # standard deviation of an image's grey levels, of 255
OVEREXPOSED = 0.3  # share of a pair's values at 0 or 255


@dataclass(frozen=True)
class CalibrationPairs:
    """Pairs to calibrate with, and others to measure the drift on.

    Attributes:
        calibration: goes through the pairs, one in memory at a time.
        count: of them; what a video's header says may be too many.
        held_out: pairs for the drift.
        apart: none of ``held_out`` was calibrated with; False where there were too few pairs for that.
    """

    calibration: Callable[[], Iterator[Pair]]
    count: int
    held_out: tuple[Pair, ...]
    apart: bool = True


def synthetic(count: int, height: int, width: int) -> CalibrationPairs:
    """Generated pairs: the train split to calibrate with, the evaluation split held out.

    Raises:
        DependencyError: scikit-image, whose photographs they show, is not installed.
        ConfigError: the count is no positive number.
    """
    if count < 1:
        raise ConfigError("--synthetic", f"is {count}", "at least 1")
    # Imported here: the generator needs PyTorch, and pairs of the user's do not.
    from gocor.evaluation.synthetic.config import SyntheticConfig
    from gocor.evaluation.synthetic.dataset import synthetic as dataset

    def pairs(split: "Split", number: int) -> tuple[Pair, ...]:
        config = SyntheticConfig(height, width, MOTION * max(height, width), split)
        return tuple(
            Pair(f"{split}-{sample.name}", (), None, partial(_images, sample))
            for sample in dataset(config, number).samples
        )

    calibration = pairs("train", count)
    return CalibrationPairs(lambda: iter(calibration), count, pairs("evaluation", HELD_OUT))


def from_source(source: PairSource, samples: int) -> CalibrationPairs:
    """At most ``samples`` pairs of a source, spread evenly, and up to a fifth of the rest held out.

    Of a source of unknown length, as some videos are, the first pairs are taken.

    Raises:
        ConfigError: there is no pair.
    """
    places, held_out = spread(source.expected, samples)
    apart = tuple(_at(source, held_out))
    chosen = apart or tuple(_at(source, set(sorted(places)[:HELD_OUT])))
    if not chosen:
        raise ConfigError("--pairs", "holds no pair", "at least one")
    return CalibrationPairs(lambda: _at(source, places), len(places), chosen, bool(apart))


def to_compare(source: PairSource | None, height: int, width: int) -> CalibrationPairs:
    """Pairs to compare flows on, and none to calibrate with: some of a source, or generated ones.

    Raises:
        ConfigError: there is no pair.
        DependencyError: scikit-image, whose photographs generated pairs show, is not installed.
    """
    if source is None:
        return synthetic(1, height, width)
    total = HELD_OUT if source.expected is None else source.expected
    count = min(HELD_OUT, total)
    chosen = tuple(_at(source, {(2 * index + 1) * total // (2 * count) for index in range(count)}))
    if not chosen:
        raise ConfigError("--pairs", "holds no pair", "at least one")
    return CalibrationPairs(lambda: iter(()), 0, chosen)


def spread(expected: int | None, samples: int) -> tuple[set[int], set[int]]:
    """Places, from 0, of the pairs to calibrate with and of those held out, both spread evenly."""
    total = samples + min(HELD_OUT, samples // 4) if expected is None else expected
    held = min(HELD_OUT, total // 5)
    # In the middle of equal stretches: a video's first and last frames are rarely like the others.
    held_out = {(2 * index + 1) * total // (2 * held) for index in range(held)}
    rest = [place for place in range(total) if place not in held_out]
    count = min(samples, len(rest))
    return {rest[index * len(rest) // count] for index in range(count)}, held_out


def _at(source: PairSource, places: set[int]) -> Iterator[Pair]:
    if not places:
        return
    last = max(places)
    for place, pair in enumerate(source):
        if place in places:
            yield pair
        if place >= last:
            return


def _images(sample: "Sample") -> tuple[np.ndarray, np.ndarray]:
    truth = sample.load()
    return truth.reference, truth.query


def load_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Images of a pair, ``(1, H, W, 3)`` each.

    Raises:
        ImageError: they cannot be read or differ in size.
    """
    try:
        return as_batches(*pair.load())
    except ImageError:
        raise
    except GocorError as error:
        raise ImageError(pair.name, error.got, error.expected) from error


@dataclass
class PairChecks:
    """Notices what makes pairs a poor sample, one at a time."""

    names: list[str] = field(default_factory=list)
    uniform: list[str] = field(default_factory=list)
    exposed: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    _seen: set[bytes] = field(default_factory=set)
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, name: str, reference: np.ndarray, query: np.ndarray) -> None:
        """Looks at one pair of uint8 images."""
        images = np.concatenate([reference.ravel(), query.ravel()])
        digest = hashlib.sha256(repr(reference.shape).encode() + images.tobytes()).digest()
        self._digest.update(digest)
        self.names.append(name)
        if digest in self._seen:
            self.repeated.append(name)
        self._seen.add(digest)
        if min(float(image.mean(axis=-1).std()) for image in (reference, query)) < UNIFORM:
            self.uniform.append(name)
        if float(((images == 0) | (images == 255)).mean()) > OVEREXPOSED:
            self.exposed.append(name)

    @property
    def sha256(self) -> str:
        """Of all images in order."""
        return self._digest.hexdigest()

    def notes(self) -> list[str]:
        """One line for each kind of trouble."""
        count, notes = len(self.names), []
        if count < FEW:
            notes.append(
                f"{_pairs(count)} {_is(count)} few: ranges miss what other scenes show; give 32 or more"
            )
        for found, what in (
            (self.uniform, f"nearly uniform (grey levels deviate by less than {UNIFORM:g} of 255)"),
            (
                self.exposed,
                f"under- or overexposed (more than {100 * OVEREXPOSED:g} % of values at 0 or 255)",
            ),
            (self.repeated, "the same as an earlier one"),
        ):
            if found:
                notes.append(f"{len(found)} of {_pairs(count)} {_is(len(found))} {what}: {_some(found)}")
        return notes


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
