"""Models whose batch, height or width vary from call to call: how they are traced, what sizes are called."""

import re
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.export import Dim

from gocor.runtime.metadata import AXES, Axis, ModelMetadata, Range
from gocor.runtime.spec import NetworkSpec

UNITS = {"height": "h", "width": "w"}  # names of the sides in steps that the network takes


def ranges(spec: NetworkSpec, dynamic: Sequence[Axis], width: int) -> dict[Axis, Range]:
    """Sizes that the axes of a network may have without another graph, by axis.

    Args:
        spec: of the network.
        dynamic: axes that vary.
        width: that the graph is traced for.
    """
    found: dict[Axis, Range] = {}
    for axis in AXES:
        if axis in dynamic:
            found[axis] = Range(1) if axis == "batch" else Range(*spec.side_range(axis, width))
    return found


def example_inputs(metadata: ModelMetadata) -> tuple[tuple[Tensor, ...], Any]:
    """Tensors to trace a model with, and what varies of them; None for a model of fixed sizes.

    A size of 1 would be taken for one that never varies, so varying ones are at least 2 steps here.
    """
    sizes: dict[Axis, int] = {"batch": metadata.batch, "height": metadata.height, "width": metadata.width}
    variables: dict[str, Any] = {}
    for axis, (smallest, largest) in (metadata.dynamic or {}).items():
        step = 1 if axis == "batch" else metadata.spec.side_multiple
        unit = Dim(UNITS.get(axis, axis), min=smallest // step, max=largest and largest // step)
        variables[axis] = unit if step == 1 else step * unit
        sizes[axis] = max(sizes[axis], 2 * step)
    inputs, varying = [], []
    for spec in metadata.inputs:
        shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]  # type: ignore[index]
        inputs.append(torch.zeros(shape, dtype=getattr(torch, spec.dtype)))
        varying.append({n: variables[size] for n, size in enumerate(spec.shape) if isinstance(size, str)})
    if not metadata.dynamic:
        return tuple(inputs), None
    # TensorPipeline takes any number of tensors, which are one argument for torch.export.
    return tuple(inputs), tuple(varying) if metadata.io == "images" else (tuple(varying),)


def name_sizes(model: onnx.ModelProto, metadata: ModelMetadata) -> None:
    """Names varying sizes of inputs and outputs as the metadata does, in place: ``batch``, ``height/4``.

    A quotient is rounded down.
    """
    given = {spec.name: spec.shape for spec in metadata.inputs}
    channels_last = metadata.io == "images"
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        height = 1 if value.name in given and channels_last else 2
        for axis, position in zip(AXES, (0, height, height + 1), strict=True):
            if position < len(dims) and dims[position].dim_param:
                step = 1 if axis == "batch" else metadata.spec.side_multiple
                dims[position].dim_param = _size_name(axis, step, dims[position].dim_param)


def _size_name(axis: Axis, step: int, expression: str) -> str:
    """The name of a size that PyTorch calls ``16*s39`` or ``(s39//2)``, where the symbol counts steps."""
    found = re.fullmatch(r"\(?(?:(\d+)\*)?[a-z]\w*(?://(\d+))?\)?", expression)
    assert found, f"PyTorch calls a size {expression}"
    divisor = step * int(found[2] or 1) // int(found[1] or 1)
    return axis if divisor == 1 else f"{axis}/{divisor}"
