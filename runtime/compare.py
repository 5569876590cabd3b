"""How far one output of a model is from what it should be, where, and whether that is allowed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gocor.core.errors import ConfigError, ShapeError
from gocor.runtime.metadata import Precision
from gocor.runtime.metrics import FlowError, end_point_error
from gocor.runtime.spec import Family


@dataclass(frozen=True)
class Tolerance:
    """How far a model's outputs may be from their truth.

    Attributes:
        aepe: of the final flow, px.
        relative_l2: of every output, ``|model - truth| / |truth|``.
        noise: px; a flow that is no farther off on average may have any relative error, for then it is next
            to zero itself: rounding in float32 alone comes to 1e-5 px.
        p99: 99th percentile of the final flow's errors, px; None for any.
    """

    aepe: float
    relative_l2: float
    noise: float = 1e-4
    p99: float | None = None

    def scaled_to(self, aepe: float) -> "Tolerance":
        """Allows ``aepe`` px, and everywhere else as many times more or less.

        Raises:
            ConfigError: it is no number above 0.
        """
        if not 0 < aepe < math.inf:
            raise ConfigError("--tolerance", f"is {aepe}", "pixels above 0, such as 0.005")
        times = aepe / self.aepe
        p99 = None if self.p99 is None else self.p99 * times
        return Tolerance(aepe, self.relative_l2 * times, self.noise, p99)


# For float32. Rounding alone was seen to come to 3e-6 px in PWC-Net-GOCor and 3e-4 px in GLU-Net-GOCor, whose
# scores have kinks: where rounding changes a sign, more changes than was rounded.
TOLERANCES: dict[Family, Tolerance] = {
    "pwcnet": Tolerance(aepe=0.005, relative_l2=2e-4),
    "glunet": Tolerance(aepe=0.02, relative_l2=1e-3),
}
# Each rounding to FP16 is 8,000 times as coarse. With the oracle the trained demo of PWC-Net-GOCor was off by
# 0.003 to 0.013 px on average, 0.013 to 0.11 at 99 %; GLU-Net, known with random weights alone, by 0.01 px.
_FP16: dict[Family, Tolerance] = {
    "pwcnet": Tolerance(aepe=0.02, relative_l2=0.01, p99=0.2),
    "glunet": Tolerance(aepe=0.05, relative_l2=0.01, p99=0.5),
}
_BF16_TO_FP16 = 8  # the ratio of their roundings; an earlier checkpoint was off by 0.025 to 0.084 px

# That 8 bits were done right, and not that the flow is good enough, which gocor calibrate says: without a
# budget the demo was off by 0.07 px on the built-in pair, 0.2 at 99 %, and by more where motion is large.
_INT8: dict[Family, Tolerance] = {
    "pwcnet": Tolerance(aepe=0.2, relative_l2=0.15, p99=1.0),
    "glunet": Tolerance(aepe=0.5, relative_l2=0.15, p99=2.5),
}


def tolerance_for(family: Family, precision: Precision, int8: bool = False) -> Tolerance:
    """What a model of this family and precision is allowed.

    A network that is untrained, or lost in an image pair, amplifies roundings and may be outside of it.

    Args:
        family: of the network.
        precision: of the model.
        int8: convolutions of it are in 8 bits.
    """
    if int8:
        return _INT8[family]
    if precision == "fp32":
        return TOLERANCES[family]
    allowed = _FP16[family]
    return allowed if precision == "fp16" else allowed.scaled_to(allowed.aepe * _BF16_TO_FP16)


@dataclass(frozen=True)
class Place:
    """The pixel of a flow that is farthest off.

    Attributes:
        x: on the flow's own grid, which may be coarser than the image.
        y: likewise.
        model: vector of the model, px; a component that is not finite is None.
        truth: what it should be.
    """

    x: int
    y: int
    model: tuple[float | None, ...]
    truth: tuple[float | None, ...]


@dataclass(frozen=True)
class Comparison:
    """One output of a model for one pair of images, and what it should be.

    Attributes:
        name: of the output.
        shape: of it, ``(2, h, w)`` for a flow.
        reason: why it is outside of the tolerance; empty if it is within.
        relative_l2: None where it is not finite, here and below.
        aepe: average end-point error, px; this and what follows only for a flow.
        median: px.
        p99: 99th percentile, px.
        maximum: px.
        place: where it is farthest off.
        elements: other figures about its elements, by name.
    """

    name: str
    shape: tuple[int, ...]
    reason: str = ""
    relative_l2: float | None = None
    aepe: float | None = None
    median: float | None = None
    p99: float | None = None
    maximum: float | None = None
    place: Place | None = None
    elements: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Within the tolerance."""
        return not self.reason

    @property
    def badness(self) -> tuple[bool, float]:
        """Orders comparisons of one output, the worst highest."""
        error = self.relative_l2 if self.aepe is None else self.aepe
        return not self.passed, math.inf if error is None else error

    def explain(self) -> str:
        """Why it is outside of the tolerance, and where most."""
        if self.place is None:
            return self.reason
        place, (_, height, width) = self.place, self.shape
        vectors = f"{_vector(place.model)} instead of {_vector(place.truth)} px"
        return f"{self.reason}; worst at x={place.x} y={place.y} of {width}×{height}, {vectors}"


