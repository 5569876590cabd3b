import numpy as np
import pytest

from gocor.calibration.histogram import BINS, METHODS, PERCENTILE, Histogram, thresholds

pytest.importorskip("onnxruntime")


def of(*pairs: np.ndarray) -> Histogram:
    histogram = Histogram()
    for values in pairs:
        histogram.add(values)
    return histogram


def test_every_value_is_counted_however_much_larger_later_ones_are() -> None:
    rng = np.random.default_rng(0)
    pairs = [scale * rng.standard_normal((1, 4, 30, 20)).astype(np.float32) for scale in (1e-6, 1, 3e4, 7)]
    histogram = of(*pairs)
    everything = np.concatenate([values.ravel() for values in pairs])
    assert histogram.counts.shape == (BINS,)
    assert histogram.counts.sum() == everything.size
    assert (histogram.minimum, histogram.maximum) == (everything.min(), everything.max())
    assert histogram.limit >= np.abs(everything).max() > histogram.limit / 4


def test_the_bins_are_those_of_all_values_at_once() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random(5000, np.float32), 3 * rng.random(5000, np.float32)
    histogram = of(first, second)
    together, _ = np.histogram(np.concatenate([first, second]), BINS, (0, histogram.limit))
    # Values on the edge of a bin may round to either side.
    assert np.abs(histogram.counts.cumsum() - together.cumsum()).max() <= 2


def test_the_share_beyond_a_magnitude() -> None:
    histogram = of(np.array([-4, -3, -2, 1, 2, 3, 4, 4], np.float32))
    assert histogram.share_above(4) == pytest.approx(3 / 8, abs=3 / 8)  # the last bin holds the limit itself
    assert histogram.share_above(3.5) == 3 / 8
    assert histogram.share_above(0) == 1
    assert of(np.zeros(5, np.float32)).share_above(1) == 0


def test_zeros_before_other_values_are_not_lost() -> None:
    histogram = of(np.zeros(7, np.float32), np.array([0.5, -1], np.float32))
    assert histogram.counts[0] == 7
    assert histogram.counts.sum() == 9


@pytest.mark.parametrize("method", METHODS)
def test_a_rare_outlier_is_cut_off_unless_all_is_to_be_covered(method: str) -> None:
    values = np.random.default_rng(2).standard_normal(1_000_000).astype(np.float32)
    values[:3] = 400, -300, 200
    low, high = thresholds({"x": of(values)}, method)["x"]  # type: ignore[arg-type]
    if method == "minmax":
        assert (low, high) == (-300, 400)
    else:
        # The search for the entropy starts at an eighth of what was seen.
        assert 3 < high < (15 if method == "percentile" else 100)
        assert low == pytest.approx(-high, rel=0.02)  # by a bin, with the entropy


def test_the_percentile_is_that_of_the_magnitudes() -> None:
    values = np.random.default_rng(3).standard_normal(500_000).astype(np.float32)
    _, high = thresholds({"x": of(values)}, "percentile")["x"]
    assert high == pytest.approx(np.percentile(np.abs(values), PERCENTILE), rel=0.03)


@pytest.mark.parametrize("method", METHODS)
def test_ranges_stay_inside_of_what_was_seen(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen = {
        "positive": of(np.linspace(0, 2, 9000, dtype=np.float32)),
        "negative": of(np.linspace(-5, -1, 9000, dtype=np.float32)),
        "zero": of(np.zeros(100, np.float32)),
    }
    ranges = thresholds(seen, method)  # type: ignore[arg-type]
    assert list(ranges) == list(seen)
    for name, (low, high) in ranges.items():
        assert seen[name].minimum <= low <= high <= seen[name].maximum
    assert capsys.readouterr().out == ""  # results alone belong there
