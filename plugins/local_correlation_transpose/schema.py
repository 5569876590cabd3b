"""THE definition of ``LocalCorrelationTranspose``."""

from gocor.plugins.schema import OpSchema, Shape, displacements, fail_shapes, plugin_attributes

NAME = "LocalCorrelationTranspose"


def output_shape(volume: Shape, query: Shape, radius: int) -> tuple[int, ...]:
    """``(N, (2r+1)**2, H, W)`` and ``(N, C, H, W)`` give ``(N, C, H, W)``."""
    channels = displacements(radius)
    fits = len(volume) == len(query) == 4 and volume[1] == channels
    if not fits or (volume[0], *volume[2:]) != (query[0], *query[2:]):
        raise fail_shapes(NAME, volume, query, expected=f"expected (N, {channels}, H, W) and (N, C, H, W)")
    return tuple(query)


SCHEMA = OpSchema(
    name=NAME,
    version=1,
    inputs=("volume", "query"),
    output="features",
    attributes=plugin_attributes(version=1),
    tolerances={"float32": 1e-5, "float16": 1e-3},
    output_shape=output_shape,
)
