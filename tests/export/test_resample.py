import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from gocor.export.resample import PILLOW_BITS, area_matrix, pillow_bilinear_matrix, resize_separable

SIDES = [(64, 64), (65, 64), (100, 64), (211, 256), (640, 384), (1000, 64), (7, 64), (1, 64), (64, 1)]


@pytest.mark.parametrize(("size", "new_size"), SIDES)
def test_area_matrix_is_adaptive_average_pooling(size: int, new_size: int) -> None:
    values = torch.rand(1, 3, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = torch.from_numpy(area_matrix(size, new_size))
    assert matrix.dtype == torch.float32
    pooled = values @ matrix.double().T
    torch.testing.assert_close(pooled, F.adaptive_avg_pool1d(values, new_size), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("size", "new_size"), SIDES)
def test_area_sums_are_exact_in_float32(size: int, new_size: int) -> None:
    """Whole sums, to be divided by exact counts afterwards: a rounded mean could lose 1 when truncated."""
    sums, means = area_matrix(size, new_size, average=False), area_matrix(size, new_size)
    assert set(np.unique(sums)) <= {0.0, 1.0}
    counts = sums.sum(axis=1, keepdims=True)
    assert counts.min() >= 1
    assert np.array_equal(means, sums / counts)


def resized_by_hand(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Two integer products, the horizontal one first, each rounded to 8 bits."""
    height, width = pixels.shape
    half = 1 << (PILLOW_BITS - 1)
    rows = (pixels.astype(np.int64) @ pillow_bilinear_matrix(width, size[1]).T + half) >> PILLOW_BITS
    return (pillow_bilinear_matrix(height, size[0]) @ rows + half) >> PILLOW_BITS


@pytest.mark.parametrize(
    ("size", "new_size"),
    [
        ((150, 211), (192, 256)),
        ((211, 150), (256, 192)),
        ((375, 1242), (384, 1280)),
        ((480, 640), (64, 128)),
        ((97, 1000), (64, 192)),
        ((64, 100), (64, 128)),
        ((100, 64), (128, 64)),
        ((3, 5), (64, 64)),
        ((1, 1), (64, 64)),
    ],
    ids=str,
)
def test_pillow_matrix_is_pillow_to_the_bit(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(sum(size)).integers(0, 256, size, np.uint8)
    pixels[: size[0] // 2] = np.where(pixels[: size[0] // 2] > 128, 255, 0)  # the ends of the range, too
    expected = Image.fromarray(pixels).resize(new_size[::-1], Image.Resampling.BILINEAR)
    assert np.array_equal(resized_by_hand(pixels, new_size), np.asarray(expected))


@pytest.mark.parametrize(("size", "new_size"), SIDES)
def test_pillow_weights_add_up(size: int, new_size: int) -> None:
    """Up to rounding each weight, so that a plain colour stays what it is."""
    matrix = pillow_bilinear_matrix(size, new_size)
    assert matrix.dtype == np.int64
    assert matrix.min() >= 0
    assert np.abs(matrix.sum(axis=1) - (1 << PILLOW_BITS)).max() <= np.count_nonzero(matrix, axis=1).max() / 2


def test_resize_separable_takes_rows_and_columns_in_that_order() -> None:
    maps = torch.arange(12.0).reshape(1, 1, 3, 4)
    first_row, last_two_columns = torch.eye(3)[:1], torch.eye(4)[2:]
    assert resize_separable(maps, first_row, last_two_columns).tolist() == [[[[2.0, 3.0]]]]
