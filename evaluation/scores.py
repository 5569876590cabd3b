"""The figures of one pair, and of many."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from gocor.evaluation.sample import Protocol, Truth
from gocor.runtime.metrics import FlowError, pck


@dataclass(frozen=True)
class Scores:
    """How good a flow is; see ``gocor.runtime.metrics``. None where it cannot be told.

    Attributes:
        aepe: average end-point error where the flow is known, px.
        aepe_visible: the same where the pixel is seen in the query, px.
        fl_all: outliers, error above 3 px and above 5 % of the true length, %.
        pck_1: pixels with an error of at most 1 px, %.
        pck_3: at most 3 px.
        pck_5: at most 5 px.
        pck_alpha: at most ``Protocol.alpha`` times the query's longer side.
    """

    aepe: float
    aepe_visible: float | None
    fl_all: float
    pck_1: float
    pck_3: float
    pck_5: float
    pck_alpha: float | None


@dataclass(frozen=True)
class PairScores:
    """Scores of one pair.

    Attributes:
        name: of the sample.
        group: of the sample.
        scores: of the estimate.
        pixels: where the flow is known.
        visible_pixels: those of them that are seen in the query.
        milliseconds: that the estimate took.
    """

    name: str
    group: str
    scores: Scores
    pixels: int
    visible_pixels: int
    milliseconds: float


def score(estimate: np.ndarray, truth: Truth, protocol: Protocol) -> Scores:
    """Compares an estimated flow ``(2, H, W)`` with the truth.

    Raises:
        ShapeError: the estimate has another shape, or is not finite where the flow is known.
    """
    flow, valid = truth.flow, truth.valid
    error = FlowError.between(estimate, flow, valid)
    seen = truth.visible is not None and truth.visible.any()
    reach = protocol.alpha and protocol.alpha * max(truth.query.shape[:2])
    return Scores(
        aepe=error.aepe,
        aepe_visible=FlowError.between(estimate, flow, truth.visible).aepe if seen else None,
        fl_all=error.fl_all,
        pck_1=pck(estimate, flow, 1, valid),
        pck_3=pck(estimate, flow, 3, valid),
        pck_5=pck(estimate, flow, 5, valid),
        pck_alpha=pck(estimate, flow, reach, valid) if reach else None,
    )


def pool(pairs: Sequence[PairScores], protocol: Protocol) -> Scores:
    """One figure of each kind for many pairs, averaged as the protocol says."""

    def mean(name: str) -> float | None:
        by_pixel = (protocol.aepe if name.startswith("aepe") else protocol.shares) == "pixels"
        weight: Callable[[PairScores], int] = lambda pair: 1  # noqa: E731
        if by_pixel:
            weight = lambda pair: pair.visible_pixels if name == "aepe_visible" else pair.pixels  # noqa: E731
        known = [(getattr(pair.scores, name), weight(pair)) for pair in pairs]
        known = [(value, count) for value, count in known if value is not None]
        return (
            math.fsum(value * count for value, count in known) / sum(c for _, c in known) if known else None
        )

    return Scores(**{field.name: mean(field.name) for field in fields(Scores)})  # type: ignore[arg-type]


def mean_of(groups: Sequence[Scores]) -> Scores:
    """The plain mean of several groups' figures."""

    def mean(name: str) -> float | None:
        values = [value for group in groups if (value := getattr(group, name)) is not None]
        return math.fsum(values) / len(values) if values else None

    return Scores(**{field.name: mean(field.name) for field in fields(Scores)})  # type: ignore[arg-type]
