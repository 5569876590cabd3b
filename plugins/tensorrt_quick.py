"""Our operators as quickly deployable plugins: written in Python, compiled ahead of time.

TensorRT asks the functions of ``<operator>/tensorrt_quick.py`` for shapes, dtypes and the kernel while it
builds an engine, and copies the PTX into the engine. The finished engine needs neither Python nor a library
of ours, and loads in plain C++ and in trtexec. TensorRT-RTX has no such plugins.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from gocor.core.errors import DependencyError
from gocor.plugins import ptx
from gocor.plugins.launch import Launch
from gocor.plugins.registry import KERNELS
from gocor.plugins.schema import DOMAIN, OpSchema

# An array of one number, not an int: up to TensorRT 11.0 the plugin layer makes int(array) of an integer
# attribute, which NumPy refuses from 2.4 on. Spelled out, since 10.9 does not know NDArray of NumPy 2.5.
Integer = np.ndarray[tuple[int], np.dtype[np.int32]]


def register() -> None:
    """Makes TensorRT's parser find the plugins of our operators. Calls after the first do nothing.

    Raises:
        DependencyError: TensorRT is missing, or has no ahead-of-time Python plugins.
    """
    layer = plugin_layer()
    for schema in KERNELS.values():
        if not hasattr(getattr(layer.op, DOMAIN, None), schema.name):
            importlib.import_module(f"gocor.plugins.{schema.torch_name}.tensorrt_quick").define()


def plugin_layer() -> Any:
    """The module ``tensorrt.plugin``.

    Raises:
        DependencyError: TensorRT is missing, or has no ahead-of-time Python plugins.
    """
    try:
        layer = importlib.import_module("tensorrt.plugin")
    except (ImportError, OSError) as error:  # OSError: it loads shared libraries itself
        hint = 'pip install "gocor-deploy[tensorrt]"'
        raise DependencyError("TensorRT's Python plugins", f"cannot be imported ({error})", hint) from error
    if not hasattr(layer, "aot_impl"):
        instead = "TensorRT 10.9 or later, or build with --plugins none"
        raise DependencyError("TensorRT's Python plugins", "cannot be compiled ahead of time", instead)
    return layer


def plugin_id(schema: OpSchema) -> str:
    """Of the plugin of an operator, such as ``gocor::LocalCorrelation``."""
    return f"{DOMAIN}::{schema.name}"


def check(schema: OpSchema, *inputs: Any, radius: Integer, **attributes: Integer) -> int:
    """The radius, after all was checked that TensorRT knows at this stage of the build.

    Args:
        schema: the operator.
        inputs: ``TensorDesc`` of every input.
        radius: attribute of the node.
        attributes: all others.

    Raises:
        ConfigError: an attribute is out of range, or there is no kernel for this radius.
        ShapeError: the inputs do not fit.
    """
    value = int(radius[0])
    schema.check_kernel_radius(value)
    others = {name: int(attribute[0]) for name, attribute in attributes.items()}
    for name, other in others.items():
        schema.attribute(name).check(other)
    shapes = [_known_shape(tensor) for tensor in inputs]
    if not any(None in shape for shape in shapes) and len(shapes[0]) == len(shapes[1]) == 4:
        schema.check(*shapes, radius=value, **others)
        schema.check_kernel_size(shapes[1], value)
    return value


def _known_shape(tensor: Any) -> tuple[Any, ...]:
    """Sizes, None for those that are unknown until run time or not asked for yet."""
    return tuple(
        size.constant_value() if not size.is_fake and size.is_constant else None for size in tensor.shape_expr
    )


def combinations(schema: OpSchema) -> list[Any]:
    """Dtypes and layouts that a plugin takes: all features float32 or all float16, contiguous."""
    features = ["FP32|FP16"]
    kinds = features * len(schema.inputs) + ["FP32"] * len(schema.parameters) + features
    return [plugin_layer().AutoTuneCombination(", ".join(kinds), "LINEAR")]


def implementation(
    schema: OpSchema, query: Any, launch: Callable[..., Launch], **attributes: Integer
) -> tuple[str, str, Any, Any]:
    """What TensorRT puts into the engine for one combination of dtypes.

    Args:
        schema: the operator.
        query: ``TensorDesc`` of the second input, whose sizes may be symbols.
        launch: of ``<operator>/launch.py``.
        attributes: of the node.

    Returns:
        Name of the kernel, PTX, ``KernelLaunchParams``, and the numbers that the kernel takes between the
        pointers to its inputs and to its output.
    """
    layer = plugin_layer()
    dtype = {"FLOAT": "float32", "HALF": "float16"}[query.dtype.name]
    values = {name: int(attribute[0]) for name, attribute in attributes.items()}
    kernel, text = ptx.read(schema.name, dtype, values["radius"])
    geometry = launch(*query.shape_expr, dtype=dtype, **values)
    parameters = layer.KernelLaunchParams(*geometry.grid, block_x=geometry.block, shared_mem=geometry.shared)
    numbers = layer.SymIntExprs.from_tuple(tuple(map(layer.SymInt32, geometry.numbers)))
    return kernel, text, parameters, numbers
