"""What is measured of a model on the calibration pairs: its channels first, then its ranges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gocor.calibration.collect import Probe, Progress, collect
from gocor.calibration.equalize import choose_scales, equalize, feeding, find_sources, largest_values
from gocor.calibration.histogram import Method, thresholds
from gocor.calibration.pairs import CalibrationPairs, PairChecks
from gocor.calibration.ranges import Range
from gocor.calibration.selection import Convolution
from gocor.runtime.metadata import ModelMetadata

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Measurement:
    """Runs forms of one model on the pairs to calibrate with.

    Attributes:
        metadata: of the model.
        where: for the text of errors.
        threads: for the operators; one for each physical core when None.
        pairs: to run.
        progress: told about every pair.
    """

    metadata: ModelMetadata
    where: Path
    threads: int | None
    pairs: CalibrationPairs
    progress: Progress | None

    def equalized(
        self, model: "onnx.ModelProto", convolutions: Sequence[Convolution]
    ) -> tuple["onnx.ModelProto", Mapping[str, tuple[float, ...]]]:
        """The model with its channels evened out, and what they were divided by.

        Raises:
            ImageError: a pair cannot be read.
            ModelError: a tensor is not finite.
        """
        sources = feeding(find_sources(model), convolutions)
        probe = self._probe(model, {source.tensor: source.readers[0][0] for source in sources})
        largest = largest_values(probe, self.pairs.calibration(), self.pairs.count, self.progress)
        scales = choose_scales(model, convolutions, sources, largest)
        return equalize(model, sources, scales), scales

    def ranges(
        self, model: "onnx.ModelProto", tensors: Mapping[str, str], checks: PairChecks, method: Method
    ) -> dict[str, Range]:
        """Range of each tensor by ``method``.

        Raises:
            ImageError: a pair cannot be read.
            ModelError: a tensor is not finite.
        """
        pairs = self.pairs
        probe = self._probe(model, tensors)
        histograms = collect(probe, pairs.calibration(), checks, pairs.count, self.progress)
        if self.progress:
            self.progress(len(checks.names), pairs.count, "choose ranges")
        ranges = {}
        for name, (low, high) in thresholds(histograms, method).items():
            seen = histograms[name]
            clipped = seen.share_above(max(abs(low), abs(high)))
            ranges[name] = Range(seen.minimum, seen.maximum, low, high, clipped)
        return ranges

    def _probe(self, model: "onnx.ModelProto", tensors: Mapping[str, str]) -> Probe:
        return Probe(model, self.metadata, tensors, self.threads, self.where)
