import math

import numpy as np
import pytest

from gocor.core.errors import ConfigError, ShapeError
from gocor.runtime.compare import TOLERANCES, Tolerance, compare_flows, compare_scores, tolerance_for
from gocor.runtime.spec import SPECS

TOLERANCE = Tolerance(aepe=0.01, relative_l2=1e-3, noise=1e-4)


def flow(height: int = 4, width: int = 6, value: float = 5.0) -> np.ndarray:
    return np.full((2, height, width), value, np.float32)


def test_every_family_has_a_tolerance() -> None:
    assert set(TOLERANCES) == {spec.family for spec in SPECS.values()}
    assert {family: limits.aepe for family, limits in TOLERANCES.items()} == {"pwcnet": 0.005, "glunet": 0.02}


def test_low_precision_has_tolerances_of_its_own() -> None:
    for family, limits in TOLERANCES.items():
        fp16, bf16 = tolerance_for(family, "fp16"), tolerance_for(family, "bf16")
        assert tolerance_for(family, "fp32") is limits
        assert (limits.p99, fp16.p99, bf16.p99) == (None, 10 * fp16.aepe, 10 * bf16.aepe)
        assert limits.aepe < fp16.aepe
        assert (bf16.aepe, bf16.relative_l2) == (8 * fp16.aepe, 8 * fp16.relative_l2)
        int8 = tolerance_for(family, "fp32", int8=True)
        assert int8 is tolerance_for(family, "fp16", int8=True)
        assert int8.aepe >= 10 * fp16.aepe
        assert int8.p99 == 5 * int8.aepe


def test_few_pixels_far_off_are_found_where_a_percentile_counts() -> None:
    model = flow(100, 100)
    model[0, 0] += 0.3
    limits = Tolerance(aepe=0.01, relative_l2=1, p99=0.2)
    assert compare_flows("flow", model, flow(100, 100), limits).passed
    model[0, 1, :10] += 0.3
    assert compare_flows("flow", model, flow(100, 100), limits).reason == "99 % within 0.3 px, 0.2 allowed"
    assert compare_flows("flow", model, flow(100, 100), limits, final=False).passed
    assert compare_flows("flow", model, flow(100, 100), limits.scaled_to(0.02)).passed


def test_equal_flows_pass() -> None:
    result = compare_flows("flow", flow(), flow(), TOLERANCE)
    assert result.passed
    assert (result.aepe, result.maximum, result.relative_l2) == (0, 0, 0)


def test_the_pixel_that_is_farthest_off_is_named() -> None:
    model = flow()
    model[:, 3, 2] += np.float32([1.5, -2])
    result = compare_flows("flow", model, flow(), TOLERANCE)
    assert result.maximum == pytest.approx(2.5)
    assert result.aepe == pytest.approx(2.5 / 24)
    assert result.explain() == (
        "AEPE 0.104 px, 0.01 allowed and relative L2 0.072, 0.001 allowed; "
        "worst at x=2 y=3 of 6×4, (6.5, 3) instead of (5, 5) px"
    )


def test_only_the_final_flow_is_held_to_pixels() -> None:
    model = flow(value=1000.5)
    truth = flow(value=1000)
    assert not compare_flows("flow2", model, truth, TOLERANCE, final=True).passed
    assert compare_flows("flow3", model, truth, TOLERANCE, final=False).passed


def test_the_relative_error_says_nothing_about_a_flow_of_noise() -> None:
    truth = flow(value=1e-5)
    result = compare_flows("flow", 2 * truth, truth, TOLERANCE)
    assert result.relative_l2 == pytest.approx(1)
    assert result.passed
    assert not compare_flows("flow", flow(value=2e-3), flow(value=1e-3), TOLERANCE).passed


def test_no_flow_expected_and_none_found() -> None:
    assert compare_flows("flow", flow(value=0), flow(value=0), TOLERANCE).passed
    result = compare_flows("flow", flow(value=1), flow(value=0), TOLERANCE)
    assert result.relative_l2 is None  # infinite, which JSON does not know
    assert "relative L2 inf" in result.reason


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_counted_and_found(wrong: float) -> None:
    model = flow()
    model[1, 2, 5] = model[0, 3, 0] = wrong
    result = compare_flows("flow", model, flow(), TOLERANCE)
    assert result.explain() == (
        "2 of 48 values NaN or infinite; worst at x=5 y=2 of 6×4, (5, not finite) instead of (5, 5) px"
    )
    assert (result.aepe, result.relative_l2) == (None, None)
    assert "2 of 48 expected values" in compare_flows("flow", flow(), model, TOLERANCE).reason


def test_scores() -> None:
    score = np.float32([200])
    assert compare_scores("score", score, score, TOLERANCE).passed
    result = compare_scores("score", score + 1, score, TOLERANCE)
    assert result.explain() == "relative L2 0.005, 0.001 allowed; 201 instead of 200"
    assert result.relative_l2 == pytest.approx(0.005)
    assert "NaN" in compare_scores("score", score * math.nan, score, TOLERANCE).reason
    assert compare_scores("score", score, 0 * score, TOLERANCE).relative_l2 is None


def test_badness_orders_results() -> None:
    model = flow()
    model[0, 0, 0] = math.nan
    worst = compare_flows("flow", model, flow(), TOLERANCE)
    bad, good = (compare_flows("flow", flow(value=value), flow(), TOLERANCE) for value in (6, 5.001))
    assert max((good, worst, bad), key=lambda result: result.badness) is worst
    assert max((good, bad), key=lambda result: result.badness) is bad


def test_a_tolerance_is_scaled_as_a_whole() -> None:
    assert TOLERANCE.scaled_to(0.1) == Tolerance(aepe=0.1, relative_l2=pytest.approx(0.01), noise=1e-4)


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf])
def test_a_tolerance_is_a_number_above_zero(wrong: float) -> None:
    with pytest.raises(ConfigError, match=r"--tolerance: is .*; pixels above 0"):
        TOLERANCE.scaled_to(wrong)


def test_shapes_differ() -> None:
    with pytest.raises(ShapeError, match=r"has shape \(2, 4, 6\); that of the truth, \(2, 4, 7\)"):
        compare_flows("flow", flow(), flow(width=7), TOLERANCE)
    with pytest.raises(ShapeError, match=r"score: has shape \(1,\); that of the truth, \(2,\)"):
        compare_scores("score", np.zeros(1), np.zeros(2), TOLERANCE)
