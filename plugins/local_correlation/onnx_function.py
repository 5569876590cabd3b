"""``LocalCorrelation`` in standard ONNX operators, for runtimes without our kernel."""

import onnx

from gocor.plugins.local_correlation.schema import SCHEMA
from gocor.plugins.onnx_tiles import WINDOWS, function

# Every tile's dense product (T², S²) holds the answer for displacement (dy, dx) of pixel (ty, tx) in row
# ty·T + tx, column (ty+dy)·S + tx+dx; one Gather takes these out, displacements first.
BODY = f"""
    {WINDOWS}
    mean = Mul (reference, scale)
    padded = Pad (mean, tile_pads)
    tiled_shape = Concat <axis: int = 0> (n, c, rows, t, columns, t)
    tiled = Reshape (padded, tiled_shape)
    tile_channels = Transpose <perm: ints = [0, 2, 4, 3, 5, 1]> (tiled)
    tiles_shape = Concat <axis: int = 0> (any, tt, c)
    tiles = Reshape (tile_channels, tiles_shape)
    dense = MatMul (tiles, windows)

    zero_ = Constant <value_int: int = 0> ()
    one_ = Constant <value_int: int = 1> ()
    t_ = Squeeze (t)
    d_ = Squeeze (d)
    pixels = Range (zero_, t_, one_)
    shifts = Range (zero_, d_, one_)
    dy_axis = Constant <value_ints: ints = [-1, 1, 1, 1]> ()
    dx_axis = Constant <value_ints: ints = [-1, 1, 1]> ()
    ty_axis = Constant <value_ints: ints = [-1, 1]> ()
    dy = Reshape (shifts, dy_axis)
    dx = Reshape (shifts, dx_axis)
    ty = Reshape (pixels, ty_axis)
    tss = Mul (t, ss)
    ty_stride = Add (tss, s)
    tx_stride = Add (ss, one)
    dy_offset = Mul (dy, s)
    ty_offset = Mul (ty, ty_stride)
    tx_offset = Mul (pixels, tx_stride)
    d_offset = Add (dy_offset, dx)
    t_offset = Add (ty_offset, tx_offset)
    offset = Add (d_offset, t_offset)
    index = Reshape (offset, any)

    dense_size = Mul (tt, ss)
    dense_shape = Concat <axis: int = 0> (any, dense_size)
    flat = Reshape (dense, dense_shape)
    band = Gather <axis: int = 1> (flat, index)
    band_shape = Concat <axis: int = 0> (n, rows, columns, dd, t, t)
    band_tiles = Reshape (band, band_shape)
    band_maps = Transpose <perm: ints = [0, 3, 1, 4, 2, 5]> (band_tiles)
    maps_shape = Concat <axis: int = 0> (n, dd, grid_hw)
    maps = Reshape (band_maps, maps_shape)
    volume = Slice (maps, zeros2, hw, hw_axes)
"""


def onnx_function() -> onnx.FunctionProto:
    """The function body, generic in shape, radius and dtype."""
    return function(SCHEMA, BODY)
