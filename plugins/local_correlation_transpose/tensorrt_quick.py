"""``LocalCorrelationTranspose`` as a quickly deployable plugin of TensorRT."""

# No `from __future__ import annotations`: TensorRT reads the annotations and takes no strings.
from gocor.plugins import tensorrt_quick as quick
from gocor.plugins.local_correlation_transpose.launch import launch
from gocor.plugins.local_correlation_transpose.schema import SCHEMA


def define() -> None:
    """Defines the plugin; to be called once, by ``gocor.plugins.tensorrt_quick.register``."""
    import tensorrt.plugin as trtp

    @trtp.register(quick.plugin_id(SCHEMA))
    def describe(volume: trtp.TensorDesc, query: trtp.TensorDesc, radius: quick.Integer) -> trtp.TensorDesc:
        quick.check(SCHEMA, volume, query, radius=radius)
        return trtp.from_shape_expr(tuple(query.shape_expr), query.dtype)

    @trtp.autotune(quick.plugin_id(SCHEMA))
    def autotune(
        volume: trtp.TensorDesc,
        query: trtp.TensorDesc,
        radius: quick.Integer,
        outputs: tuple[trtp.TensorDesc],
    ) -> list[trtp.AutoTuneCombination]:
        return quick.combinations(SCHEMA)

    @trtp.aot_impl(quick.plugin_id(SCHEMA))
    def compile_ahead(
        volume: trtp.TensorDesc,
        query: trtp.TensorDesc,
        radius: quick.Integer,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        return quick.implementation(SCHEMA, query, launch, radius=radius)
