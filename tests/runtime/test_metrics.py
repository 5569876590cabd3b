import numpy as np
import pytest

from gocor.core.errors import ShapeError
from gocor.runtime.metrics import FlowError, end_point_error, fl_all, pck


@pytest.fixture
def truth():
    flow = np.zeros((2, 2, 5))
    flow[0] = 100
    return flow


@pytest.fixture
def estimate(truth):
    """Errors 0, 5, 10, 0 … in x and y."""
    estimate = truth.copy()
    estimate[:, 0, 1], estimate[:, 0, 2] = (103, 4), (106, 8)
    return estimate


def test_numbers_by_hand(estimate, truth):
    error = FlowError.between(estimate, truth)
    assert error.aepe == pytest.approx(1.5)
    assert error.median == 0
    assert error.p99 == pytest.approx(10 - 0.09 * 5)
    assert error.maximum == 10
    assert error.relative_l2 == pytest.approx(np.sqrt(125) / np.sqrt(10 * 100**2))
    assert error.pixels == 10


def test_fl_all_needs_both_conditions(estimate, truth):
    # 5 px is above 3 px, yet not above 5 % of 100 px; 10 px is.
    assert fl_all(estimate, truth) == pytest.approx(10)
    estimate[0, 1, 0] += 5.1
    assert FlowError.between(estimate, truth).fl_all == pytest.approx(20)
    three_pixels_off = np.array([[[4.0, 3.0]], [[1.0, 1.0]]])
    assert fl_all(three_pixels_off, np.ones((2, 1, 2))) == 0  # above 3 px, not from 3 px on


def test_pck_includes_the_threshold(estimate, truth):
    assert [pck(estimate, truth, t) for t in (0, 4.9, 5, 10)] == pytest.approx([80, 80, 90, 100])


def test_mask_leaves_pixels_out(estimate, truth):
    valid = np.ones((2, 5), bool)
    valid[0, 2] = False
    truth[:, 0, 2] = np.nan
    error = FlowError.between(estimate, truth, valid)
    assert (error.maximum, error.pixels) == (5, 9)
    assert pck(estimate, truth, 1, valid) == pytest.approx(100 * 8 / 9)


def test_batches(estimate, truth):
    batch, truths = np.stack([estimate, truth]), np.stack([truth, truth])
    assert end_point_error(batch, truths).shape == (2, 2, 5)
    assert FlowError.between(batch, truths).aepe == pytest.approx(0.75)


def test_relative_error_of_no_motion():
    still = np.zeros((2, 3, 3))
    assert FlowError.between(still, still).relative_l2 == 0
    assert FlowError.between(still + 1, still).relative_l2 == float("inf")


def test_float16_does_not_overflow():
    truth = np.full((2, 2, 2), 60000, np.float16)
    assert FlowError.between(-truth, truth).maximum == pytest.approx(np.hypot(2, 2) * 60000, rel=1e-3)


def test_what_cannot_be_compared(estimate, truth):
    with pytest.raises(ShapeError, match=r"estimate: has shape \(2, 2, 4\); that of the truth, \(2, 2, 5\)"):
        FlowError.between(estimate[..., 1:], truth)
    with pytest.raises(ShapeError, match=r"truth: has shape \(2, 5\); a flow, \(2, H, W\) or \(N, 2, H, W\)"):
        FlowError.between(estimate[0], truth[0])
    with pytest.raises(ShapeError, match=r"valid: is float64 of shape \(2, 5\); bool \(2, 5\)"):
        FlowError.between(estimate, truth, np.ones((2, 5)))
    with pytest.raises(ShapeError, match="valid: leaves no pixel to compare"):
        FlowError.between(estimate, truth, np.zeros((2, 5), bool))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(estimate, truth, value):
    estimate[0, 1, 1] = value
    with pytest.raises(
        ShapeError, match="estimate: is not finite at 1 of 10 pixels; NaN and infinity masked"
    ):
        FlowError.between(estimate, truth)
    with pytest.raises(ShapeError, match="truth: is not finite at 1 of 10 pixels"):
        FlowError.between(truth, estimate)
