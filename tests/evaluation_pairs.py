"""Small images and flows, written in the datasets' own formats."""

from pathlib import Path

import numpy as np

from gocor.runtime.flow import write_flow
from gocor.runtime.images import save_image

HEIGHT, WIDTH = 20, 32


def image(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Writes a random image and returns it."""
    save_image(path, image(seed, height, width))
    return image(seed, height, width)


def write_mask(path: Path, mask: np.ndarray) -> None:
    save_image(path, (mask * 255).astype(np.uint8))


def write_constant(
    path: Path, x: float, y: float, valid: np.ndarray | None = None, height: int = HEIGHT, width: int = WIDTH
) -> None:
    """Writes a flow that is the same everywhere."""
    flow = np.empty((2, height, width), np.float32)
    flow[0], flow[1] = x, y
    write_flow(path, flow, valid=valid)


def left_half() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, : WIDTH // 2] = True
    return mask
