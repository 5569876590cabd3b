"""What TensorRT asks of a quickly deployable plugin while it builds an engine, asked without TensorRT.

Runs in a process of ``tensorrt_stubs``. The plugin layer under test is NVIDIA's own; stood in for are only
the builder that calls it and the arithmetic of symbolic sizes, which is evaluated for certain sizes here.
``build`` calls the Python half of the layer; ``build_from_cpp`` comes through all of it, as TensorRT does.
"""

import ctypes
import operator
from collections.abc import Callable, Sequence
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


def build(name: str, attributes: dict[str, int], dtype: str, shapes: Sequence[Shape], dynamic: bool) -> Built:
    """Takes a node through the stages of a build, in TensorRT's order.

    Args:
        name: of the operator.
        attributes: of the node, which the parser hands over as one int32 each.
        dtype: ``FLOAT`` or ``HALF``, of the first two inputs; the others are ``FLOAT``.
        shapes: of all inputs.
        dynamic: whether the sizes are unknown until run time.
    """
    import tensorrt as trt

    register(1)
    plugin = _create(trt, name, attributes)
    dtypes = _dtypes(dtype, shapes)
    output_dtypes = plugin.get_output_data_types(
        [getattr(trt.DataType, each) for each in dtypes], [len(shape) for shape in shapes]
    )
    built = Built([output_dtype.name for output_dtype in output_dtypes])
    sizes = Sizes(trt)
    inputs = [[sizes.size(size, constant=not dynamic) for size in shape] for shape in shapes]
    plugin.get_output_shapes(inputs, [], sizes)
    built.output_shape = tuple(map(_value, plugin.output_descs[0].shape_expr))
    every = zip((*dtypes, dtype), (*shapes, built.output_shape), strict=True)
    tensors = [_tensor(trt, each, shape, dynamic) for each, shape in every]
    count = len(shapes)
    built.formats = _formats(plugin.get_supported_format_combinations(tensors, count), count + 1)
    plugin.configure_plugin(tensors[:count], tensors[count:])
    assert plugin.get_valid_tactics() == []  # TensorRT then uses tactic 0
    plugin.set_tactic(0)
    _launch(plugin, sizes, inputs, tensors, built)
    kernel, ptx = plugin.get_kernel([t.desc for t in tensors[:count]], [t.desc for t in tensors[count:]])
    built.kernel, built.ptx = kernel, ptx.decode()
    return built


def _dtypes(dtype: str, shapes: Sequence[Shape]) -> list[str]:
    return [dtype] * 2 + ["FLOAT"] * (len(shapes) - 2)


def _create(trt: Any, name: str, attributes: dict[str, int]) -> Any:
    creator = trt.get_plugin_registry().get_creator(name, "1", "gocor")
    fields = [
        trt.PluginField(attribute, np.array([value], np.int32), trt.PluginFieldType.INT32)
        for attribute, value in attributes.items()
    ]
    request = trt.QuickPluginCreationRequest.STRICT_AOT  # what the parser asks for when a node says aot=1
    return creator.create_plugin(name, "gocor", fields, trt.TensorRTPhase.BUILD, request)


def _tensor(trt: Any, dtype: str, shape: Shape, dynamic: bool) -> Any:
    tensor = trt.DynamicPluginTensorDesc()
    description = trt.PluginTensorDesc()
    description.dims = [-1] * len(shape) if dynamic else shape
    description.type, description.format = getattr(trt.DataType, dtype), trt.TensorFormat.LINEAR
    tensor.desc, tensor.opt, tensor.min, tensor.max = description, shape, shape, shape
    return tensor


def _formats(combinations: list[Any], count: int) -> list[list[str]]:
    rows = [combinations[start : start + count] for start in range(0, len(combinations), count)]
    return [[f"{tensor.type.name} {tensor.format.name}" for tensor in row] for row in rows]


