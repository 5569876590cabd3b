"""The cases that every implementation of both operators is tried on."""

import pytest

from gocor.plugins.registry import CORRELATIONS

# (N, C, H, W), radius. PyTorch's tiles are 8×8, the function body's (2·radius)²: below, at and above both.
CASES = [
    ((1, 1, 1, 1), 1),
    ((1, 3, 1, 1), 4),
    ((2, 5, 7, 9), 1),
    ((1, 7, 5, 19), 2),
    ((2, 4, 9, 11), 3),
    ((1, 16, 8, 8), 4),
    ((2, 13, 17, 23), 4),
    ((1, 196, 6, 8), 4),
    ((1, 33, 1, 40), 4),
    ((1, 6, 26, 1), 4),
    ((1, 3, 16, 16), 5),
    ((1, 2, 13, 10), 6),
    ((3, 5, 20, 3), 7),
    ((1, 3, 17, 18), 8),
    ((1, 2, 3, 35), 16),
]
LARGE = ((2, 32, 24, 40), 4)

OPERATOR = pytest.mark.parametrize("operator", CORRELATIONS)


def table(cases: list[tuple[tuple[int, ...], int]]) -> pytest.MarkDecorator:
    ids = [f"{'x'.join(map(str, shape))}-r{radius}" for shape, radius in cases]
    return pytest.mark.parametrize(("shape", "radius"), cases, ids=ids)
