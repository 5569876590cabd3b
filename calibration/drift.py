"""How far the flow of models is from that of the model that they were made from."""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gocor.calibration.collect import Progress
from gocor.calibration.pairs import CalibrationPairs, load_pair
from gocor.core.errors import ModelError
from gocor.runtime.metrics import end_point_error
from gocor.runtime.pairs import Pair
from gocor.runtime.session import FlowEstimator, load

if TYPE_CHECKING:
    import onnx

REMEMBERED = 2**28  # bytes of images that are kept rather than read or generated again


@dataclass(frozen=True)
class Drift:
    """End-point errors of a model against the one it was made from, over all pixels of some pairs.

    Attributes:
        pairs: their names.
        apart: none of them was calibrated with.
        aepe: mean, px; None, here and below, where a flow is not finite.
        p99: 99th percentile, px.
        maximum: px.
    """

    pairs: tuple[str, ...]
    apart: bool
    aepe: float | None
    p99: float | None
    maximum: float | None

    @property
    def error(self) -> float:
        """Of the mean, to compare: infinite where a flow is not finite."""
        return math.inf if self.aepe is None else self.aepe


class DriftMeter:
    """Runs models on the held-out pairs, on the CPU; the model before runs once, when the meter is made.

    Args:
        before: the model that the others are compared with.
        pairs: whose ``held_out`` are used.
        threads: for the operators; one for each physical core when None.
        progress: told about the pairs.

    Raises:
        ImageError: a pair cannot be read.
        ModelError: the model cannot be loaded or fails, or its flow is not finite.
    """

    def __init__(
        self, before: Path, pairs: CalibrationPairs, threads: int | None, progress: Progress | None = None
    ) -> None:
        self._pairs, self._threads = pairs, threads
        self._images: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._flows: list[np.ndarray] = []
        with load(before, "cpu", threads) as estimator:
            for number, pair in enumerate(pairs.held_out):
                if progress:
                    progress(number, len(pairs.held_out), f"flow of {pair.name}")
                self._flows.append(flow := estimator(*self._load(pair)))
                if bad := int(np.count_nonzero(~np.isfinite(flow))):
                    shares = f"{bad:,} of {flow.size:,} values for pair {pair.name}"
                    got = f"its flow holds NaN or infinity in {shares}"
                    raise ModelError(before, got, "look at its weights and at the pair")

    def measure(self, after: FlowEstimator, progress: Progress | None = None) -> Drift:
        """Runs another model, and closes it.

        Raises:
            ImageError: a pair cannot be read any more.
            ModelError: the model fails.
        """
        errors, held_out = [], self._pairs.held_out
        with after as estimator:
            estimator.note_no_size()  # the model before did
            for number, (pair, flow) in enumerate(zip(held_out, self._flows, strict=True)):
                if progress:
                    progress(number, len(held_out), f"drift on {pair.name}")
                with np.errstate(invalid="ignore"):
                    found = end_point_error(estimator(*self._load(pair)), flow)
                errors.append(found.astype(np.float32).ravel())
        names = tuple(pair.name for pair in held_out)
        together = np.concatenate(errors)
        if not np.isfinite(together).all():
            return Drift(names, self._pairs.apart, None, None, None)
        figures = together.mean(dtype=np.float64), np.percentile(together, 99), together.max()
        return Drift(names, self._pairs.apart, *map(float, figures))

    def measure_model(self, model: "onnx.ModelProto", progress: Progress | None = None) -> Drift:
        """Like ``measure``, of a model that is in no file."""
        with tempfile.TemporaryDirectory(prefix="gocor-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(model.SerializeToString())
            return self.measure(load(path, "cpu", self._threads), progress)

    def _load(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        if pair.name in self._images:
            return self._images[pair.name]
        images = load_pair(pair)
        if sum(image.nbytes for kept in (*self._images.values(), images) for image in kept) <= REMEMBERED:
            self._images[pair.name] = images
        return images
