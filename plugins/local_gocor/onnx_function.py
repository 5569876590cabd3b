"""``LocalGOCor`` in standard ONNX operators, for runtimes without our kernel."""

import onnx

from gocor.plugins.local_gocor.schema import SCHEMA
from gocor.plugins.onnx_tiles import BAND, DISPLACEMENTS, WINDOWS, function, volume, windows

# Everything runs on dense products (tiles, T², S²), whose entries out of reach have weight zero, and on
# filters as tiles (tiles, T², C): nothing is taken apart or put together between the iterations. The windows
# of both features are divided by C, and so are all products with them. All arithmetic is float32.
INITIAL_FILTERS = f"""
    reference_float = Cast <to: int = 1> (reference)
    query_float = Cast <to: int = 1> (query)
    reference_share = Mul (reference_float, one_over_c)
    query_share = Mul (query_float, one_over_c)
    {WINDOWS}
    {windows("reference_share")}
    {windows("query_share")}
    last_axis = Constant <value_ints: ints = [-1]> ()
    sizes_of_one = Constant <value_ints: ints = [1, 1, 1, 1]> ()
    scaling, step_length, regularization, steplength_regularization =
        Split <axis: int = 0> (scalars, sizes_of_one)
    squares_shape = Concat <axis: int = 0> (any, s, s, c)
    squares = Reshape (reference_share_windows, squares_shape)
    centres_end = Add (radii, radii)
    centre_axes = Constant <value_ints: ints = [1, 2]> ()
    centres = Slice (squares, radii, centres_end, centre_axes)
    tiles_shape = Concat <axis: int = 0> (any, tt, c)
    tiles = Reshape (centres, tiles_shape)
    squared_share = ReduceSumSquare <keepdims: int = 1> (tiles, last_axis)
    mean_square = Mul (squared_share, c_float)
    tiny = Constant <value_float: float = 1e-6> ()
    divisor = Add (mean_square, tiny)
    dividend = Mul (scaling, c_float)
    factor = Div (dividend, divisor)
    filters0 = Mul (tiles, factor)
"""

# The slope a' of a score is v₊ m where it is negative and v₊ (1-m) more where it is positive.
MAPS = f"""
    {DISPLACEMENTS}
    map_at = Where (in_reach, displacement, dd)
    map_shape = Concat <axis: int = 0> (tt, ss)
    nothing = Constant <value_floats: floats = [0.0]> ()
    slope_below = Mul (weight, mask)
    slope_more = Sub (weight, slope_below)
    weighted_target = Mul (weight, target)
    slope_below_or_nothing = Concat <axis: int = 0> (slope_below, nothing)
    slope_more_or_nothing = Concat <axis: int = 0> (slope_more, nothing)
    weighted_target_or_nothing = Concat <axis: int = 0> (weighted_target, nothing)
    slope_below_nd = Gather (slope_below_or_nothing, map_at)
    slope_more_nd = Gather (slope_more_or_nothing, map_at)
    weighted_target_nd = Gather (weighted_target_or_nothing, map_at)
    slope_below_map = Reshape (slope_below_nd, map_shape)
    slope_more_map = Reshape (slope_more_nd, map_shape)
    weighted_target_map = Reshape (weighted_target_nd, map_shape)
    floor = Constant <value_float: float = 1e-8> ()
    around = Transpose <perm: ints = [0, 2, 1]> (reference_share_windows)
    scores0 = MatMul (filters0, around)
"""


def onnx_function(iterations: int) -> onnx.FunctionProto:
    """The function body for a number of iterations, generic in shape, radius and dtype."""
    steps = [MAPS, *(_step(k, last=k == iterations - 1) for k in range(iterations))] if iterations else []
    body = f"""
    {INITIAL_FILTERS}
    {"".join(steps)}
    query_around = Transpose <perm: ints = [0, 2, 1]> (query_share_windows)
    dense = MatMul (filters{iterations}, query_around)
    {BAND}
    {volume("dense", "volume_float")}
    volume = CastLike (volume_float, reference)
    """
    return function(SCHEMA, body)


def _step(k: int, last: bool) -> str:
    """One iteration: ``filters{k}`` and their ``scores{k}`` to those of the next, scores only if needed.

    HardSigmoid is 0, ½ or 1 for negative, zero and positive scores: the smallest normal number times 1e38 is
    above ½. Sign, PRelu and Where take ten to sixty times as long in ONNX Runtime 1.32.
    """
    next_scores = f"""
    score_step{k} = Mul (change{k}, step{k})
    scores{k + 1} = Sub (scores{k}, score_step{k})
    """
    return f"""
    positive{k} = HardSigmoid <alpha: float = 1e38, beta: float = 0.5> (scores{k})
    slope_above{k} = Mul (positive{k}, slope_more_map)
    slope{k} = Add (slope_above{k}, slope_below_map)
    weighted_scores{k} = Mul (slope{k}, scores{k})
    excess{k} = Sub (weighted_scores{k}, weighted_target_map)
    residual{k} = Mul (slope{k}, excess{k})
    sums{k} = MatMul (residual{k}, reference_share_windows)
    decay{k} = Mul (filters{k}, regularization)
    gradient{k} = Add (sums{k}, decay{k})
    change{k} = MatMul (gradient{k}, around)
    weighted_change{k} = Mul (slope{k}, change{k})
    squared_change{k} = ReduceSumSquare <keepdims: int = 1> (weighted_change{k}, last_axis)
    squared_gradient{k} = ReduceSumSquare <keepdims: int = 1> (gradient{k}, last_axis)
    squared_decay{k} = Mul (squared_gradient{k}, regularization)
    curvature{k} = Add (squared_change{k}, squared_decay{k})
    curvature_above{k} = Max (curvature{k}, floor)
    extra{k} = Mul (squared_gradient{k}, steplength_regularization)
    denominator{k} = Add (curvature_above{k}, extra{k})
    numerator{k} = Mul (squared_gradient{k}, step_length)
    step{k} = Div (numerator{k}, denominator{k})
    filter_step{k} = Mul (gradient{k}, step{k})
    filters{k + 1} = Sub (filters{k}, filter_step{k})
    {"" if last else next_scores}
    """
