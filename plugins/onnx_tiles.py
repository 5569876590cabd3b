"""The tile product in standard ONNX operators: what the function bodies of all operators share.

The image is cut into tiles of T×T pixels with T = r, so that a tile's neighbourhood of S = T + 2r = 3T pixels
a side is three blocks of T in each of 3T rows. With channels last such a block is a run of T·C numbers, and
all neighbourhoods together, the windows, are one Gather of runs. A tile's correlations are one matrix product
(T², C) × (C, S²), of which a band is the answer; it is taken out where the tiles have become the last axis,
again in long runs (docs/performance.md says what else was tried). The bodies hold for every shape and radius;
runtimes fold the index arithmetic away once shapes are static.

Names: d = 2r+1 displacements a side, tt = T², ss = S², dd = d²; a trailing ``_`` marks a scalar, and ``…_at``
what is to be gathered.
"""

import onnx
import onnx.parser

from gocor.plugins.schema import DOMAIN, OpSchema

OPSET = 19  # GridSample is silently wrong in TensorRT from 20 on; functions and model need one opset

SIZES = """
    zero = Constant <value_ints: ints = [0]> ()
    one = Constant <value_ints: ints = [1]> ()
    two = Constant <value_ints: ints = [2]> ()
    any = Constant <value_ints: ints = [-1]> ()
    zero_ = Constant <value_int: int = 0> ()
    one_ = Constant <value_int: int = 1> ()
    three_ = Constant <value_int: int = 3> ()
    t_ = Constant <value_int: int = @radius> ()
    s_ = Mul (t_, three_)
    t = Reshape (t_, one)
    s = Reshape (s_, one)
    two_t = Add (t, t)
    d = Add (two_t, one)
    tt = Mul (t, t)
    ss = Mul (s, s)
    n = Shape <start: int = 0, end: int = 1> (query)
    c = Shape <start: int = 1, end: int = 2> (query)
    hw = Shape <start: int = 2, end: int = 4> (query)
    last = Sub (t, one)
    rounded_up = Add (hw, last)
    grid = Div (rounded_up, t)
    rows = Slice (grid, zero, one)
    columns = Slice (grid, one, two)
    grid_hw = Mul (grid, t)
    missing = Sub (grid_hw, hw)
    zeros2 = Concat <axis: int = 0> (zero, zero)
    axis4 = Constant <value_ints: ints = [-1, 1, 1, 1]> ()
    axis3 = Constant <value_ints: ints = [-1, 1, 1]> ()
    axis2 = Constant <value_ints: ints = [-1, 1]> ()
    t_range = Range (zero_, t_, one_)
    s_range = Range (zero_, s_, one_)
    c_float = Cast <to: int = 1> (c)
    one_over_c = Reciprocal (c_float)
"""

# Blocks of T pixels in a row, of all rows of the image and r around it, are numbered row by row. `windows_at`
# has the S×3 blocks of every tile's window.
WINDOWS = """
    rows_ = Squeeze (rows)
    columns_ = Squeeze (columns)
    row_range = Range (zero_, rows_, one_)
    column_range = Range (zero_, columns_, one_)
    block_range = Range (zero_, three_, one_)
    window_row = Reshape (row_range, axis4)
    window_column = Reshape (column_range, axis3)
    window_y = Reshape (s_range, axis2)
    first_y = Mul (window_row, t)
    image_y = Add (first_y, window_y)
    blocks_of_a_row = Add (columns, two)
    first_block = Mul (image_y, blocks_of_a_row)
    block_x = Add (window_column, block_range)
    block = Add (first_block, block_x)
    windows_at = Reshape (block, any)
    reach = Add (missing, t)
    radii = Concat <axis: int = 0> (t, t)
    window_pads = Concat <axis: int = 0> (zero, radii, zero, zero, reach, zero)
    run = Mul (t, c)
    runs_shape = Concat <axis: int = 0> (n, any, run)
    windows_shape = Concat <axis: int = 0> (any, ss, c)
"""


