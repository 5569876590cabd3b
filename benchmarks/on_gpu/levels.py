"""What the networks ask of both operators at their usual sizes, and the least time that can take."""

from collections.abc import Iterator
from dataclasses import dataclass

from gocor.plugins.registry import CORRELATIONS
from gocor.plugins.schema import displacements

RADIUS = 4  # of all public checkpoints
BYTES = {"float32": 4, "float16": 2}
SIZES = {"PWCNet": (448, 1024), "PWCNet_GOCor": (448, 1024), "GLUNet": (480, 640), "GLUNet_GOCor": (480, 640)}


@dataclass(frozen=True)
class Level:
    """One level of a network, where features are correlated.

    Attributes:
        network: family, and size of its input.
        name: of the level.
        shape: of the features, ``(N, C, H, W)``.
    """

    network: str
    name: str
    shape: tuple[int, ...]


# At other sizes GLU-Net may have levels between 32×32 and 1/8.
LEVELS = (
    Level("PWC-Net 448×1024", "2", (1, 32, 112, 256)),
    Level("PWC-Net 448×1024", "3", (1, 64, 56, 128)),
    Level("PWC-Net 448×1024", "4", (1, 96, 28, 64)),
    Level("PWC-Net 448×1024", "5", (1, 128, 14, 32)),
    Level("PWC-Net 448×1024", "6", (1, 196, 7, 16)),
    Level("GLU-Net 480×640", "1", (1, 128, 120, 160)),
    Level("GLU-Net 480×640", "2", (1, 256, 60, 80)),
    Level("GLU-Net 480×640", "3", (1, 256, 32, 32)),
)
AIM_LEVEL = LEVELS[0]
# Where the gap between two launches, a good part of the time of one image, weighs little.
BATCHED = Level("PWC-Net 448×1024", "2, batch 8", (8, *LEVELS[0].shape[1:]))
QUICK_LEVELS = (AIM_LEVEL, BATCHED)


@dataclass(frozen=True)
class Work:
    """One call of an operator.

    Attributes:
        operator: such as ``LocalCorrelation``.
        level: where.
        dtype: ``float32`` or ``float16``.
    """

    operator: str
    level: Level
    dtype: str

    @property
    def first_shape(self) -> tuple[int, ...]:
        """Shape of the first input."""
        return first_shape(self.operator, self.level.shape, RADIUS)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output."""
        return CORRELATIONS[self.operator].check(self.first_shape, self.level.shape, radius=RADIUS)

    @property
    def bytes(self) -> int:
        """Of both inputs and the output: each read or written once."""
        batch, channels, height, width = self.level.shape
        # Either operator has features twice and a volume once.
        return BYTES[self.dtype] * batch * height * width * (2 * channels + displacements(RADIUS))

    @property
    def flops(self) -> int:
        """A product and a sum for each pixel, channel and displacement, even beyond the border."""
        batch, channels, height, width = self.level.shape
        return 2 * batch * channels * height * width * displacements(RADIUS)


@dataclass(frozen=True)
class Limits:
    """What this GPU reached in plain operations of PyTorch.

    Attributes:
        copy_gb_per_s: a large copy, bytes read plus bytes written.
        tflops: by dtype, a large matrix product; without TF32.
        launch_us: from one launch to the next in a CUDA graph, of a kernel that has next to nothing to do.
    """

    copy_gb_per_s: float
    tflops: dict[str, float]
    launch_us: float

    def memory_us(self, work: Work) -> float:
        """Time to move the bytes."""
        return work.bytes / self.copy_gb_per_s / 1e3

    def arithmetic_us(self, work: Work) -> float:
        """Time to compute."""
        return work.flops / self.tflops[work.dtype] / 1e6


def first_shape(operator: str, shape: tuple[int, ...], radius: int) -> tuple[int, ...]:
    """Shape of an operator's first input for a query ``(N, C, H, W)``."""
    if operator == "LocalCorrelation":
        return shape
    return shape[0], displacements(radius), *shape[2:]


def works(levels: tuple[Level, ...] = (*LEVELS, BATCHED)) -> Iterator[Work]:
    """Every operator with every dtype at every level."""
    for operator in CORRELATIONS:
        for dtype in BYTES:
            for level in levels:
                yield Work(operator, level, dtype)
