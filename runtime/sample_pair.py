"""A built-in pair of images with known flow, so that verify, bench and tests need no files."""

import numpy as np

CELLS = (4, 8, 16, 32, 64)  # sizes of the texture's features in pixels: something to match on every level
LARGEST_STEP = 3.0  # px that the varying part of the flow reaches at most, along each axis
SHIFT = (1.75, -1.25)  # px, x and y: what all of the flow has in common
MARGIN = 8  # px of texture around the query, more than the longest vector


def sample_pair(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A textured pair and the smooth flow between its images, the same on every platform.

    Args:
        height: of the images.
        width: of the images.
        seed: another pair for every seed.

    Returns:
        reference and query, uint8 RGB ``(height, width, 3)``, and the flow, float32 ``(2, height, width)`` in
        pixels, at most 5 along each axis: ``reference(x) = query(x + flow(x))`` up to rounding to uint8,
        wherever that is inside of the query.
    """
    # NumPy's frozen generator and elementwise arithmetic only: with BLAS or libm, bits depend on the machine.
    random = np.random.RandomState(seed)
    canvas = _texture(random, height + 2 * MARGIN, width + 2 * MARGIN)
    cell = max(height, width) / 2.5
    step = np.stack([_noise(random, cell, height, width) * 2 - 1 for _ in range(2)])
    flow = (LARGEST_STEP * step + np.reshape(SHIFT, (2, 1, 1))).astype(np.float32)
    y, x = np.mgrid[:height, :width] + np.float32(MARGIN)
    reference = _sample(canvas, y + flow[1], x + flow[0])
    query = canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return _to_uint8(reference), _to_uint8(query), flow


def _texture(random: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """Grey and coloured noise of every cell size, ``(height, width, 3)`` in 0..1."""
    grey = sum(_noise(random, cell, height, width) for cell in CELLS) / len(CELLS)
    channels = []
    for _ in range(3):
        tint = sum(_noise(random, cell, height, width) for cell in CELLS[2:]) / len(CELLS[2:])
        channels.append(0.65 * grey + 0.35 * tint)
    # The mean of many is close to 0.5: stretched to the contrast of a photograph.
    return np.clip(2.2 * (np.stack(channels, axis=-1) - 0.5) + 0.5, 0, 1)


def _noise(random: np.random.RandomState, cell: float, height: int, width: int) -> np.ndarray:
    """Random values in 0..1 on a grid of such cells, interpolated smoothly to every pixel."""
    values = random.random_sample((int(height / cell) + 2, int(width / cell) + 2))
    rows, down = _cells(cell, height)
    columns, across = _cells(cell, width)
    values = values[rows] * (1 - down[:, None]) + values[rows + 1] * down[:, None]
    return values[:, columns] * (1 - across) + values[:, columns + 1] * across


def _cells(cell: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The cell of each pixel, and the smoothstep of its place in there."""
    position = np.arange(size) / cell
    index = position.astype(np.intp)
    part = position - index
    return index, part * part * (3 - 2 * part)


def _sample(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear samples of ``image`` at positions inside of it."""
    top, left = y.astype(np.intp), x.astype(np.intp)
    down, across = (y - top)[..., None], (x - left)[..., None]
    upper = image[top, left] * (1 - across) + image[top, left + 1] * across
    lower = image[top + 1, left] * (1 - across) + image[top + 1, left + 1] * across
    return upper * (1 - down) + lower * down


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return (image * 255 + 0.5).astype(np.uint8)
