import numpy as np
import pytest
from evaluation_pairs import image, left_half

from gocor.evaluation.sample import Protocol, Truth
from gocor.evaluation.scores import PairScores, Scores, mean_of, pool, score

PLAIN = Protocol(source="")


def truth(visible: np.ndarray | None = None, query_width: int = 32) -> Truth:
    flow = np.zeros((2, 20, 32), np.float32)
    flow[0] = 100
    return Truth(image(), image(width=query_width), flow, np.ones((20, 32), bool), visible)


def test_the_scores_of_a_pair() -> None:
    estimate = truth().flow.copy()
    estimate[1, :, 16:] = 4  # right half: error 4 px, 4 % of the length
    result = score(estimate, truth(left_half()), PLAIN)
    assert result == Scores(aepe=2, aepe_visible=0, fl_all=0, pck_1=50, pck_3=50, pck_5=100, pck_alpha=None)


def test_pck_alpha_measures_by_the_query() -> None:
    estimate = truth().flow + np.array([[[4.0]], [[0]]])
    by = Protocol(source="", alpha=0.05)
    assert score(estimate, truth(query_width=80), by).pck_alpha == 100  # reach 4 px
    assert score(estimate, truth(query_width=78), by).pck_alpha == 0


def pair(aepe: float, share: float, pixels: int, visible: float | None = None) -> PairScores:
    scores = Scores(aepe, visible, share, share, share, share, None)
    return PairScores("p", "", scores, pixels, 0 if visible is None else pixels // 2, 1.0)


def test_pairs_count_alike_or_by_their_pixels() -> None:
    pairs = [pair(1, 10, 300, 1), pair(5, 50, 100, 3)]
    mixed = pool(pairs, PLAIN)  # AEPE by image, shares by pixel: KITTI, HPatches
    assert (mixed.aepe, mixed.aepe_visible, mixed.fl_all, mixed.pck_alpha) == (3, 2, 20, None)
    assert pool(pairs, Protocol(source="", aepe="pixels", shares="images")) == Scores(
        2, 1.5, 30, 30, 30, 30, None
    )


def test_pairs_that_nothing_is_seen_of_leave_the_others_alone() -> None:
    assert pool([pair(1, 10, 300, 1), pair(5, 50, 100)], PLAIN).aepe_visible == 1
    assert pool([pair(5, 50, 100)], PLAIN).aepe_visible is None


def test_pooling_by_pixels_is_the_figure_over_all_pixels() -> None:
    random = np.random.default_rng(0)
    flows = [random.normal(0, 5, (2, height, 12)).astype(np.float32) for height in (5, 30)]
    pairs = []
    for flow in flows:
        valid = random.random(flow.shape[1:]) < 0.5
        known = Truth(image(), image(), flow, valid)
        pairs.append(PairScores("", "", score(np.zeros_like(flow), known, PLAIN), int(valid.sum()), 0, 0.0))
        flow[:, ~valid] = np.nan
    lengths = np.concatenate([np.hypot(*flow).ravel() for flow in flows])
    lengths = lengths[~np.isnan(lengths)]
    pooled = pool(pairs, Protocol(source="", aepe="pixels"))
    assert pooled.aepe == pytest.approx(lengths.mean())
    assert pooled.fl_all == pytest.approx(100 * (lengths > 3).mean())
    assert pooled.pck_5 == pytest.approx(100 * (lengths <= 5).mean())


def test_the_mean_of_groups() -> None:
    groups = [Scores(1, None, 10, 20, 30, 40, 50), Scores(3, None, 20, 40, 50, 60, 70)]
    assert mean_of(groups) == Scores(2, None, 15, 30, 40, 50, 60)
