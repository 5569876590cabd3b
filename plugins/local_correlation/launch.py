"""How the kernels of ``LocalCorrelation`` are launched; ``launch.h`` in Python, for TensorRT."""

from typing import Any

from gocor.plugins.launch import Launch, ceil_div, entry_point, tiles
from gocor.plugins.local_correlation.schema import SCHEMA


def launch(batch: Any, channels: Any, height: Any, width: Any, radius: int, dtype: str) -> Launch:
    """The launch for a query ``(batch, channels, height, width)``.

    Args:
        batch: number of images, or TensorRT's symbol of it; so are the other sizes.
        channels: of the features; any number does not change the launch.
        height: in pixels.
        width: in pixels.
        radius: 1..8.
        dtype: ``float32`` or ``float16``.

    Raises:
        ConfigError: there is no kernel for this radius.
    """
    SCHEMA.check_kernel_radius(radius)
    side = 2 * radius + 1
    groups = 1 if radius <= 4 else 2  # blocks that share the dy of a tile
    group = ceil_div(side, groups)
    if dtype == "float32":
        tile_height, tile_width = 32 // group, 16
        threads = tile_width // 4 * tile_height * group
    else:
        tile_height, tile_width = 4 if radius == 1 else 2 if radius <= 4 else 1, 32
        threads = 128
    grid = (tiles(height, width, tile_height, tile_width), groups, batch)
    numbers = (batch, channels, height, width)
    return Launch(entry_point(SCHEMA.torch_name, dtype, radius), grid, threads, numbers)
