"""What the figures should be at most, and what they are."""

from collections.abc import Iterator
from dataclasses import dataclass

from on_cpu.plan import OPENVINO, OPENVINO_INT8, ORT, SHIFTS
from on_cpu.results import Results, Row

OPENCV = "OpenCV, cv2.dnn"
PWCNET, GLUNET = "networks: PWC-Net 384×512", "networks: GLU-Net 480×640"


@dataclass(frozen=True)
class Aim:
    """A ratio of two medians of one group that has a limit.

    Attributes:
        text: what it is.
        group: where both were measured.
        over: case and way of what shall be fast.
        under: of what it is compared with.
        limit: of the ratio.
    """

    text: str
    group: str
    over: tuple[str, str]
    under: tuple[str, str]
    limit: float


@dataclass(frozen=True)
class Outcome:
    """An aim and its figures.

    Attributes:
        aim: the aim.
        over: row of what shall be fast.
        under: of what it is compared with.
    """

    aim: Aim
    over: Row
    under: Row

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return self.over.median_ms / self.under.median_ms

    @property
    def met(self) -> bool:
        """The ratio is within the limit."""
        return self.ratio <= self.aim.limit


def _correlation(shape: str) -> Aim:
    text = f"`LocalCorrelation` {shape}: ONNX Runtime / cv2.dnn"
    return Aim(text, f"operators: LocalCorrelation {shape}", (shape, ORT), (shape, OPENCV), 1.0)


_GOCOR, _SHIFTS = ("PWCNet_GOCor", ORT), ("PWCNet_GOCor", SHIFTS)
AIMS = (
    Aim("PWC-Net-GOCor / PWC-Net in ONNX Runtime", PWCNET, _GOCOR, ("PWCNet", ORT), 1.2),
    Aim("PWC-Net-GOCor: ONNX Runtime / eager", PWCNET, _GOCOR, _SHIFTS, 0.6),
    Aim("PWC-Net-GOCor: OpenVINO / eager", PWCNET, ("PWCNet_GOCor", OPENVINO), _SHIFTS, 0.45),
    Aim("PWC-Net-GOCor: OpenVINO in 8 bits / eager", PWCNET, ("PWCNet_GOCor", OPENVINO_INT8), _SHIFTS, 0.22),
    Aim("GLU-Net-GOCor: ONNX Runtime / eager", GLUNET, ("GLUNet_GOCor", ORT), ("GLUNet_GOCor", SHIFTS), 0.6),
    _correlation("32×112×256"),
    _correlation("256×130×130"),
)


def outcomes(results: Results) -> Iterator[Outcome]:
    """Of all aims whose figures are there."""
    for aim in AIMS:
        group = results.groups.get(aim.group)
        over, under = (group.find(*which) for which in (aim.over, aim.under)) if group else (None, None)
        if over and under:
            yield Outcome(aim, over, under)
