"""What TensorRT does to a quickly deployable plugin while it builds an engine, done without TensorRT.

Runs in a process of ``tensorrt_stubs``. The plugin layer under test is NVIDIA's own; stood in for are only
the builder that calls it and the arithmetic of symbolic sizes, which is evaluated for certain sizes here.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass
class Built:
    """What an engine would keep of a node with a plugin.

    Attributes:
        output_dtypes: such as ``HALF``.
        output_shape: for the sizes that were given.
        formats: combinations of dtypes and of layouts that the plugin offers.
        kernel: entry point.
        ptx: text.
        grid: blocks in x, y, z.
        block: threads in x, y, z.
        shared_bytes: dynamic shared memory of a block.
        arguments: of the kernel between inputs and outputs.
        operations: kinds of symbolic arithmetic used, such as ``CEIL_DIV``.
    """

    output_dtypes: list[str]
    output_shape: Shape = ()
    formats: list[list[str]] = field(default_factory=list)
    kernel: str = ""
    ptx: str = ""
    grid: Shape = ()
    block: Shape = ()
    shared_bytes: int = 0
    arguments: Shape = ()
    operations: set[str] = field(default_factory=set)


def registered() -> dict[tuple[str, str, str], list[tuple[str, str]]]:
    """Fields of every creator in the registry, by name, version and namespace of its plugin."""
    import tensorrt as trt

    return {
        key: [(plugin_field.name, plugin_field.type.name) for plugin_field in creator.field_names]
        for key, creator in trt.get_plugin_registry().creators.items()
    }


def register(times: int) -> None:
    """Registers our plugins so many times."""
    from gocor.plugins.tensorrt_quick import register

    for _ in range(times):
        register()


def register_with_version(version: str) -> None:
    """Registers our plugins with a TensorRT that says it is of this version."""
    import tensorrt as trt

    kept, trt.__version__ = trt.__version__, version
    try:
        register(1)
    finally:
        trt.__version__ = kept


def build(name: str, radius: int, dtype: str, first: Shape, second: Shape, dynamic: bool) -> Built:
    """Takes a node through the stages of a build, in TensorRT's order.

    Args:
        name: of the operator.
        radius: attribute of the node, as the parser hands it over: one int32.
        dtype: ``FLOAT`` or ``HALF``, of both inputs.
        first: shape of the first input.
        second: shape of the second input.
        dynamic: whether the sizes are unknown until run time.
    """
    import tensorrt as trt

    register(1)
    plugin = _create(trt, name, radius)
    built = Built(_names(plugin.get_output_data_types([getattr(trt.DataType, dtype)] * 2, [4, 4])))
    sizes = Sizes(trt, built.operations)
    inputs = [[sizes.size(size, constant=not dynamic) for size in shape] for shape in (first, second)]
    plugin.get_output_shapes(inputs, [], sizes)
    built.output_shape = tuple(map(_value, plugin.output_descs[0].shape_expr))
    tensors = [_tensor(trt, dtype, shape, dynamic) for shape in (first, second, built.output_shape)]
    built.formats = _formats(plugin.get_supported_format_combinations(tensors, 2))
    plugin.configure_plugin(tensors[:2], tensors[2:])
    assert plugin.get_valid_tactics() == []  # TensorRT then uses tactic 0
    plugin.set_tactic(0)
    _launch(plugin, sizes, inputs, tensors, built)
    kernel, ptx = plugin.get_kernel([t.desc for t in tensors[:2]], [t.desc for t in tensors[2:]])
    built.kernel, built.ptx = kernel, ptx.decode()
    return built


def _create(trt: Any, name: str, radius: int) -> Any:
    creator = trt.get_plugin_registry().get_creator(name, "1", "gocor")
    fields = [trt.PluginField("radius", np.array([radius], np.int32), trt.PluginFieldType.INT32)]
    request = trt.QuickPluginCreationRequest.STRICT_AOT  # what the parser asks for when a node says aot=1
    return creator.create_plugin(name, "gocor", fields, trt.TensorRTPhase.BUILD, request)


def _tensor(trt: Any, dtype: str, shape: Shape, dynamic: bool) -> Any:
    tensor = trt.DynamicPluginTensorDesc()
    description = trt.PluginTensorDesc()
    description.dims = [-1] * len(shape) if dynamic else shape
    description.type, description.format = getattr(trt.DataType, dtype), trt.TensorFormat.LINEAR
    tensor.desc, tensor.opt, tensor.min, tensor.max = description, shape, shape, shape
    return tensor


def _formats(combinations: list[Any]) -> list[list[str]]:
    rows = [combinations[start : start + 3] for start in range(0, len(combinations), 3)]
    return [[f"{tensor.type.name} {tensor.format.name}" for tensor in row] for row in rows]


def _launch(plugin: Any, sizes: "Sizes", inputs: list[Any], tensors: list[Any], built: Built) -> None:
    """Fills in what the plugin returns; the layer only hands it on to C++, where it cannot be read again."""
    implementation, returned = plugin.aot_impl_function, []

    def remember(*arguments: object) -> Any:
        returned.append(implementation(*arguments))
        return returned[-1]

    plugin.aot_impl_function = remember
    built.operations.clear()
    plugin.get_launch_params(inputs, tensors, 2, SimpleNamespace(), _Setter(), sizes)
    _, _, launch, arguments = returned[0]
    built.grid, built.block = (
        tuple(_value(getattr(launch, f"{what}_{axis}")) for axis in "xyz") for what in ("grid", "block")
    )
    built.shared_bytes, built.arguments = _value(launch.shared_mem), tuple(map(_value, arguments))


class _Setter(dict[int, Any]):
    """Takes the arguments, as TensorRT's ``ISymExprs`` does."""

    nbSymExprs: int = 0  # noqa: N815 - TensorRT's spelling


class Sizes:
    """Stands in for ``IExprBuilder``: every expression is evaluated at once."""

    def __init__(self, trt: Any, operations: set[str]) -> None:
        class Size(trt.IDimensionExpr):  # type: ignore[misc]
            """A size; ``constant`` is what TensorRT knows of it while it builds."""

            value: int
            constant: bool

            def is_constant(self) -> bool:
                return self.constant

            def get_constant_value(self) -> int:
                assert self.constant, "TensorRT does not know this size yet"
                return self.value

        self._type, self._operations = Size, operations
        kinds: dict[str, Callable[[int, int], int]] = {
            "SUM": operator.add, "SUB": operator.sub, "PROD": operator.mul, "MAX": max, "MIN": min,
            "FLOOR_DIV": operator.floordiv, "CEIL_DIV": lambda a, b: -(-a // b),
            "EQUAL": operator.eq, "LESS": operator.lt,
        }  # fmt: skip
        self._kinds = {getattr(trt.DimensionOperation, kind): function for kind, function in kinds.items()}

    def size(self, value: int, *, constant: bool) -> Any:
        """A size of a tensor."""
        made = self._type.__new__(self._type)  # the real ones come from C++ and have no constructor
        made.value, made.constant = value, constant
        return made

    def constant(self, value: int) -> Any:
        """As in ``IExprBuilder``."""
        return self.size(value, constant=True)

    def operation(self, kind: Any, first: Any, second: Any) -> Any:
        """As in ``IExprBuilder``."""
        self._operations.add(kind.name)
        both = first.constant and second.constant
        return self.size(int(self._kinds[kind](first.value, second.value)), constant=both)


def _value(expression: Any) -> int:
    value = expression._expr.value
    assert isinstance(value, int)
    return value


def _names(dtypes: list[Any]) -> list[str]:
    return [dtype.name for dtype in dtypes]
