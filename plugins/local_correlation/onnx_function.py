"""``LocalCorrelation`` in standard ONNX operators, for runtimes without our kernel."""

import onnx

from gocor.plugins.local_correlation.schema import SCHEMA
from gocor.plugins.onnx_tiles import BAND, WINDOWS, function, volume, windows

BODY = f"""
    {WINDOWS}
    {windows("query")}
    scale = CastLike (one_over_c, query)
    mean = Mul (reference, scale)
    mean_last = Transpose <perm: ints = [0, 2, 3, 1]> (mean)
    tile_pads = Concat <axis: int = 0> (zeros2, zeros2, zero, missing, zero)
    padded = Pad (mean_last, tile_pads)
    tiled_shape = Concat <axis: int = 0> (n, rows, t, columns, run)
    tiled = Reshape (padded, tiled_shape)
    tiles_nd = Transpose <perm: ints = [0, 1, 3, 2, 4]> (tiled)
    tiles_shape = Concat <axis: int = 0> (any, tt, c)
    tiles = Reshape (tiles_nd, tiles_shape)
    windows_transposed = Transpose <perm: ints = [0, 2, 1]> (query_windows)
    dense = MatMul (tiles, windows_transposed)
    {BAND}
    {volume("dense", "volume")}
"""


def onnx_function() -> onnx.FunctionProto:
    """The function body, generic in shape, radius and dtype."""
    return function(SCHEMA, BODY)
