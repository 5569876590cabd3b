import numpy as np
import pytest

from gocor.core.errors import ConfigError, ShapeError
from gocor.runtime.visualize import (
    color_wheel,
    consistency_picture,
    flow_picture,
    flow_to_color,
    largest_magnitude,
    overview,
)


def one(x, y):
    return np.array([[[x]], [[y]]], np.float32)


def test_wheel_has_the_published_colours():
    wheel = color_wheel()
    assert wheel.shape == (55, 3)
    starts = {0: (255, 0, 0), 15: (255, 255, 0), 21: (0, 255, 0), 25: (0, 255, 255), 36: (0, 0, 255)}
    assert {index: tuple(wheel[index].tolist()) for index in starts} == starts
    assert tuple(wheel[49].tolist()) == (255, 0, 255)
    assert wheel[1].tolist() == [255, 17, 0]


@pytest.mark.parametrize(
    ("x", "y", "color"),
    [
        (1, 0, (255, 0, 0)),
        (0, 1, (255, 229, 0)),
        (-1, 0, (0, 209, 255)),
        (0, -1, (88, 0, 255)),
        (0, 0, (255,) * 3),
    ],
)
def test_directions(x, y, color):
    # From wheel positions 0, 13.5, 27 and 40.5, by hand.
    np.testing.assert_allclose(flow_to_color(one(x, y), 1.0)[0, 0], color, atol=1)


def test_magnitude_is_saturation_and_beyond_is_dark():
    np.testing.assert_allclose(flow_to_color(one(5, 0), 10)[0, 0], (255, 127, 127), atol=1)
    np.testing.assert_allclose(flow_to_color(one(15, 0), 10)[0, 0], (191, 0, 0), atol=1)


def test_largest_motion_is_full_colour_and_unknown_is_black():
    flow = np.zeros((2, 1, 4), np.float32)
    flow[0, 0] = [3, -6, np.nan, np.inf]
    assert largest_magnitude(flow) == 6
    color = flow_to_color(flow)[0]
    np.testing.assert_allclose(color[:2], [(255, 127, 127), (0, 209, 255)], atol=1)
    assert (color[2:] == 0).all()


@pytest.mark.parametrize("value", [0, np.nan])
def test_no_motion_and_nothing_known(value):
    picture = flow_to_color(np.full((2, 3, 3), value, np.float32))
    assert (picture == (255 if value == 0 else 0)).all()


def test_legend_is_small_and_in_the_corner():
    flow = np.full((2, 240, 320), 5, np.float32)
    changed = (flow_picture(flow) != flow_to_color(flow)).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert 0.01 < changed.mean() < 0.08
    assert rows.min() > 160
    assert columns.min() > 240


def test_tiny_pictures_have_no_legend():
    flow = np.full((2, 40, 50), 5, np.float32)
    np.testing.assert_array_equal(flow_picture(flow), flow_to_color(flow))


@pytest.mark.parametrize("size", [(120, 160), (5, 7), (300, 1500), (700, 20)])
def test_overview_shows_all_four(size):
    reference, query = (np.full((*size, 3), value, np.uint8) for value in (10, 90))
    warped = np.full((*size, 3), 160, np.uint8)
    flow = np.zeros((2, *size), np.float32)
    flow[0] = 1
    sheet = overview(reference, query, warped, flow)
    panel = sheet.shape[1] // 4
    assert 256 <= panel <= 700
    middle = sheet[sheet.shape[0] // 2]
    seen = [middle[index * panel + panel // 2].tolist() for index in range(4)]
    assert seen == [[10] * 3, [90] * 3, [160] * 3, [255, 0, 0]]


def test_overview_of_two_sizes():
    reference, query = np.zeros((120, 160, 3), np.uint8), np.full((60, 300, 3), 90, np.uint8)
    sheet = overview(reference, query, reference, np.zeros((2, 120, 160), np.float32))
    assert (sheet == 90).all(axis=-1).any()


def test_consistency_picture():
    reference = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    mask = np.ones((200, 300), bool)
    mask[:50] = False
    picture = consistency_picture(reference, mask)
    np.testing.assert_array_equal(picture[50:150], reference[50:150])
    assert (picture[:50, :, 0].astype(int) > picture[:50, :, 1].astype(int) + 100).all()


def test_wrong_arguments():
    with pytest.raises(ShapeError, match=r"flow: has shape \(3, 4\); \(2, H, W\)"):
        flow_to_color(np.zeros((3, 4)))
    with pytest.raises(ConfigError, match="max_magnitude: 0; a positive number of pixels"):
        flow_to_color(one(1, 1), 0)
    with pytest.raises(ShapeError, match=r"mask: has shape \(3, 4\); that of the reference, \(4, 3\)"):
        consistency_picture(np.zeros((4, 3, 3), np.uint8), np.ones((3, 4), bool))
