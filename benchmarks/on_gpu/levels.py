"""What the networks ask of the operators at their usual sizes, and the least time that can take."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gocor.plugins.registry import KERNELS
from gocor.plugins.schema import displacements

RADIUS = 4  # of all public checkpoints
ITERATIONS = 3  # of LocalGOCor, as the networks have by default
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
        dtype: of features and volumes, ``float32`` or ``float16``.
    """

    operator: str
    level: Level
    dtype: str

    @property
    def feature_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the first input and of the query."""
        return first_shape(self.operator, self.level.shape, RADIUS), self.level.shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output."""
        return output_shape(self.operator, self.level.shape, RADIUS)

    @property
    def bytes(self) -> int:
        """Of features and volumes, each read or written once; parameters are next to nothing."""
        batch, channels, height, width = self.level.shape
        # Every operator has features twice and a volume once.
        return BYTES[self.dtype] * batch * height * width * (2 * channels + displacements(RADIUS))

    @property
    def flops(self) -> int:
        """A product and a sum for each pixel, channel and displacement, even beyond the border.

        LocalGOCor needs as many for the first scores and for those on the query, and twice as many for each
        iteration.
        """
        batch, channels, height, width = self.level.shape
        correlations = 2 + 2 * ITERATIONS if self.operator == "LocalGOCor" else 1
        return 2 * batch * channels * height * width * displacements(RADIUS) * correlations


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
    if operator != "LocalCorrelationTranspose":
        return shape
    return shape[0], displacements(radius), *shape[2:]


def attributes(operator: str, radius: int) -> dict[str, int]:
    """All that a caller chooses."""
    return {"radius": radius} | ({"iterations": ITERATIONS} if operator == "LocalGOCor" else {})


def parameters(operator: str, channels: int, radius: int) -> tuple[np.ndarray, ...]:
    """Reproducible inputs after the query: maps and scalars of LocalGOCor, much like trained ones."""
    if operator != "LocalGOCor":
        return ()
    rng = np.random.default_rng(radius)
    steps = np.arange(-radius, radius + 1)
    distance = np.hypot(*np.meshgrid(steps, steps, indexing="ij")).ravel()
    target, weight, mask = (rng.uniform(0.9, 1.1, distance.shape) for _ in range(3))
    target *= np.exp(-(distance**2) / 2)
    mask *= 0.9 / (1 + np.exp(-4 * np.tanh(2 - distance)))
    scalars = np.array([1, 1, 1e-4 / channels**2, 0])
    return tuple(array.astype(np.float32) for array in (target, weight, mask, scalars))


def random_inputs(operator: str, shape: tuple[int, ...], radius: int, dtype: str) -> tuple[np.ndarray, ...]:
    """All inputs for a query ``(N, C, H, W)``: reproducible normal numbers, rounded to the dtype."""
    rng = np.random.default_rng(sum(shape) + radius)
    shapes = first_shape(operator, shape, radius), shape
    features = [rng.standard_normal(each).astype(dtype) for each in shapes]
    return *features, *parameters(operator, shape[1], radius)


def output_shape(operator: str, shape: tuple[int, ...], radius: int) -> tuple[int, ...]:
    """Shape of the output for a query ``(N, C, H, W)``."""
    features = first_shape(operator, shape, radius), shape
    others = (array.shape for array in parameters(operator, shape[1], radius))
    return KERNELS[operator].check(*features, *others, **attributes(operator, radius))


def works(levels: tuple[Level, ...] = (*LEVELS, BATCHED)) -> Iterator[Work]:
    """Every operator with every dtype at every level."""
    for operator in KERNELS:
        for dtype in BYTES:
            for level in levels:
                yield Work(operator, level, dtype)