def _launch(plugin: Any, sizes: "Sizes", inputs: list[Any], tensors: list[Any], built: Built) -> None:
    """Fills in what the plugin returns; the layer only hands it on to C++, where it cannot be read again."""
    implementation, returned = plugin.aot_impl_function, []

    def remember(*arguments: object) -> Any:
        returned.append(implementation(*arguments))
        return returned[-1]

    plugin.aot_impl_function = remember
    plugin.get_launch_params(inputs, tensors, len(inputs), SimpleNamespace(), _Setter(), sizes)
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

    def __init__(self, trt: Any) -> None:
        class Size(trt.IDimensionExpr):  # type: ignore[misc]
            """A size; ``constant`` is what TensorRT knows of it while it builds."""

            value: int
            constant: bool

            def is_constant(self) -> bool:
                return self.constant

            def get_constant_value(self) -> int:
                assert self.constant, "TensorRT does not know this size yet"
                return self.value

        self._type = Size
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
        both = first.constant and second.constant
        return self.size(int(self._kinds[kind](first.value, second.value)), constant=both)


def _value(expression: Any) -> int:
    value = expression._expr.value
    assert isinstance(value, int)
    return value


MOST_INPUTS = 6  # as in native/quick_build.cpp


class _Node(ctypes.Structure):
    """As in native/quick_build.cpp."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("attributes", ctypes.c_int32),
        ("attribute_names", ctypes.c_char_p * 2),
        ("attribute_values", ctypes.c_int32 * 2),
        ("half", ctypes.c_int32),
        ("dynamic", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("ranks", ctypes.c_int32 * MOST_INPUTS),
        ("shapes", ctypes.c_int64 * (4 * MOST_INPUTS)),
    )


class _Built(ctypes.Structure):
    """As in native/quick_build.cpp."""

    _fields_ = (
        ("output_dtype", ctypes.c_int32),
        ("output_shape", ctypes.c_int64 * 4),
        ("formats", ctypes.c_int32),
        ("format_dtypes", ctypes.c_int32 * (8 * (MOST_INPUTS + 1))),
        ("format_layouts", ctypes.c_int32 * (8 * (MOST_INPUTS + 1))),
        ("launch", ctypes.c_int64 * 7),
        ("argument_count", ctypes.c_int32),
        ("arguments", ctypes.c_int64 * 8),
        ("kernel", ctypes.c_char * 128),
        ("ptx", ctypes.c_void_p),
        ("ptx_size", ctypes.c_int32),
    )


def build_from_cpp(
    library: str, name: str, attributes: dict[str, int], dtype: str, shapes: Sequence[Shape], dynamic: bool
) -> Built:
    """As ``build``, by ``native/quick_build.cpp``, which is the TensorRT of this process.

    Raises:
        RuntimeError: the text is the stage at which the build failed.
    """
    import tensorrt as trt

    register(1)
    quick_build = ctypes.CDLL(library).gocor_quick_build
    quick_build.restype = ctypes.c_char_p
    node, built = _node(name, attributes, dtype, shapes, dynamic), _Built()
    if failed := quick_build(ctypes.byref(node), ctypes.byref(built)):
        raise RuntimeError(failed.decode())
    pairs = zip(built.format_dtypes, built.format_layouts, strict=True)
    formats = [f"{trt.DataType(kind).name} {trt.TensorFormat(layout).name}" for kind, layout in pairs]
    row = MOST_INPUTS + 1
    return Built(
        output_dtypes=[trt.DataType(built.output_dtype).name],
        output_shape=tuple(built.output_shape),
        formats=[formats[row * i : row * i + len(shapes) + 1] for i in range(built.formats)],
        kernel=built.kernel.decode(),
        ptx=ctypes.string_at(built.ptx, built.ptx_size).decode(),
        grid=tuple(built.launch[:3]),
        block=tuple(built.launch[3:6]),
        shared_bytes=built.launch[6],
        arguments=tuple(built.arguments[: built.argument_count]),
    )


def _node(name: str, attributes: dict[str, int], dtype: str, shapes: Sequence[Shape], dynamic: bool) -> _Node:
    node = _Node(name.encode(), attributes=len(attributes), half=dtype == "HALF", dynamic=dynamic)
    for i, (attribute, value) in enumerate(attributes.items()):
        node.attribute_names[i], node.attribute_values[i] = attribute.encode(), value
    node.inputs = len(shapes)
    for i, shape in enumerate(shapes):
        node.ranks[i] = len(shape)
        for k, size in enumerate(shape):
            node.shapes[4 * i + k] = size
    return node
