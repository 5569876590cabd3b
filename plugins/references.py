"""The NumPy semantics of every operator by its name: the oracle of tests and benchmarks."""

from collections.abc import Callable

import numpy as np

from gocor.plugins.local_correlation.reference import local_correlation
from gocor.plugins.local_correlation_transpose.reference import local_correlation_transpose
from gocor.plugins.local_gocor.reference import local_gocor

REFERENCES: dict[str, Callable[..., np.ndarray]] = {
    "LocalCorrelation": local_correlation,
    "LocalCorrelationTranspose": local_correlation_transpose,
    "LocalGOCor": local_gocor,
}
