"""``LocalGOCor`` as a quickly deployable plugin of TensorRT."""

# No `from __future__ import annotations`: TensorRT reads the annotations and takes no strings.
from gocor.plugins import tensorrt_quick as quick
from gocor.plugins.local_gocor.launch import launch
from gocor.plugins.local_gocor.schema import SCHEMA
from gocor.plugins.schema import displacements


def define() -> None:
    """Defines the plugin; to be called once, by ``gocor.plugins.tensorrt_quick.register``."""
    import tensorrt.plugin as trtp

    @trtp.register(quick.plugin_id(SCHEMA))
    def describe(
        reference: trtp.TensorDesc,
        query: trtp.TensorDesc,
        target: trtp.TensorDesc,
        weight: trtp.TensorDesc,
        mask: trtp.TensorDesc,
        scalars: trtp.TensorDesc,
        radius: quick.Integer,
        iterations: quick.Integer,
    ) -> trtp.TensorDesc:
        inputs = (reference, query, target, weight, mask, scalars)
        r = quick.check(SCHEMA, *inputs, radius=radius, iterations=iterations)
        batch, _, height, width = query.shape_expr
        return trtp.from_shape_expr((batch, displacements(r), height, width), query.dtype)

    @trtp.autotune(quick.plugin_id(SCHEMA))
    def autotune(
        reference: trtp.TensorDesc,
        query: trtp.TensorDesc,
        target: trtp.TensorDesc,
        weight: trtp.TensorDesc,
        mask: trtp.TensorDesc,
        scalars: trtp.TensorDesc,
        radius: quick.Integer,
        iterations: quick.Integer,
        outputs: tuple[trtp.TensorDesc],
    ) -> list[trtp.AutoTuneCombination]:
        return quick.combinations(SCHEMA)

    @trtp.aot_impl(quick.plugin_id(SCHEMA))
    def compile_ahead(
        reference: trtp.TensorDesc,
        query: trtp.TensorDesc,
        target: trtp.TensorDesc,
        weight: trtp.TensorDesc,
        mask: trtp.TensorDesc,
        scalars: trtp.TensorDesc,
        radius: quick.Integer,
        iterations: quick.Integer,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        return quick.implementation(SCHEMA, query, launch, radius=radius, iterations=iterations)
