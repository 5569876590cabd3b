"""``LocalCorrelationTranspose`` in standard ONNX operators, for runtimes without our kernel."""

import onnx

from gocor.plugins.local_correlation_transpose.schema import SCHEMA
from gocor.plugins.onnx_tiles import WINDOWS, function

# The volume has to be spread over the dense matrix (T², S²) that is then multiplied with the windows: entry
# (ty, tx, dy, dx) goes to column (ty+dy)·S + tx+dx. Padding each pixel's row of d values to S+1 moves it tx to
# the right of the row above once the block of T rows is read as T rows of S (and T spare values, zeros). The
# shift by ty is then a Gather of runs of T values: 3 times faster than gathering single ones.
BODY = f"""
    {WINDOWS}
    padded = Pad (volume, tile_pads)
    tiled_shape = Concat <axis: int = 0> (n, d, d, rows, t, columns, t)
    tiled = Reshape (padded, tiled_shape)
    by_pixel = Transpose <perm: ints = [0, 3, 5, 4, 1, 6, 2]> (tiled)
    row_shape = Concat <axis: int = 0> (any, d)
    pixel_rows = Reshape (by_pixel, row_shape)
    row_end = Sub (s1, d)
    row_pads = Concat <axis: int = 0> (zeros2, zero, row_end)
    long_rows = Pad (pixel_rows, row_pads)
    blocks_of_a_tile = Mul (t, d)
    runs_of_a_tile = Mul (blocks_of_a_tile, s1)
    runs_shape = Concat <axis: int = 0> (any, runs_of_a_tile, t)
    runs = Reshape (long_rows, runs_shape)

    zero_ = Constant <value_int: int = 0> ()
    one_ = Constant <value_int: int = 1> ()
    t_ = Squeeze (t)
    s_ = Squeeze (s)
    pixels = Range (zero_, t_, one_)
    window = Range (zero_, s_, one_)
    ty_axis = Constant <value_ints: ints = [-1, 1, 1, 1]> ()
    tx_axis = Constant <value_ints: ints = [-1, 1, 1]> ()
    sy_axis = Constant <value_ints: ints = [-1, 1]> ()
    half = Constant <value_ints: ints = [0, 1]> ()
    ty = Reshape (pixels, ty_axis)
    tx = Reshape (pixels, tx_axis)
    sy = Reshape (window, sy_axis)
    dy = Sub (sy, ty)
    ty_blocks = Mul (ty, d)
    block = Add (ty_blocks, dy)
    block_start = Mul (block, s1)
    two_tx = Add (tx, tx)
    in_block = Add (two_tx, half)
    run = Add (block_start, in_block)
    not_above = GreaterOrEqual (dy, zero)
    not_below = Less (dy, d)
    reached = And (not_above, not_below)
    index_nd = Where (reached, run, s)
    index = Reshape (index_nd, any)

    spread = Gather <axis: int = 1> (runs, index)
    dense_shape = Concat <axis: int = 0> (any, tt, ss)
    dense = Reshape (spread, dense_shape)
    dense_transposed = Transpose <perm: ints = [0, 2, 1]> (dense)
    sums = MatMul (windows, dense_transposed)
    means = Mul (sums, scale)
    tiles_shape = Concat <axis: int = 0> (n, rows, columns, c, t, t)
    tiles = Reshape (means, tiles_shape)
    tile_maps = Transpose <perm: ints = [0, 3, 1, 4, 2, 5]> (tiles)
    maps_shape = Concat <axis: int = 0> (n, c, grid_hw)
    maps = Reshape (tile_maps, maps_shape)
    features = Slice (maps, zeros2, hw, hw_axes)
"""


def onnx_function() -> onnx.FunctionProto:
    """The function body, generic in shape, radius and dtype."""
    return function(SCHEMA, BODY)
