"""Tiny ONNX models with the interface and metadata of real ones; their flow is simple arithmetic."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gocor.runtime.metadata import ORIENTATION_SCORE, ModelMetadata

if TYPE_CHECKING:
    import onnx

METADATA = ModelMetadata(
    network="PWCNet_GOCor",
    weights_sha256="ab" * 32,
    checkpoint="toy.pth",
    checkpoint_sha256="cd" * 32,
    global_iterations=None,
    local_iterations=3,
    height=32,
    width=64,
    batch=1,
    io="images",
    operators={"LocalCorrelation": 1},
    gocor_version="0.1.0",
)


def metadata(**changes: object) -> ModelMetadata:
    """Metadata of a toy model."""
    changed = dataclasses.replace(METADATA, **changes)  # type: ignore[arg-type]
    if changed.spec.global_gocor:
        changed = dataclasses.replace(changed, global_iterations=3)
    return changed


def save_toy(
    path: Path, described: ModelMetadata = METADATA, properties: dict[str, str] | None = None
) -> Path:
    """Writes a model of the interface that ``described`` promises.

    Its last flow is ``(mean of the reference, mean of the query)`` everywhere, the coarser ones 0;
    ``orientation_score`` is the mean of the reference's left half (up to the size that it is meant for).
    """
    import onnx
    from onnx import helper, parser

    model = parser.parse_model(_text(described))
    _name_sizes(model)
    helper.set_model_props(model, described.to_properties() if properties is None else properties)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def _text(described: ModelMetadata) -> str:
    dtypes = {"uint8": "uint8", "float32": "float"}
    inputs = ", ".join(f"{dtypes[i.dtype]}{_sizes(i.shape)} {i.name}" for i in described.inputs)
    grid = described.flow.shape
    shapes = dict.fromkeys(described.output_names, grid) | {ORIENTATION_SCORE: grid[:1]}
    outputs = ", ".join(f"float{_sizes(shapes[name])} {name}" for name in described.output_names)
    lines = [
        "axes = Constant<value_ints=[1, 2, 3]>()",
        *_grid(described),
        "zero = Constant<value_float=0.0>()",
        "r = Cast<to=1>(reference)",
        "q = Cast<to=1>(query)",
        "mr = ReduceMean(r, axes)",
        "mq = ReduceMean(q, axes)",
        "means = Concat<axis=1>(mr, mq)",
        f"{described.flow.name} = Expand(means, grid)",
    ]
    for name in described.output_names:
        if name == ORIENTATION_SCORE:
            half, axis = described.width // 2, 2 if described.io == "images" else 3
            lines += [f"{key} = Constant<value_ints=[{value}]>()" for key, value in
                      (("start", 0), ("half", half), ("axis", axis))]  # fmt: skip
            lines += ["left = Slice(r, start, half, axis)", f"{name} = ReduceMean<keepdims=0>(left, axes)"]
        elif name != described.flow.name:
            lines.append(f"{name} = Expand(zero, grid)")
    header = '<ir_version: 9, opset_import: ["" : 19]>'
    return "\n".join([f"{header} toy ({inputs}) => ({outputs}) {{", *lines, "}"])


def _grid(described: ModelMetadata) -> list[str]:
    """Lines that make ``grid``, the last flow's shape, which varies with that of the reference."""
    if not described.dynamic:
        return [f"grid = Constant<value_ints={list(described.flow.shape)}>()"]
    first = 1 if described.io == "images" else 2
    stride = 1 if described.io == "images" else described.spec.flow_stride
    return [
        "n = Shape<start=0, end=1>(reference)",
        "two = Constant<value_ints=[2]>()",
        f"sides = Shape<start={first}, end={first + 2}>(reference)",
        f"stride = Constant<value_ints=[{stride}]>()",
        "coarse = Div(sides, stride)",
        "grid = Concat<axis=0>(n, two, coarse)",
    ]


def _sizes(shape: Sequence[int | str]) -> str:
    """A shape in ONNX's text format, whose names are words."""
    return f"[{', '.join(str(size).replace('/', '_over_') for size in shape)}]"


def _name_sizes(model: "onnx.ModelProto") -> None:
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = dim.dim_param.replace("_over_", "/")
