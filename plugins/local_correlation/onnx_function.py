"""``LocalCorrelation`` in standard ONNX operators, for runtimes without our kernel."""

import onnx

from gocor.plugins.local_correlation.schema import SCHEMA
from gocor.plugins.onnx_tiles import WINDOWS, function

# Entry (ty, tx, sy, sx) of a tile's dense product (T², S²) is the answer for dy = sy-ty, dx = sx-tx.
# For one ty and sy, T rows (tx) of S values; read as rows of S+1 instead, each row starts one further right,
# at sx = tx: its first d values are the answer. So runs of T values are gathered, S+1 of them to a block
# (dy, ty), which are T·(S+1) values: the last run only fills the block up. Everything moves in long runs;
# gathering the answers one by one takes 1.5 times as long.
BODY = f"""
    {WINDOWS}
    mean = Mul (reference, scale)
    tile_pads = Concat <axis: int = 0> (zeros2, zeros2, zeros2, missing)
    padded = Pad (mean, tile_pads)
    tiled_shape = Concat <axis: int = 0> (n, c, rows, t, columns, t)
    tiled = Reshape (padded, tiled_shape)
    tiles_nd = Transpose <perm: ints = [0, 2, 4, 1, 3, 5]> (tiled)
    tiles_shape = Concat <axis: int = 0> (any, c, tt)
    tiles = Reshape (tiles_nd, tiles_shape)
    tiles_transposed = Transpose <perm: ints = [0, 2, 1]> (tiles)
    dense = MatMul (tiles_transposed, windows)

    zero_ = Constant <value_int: int = 0> ()
    one_ = Constant <value_int: int = 1> ()
    s1_ = Squeeze (s1)
    t_ = Squeeze (t)
    d_ = Squeeze (d)
    s_range = Range (zero_, s1_, one_)
    t_range = Range (zero_, t_, one_)
    d_range = Range (zero_, d_, one_)
    dy_axis = Constant <value_ints: ints = [-1, 1, 1]> ()
    ty_axis = Constant <value_ints: ints = [-1, 1]> ()
    dy = Reshape (d_range, dy_axis)
    ty = Reshape (t_range, ty_axis)
    last_run = Sub (s, one)
    run = Min (s_range, last_run)
    run_tx = Div (run, two)
    run_half = Mod (run, two)
    ty_start = Mul (ty, t)
    pixel = Add (ty_start, run_tx)
    sy = Add (ty, dy)
    pixel_start = Mul (pixel, s)
    window_row = Add (pixel_start, sy)
    window_run = Mul (window_row, two)
    index_nd = Add (window_run, run_half)
    index = Reshape (index_nd, any)

    runs_of_a_tile = Mul (tt, s)
    runs_of_a_tile2 = Mul (runs_of_a_tile, two)
    runs_shape = Concat <axis: int = 0> (any, runs_of_a_tile2, t)
    runs = Reshape (dense, runs_shape)
    gathered = Gather <axis: int = 1> (runs, index)
    block = Mul (t, s1)
    blocks_shape6 = Concat <axis: int = 0> (n, rows, columns, d, t, block)
    blocks_by_tile = Reshape (gathered, blocks_shape6)
    blocks_by_row = Transpose <perm: ints = [0, 3, 1, 4, 2, 5]> (blocks_by_tile)
    pixel_rows_shape = Concat <axis: int = 0> (n, d, any, s1)
    pixel_rows = Reshape (blocks_by_row, pixel_rows_shape)
    dx_first = Transpose <perm: ints = [0, 1, 3, 2]> (pixel_rows)
    maps_shape = Concat <axis: int = 0> (n, d, s1, grid_hw)
    maps = Reshape (dx_first, maps_shape)
    zeros3 = Concat <axis: int = 0> (zero, zeros2)
    wanted = Concat <axis: int = 0> (d, hw)
    wanted_axes = Constant <value_ints: ints = [2, 3, 4]> ()
    band = Slice (maps, zeros3, wanted, wanted_axes)
    dd = Mul (d, d)
    volume_shape = Concat <axis: int = 0> (n, dd, hw)
    volume = Reshape (band, volume_shape)
"""


def onnx_function() -> onnx.FunctionProto:
    """The function body, generic in shape, radius and dtype."""
    return function(SCHEMA, BODY)
