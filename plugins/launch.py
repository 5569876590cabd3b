"""How a kernel is launched: what all operators share of it."""

from dataclasses import dataclass
from typing import Any

SUFFIXES = {"float32": "f32", "float16": "f16"}


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel, whose arguments are all inputs, some numbers, and the output.

    Attributes:
        kernel: name of the entry point.
        grid: blocks along x, y and z, numbers or symbolic like the sizes they were made from.
        block: threads of a block.
        numbers: int32 arguments between inputs and output: N, C, H, W of the query, and others.
        shared: bytes of dynamic shared memory.
    """

    kernel: str
    grid: tuple[Any, Any, Any]
    block: int
    numbers: tuple[Any, ...]
    shared: int = 0


def entry_point(operator: str, dtype: str, radius: int) -> str:
    """Name of a kernel, such as ``gocor_local_correlation_f16_r4``."""
    return f"gocor_{operator}_{SUFFIXES[dtype]}_r{radius}"


def tiles(height: Any, width: Any, tile_height: int, tile_width: int) -> Any:
    """Number of tiles that cover an image."""
    return ceil_div(width, tile_width) * ceil_div(height, tile_height)


def ceil_div(dividend: Any, divisor: int) -> Any:
    """Quotient rounded up, in operators that TensorRT's symbolic sizes have, too."""
    return (dividend + (divisor - 1)) // divisor
