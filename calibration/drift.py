"""How far the flow of one model is from another's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gocor.calibration.collect import Progress
from gocor.calibration.pairs import CalibrationPairs, load_pair
from gocor.runtime.metrics import end_point_error
from gocor.runtime.session import load


@dataclass(frozen=True)
class Drift:
    """End-point errors of a model against the one it was made from, over all pixels of some pairs.

    Attributes:
        pairs: their names.
        apart: none of them was calibrated with.
        aepe: mean, px.
        p99: 99th percentile, px.
        maximum: px.
    """

    pairs: tuple[str, ...]
    apart: bool
    aepe: float
    p99: float
    maximum: float


def measure_drift(
    before: Path, after: Path, pairs: CalibrationPairs, threads: int | None, progress: Progress | None
) -> Drift:
    """Runs two models on the held-out pairs, on the CPU.

    Raises:
        ImageError: a pair cannot be read.
        ModelError: a model cannot be loaded or fails.
    """
    errors = []
    with load(before, "cpu", threads) as first, load(after, "cpu", threads) as second:
        for number, pair in enumerate(pairs.held_out):
            if progress:
                progress(number, len(pairs.held_out), f"drift on {pair.name}")
            images = load_pair(pair)
            errors.append(end_point_error(second(*images), first(*images)).ravel())
    together = np.concatenate(errors)
    return Drift(
        pairs=tuple(pair.name for pair in pairs.held_out),
        apart=pairs.apart,
        aepe=float(together.mean()),
        p99=float(np.percentile(together, 99)),
        maximum=float(together.max()),
    )
