"""How often a tensor's values come, in memory that does not grow: a fixed number of bins, widened on need.

ONNX Runtime's own collector adds bins of the first pair's width instead, without limit, and keeps every
pair's tensors until the last one; its search for thresholds is used as it is.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)
BINS = 2048
ENTROPY_BINS = 512  # on each side of zero; the library's search takes time with the square of them
LEVELS = 128  # of 8 bits on one side of zero
PERCENTILE = 99.999


@dataclass
class Histogram:
    """Counts of ``|value|`` in ``BINS`` bins from 0 to ``limit``.

    Attributes:
        limit: upper end of the last bin, which is the first pair's largest value times a power of two.
        counts: int64 ``(BINS,)``.
        minimum: smallest value seen, with its sign.
        maximum: largest.
    """

    limit: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    minimum: float = float("inf")
    maximum: float = float("-inf")

    def add(self, values: np.ndarray) -> None:
        """Counts finite values of any shape."""
        low, high = float(values.min()), float(values.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        largest = max(abs(low), abs(high))
        self._reach(largest)
        if not self.limit:
            self.counts[0] += values.size
            return
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        self.counts += np.histogram(magnitudes, BINS, (0.0, self.limit))[0]

    def share_above(self, magnitude: float) -> float:
        """Share of the values beyond ``±magnitude``, to the width of a bin, 0 to 1."""
        if not self.limit:
            return 0.0
        first = int(np.ceil(magnitude / self.limit * BINS - 1e-6))
        return float(self.counts[first:].sum() / self.counts.sum())

    def _reach(self, largest: float) -> None:
        self.limit = self.limit or largest
        while largest > self.limit:
            self.limit *= 2
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS // 2, np.int64)])


def thresholds(histograms: Mapping[str, Histogram], method: Method) -> dict[str, tuple[float, float]]:
    """Range to quantise for each tensor, inside of what was seen.

    Args:
        histograms: by tensor.
        method: ``minmax``: everything seen; ``percentile``: ``PERCENTILE`` % of the magnitudes; ``entropy``:
            the range whose 8-bit distribution loses the least information (Kullback–Leibler).
    """
    if method == "minmax":
        return {name: (h.minimum, h.maximum) for name, h in histograms.items()}
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector(
        method=method, symmetric=True, num_bins=BINS, num_quantized_bins=LEVELS, percentile=PERCENTILE,
        scenario="same",
    )  # fmt: skip
    form = _mirrored if method == "entropy" else _one_sided
    collector.histogram_dict = {
        name: form(histogram) for name, histogram in histograms.items() if histogram.limit
    }
    ranges = dict.fromkeys(histograms, (0.0, 0.0))
    if collector.histogram_dict:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # it prints
            found = collector.compute_collection_result()
        ranges |= {name: (float(low), float(high)) for name, (low, high, *_) in found.items()}
    return ranges


def _one_sided(histogram: Histogram) -> tuple[np.ndarray, ...]:
    edges = np.linspace(0, histogram.limit, BINS + 1, dtype=np.float32)
    return histogram.counts, edges, np.float32(histogram.minimum), np.float32(histogram.maximum)


def _mirrored(histogram: Histogram) -> tuple[np.ndarray, ...]:
    """Half of each count on either side of zero: 8 bits are symmetric, so the sign says nothing."""
    side = histogram.counts.reshape(ENTROPY_BINS, -1).sum(axis=1)
    edges = np.linspace(-histogram.limit, histogram.limit, 2 * ENTROPY_BINS + 1, dtype=np.float32)
    limits = np.float32(histogram.minimum), np.float32(histogram.maximum), np.float32(histogram.limit)
    return np.concatenate([side[::-1], side]), edges, *limits
