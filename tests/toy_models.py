"""Tiny ONNX models with the interface and metadata of real ones; their flow is simple arithmetic."""

import dataclasses
from pathlib import Path

from gocor.runtime.metadata import ORIENTATION_SCORE, ModelMetadata

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
    ``orientation_score`` is the mean of the reference's left half.
    """
    import onnx
    from onnx import helper, parser

    model = parser.parse_model(_text(described))
    helper.set_model_props(model, described.to_properties() if properties is None else properties)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def _text(described: ModelMetadata) -> str:
    dtypes = {"uint8": "uint8", "float32": "float"}
    inputs = ", ".join(f"{dtypes[i.dtype]}{list(i.shape)} {i.name}" for i in described.inputs)
    grid = list(described.flow.shape)
    shapes = dict.fromkeys(described.output_names, grid) | {ORIENTATION_SCORE: [described.batch]}
    outputs = ", ".join(f"float{shapes[name]} {name}" for name in described.output_names)
    lines = [
        "axes = Constant<value_ints=[1, 2, 3]>()",
        f"grid = Constant<value_ints={grid}>()",
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
