"""Tiny ONNX models whose results are single values of their inputs, so that every step before them shows."""

from collections.abc import Sequence
from pathlib import Path

from gocor.runtime.metadata import ORIENTATION_SCORE, ModelMetadata


def save_sampler(path: Path, described: ModelMetadata) -> Path:
    """Writes a model of the interface that ``described`` promises.

    The last flow is channels 0 and 1 of the reference plus ten times channels 1 and 2 of the query, at each
    pixel, or with ``io="tensors"`` at each fourth; coarser ones are minus the reference's part. A score is
    the mean product of both, of 256×256 with tensors.
    """
    import onnx
    from onnx import helper, parser

    model = parser.parse_model(_text(described))
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:  # "height/4", which is no word in ONNX's text format
                dim.dim_param = dim.dim_param.replace("_over_", "/")
    helper.set_model_props(model, described.to_properties())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def _text(described: ModelMetadata) -> str:
    images = described.io == "images"
    step, channels_first = (1, "Transpose<perm=[0, 3, 1, 2]>") if images else (4, "Identity")
    lines = [
        "axes = Constant<value_ints=[1, 2, 3]>()",
        f"steps = Constant<value_ints=[1, {step}, {step}]>()",
        "first = Constant<value_ints=[0, 0, 0]>()",
        "first_end = Constant<value_ints=[2, 99999, 99999]>()",
        "second = Constant<value_ints=[1, 0, 0]>()",
        "second_end = Constant<value_ints=[3, 99999, 99999]>()",
        "ten = Constant<value_float=10.0>()",
        *(f"{name}_f = Cast<to=1>({name})" for name in ("reference", "query")),
        *(f"{name}_c = {channels_first}({name}_f)" for name in ("reference", "query")),
        "r = Slice(reference_c, first, first_end, axes, steps)",
        "q = Slice(query_c, second, second_end, axes, steps)",
        "q10 = Mul(q, ten)",
    ]
    pair = "reference_f, query_f" if images else "reference_256, query_256"
    for name in described.output_names:
        if name == ORIENTATION_SCORE:
            lines += [f"product = Mul({pair})", f"{name} = ReduceMean<keepdims=0>(product, axes)"]
        else:
            lines.append(f"{name} = " + ("Add(r, q10)" if name == described.flow.name else "Neg(r)"))
    dtypes = {"uint8": "uint8", "float32": "float"}
    shapes = dict.fromkeys(described.output_names, described.flow.shape)
    shapes |= {ORIENTATION_SCORE: described.flow.shape[:1]}
    inputs = ", ".join(f"{dtypes[i.dtype]}{_sizes(i.shape)} {i.name}" for i in described.inputs)
    outputs = ", ".join(f"float{_sizes(shapes[name])} {name}" for name in described.output_names)
    header = '<ir_version: 9, opset_import: ["" : 19]>'
    return "\n".join([f"{header} sampler ({inputs}) => ({outputs}) {{", *lines, "}"])


def _sizes(shape: Sequence[int | str]) -> str:
    return "[" + ", ".join(str(size).replace("/", "_over_") for size in shape) + "]"
