"""NumPy semantics of ``LocalCorrelation``: the oracle of every test."""

import numpy as np
import numpy.typing as npt

from gocor.plugins.local_correlation.schema import SCHEMA


def local_correlation(
    reference: npt.NDArray[np.floating], query: npt.NDArray[np.floating], radius: int
) -> npt.NDArray[np.floating]:
    """Correlates each reference vector with the query vectors around the same pixel.

    ``out[n, (dy+r)*(2r+1) + dx+r, y, x] = mean_c reference[n,c,y,x] * query[n,c,y+dy,x+dx]``, zero outside.

    Args:
        reference: features ``(N, C, H, W)``, float16 or float32.
        query: features, shape and dtype of ``reference``.
        radius: search radius in feature pixels, 1..16.

    Returns:
        Correlation volume ``(N, (2r+1)**2, H, W)``, dtype of ``reference``; accumulated in float64.

    Raises:
        ShapeError: shapes differ; the text gives both.
    """
    shape = SCHEMA.check(reference.shape, query.shape, radius=radius)
    height, width = shape[2:]
    border = ((0, 0), (0, 0), (radius, radius), (radius, radius))
    padded = np.pad(query.astype(np.float64), border)
    volume = np.empty(shape)
    for d in range(shape[1]):
        dy, dx = divmod(d, 2 * radius + 1)
        volume[:, d] = (reference * padded[:, :, dy : dy + height, dx : dx + width]).mean(axis=1)
    return volume.astype(reference.dtype)
