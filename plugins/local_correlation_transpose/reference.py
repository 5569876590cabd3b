"""NumPy semantics of ``LocalCorrelationTranspose``: the oracle of every test."""

import numpy as np
import numpy.typing as npt

from gocor.plugins.local_correlation_transpose.schema import SCHEMA


def local_correlation_transpose(
    volume: npt.NDArray[np.floating], query: npt.NDArray[np.floating], radius: int
) -> npt.NDArray[np.floating]:
    """Sums the query vectors around each pixel, weighted by that pixel's volume.

    ``out[n, c, y, x] = 1/C * sum_d volume[n,d,y,x] * query[n,c,y+dy,x+dx]`` with
    ``d = (dy+r)*(2r+1) + dx+r``, zero outside: the adjoint of ``LocalCorrelation`` in its reference.

    Args:
        volume: weights ``(N, (2r+1)**2, H, W)``, float16 or float32.
        query: features ``(N, C, H, W)``, dtype of ``volume``.
        radius: search radius in feature pixels, 1..16.

    Returns:
        Features ``(N, C, H, W)``, dtype of ``query``; accumulated in float64.

    Raises:
        ShapeError: shapes do not fit; the text gives both.
    """
    shape = SCHEMA.check(volume.shape, query.shape, radius=radius)
    channels, height, width = shape[1:]
    border = ((0, 0), (0, 0), (radius, radius), (radius, radius))
    padded = np.pad(query.astype(np.float64), border)
    features = np.zeros(shape)
    for d in range(volume.shape[1]):
        dy, dx = divmod(d, 2 * radius + 1)
        features += volume[:, d : d + 1] * padded[:, :, dy : dy + height, dx : dx + width]
    return (features / channels).astype(query.dtype)
