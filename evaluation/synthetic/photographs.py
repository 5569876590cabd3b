"""The photographs in scikit-image's wheel, and which of them training must never see."""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from gocor.core.errors import DependencyError
from gocor.evaluation.synthetic.config import Split
from gocor.runtime.images import load_image

# The fur of a cat, a cup on a table, a launch pad: different from each other and from all others.
HELD_OUT = ("chelsea.png", "coffee.png", "rocket.jpg")
NEVER = (
    "motorcycle_left.png",
    "motorcycle_right.png",
)  # a data set of its own: gocor eval --dataset motorcycle
TRAINING = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "clock_motion.png", "coins.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "page.png", "retina.jpg", "text.png",
)  # fmt: skip
SMALLEST_LEVEL = 160  # px: reductions of a photograph whose shorter side stays above that are textures, too


def data_folder(user: str) -> Path:
    """The folder with scikit-image's images.

    Raises:
        DependencyError: scikit-image is not installed; the text names the extra and ``user``, who needs it.
    """
    try:
        import skimage
    except ImportError as error:
        raise DependencyError(
            user, "needs scikit-image, which is not installed", 'pip install "gocor-deploy[train]"'
        ) from error
    return Path(skimage.__file__).parent / "data"


@lru_cache
def photographs(split: Split, device: torch.device) -> tuple[tuple[Tensor, ...], ...]:
    """The photographs of a split, each as uint8 ``(3, H, W)`` in full, half, … size."""
    folder = data_folder("a share of photographs above 0")
    names = TRAINING if split == "train" else HELD_OUT
    return tuple(_levels(folder / name, device) for name in names)


def _levels(path: Path, device: torch.device) -> tuple[Tensor, ...]:
    image = torch.from_numpy(load_image(path)).permute(2, 0, 1).contiguous().to(device)
    levels = [image]
    while min(levels[-1].shape[1:]) >= 2 * SMALLEST_LEVEL:
        half = torch.nn.functional.avg_pool2d(levels[-1].float(), 2)
        levels.append(half.round().to(torch.uint8))
    return tuple(levels)
