"""The tile product in standard ONNX operators: what the function bodies of both operators share.

The image is cut into tiles of T×T pixels with T = 2r, so that a tile's neighbourhood of S = T + 2r = 2T
pixels is just two neighbouring blocks each way, and everything is slices, concatenations and one matrix
product. The bodies hold for every shape and radius; runtimes fold the index arithmetic away once shapes are
static. Names: d = 2r+1 displacements a side, tt = T², ss = S², dd = d²; a trailing ``_`` marks a scalar.
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
    r_ = Constant <value_int: int = @radius> ()
    r = Reshape (r_, one)
    t = Add (r, r)
    s = Add (t, t)
    s1 = Add (s, one)
    d = Add (t, one)
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
    rows_and_one = Add (rows, one)
    columns_and_one = Add (columns, one)
    grid_hw = Mul (grid, t)
    missing = Sub (grid_hw, hw)
    zeros2 = Concat <axis: int = 0> (zero, zero)
    c_float = Cast <to: int = 1> (c)
    one_over_c = Reciprocal (c_float)
    scale = CastLike (one_over_c, query)
"""

# (N, C, H, W) features `query` -> `windows` (tiles, C, S²), zero outside the image
WINDOWS = """
    rr = Concat <axis: int = 0> (r, r)
    reach = Add (missing, r)
    window_pads = Concat <axis: int = 0> (zeros2, rr, zeros2, reach)
    surrounded = Pad (query, window_pads)
    blocks_shape = Concat <axis: int = 0> (n, c, rows_and_one, t, columns_and_one, t)
    cut = Reshape (surrounded, blocks_shape)
    blocks = Transpose <perm: ints = [0, 2, 4, 1, 3, 5]> (cut)
    upper = Slice (blocks, zero, any, one)
    lower = Slice (blocks, one, rows_and_one, one)
    strips = Concat <axis: int = 4> (upper, lower)
    left = Slice (strips, zero, any, two)
    right = Slice (strips, one, columns_and_one, two)
    neighbourhoods = Concat <axis: int = 5> (left, right)
    windows_shape = Concat <axis: int = 0> (any, c, ss)
    windows = Reshape (neighbourhoods, windows_shape)
"""


def function(schema: OpSchema, body: str) -> onnx.FunctionProto:
    """The function of an operator from its body, which starts with SIZES and uses the schema's names."""
    attributes = ", ".join(attribute.name for attribute in schema.attributes)
    text = f"""
    <domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>
    {schema.name} <{attributes}> ({", ".join(schema.inputs)}) => ({schema.output})
    {{ {SIZES} {body} }}
    """
    return onnx.parser.parse_function(text)
