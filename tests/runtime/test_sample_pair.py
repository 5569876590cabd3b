import zlib

import numpy as np
import pytest

from gocor.runtime.sample_pair import MARGIN, sample_pair


def warp(query: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The query at x + flow(x), and where that lies inside of it; written a second time, for this test."""
    height, width, _ = query.shape
    y, x = np.mgrid[:height, :width] + flow[::-1].astype(np.float64)
    inside = (y >= 0) & (x >= 0) & (y <= height - 1) & (x <= width - 1)
    y, x = np.clip(y, 0, height - 1.001), np.clip(x, 0, width - 1.001)
    result = np.zeros(query.shape)
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = np.floor(y).astype(int) + dy, np.floor(x).astype(int) + dx
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            result += weight[..., None] * query[row, column]
    return result, inside


def test_the_reference_is_the_query_warped_by_the_flow() -> None:
    reference, query, flow = sample_pair(96, 128)
    warped, inside = warp(query, flow)
    assert inside.mean() > 0.9
    assert abs(warped - reference)[inside].max() < 1.01  # both were rounded to uint8
    assert abs(query - reference.astype(float))[inside].mean() > 10  # and it is no trivial pair


def test_the_flow_is_smooth_known_and_no_mere_shift() -> None:
    _, _, flow = sample_pair(96, 128)
    assert flow.dtype == np.float32
    assert abs(flow).max() <= 5 < MARGIN
    assert abs(np.diff(flow)).max() < 0.3
    assert (flow.std((1, 2)) > 0.5).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (256, 256)])
def test_any_size(size: tuple[int, int]) -> None:
    reference, query, flow = sample_pair(*size)
    assert reference.shape == query.shape == (*size, 3)
    assert reference.dtype == query.dtype == np.uint8
    assert flow.shape == (2, *size)


def test_the_pair_is_the_same_on_every_machine() -> None:
    # Reports of two machines about "the built-in pair" are about the same pixels.
    checksums = [zlib.crc32(image.tobytes()) for image in sample_pair(64, 96)[:2]]
    assert checksums == [2514013449, 625338018]


def test_seeds_give_different_pairs() -> None:
    assert (sample_pair(16, 16, seed=1)[0] != sample_pair(16, 16, seed=2)[0]).any()
