"""How far one flow is from another: end-point errors in pixels and what the benchmarks count.

Flows are ``(2, H, W)`` or batches ``(N, 2, H, W)``, channel 0 = x, in pixels; masks ``(H, W)`` or
``(N, H, W)`` are true where the truth is known. Everything else is left out of every number.
"""

from dataclasses import dataclass

import numpy as np

from gocor.core.errors import ShapeError


@dataclass(frozen=True)
class FlowError:
    """End-point errors of an estimate over its known pixels.

    Attributes:
        aepe: average end-point error, px.
        median: px.
        p99: 99th percentile, px.
        maximum: px.
        relative_l2: ``|estimate - truth| / |truth|`` over all vectors; infinite when only the truth is zero.
        fl_all: outliers as KITTI counts them, %; see ``fl_all``.
        pixels: how many pixels were compared.
    """

    aepe: float
    median: float
    p99: float
    maximum: float
    relative_l2: float
    fl_all: float
    pixels: int

    @classmethod
    def between(cls, estimate: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> "FlowError":
        """Compares two flows of one shape.

        Raises:
            ShapeError: shapes differ, a flow is not finite where it counts, or no pixel is left.
        """
        errors, magnitudes = _errors(estimate, truth, valid)
        difference, norm = np.linalg.norm(errors), np.linalg.norm(magnitudes)
        median, p99 = np.percentile(errors, (50, 99))
        return cls(
            aepe=float(errors.mean()),
            median=float(median),
            p99=float(p99),
            maximum=float(errors.max()),
            relative_l2=float(difference / norm) if norm else (float("inf") if difference else 0.0),
            fl_all=_percent((errors > 3) & (errors > 0.05 * magnitudes)),
            pixels=errors.size,
        )


def fl_all(estimate: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Percentage of known pixels whose error is above 3 px and above 5 % of the true magnitude.

    Source:
        Menze, Geiger: Object scene flow for autonomous vehicles, CVPR 2015 (KITTI's Fl-all).
    """
    return FlowError.between(estimate, truth, valid).fl_all


def pck(estimate: np.ndarray, truth: np.ndarray, threshold: float, valid: np.ndarray | None = None) -> float:
    """Percentage of correct keypoints: of known pixels, those whose error is at most ``threshold`` px."""
    return _percent(_errors(estimate, truth, valid)[0] <= threshold)


def end_point_error(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Length of the difference at each pixel, px: float64 ``(H, W)``, or ``(N, H, W)`` for batches.

    Raises:
        ShapeError: the arrays are no flows of one shape.
    """
    if truth.ndim not in (3, 4) or truth.shape[-3] != 2 or not truth.size:
        raise ShapeError("truth", f"has shape {truth.shape}", "a flow, (2, H, W) or (N, 2, H, W)")
    if estimate.shape != truth.shape:
        raise ShapeError("estimate", f"has shape {estimate.shape}", f"that of the truth, {truth.shape}")
    difference = estimate.astype(np.float64) - truth
    return np.hypot(*np.moveaxis(difference, -3, 0))


def _errors(
    estimate: np.ndarray, truth: np.ndarray, valid: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Errors and true magnitudes of the known pixels, float64, flat."""
    with np.errstate(invalid="ignore"):  # of pixels that do not count
        errors, magnitudes = end_point_error(estimate, truth), end_point_error(truth, np.zeros_like(truth))
    if valid is not None:
        if valid.shape != errors.shape or valid.dtype != bool:
            raise ShapeError("valid", f"is {valid.dtype} of shape {valid.shape}", f"bool {errors.shape}")
        errors, magnitudes = errors[valid], magnitudes[valid]
    if not errors.size:
        raise ShapeError("valid", "leaves no pixel to compare", "a mask with at least one known pixel")
    if wrong := int((~np.isfinite(errors)).sum()):
        name = "truth" if not np.isfinite(magnitudes).all() else "estimate"
        raise ShapeError(
            name, f"is not finite at {wrong} of {errors.size} pixels", "NaN and infinity masked out"
        )
    return errors.ravel(), magnitudes.ravel()


def _percent(mask: np.ndarray) -> float:
    return 100 * float(mask.mean())
