"""How the kernels of ``LocalGOCor`` are launched; ``launch.h`` in Python, for TensorRT."""

from typing import Any

from gocor.plugins.launch import Launch, entry_point, tiles
from gocor.plugins.local_gocor.schema import SCHEMA


def launch(
    batch: Any, channels: Any, height: Any, width: Any, radius: int, dtype: str, iterations: int
) -> Launch:
    """The launch for a query ``(batch, channels, height, width)``.

    Args:
        batch: number of images, or TensorRT's symbol of it; so are the other sizes.
        channels: of the features; any number does not change the grid.
        height: in pixels.
        width: in pixels.
        radius: 1..8.
        dtype: of the features, ``float32`` or ``float16``.
        iterations: steps of the optimiser.

    Raises:
        ConfigError: there is no kernel for this radius.
    """
    SCHEMA.check_kernel_radius(radius)
    groups = 2 if radius <= 4 else 1  # of two rows of pixels
    rows = radius + 1 if radius <= 4 else 3 if radius % 3 == 2 else 2  # of the window, that a warp works on
    warps = groups * (2 * (radius + 1) // rows)
    grid = (tiles(height, width, 2 * groups, 8), 1, batch)
    numbers = (batch, channels, height, width, iterations)
    return Launch(entry_point(SCHEMA.torch_name, dtype, radius), grid, 32 * warps, numbers)
