"""The flow that a homography means."""

from pathlib import Path

import numpy as np

from gocor.core.errors import ImageError
from gocor.core.reading import DOCUMENT, read_bytes


def read_homography(path: str | Path) -> np.ndarray:
    """Reads a text file of 3×3 numbers, separated by white space or commas, as float64 ``(3, 3)``.

    Raises:
        ImageError: the file cannot be read, holds something else, or a matrix without inverse.
    """
    path = Path(path)
    expected = "3×3 numbers, a homography from reference to query"
    try:
        text = read_bytes(path, DOCUMENT, ImageError).decode("utf-8")
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror or error})", expected) from error
    except ValueError as error:
        raise ImageError(path, f"is no text of numbers ({error})", expected) from error
    if len(numbers) != 9:
        raise ImageError(path, f"holds {len(numbers)} numbers", expected)
    matrix = np.reshape(numbers, (3, 3))
    if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix) < 3:
        raise ImageError(path, "holds a matrix that has no inverse", expected)
    return matrix


def homography_flow(
    matrix: np.ndarray, size: tuple[int, int], query_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Where a homography takes each pixel.

    Args:
        matrix: ``(3, 3)``, takes homogeneous pixel positions of the reference to those of the query.
        size: height and width of the reference.
        query_size: height and width of the query.

    Returns:
        Flow, float32 ``(2, H, W)``, and bool ``(H, W)``, true where it ends inside of the query; 0 elsewhere.
    """
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    u, v, w = np.tensordot(matrix, np.stack([x, y, np.ones_like(x)]), axes=1)
    # The sign of a homography is free; the image's centre is always in front of the camera.
    w_centre = w[size[0] // 2, size[1] // 2]
    in_front = w * w_centre > 0
    w = np.where(in_front, w, 1)
    u, v = u / w, v / w
    inside = (u >= 0) & (u <= query_size[1] - 1) & (v >= 0) & (v <= query_size[0] - 1)
    valid = in_front & inside
    return np.where(valid, np.stack([u - x, v - y]), 0).astype(np.float32), valid
