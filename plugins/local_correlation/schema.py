"""THE definition of ``LocalCorrelation``."""

from gocor.plugins.schema import OpSchema, Shape, displacements, fail_shapes, plugin_attributes

NAME = "LocalCorrelation"


def output_shape(reference: Shape, query: Shape, radius: int) -> tuple[int, ...]:
    """``(N, C, H, W)`` twice gives ``(N, (2r+1)**2, H, W)``."""
    if len(reference) != 4 or reference != query:
        raise fail_shapes(NAME, reference, query, expected="expected two equal shapes (N, C, H, W)")
    batch, _, height, width = reference
    return batch, displacements(radius), height, width


SCHEMA = OpSchema(
    name=NAME,
    version=1,
    inputs=("reference", "query"),
    output="volume",
    attributes=plugin_attributes(version=1),
    tolerances={"float32": 1e-5, "float16": 1e-3},
    output_shape=output_shape,
)
