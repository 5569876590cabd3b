"""What the tensors to quantise hold while a model runs on pairs; one pair in memory at a time."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gocor.calibration.histogram import Histogram
from gocor.calibration.pairs import PairChecks, load_pair
from gocor.core.errors import ModelError
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.onnxruntime_session import open_session
from gocor.runtime.pairs import Pair
from gocor.runtime.session import model_inputs

if TYPE_CHECKING:
    import onnx
    import onnxruntime

Progress = Callable[[int, int | None, str], None]


class Probe:
    """A model that also gives tensors inside of it.

    Args:
        model: of ``gocor export``; it stays as it is.
        metadata: of the model.
        tensors: to give, in the order of the graph, each with the node that reads it.
        threads: for the operators; one for each physical core when None.
        where: for the text of errors.
    """

    def __init__(
        self,
        model: "onnx.ModelProto",
        metadata: ModelMetadata,
        tensors: Mapping[str, str],
        threads: int | None,
        where: object,
    ) -> None:
        self.metadata, self.tensors, self.where = metadata, tensors, where
        self._session = open_widened(model, list(tensors), threads)

    def run(self, reference: np.ndarray, query: np.ndarray, pair: str) -> dict[str, np.ndarray]:
        """Values of the tensors for a pair ``(1, H, W, 3)``.

        Raises:
            ModelError: a tensor, or the flow, holds NaN or infinity; the text names the first and the pair.
        """
        names = [*self.tensors, self.metadata.flow.name]
        values = self._session.run(names, model_inputs(self.metadata, reference, query))
        for name, value in zip(names, values, strict=True):
            if bad := int(np.count_nonzero(~np.isfinite(value))):
                reader = f" (input of {self.tensors[name]})" if name in self.tensors else ""
                shares = f"{bad:,} of {value.size:,} values for pair {pair}"
                got = f"tensor {name}{reader} holds NaN or infinity in {shares}"
                raise ModelError(self.where, got, "look at its weights and at the pair")
        return dict(zip(self.tensors, values, strict=False))


def collect(
    probe: Probe, pairs: Iterable[Pair], checks: PairChecks, total: int | None, progress: Progress | None
) -> dict[str, Histogram]:
    """Counts the values of the probe's tensors over all pairs.

    Raises:
        ImageError: a pair cannot be read.
        ModelError: a tensor is not finite.
    """
    histograms: Mapping[str, Histogram] = {name: Histogram() for name in probe.tensors}
    for number, pair in enumerate(pairs):
        if progress:
            progress(number, total, pair.name)
        reference, query = load_pair(pair)
        checks.add(pair.name, reference, query)
        for name, values in probe.run(reference, query, pair.name).items():
            histograms[name].add(values)
    return dict(histograms)


def open_widened(
    model: "onnx.ModelProto", tensors: Sequence[str], threads: int | None = None
) -> "onnxruntime.InferenceSession":
    """A session on the CPU of the model with more outputs: these tensors."""
    import onnx

    widened = onnx.ModelProto()
    widened.CopyFrom(model)
    there = {output.name for output in model.graph.output}
    # Without a type: ONNX Runtime infers it.
    widened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in there)
    with tempfile.TemporaryDirectory(prefix="gocor-") as folder:
        path = Path(folder) / "probe.onnx"
        path.write_bytes(widened.SerializeToString())
        return open_session(path, "cpu", threads)
