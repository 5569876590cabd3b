"""Semantic pairs may show mirrored objects: which way round does the reference fit the query?"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gocor.core.errors import ConfigError, ShapeError
from gocor.runtime.session import FlowEstimator


@dataclass(frozen=True)
class FlipDecision:
    """Whether the reference fits better mirrored, and why.

    Attributes:
        flipped: the flow is to be estimated with the mirrored reference.
        scores: in the order they were computed: as it is, mirrored, and if mirrored won both with the roles
            of reference and query exchanged.
    """

    flipped: bool
    scores: tuple[float, ...]


def decide_flip(
    score: Callable[[np.ndarray, np.ndarray], float],
    reference: np.ndarray,
    query: np.ndarray,
    higher_wins: bool,
) -> FlipDecision:
    """Compares the reference as it is and mirrored; a win of the mirrored one has to be confirmed.

    To confirm it, reference and query change places and the test is made again; its decision stands.

    Args:
        score: how well a pair (reference, query) fits, by the network's coarsest level.
        reference: uint8 RGB ``(H, W, 3)``.
        query: likewise.
        higher_wins: the meaning of the score, ``NetworkSpec.orientation_higher_wins``.
    """

    def mirrored_wins(first: np.ndarray, second: np.ndarray) -> bool:
        plain, mirrored = score(first, second), score(mirror(first), second)
        scores.extend((plain, mirrored))
        return mirrored > plain if higher_wins else mirrored < plain

    scores: list[float] = []
    flipped = mirrored_wins(reference, query) and mirrored_wins(query, reference)
    return FlipDecision(flipped, tuple(scores))


def estimate_with_flip_check(
    estimator: FlowEstimator, reference: np.ndarray, query: np.ndarray
) -> tuple[np.ndarray, FlipDecision]:
    """Flow of a pair whose query may show the reference's object mirrored.

    Runs the model twice, four times if the mirrored reference fits better.

    Args:
        estimator: a model of the GLU-Net family.
        reference: uint8 RGB ``(H, W, 3)``.
        query: likewise, of the same shape.

    Returns:
        The flow, float32 ``(2, H, W)`` on the grid of the reference as it is, in pixels; and the decision.

    Raises:
        ConfigError: the network cannot judge orientations.
        ShapeError: the images are no single pair.
    """
    spec = estimator.metadata.spec
    if spec.family != "glunet":
        expected = "a model of GLUNet or GLUNet_GOCor"
        raise ConfigError("flip check", f"{spec.name} cannot judge orientations", expected)
    if np.ndim(reference) != 3:
        raise ShapeError(
            "reference", f"has shape {np.shape(reference)}", "one image (H, W, 3) for a flip check"
        )
    flows = []

    def score(first: np.ndarray, second: np.ndarray) -> float:
        estimate = estimator.estimate(first, second)
        flows.append(estimate.flow)
        return float(estimate.orientation_score)  # type: ignore[arg-type]  # GLU-Net always has one

    decision = decide_flip(score, reference, query, spec.orientation_higher_wins)
    return (unmirror_flow(flows[1]) if decision.flipped else flows[0]), decision


def mirror(image: np.ndarray) -> np.ndarray:
    """Exchanges left and right of an image ``(H, W, C)``."""
    return np.ascontiguousarray(image[:, ::-1])


def unmirror_flow(flow: np.ndarray) -> np.ndarray:
    """Flow on the reference's grid from the flow of its mirrored image.

    A pixel of the reference points where its mirror image pointed.

    Args:
        flow: float32 ``(…, 2, H, W)`` in pixels of that size, on the mirrored grid.
    """
    mapping = flow[..., ::-1].copy()
    # Column x shows what was at W-1-x: its target was W-1-x + flow, now counted from x.
    columns = np.arange(flow.shape[-1], dtype=np.float32)
    mapping[..., 0, :, :] += columns[::-1] - columns
    return mapping
