"""What synthetic pairs are to be like."""

from dataclasses import dataclass
from typing import Literal, get_args

from gocor.core.errors import ConfigError

Split = Literal["train", "evaluation"]
SMALLEST_SIDE = 16


@dataclass(frozen=True)
class SyntheticConfig:
    """Settings of the generator; one config and index always give the same pair.

    The motion's size, the photometric change and the noise scale with their settings alone: raising
    ``max_displacement`` during training keeps everything else about a pair.

    Attributes:
        height: of the images.
        width: of the images.
        max_displacement: longest vector, px.
        split: ``train`` and ``evaluation`` share neither photographs nor random numbers.
        seed: another sequence of pairs for each.
        photographs: share of the textures that are photographs (these need scikit-image), 0 to 1.
        foreground: at most so many shapes move on their own.
        photometric: strength of changes of brightness, contrast, gamma, colour and sharpness; 0 for none.
        noise: largest standard deviation of the noise, of a full range of 1.
    """

    height: int = 192
    width: int = 256
    max_displacement: float = 24.0
    split: Split = "train"
    seed: int = 0
    photographs: float = 0.5
    foreground: int = 3
    photometric: float = 1.0
    noise: float = 0.03

    def __post_init__(self) -> None:
        """Refuses values that make no sense."""
        if min(self.height, self.width) < SMALLEST_SIDE:
            got = f"is {self.height}x{self.width}"
            raise ConfigError("size", got, f"at least {SMALLEST_SIDE} pixels each way")
        if self.split not in get_args(Split):
            raise ConfigError("split", f"unknown name {self.split!r}", f"one of {', '.join(get_args(Split))}")
        if not 0 <= self.photographs <= 1:
            raise ConfigError("photographs", f"is {self.photographs}", "a share from 0 to 1")
        for name in ("max_displacement", "seed", "foreground", "photometric", "noise"):
            if not getattr(self, name) >= 0:
                raise ConfigError(name, f"is {getattr(self, name)}", "at least 0")
