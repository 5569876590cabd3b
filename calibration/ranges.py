"""The table of activation ranges: a JSON file to look at, and to quantise from again without pairs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gocor.calibration.histogram import METHODS, Method
from gocor.core.errors import ConfigError
from gocor.core.reading import DOCUMENT, read_json
from gocor.core.version import __version__
from gocor.runtime.report import write_json

SUFFIX = ".ranges.json"  # after the model's whole name
FORMAT = 1  # raised when an older reader would misread the file


@dataclass(frozen=True)
class Range:
    """Values of one tensor over all pairs.

    Attributes:
        minimum: smallest value seen.
        maximum: largest.
        low: end of what 8 bits are made to cover; the larger magnitude of both ends counts, as 8 bits are
            symmetric here.
        high: likewise.
        clipped: share of the values beyond, 0 to 1.
    """

    minimum: float
    maximum: float
    low: float
    high: float
    clipped: float


@dataclass(frozen=True)
class RangeTable:
    """Ranges of all tensors to quantise, and where they come from.

    Attributes:
        method: that ``low`` and ``high`` were chosen by.
        samples: pairs that were measured.
        pairs_sha256: of all their images, in order.
        model: file name of the model.
        model_sha256: of the file.
        ranges: by tensor, in the order of the graph.
        channel_scales: what channels were divided by before, by tensor; see ``equalize``.
        gocor_version: that measured them.
    """

    method: Method
    samples: int
    pairs_sha256: str
    model: str
    model_sha256: str
    ranges: Mapping[str, Range]
    channel_scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    gocor_version: str = __version__

    def save(self, path: str | Path) -> None:
        """Writes the table atomically.

        Raises:
            OutputError: the file cannot be written.
        """
        write_json(path, {"format": FORMAT} | {f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: str | Path) -> "RangeTable":
        """Reads what ``save`` wrote.

        Raises:
            ConfigError: there is no such file, or it holds something else.
        """
        expected = f"a file that gocor calibrate wrote, model.onnx{SUFFIX}"
        try:
            content: dict[str, Any] = read_json(path, DOCUMENT, ConfigError)
            if (found := content.pop("format", None)) != FORMAT:
                raise ValueError(f"format {found}")
            content["ranges"] = {name: Range(**values) for name, values in content["ranges"].items()}
            scales = content.pop("channel_scales", {})
            content["channel_scales"] = {name: tuple(map(float, values)) for name, values in scales.items()}
            table = cls(**content)
            table._check()
        except OSError as error:
            raise ConfigError(path, f"cannot be read ({error.strerror})", expected) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(path, f"is no table of ranges ({error})", expected) from error
        return table

    def check_fits(self, model_sha256: str, tensors: set[str], where: object) -> None:
        """Raises ConfigError unless the ranges are those of a model's tensors."""
        if self.model_sha256 != model_sha256:
            got = f"was measured on another model ({self.model}, {self.model_sha256[:12]})"
            raise ConfigError(where, got, "measure this one: leave --ranges out and give --pairs")
        if missing := sorted(tensors - self.ranges.keys()):
            got = f"has no range of {missing[0]} ({len(missing)} are missing)"
            expected = "it was measured with --keep or for another --target; measure again"
            raise ConfigError(where, got, expected)

    def _check(self) -> None:
        for fact in fields(self):
            if fact.type in (str, int) and type(getattr(self, fact.name)) is not fact.type:
                raise ValueError(f"{fact.name} {getattr(self, fact.name)!r}")
        if not all(0 < scale < float("inf") for scales in self.channel_scales.values() for scale in scales):
            raise ValueError("scales that nothing can be divided by")
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r}")
        for name, entry in self.ranges.items():
            if not all(isinstance(getattr(entry, field.name), int | float) for field in fields(Range)):
                raise ValueError(f"{name} holds something else than numbers")
            if not -float("inf") < entry.low <= entry.high < float("inf"):
                raise ValueError(f"{name} is {entry.low:g}..{entry.high:g}")
