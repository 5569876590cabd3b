"""How the kernels of ``LocalCorrelationTranspose`` are launched; ``launch.h`` in Python, for TensorRT."""

from typing import Any

from gocor.plugins.launch import Launch, ceil_div, entry_point, tiles
from gocor.plugins.local_correlation_transpose.schema import SCHEMA


def launch(batch: Any, channels: Any, height: Any, width: Any, radius: int, dtype: str) -> Launch:
    """The launch for a query ``(batch, channels, height, width)``.

    Args:
        batch: number of images, or TensorRT's symbol of it; so are the other sizes.
        channels: of the features.
        height: in pixels.
        width: in pixels.
        radius: 1..8.
        dtype: ``float32`` or ``float16``.

    Raises:
        ConfigError: there is no kernel for this radius.
    """
    SCHEMA.check_kernel_radius(radius)
    if dtype == "float32":
        tile_height, tile_width, block_channels = 8, 16, 16
    else:
        tile_height, tile_width, block_channels = 4 if radius <= 2 else 2 if radius <= 4 else 1, 32, 32
    grid = (tiles(height, width, tile_height, tile_width), ceil_div(channels, block_channels), batch)
    numbers = (batch, channels, height, width)
    return Launch(entry_point(SCHEMA.torch_name, dtype, radius), grid, 128, numbers)
