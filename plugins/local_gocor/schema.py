"""THE definition of ``LocalGOCor``."""

from gocor.plugins.schema import Attribute, OpSchema, Shape, displacements, fail_shapes, plugin_attributes

NAME = "LocalGOCor"

# One input, in this order. Attributes would do for trained numbers, too, but an input can come from modules
# in training, be a constant when exported, and is float32 in every form of a plugin.
SCALARS = ("scaling", "step_length", "regularization", "steplength_regularization")


def output_shape(
    reference: Shape, query: Shape, target: Shape, weight: Shape, mask: Shape, scalars: Shape,
    *, radius: int, iterations: int,
) -> tuple[int, ...]:  # fmt: skip
    """``(N, C, H, W)`` twice, ``((2r+1)**2,)`` thrice and ``(4,)`` give ``(N, (2r+1)**2, H, W)``."""
    maps, channels = (target, weight, mask), displacements(radius)
    if len(reference) != 4 or reference != query:
        raise fail_shapes(NAME, reference, query, expected="expected two equal shapes (N, C, H, W)")
    if any(shape != (channels,) for shape in maps) or scalars != (len(SCALARS),):
        expected = f"expected three of ({channels},), and ({len(SCALARS)},)"
        raise fail_shapes(NAME, *maps, scalars, expected=expected)
    batch, _, height, width = reference
    return batch, channels, height, width


_RADIUS, *_OF_PARSER = plugin_attributes(version=1)

SCHEMA = OpSchema(
    name=NAME,
    version=1,
    inputs=("reference", "query"),
    parameters=("target", "weight", "mask", "scalars"),
    output="volume",
    attributes=(
        _RADIUS,
        Attribute("iterations", 3, "steepest-descent steps of every filter", minimum=0, maximum=1000),
        *_OF_PARSER,
    ),
    tolerances={"float32": 1e-5, "float16": 1e-3},
    output_shape=output_shape,
)
