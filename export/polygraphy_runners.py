"""A model and the network it was made from as Polygraphy runners, and Polygraphy's figures about them."""

import contextlib
import logging
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from gocor.core.errors import DependencyError
from gocor.export.estimate import run_network, run_tensors, upsample_flow
from gocor.export.networks import Network
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.session import FlowEstimator

try:
    from polygraphy import comparator
    from polygraphy.backend.base import BaseRunner
    from polygraphy.common import TensorMetadata
    from polygraphy.logger import G_LOGGER
except ImportError as error:
    raise DependencyError("polygraphy", "is not installed", 'pip install "gocor-deploy[verify]"') from error

Arrays = Mapping[str, np.ndarray]

PYTORCH = "PyTorch"  # name of the network's own runner

logger = logging.getLogger("gocor")

# Polygraphy's figures about the elements of an output, in its own units. Relative ones are to PyTorch's
# element, so that a single one near zero can make them huge.
FIGURES = ("max_absdiff", "mean_absdiff", "median_absdiff", "max_reldiff", "mean_reldiff", "median_reldiff")


class Runner(BaseRunner):
    """Anything that maps a model's inputs to its outputs."""

    def __init__(self, name: str, metadata: ModelMetadata, call: Callable[[Arrays], Arrays]) -> None:
        super().__init__(name=name)
        self.metadata, self.call = metadata, call

    def activate_impl(self) -> None:
        """Nothing to do: model and network are loaded once for all pairs."""

    def deactivate_impl(self) -> None:
        """Nothing to do."""

    def get_input_metadata_impl(self) -> TensorMetadata:
        """Inputs as Polygraphy wants them."""
        described = TensorMetadata()
        for spec in self.metadata.inputs:
            described.add(spec.name, np.dtype(spec.dtype), spec.shape)
        return described

    def infer_impl(self, feed_dict: Arrays) -> "OrderedDict[str, np.ndarray]":
        """Runs the model or network, and takes its time."""
        start = time.perf_counter()
        outputs = OrderedDict(self.call(feed_dict))
        self.inference_time = time.perf_counter() - start
        return outputs


def run_all(
    estimators: Mapping[str, FlowEstimator], network: Network, inputs: Arrays
) -> dict[str, dict[str, np.ndarray]]:
    """Outputs of estimators of one model, and of PyTorch, for the model's inputs.

    Returns:
        For the name of each estimator, and for ``PYTORCH``, the outputs by name.
    """
    metadata = next(iter(estimators.values())).metadata
    runners = [Runner(name, metadata, estimator.run) for name, estimator in estimators.items()]
    runners.append(Runner(PYTORCH, metadata, lambda feed: run_pytorch(network, metadata, feed)))
    with _polygraphys_voice():
        results = comparator.Comparator.run(runners, data_loader=[OrderedDict(inputs)])
    return {runner.name: dict(results[runner.name][0].items()) for runner in runners}


def run_pytorch(network: Network, metadata: ModelMetadata, inputs: Arrays) -> dict[str, np.ndarray]:
    """What the model should give for its inputs, from the official pipeline or, for tensors, the network."""
    if metadata.io == "tensors":
        outputs = run_tensors(network, inputs)
    else:
        outputs = run_network(network, inputs["reference"], inputs["query"])
        last = outputs[network.spec.outputs[-1]] * network.spec.flow_unit
        outputs["flow"] = upsample_flow(last, *metadata.size, network.spec.working_size(*metadata.size))
    return {name: outputs[name].cpu().numpy() for name in metadata.output_names}


def compare_elements(model: Arrays, truth: Arrays) -> dict[str, dict[str, float | None]]:
    """Polygraphy's simple comparison of every output: ``FIGURES`` by name, None where not finite."""
    # SimpleCompareFunc came with 0.53; CompareFunc.simple goes with 0.60.
    simple = getattr(comparator, "SimpleCompareFunc", None) or comparator.CompareFunc.simple
    sides = [
        comparator.IterationResult(OrderedDict(outputs), runner_name=name)
        for name, outputs in (("model", model), ("truth", truth))
    ]
    with _polygraphys_voice(), np.errstate(all="ignore"):  # what is not finite is judged elsewhere
        # Only the figures count; Polygraphy's own verdict would be about single elements.
        compared = simple(check_error_stat="max", atol=math.inf, rtol=math.inf)(*sides)
    return {name: {f: _finite(getattr(result, f)) for f in FIGURES} for name, result in compared.items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


@contextlib.contextmanager
def _polygraphys_voice() -> Iterator[None]:
    """Polygraphy tells stdout a lot: silenced, or sent to stderr where somebody debugs."""
    severity = G_LOGGER.INFO if logger.isEnabledFor(logging.DEBUG) else G_LOGGER.CRITICAL
    with G_LOGGER.verbosity(severity), contextlib.redirect_stdout(sys.stderr):
        yield