def compare_flows(
    name: str, model: np.ndarray, truth: np.ndarray, tolerance: Tolerance, *, final: bool = True
) -> Comparison:
    """Compares two flows.

    Args:
        name: of the output.
        model: float32 ``(2, h, w)``, px.
        truth: likewise.
        tolerance: what is allowed.
        final: it is the model's result, whose AEPE counts; of coarser flows only the relative error does.

    Raises:
        ShapeError: they are no flows of one shape.
    """
    with np.errstate(invalid="ignore"):
        errors = end_point_error(model, truth)
    place = _place(model, truth, errors)
    if reason := _not_finite(model, truth):
        return Comparison(name, model.shape, reason, place=place)
    error = FlowError.between(model, truth)
    reasons = []
    if final and error.aepe > tolerance.aepe:
        reasons.append(f"AEPE {error.aepe:.3g} px, {tolerance.aepe:.3g} allowed")
    if final and tolerance.p99 is not None and error.p99 > tolerance.p99:
        reasons.append(f"99 % within {error.p99:.3g} px, {tolerance.p99:.3g} allowed")
    if error.relative_l2 > tolerance.relative_l2 and error.aepe > tolerance.noise:
        reasons.append(f"relative L2 {error.relative_l2:.2g}, {tolerance.relative_l2:.2g} allowed")
    relative = error.relative_l2 if math.isfinite(error.relative_l2) else None
    figures = (error.aepe, error.median, error.p99, error.maximum)
    return Comparison(name, model.shape, " and ".join(reasons), relative, *figures, place)


def compare_scores(name: str, model: np.ndarray, truth: np.ndarray, tolerance: Tolerance) -> Comparison:
    """Compares outputs that are no flows, by their relative error alone.

    Raises:
        ShapeError: their shapes differ.
    """
    if model.shape != truth.shape:
        raise ShapeError(name, f"has shape {model.shape}", f"that of the truth, {truth.shape}")
    if reason := _not_finite(model, truth):
        return Comparison(name, model.shape, reason)
    difference = float(np.linalg.norm(model.astype(np.float64) - truth))
    norm = float(np.linalg.norm(truth.astype(np.float64)))
    relative = difference / norm if norm else (math.inf if difference else 0.0)
    reason = ""
    if relative > tolerance.relative_l2:
        reason = f"relative L2 {relative:.2g}, {tolerance.relative_l2:.2g} allowed"
        if model.size == 1:
            reason += f"; {model.item():.6g} instead of {truth.item():.6g}"
    return Comparison(name, model.shape, reason, relative if math.isfinite(relative) else None)


def _not_finite(model: np.ndarray, truth: np.ndarray) -> str:
    for which, values in (("values", model), ("expected values", truth)):
        if wrong := int((~np.isfinite(values)).sum()):
            return f"{wrong} of {values.size} {which} NaN or infinite"
    return ""


def _place(model: np.ndarray, truth: np.ndarray, errors: np.ndarray) -> Place:
    worst = int(np.where(np.isfinite(errors), errors, np.inf).argmax())
    y, x = divmod(worst, errors.shape[1])
    return Place(x, y, _finite(model[:, y, x]), _finite(truth[:, y, x]))


def _finite(vector: np.ndarray) -> tuple[float | None, ...]:
    return tuple(value if math.isfinite(value) else None for value in vector.tolist())


def _vector(components: tuple[float | None, ...]) -> str:
    return f"({', '.join('not finite' if c is None else f'{c:.6g}' for c in components)})"
