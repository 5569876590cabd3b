"""``LocalCorrelationTranspose`` in standard ONNX operators, for runtimes without our kernel."""

import onnx

from gocor.plugins.local_correlation_transpose.schema import SCHEMA
from gocor.plugins.onnx_tiles import DISPLACEMENTS, WINDOWS, function, windows

# The way of LocalCorrelation backwards: the volume is spread over a dense matrix (T², S²) for each tile, zero
# out of reach, and that is multiplied with the windows.
BODY = f"""
    {WINDOWS}
    {windows("query")}
    {DISPLACEMENTS}
    dense_ty_start = Mul (dense_ty, t)
    dense_pixel = Add (dense_ty_start, dense_tx)
    first_of_pixel = Mul (dense_pixel, dd)
    entry_in_reach = Add (first_of_pixel, displacement)
    zero_row = Mul (tt, dd)
    entry = Where (in_reach, entry_in_reach, zero_row)
    dense_at = Reshape (entry, any)
    volume_pads = Concat <axis: int = 0> (zeros2, zeros2, zeros2, missing)
    padded = Pad (volume, volume_pads)
    by_pixel = SpaceToDepth <blocksize: int = @radius> (padded)
    tiles_of_an_image = Mul (rows, columns)
    by_entry_shape = Concat <axis: int = 0> (n, any, tiles_of_an_image)
    by_entry = Reshape (by_pixel, by_entry_shape)
    zero_row_pads = Concat <axis: int = 0> (zeros2, zeros2, one, zero)
    with_zero_row = Pad (by_entry, zero_row_pads)
    spread = Gather <axis: int = 1> (with_zero_row, dense_at)
    by_tile = Transpose <perm: ints = [0, 2, 1]> (spread)
    dense_shape = Concat <axis: int = 0> (any, tt, ss)
    dense = Reshape (by_tile, dense_shape)
    sums = MatMul (dense, query_windows)
    scale = CastLike (one_over_c, query)
    means = Mul (sums, scale)
    tiles_shape = Concat <axis: int = 0> (n, rows, columns, t, run)
    tiles = Reshape (means, tiles_shape)
    grid_rows = Transpose <perm: ints = [0, 1, 3, 2, 4]> (tiles)
    image_shape = Concat <axis: int = 0> (n, grid_hw, c)
    image = Reshape (grid_rows, image_shape)
    maps = Transpose <perm: ints = [0, 3, 1, 2]> (image)
    hw_axes = Constant <value_ints: ints = [2, 3]> ()
    features = Slice (maps, zeros2, hw, hw_axes)
"""


def onnx_function() -> onnx.FunctionProto:
    """The function body, generic in shape, radius and dtype."""
    return function(SCHEMA, BODY)