def windows(features: str) -> str:
    """``(N, C, H, W)`` features to ``{features}_windows`` ``(tiles, S², C)``, zero outside the image."""
    return f"""
    {features}_last = Transpose <perm: ints = [0, 2, 3, 1]> ({features})
    {features}_surrounded = Pad ({features}_last, window_pads)
    {features}_runs = Reshape ({features}_surrounded, runs_shape)
    {features}_gathered = Gather <axis: int = 1> ({features}_runs, windows_at)
    {features}_windows = Reshape ({features}_gathered, windows_shape)
    """


# Entry (ty, tx, sy, sx) of a tile's dense product (T², S²) is the answer for dy = sy-ty, dx = sx-tx.
# `band_at` has the entries of (dy, dx, ty, tx). Their number is given, not left open: where the image's size
# is open, too, TensorRT would not know how many channels come out, and its deconvolutions need that.
BAND = """
    d_ = Squeeze (d)
    d_range = Range (zero_, d_, one_)
    band_dy = Reshape (d_range, axis4)
    band_dx = Reshape (d_range, axis3)
    band_ty = Reshape (t_range, axis2)
    band_sy = Add (band_dy, band_ty)
    band_sx = Add (band_dx, t_range)
    band_row = Mul (band_sy, s)
    band_in_window = Add (band_row, band_sx)
    band_ty_pixel = Mul (band_ty, t)
    band_pixel = Add (band_ty_pixel, t_range)
    band_tile_start = Mul (band_pixel, ss)
    band_entry = Add (band_tile_start, band_in_window)
    band_at = Reshape (band_entry, any)
    dense_size = Mul (tt, ss)
    by_image_shape = Concat <axis: int = 0> (n, any, dense_size)
    band_of_a_pixel = Mul (d, d)
    band_size = Mul (tt, band_of_a_pixel)
    by_entry_shape = Concat <axis: int = 0> (n, band_size, grid)
    hw_axes = Constant <value_ints: ints = [2, 3]> ()
"""


def volume(dense: str, result: str) -> str:
    """A dense product ``(tiles, T², S²)`` to the volume ``(N, (2r+1)², H, W)``."""
    return f"""
    {dense}_by_image = Reshape ({dense}, by_image_shape)
    {dense}_by_entry = Transpose <perm: ints = [0, 2, 1]> ({dense}_by_image)
    {dense}_band = Gather <axis: int = 1> ({dense}_by_entry, band_at)
    {dense}_grid = Reshape ({dense}_band, by_entry_shape)
    {dense}_maps = DepthToSpace <blocksize: int = @radius, mode: string = "CRD"> ({dense}_grid)
    {result} = Slice ({dense}_maps, zeros2, hw, hw_axes)
    """


# The displacement of each entry (ty, tx, sy, sx) of a dense product, where it is in reach.
DISPLACEMENTS = """
    dd = Mul (d, d)
    dense_ty = Reshape (t_range, axis4)
    dense_tx = Reshape (t_range, axis3)
    dense_sy = Reshape (s_range, axis2)
    dense_dy = Sub (dense_sy, dense_ty)
    dense_dx = Sub (s_range, dense_tx)
    not_above = GreaterOrEqual (dense_dy, zero)
    not_below = Less (dense_dy, d)
    not_before = GreaterOrEqual (dense_dx, zero)
    not_behind = Less (dense_dx, d)
    dy_in_reach = And (not_above, not_below)
    dx_in_reach = And (not_before, not_behind)
    in_reach = And (dy_in_reach, dx_in_reach)
    dense_row = Mul (dense_dy, d)
    displacement = Add (dense_row, dense_dx)
"""


def function(schema: OpSchema, body: str) -> onnx.FunctionProto:
    """The function of an operator from its body, which starts with SIZES and uses the schema's names."""
    attributes = ", ".join(attribute.name for attribute in schema.attributes)
    inputs = ", ".join((*schema.inputs, *schema.parameters))
    text = f"""
    <domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>
    {schema.name} <{attributes}> ({inputs}) => ({schema.output})
    {{ {SIZES} {body} }}
    """
    return onnx.parser.parse_function(text)
