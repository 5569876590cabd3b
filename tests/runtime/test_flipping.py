from pathlib import Path

import numpy as np
import pytest
from toy_models import metadata, save_toy

from gocor.core.errors import ConfigError, ShapeError
from gocor.runtime.flipping import FlipDecision, decide_flip, estimate_with_flip_check, mirror, unmirror_flow
from gocor.runtime.session import load

REFERENCE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
QUERY = REFERENCE + 100


class Score:
    """Gives the next of some scores and keeps what it was asked about."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.asked = iter(scores), []

    def __call__(self, reference: np.ndarray, query: np.ndarray) -> float:
        self.asked.append((reference, query))
        return next(self.scores)


@pytest.mark.parametrize(
    ("scores", "higher_wins", "flipped"),
    [
        ((2, 1), True, False),
        ((1, 1), True, False),
        ((1, 2, 1, 2), True, True),
        ((1, 2, 2, 1), True, False),
        ((1, 2), False, False),
        ((2, 1, 2, 1), False, True),
        ((2, 1, 1, 2), False, False),
    ],
)
def test_a_win_of_the_mirrored_reference_has_to_be_confirmed(
    scores: tuple[float, ...], higher_wins: bool, flipped: bool
) -> None:
    assert decide_flip(Score(*scores), REFERENCE, QUERY, higher_wins) == FlipDecision(flipped, scores)


def test_the_confirmation_exchanges_the_roles() -> None:
    score = Score(1, 2, 1, 2)
    decide_flip(score, REFERENCE, QUERY, higher_wins=True)
    expected = [
        (REFERENCE, QUERY),
        (REFERENCE[:, ::-1], QUERY),
        (QUERY, REFERENCE),
        (QUERY[:, ::-1], REFERENCE),
    ]
    for asked, pair in zip(score.asked, expected, strict=True):
        np.testing.assert_array_equal(asked, pair)


def test_unmirrored_flow_points_where_the_mirror_image_pointed() -> None:
    flow = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    result = unmirror_flow(flow)
    for y in range(3):
        for x in range(5):
            target = (4 - x + flow[0, y, 4 - x], y + flow[1, y, 4 - x])
            np.testing.assert_allclose((x + result[0, y, x], y + result[1, y, x]), target, atol=1e-6)
    np.testing.assert_allclose(unmirror_flow(result), flow, atol=1e-6)


@pytest.mark.parametrize("network", ["GLUNet_GOCor", "GLUNet"])
def test_flow_of_a_mirrored_pair(tmp_path: Path, network: str) -> None:
    estimator = load(save_toy(tmp_path / "toy.onnx", metadata(network=network, height=256, width=256)))
    reference = np.zeros((256, 256, 3), np.uint8)
    query = np.zeros((256, 256, 3), np.uint8)
    # The toy scores the brightness of the left half: where higher wins, light on the right wants a mirror.
    bright = slice(128, None) if network == "GLUNet_GOCor" else slice(None, 128)
    reference[:, bright] = 200
    query[:, bright] = 100
    flow, decision = estimate_with_flip_check(estimator, reference, query)
    high, low = (0.0, 200.0), (0.0, 100.0)
    expected = (*high, *low) if network == "GLUNet_GOCor" else (*high[::-1], *low[::-1])
    assert decision.flipped
    np.testing.assert_allclose(decision.scores, expected)
    np.testing.assert_allclose(flow, unmirror_flow(estimator(mirror(reference), query)))
    as_it_is, decision = estimate_with_flip_check(estimator, mirror(reference), query)
    assert not decision.flipped
    np.testing.assert_allclose(as_it_is, estimator(mirror(reference), query))


def test_pwcnet_cannot_judge_orientations(tmp_path: Path) -> None:
    estimator = load(save_toy(tmp_path / "toy.onnx"))
    with pytest.raises(ConfigError) as caught:
        estimate_with_flip_check(estimator, REFERENCE, QUERY)
    assert str(caught.value) == (
        "flip check: PWCNet_GOCor cannot judge orientations; a model of GLUNet or GLUNet_GOCor"
    )


def test_a_flip_check_takes_one_pair(tmp_path: Path) -> None:
    estimator = load(save_toy(tmp_path / "toy.onnx", metadata(network="GLUNet", height=256, width=256)))
    with pytest.raises(ShapeError, match=r"one image \(H, W, 3\) for a flip check"):
        estimate_with_flip_check(estimator, REFERENCE[None], QUERY[None])
