"""NumPy semantics of ``LocalGOCor``: the oracle of every test."""

import numpy as np
import numpy.typing as npt

from gocor.plugins.local_correlation.reference import local_correlation
from gocor.plugins.local_correlation_transpose.reference import local_correlation_transpose
from gocor.plugins.local_gocor.schema import SCHEMA

Array = npt.NDArray[np.floating]


def local_gocor(
    reference: Array, query: Array, target: Array, weight: Array, mask: Array, scalars: Array,
    radius: int, iterations: int,
) -> Array:  # fmt: skip
    """Optimises a correlation filter for every pixel, and correlates it with the query.

    A filter starts as its pixel's reference vector f, ``scaling * f / (mean_c f**2 + 1e-6)``. Every step
    takes it against the gradient of what its scores s on the reference around it lack to be what they should,
    ``sum_d (v a(s) - v y)**2 + λ |filter|**2`` with ``a(s) = s`` where s > 0 and ``a(s) = m s`` where s < 0,
    halved. Where s = 0 the slope of a is (1+m)/2.

    Args:
        reference: features ``(N, C, H, W)``, float16 or float32.
        query: features, shape and dtype of ``reference``.
        target: y, the score that a filter should have at each displacement, ``((2r+1)**2,)``, float32; the
            displacement ``(dy, dx)`` is at ``(dy+r)*(2r+1) + dx+r``.
        weight: v₊, how much each displacement counts, likewise.
        mask: m, how much of that is left where a score is negative, likewise.
        scalars: ``(4,)`` float32: scaling; η, the factor of each step's length; λ, the weight of a filter's
            own square, already divided by C²; what is added to a step's denominator for each squared
            gradient. A scaling of 0 makes initial filters of zeros.
        radius: search radius in feature pixels, 1..16.
        iterations: steps, from 0.

    Returns:
        Correlation volume ``(N, (2r+1)**2, H, W)``, dtype of ``reference``; computed in float64.

    Raises:
        ShapeError: shapes do not fit; the text gives them.

    Source:
        GOCor, NeurIPS 2020, sec. 3.
    """
    inputs = (reference, query, target, weight, mask, scalars)
    SCHEMA.check(*(array.shape for array in inputs), radius=radius, iterations=iterations)
    f, y, v, m = (a.astype(np.float64) for a in (reference, *(a.reshape(-1, 1, 1) for a in inputs[2:5])))
    scaling, step_length, regularization, steplength_regularization = scalars.astype(np.float64)
    filters = scaling * f / (np.mean(f * f, axis=1, keepdims=True) + 1e-6)
    for _ in range(iterations):
        scores = local_correlation(filters, f, radius)
        slope = v * ((1 - m) / 2 * np.sign(scores) + (1 + m) / 2)
        residual = slope * (slope * scores - v * y)
        gradient = local_correlation_transpose(residual, f, radius) + regularization * filters
        change = slope * local_correlation(gradient, f, radius)
        squared_gradient, squared_change = (np.sum(a * a, axis=1, keepdims=True) for a in (gradient, change))
        curvature = np.maximum(squared_change + regularization * squared_gradient, 1e-8)
        curvature += steplength_regularization * squared_gradient
        filters = filters - step_length * squared_gradient / curvature * gradient
    return local_correlation(filters, query.astype(np.float64), radius).astype(reference.dtype)
