"""``LocalCorrelationTranspose`` in standard ONNX operators, for runtimes without our kernel."""

import onnx

from gocor.plugins.local_correlation_transpose.schema import SCHEMA
from gocor.plugins.onnx_tiles import WINDOWS, function

# The volume has to be spread over a dense matrix (T², S²) for each tile, entry (ty, tx, dy, dx) to
# (sy, sx) = (ty+dy, tx+dx), and the matrix is multiplied with the windows. It goes the way of
# LocalCorrelation backwards: rows of d values are padded to S+1, so that a block of T rows, read as rows
# of S, moves right by one with each row; the spare run of T values at a block's end is zero. Gathering runs
# of T values then shifts by ty, and takes the spare run of the first block for all that is out of reach.
BODY = f"""
    {WINDOWS}
    volume_shape = Concat <axis: int = 0> (n, d, d, hw)
    by_displacement = Reshape (volume, volume_shape)
    row_end = Sub (s1, d)
    zeros3 = Concat <axis: int = 0> (zero, zeros2)
    volume_pads = Concat <axis: int = 0> (zeros3, zeros2, zeros2, row_end, missing)
    padded = Pad (by_displacement, volume_pads)
    maps_shape = Concat <axis: int = 0> (n, d, s1, any)
    maps = Reshape (padded, maps_shape)
    pixel_rows = Transpose <perm: ints = [0, 1, 3, 2]> (maps)
    block = Mul (t, s1)
    blocks_shape6 = Concat <axis: int = 0> (n, d, rows, t, columns, block)
    blocks_by_row = Reshape (pixel_rows, blocks_shape6)
    blocks_by_tile = Transpose <perm: ints = [0, 2, 4, 1, 3, 5]> (blocks_by_row)
    blocks_of_a_tile = Mul (d, t)
    runs_of_a_tile = Mul (blocks_of_a_tile, s1)
    runs_shape = Concat <axis: int = 0> (any, runs_of_a_tile, t)
    runs = Reshape (blocks_by_tile, runs_shape)

    zero_ = Constant <value_int: int = 0> ()
    one_ = Constant <value_int: int = 1> ()
    t_ = Squeeze (t)
    s_ = Squeeze (s)
    t_range = Range (zero_, t_, one_)
    s_range = Range (zero_, s_, one_)
    ty_axis = Constant <value_ints: ints = [-1, 1, 1, 1]> ()
    tx_axis = Constant <value_ints: ints = [-1, 1, 1]> ()
    sy_axis = Constant <value_ints: ints = [-1, 1]> ()
    half = Constant <value_ints: ints = [0, 1]> ()
    ty = Reshape (t_range, ty_axis)
    tx = Reshape (t_range, tx_axis)
    sy = Reshape (s_range, sy_axis)
    dy = Sub (sy, ty)
    dy_blocks = Mul (dy, t)
    block_number = Add (dy_blocks, ty)
    block_start = Mul (block_number, s1)
    two_tx = Add (tx, tx)
    in_block = Add (two_tx, half)
    run = Add (block_start, in_block)
    not_above = GreaterOrEqual (dy, zero)
    not_below = Less (dy, d)
    in_reach = And (not_above, not_below)
    index_nd = Where (in_reach, run, s)
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
    grid_shape = Concat <axis: int = 0> (n, c, grid_hw)
    grid_maps = Reshape (tile_maps, grid_shape)
    hw_axes = Constant <value_ints: ints = [2, 3]> ()
    features = Slice (grid_maps, zeros2, hw, hw_axes)
"""


def onnx_function() -> onnx.FunctionProto:
    """The function body, generic in shape, radius and dtype."""
    return function(SCHEMA, BODY)
