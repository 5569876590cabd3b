"""What an evaluation consists of: pairs of images whose flow is known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gocor.core.errors import ConfigError, ImageError
from gocor.runtime.images import load_image

MASK_THRESHOLD = 127  # mask files are 0 or 255; in between is what a lossy copy made of it


@dataclass(frozen=True)
class Truth:
    """A pair of images with its flow.

    Attributes:
        reference: uint8 RGB ``(H, W, 3)``.
        query: uint8 RGB, of any size.
        flow: float32 ``(2, H, W)`` on the reference grid, in pixels.
        valid: bool ``(H, W)``, where the flow is known.
        visible: bool ``(H, W)``, where it is known and the pixel is seen in the query; None if nobody knows.
    """

    reference: np.ndarray
    query: np.ndarray
    flow: np.ndarray
    valid: np.ndarray
    visible: np.ndarray | None = None


@dataclass(frozen=True)
class Sample:
    """One pair of a dataset, not yet loaded.

    Attributes:
        name: unique in the dataset.
        load: reads the pair; raises ``ImageError`` that names the file.
        group: part of the dataset that has figures of its own; "" if it has no parts.
    """

    name: str
    load: Callable[[], Truth]
    group: str = ""


@dataclass(frozen=True)
class Protocol:
    """How the errors of many pairs become one figure, as publications on the dataset do it.

    Attributes:
        source: where that is from.
        aepe: ``images``: each pair counts the same; ``pixels``: each pixel does.
        shares: the same for Fl and PCK.
        overall: ``pairs``: over all pairs; ``groups``: the mean of the groups; ``none``: groups alone.
        alpha: also report PCK within ``alpha`` times the query's longer side.
    """

    source: str
    aepe: Literal["images", "pixels"] = "images"
    shares: Literal["images", "pixels"] = "pixels"
    overall: Literal["pairs", "groups", "none"] = "pairs"
    alpha: float | None = None


@dataclass(frozen=True)
class Dataset:
    """Pairs with ground truth, and how to report on them.

    Attributes:
        name: as on the command line.
        samples: ordered by group.
        protocol: for its figures.
        facts: what else a reader of a report should know, as the generator's settings.
    """

    name: str
    samples: Sequence[Sample]
    protocol: Protocol
    facts: Mapping[str, object] | None = None

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups, in order."""
        return tuple(dict.fromkeys(sample.group for sample in self.samples if sample.group))

    def select(self, group: str | None = None, limit: int | None = None) -> "Dataset":
        """The samples of one group, and of them at most ``limit``, spread evenly.

        Raises:
            ConfigError: there is no such group, or the limit is no positive number.
        """
        samples = [sample for sample in self.samples if group is None or sample.group == group]
        if not samples:
            known = f"one of {', '.join(self.groups)}" if self.groups else f"{self.name} has no groups"
            raise ConfigError("group", f"unknown name {group!r}", known)
        if limit is not None and limit < 1:
            raise ConfigError("limit", f"is {limit}", "at least 1")
        if limit is not None and limit < len(samples):
            samples = [samples[index * len(samples) // limit] for index in range(limit)]
        return Dataset(self.name, samples, self.protocol, self.facts)


def checked(truth: Truth, flow_file: Path | str, reference_file: Path | str) -> Truth:
    """Refuses a flow that does not lie on the reference's grid or is known nowhere.

    Raises:
        ImageError: naming the flow's file.
    """
    height, width = truth.reference.shape[:2]
    if truth.flow.shape[1:] != (height, width):
        got = f"holds a flow of {truth.flow.shape[2]}×{truth.flow.shape[1]} pixels"
        raise ImageError(flow_file, got, f"the size of {reference_file}, {width}×{height}")
    if not truth.valid.any():
        raise ImageError(flow_file, "knows the flow of no pixel", "ground truth for at least one")
    return truth


def load_mask(path: Path, size_of: np.ndarray, size_file: Path | str) -> np.ndarray:
    """Reads a black-and-white mask, bool ``(H, W)``.

    Raises:
        ImageError: it cannot be read or has another size than the image ``size_of``.
    """
    mask = load_image(path)[..., 0] > MASK_THRESHOLD
    if mask.shape != size_of.shape[:2]:
        height, width = size_of.shape[:2]
        got = f"has {mask.shape[1]}×{mask.shape[0]} pixels"
        raise ImageError(path, got, f"the size of {size_file}, {width}×{height}")
    return mask
