"""Puts 8-bit convolutions into a model, in the explicit form that TensorRT and ONNX Runtime both take.

Weights are int8 with a scale for each output channel, activations int8 with one scale, all symmetric; biases
stay as they are, since TensorRT refuses int32 ones. What a convolution gives stays in full precision.
"""

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gocor.calibration.ranges import RangeTable
from gocor.calibration.selection import Convolution
from gocor.core.version import __version__
from gocor.runtime.metadata import PREFIX

if TYPE_CHECKING:
    import onnx

QUANTIZED = PREFIX + "int8"  # property of the result: how it was made
OPERATORS = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger")
# The library's defaults are asymmetric, quantise biases, and TensorRT refuses both.
_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv"],
}


def quantize(
    model: "onnx.ModelProto", convolutions: Sequence[Convolution], table: RangeTable
) -> "onnx.ModelProto":
    """A copy of a model in which the convolutions that are not kept compute with 8-bit numbers.

    Args:
        model: of ``gocor export``, in float32 or with float16 features.
        convolutions: of ``select``.
        table: ranges of their inputs.
    """
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel

    chosen = [convolution for convolution in convolutions if not convolution.kept]
    names = {convolution.name for convolution in chosen}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantized = _library(copy, chosen, table)
    _restore_others(quantized, model, names)
    ONNXModel(quantized).topological_sort()  # the library appends its nodes
    _restore_facts(
        quantized, model, {"method": table.method, "samples": table.samples, "convolutions": len(names)}
    )
    return quantized


def quantized_nodes(nodes: Iterable["onnx.NodeProto"]) -> int:
    """How many nodes belong to an 8-bit model."""
    return sum(node.op_type in OPERATORS for node in nodes)


def weight_bytes(model: "onnx.ModelProto") -> int:
    """Bytes of the network's own constants, with their scales; the pipeline around it does not count."""
    from onnx import helper

    return sum(
        int(np.prod(tensor.dims)) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
        if tensor.name.startswith("network.")
    )


def _library(model: "onnx.ModelProto", chosen: Sequence[Convolution], table: RangeTable) -> "onnx.ModelProto":
    from onnx import helper
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    # A scale has the type of what it scales, and the library takes it from the range.
    types = {t.name: helper.tensor_dtype_to_np_dtype(t.data_type).type for t in model.graph.initializer}
    ranges = {
        c.tensor: tuple(
            types[c.weight](end) for end in (table.ranges[c.tensor].low, table.ranges[c.tensor].high)
        )
        for c in chosen
    }
    with contextlib.redirect_stdout(io.StringIO()):  # which belongs to results
        quantizer = QDQQuantizer(
            model, per_channel=True, reduce_range=False,
            weight_qType=QuantType.QInt8, activation_qType=QuantType.QInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
            nodes_to_quantize=[c.name for c in chosen], nodes_to_exclude=[], op_types_to_quantize=["Conv"],
            extra_options=dict(_OPTIONS),
        )  # fmt: skip
        return quantizer.quantize_model()


def _restore_others(quantized: "onnx.ModelProto", original: "onnx.ModelProto", names: set[str]) -> None:
    """Gives every other node its own inputs back.

    The library puts the quantised tensor in front of all that read it: flow heads, correlations, warps.
    """
    before = {node.name: node for node in original.graph.node if node.name not in names}
    needed: set[str] = set()
    for node in quantized.graph.node:
        if node.name in before:
            node.input[:] = before[node.name].input
            needed.update(node.input)
    there = {tensor.name for tensor in quantized.graph.initializer}
    quantized.graph.initializer.extend(
        tensor for tensor in original.graph.initializer if tensor.name in needed and tensor.name not in there
    )


def _restore_facts(
    quantized: "onnx.ModelProto", original: "onnx.ModelProto", facts: Mapping[str, object]
) -> None:
    """Drops what the library leaves behind, and says what was done."""
    for name in ("metadata_props", "opset_import"):
        entries = getattr(quantized, name)
        del entries[:]
        entries.extend(getattr(original, name))
    del quantized.graph.value_info[:]
    quantized.metadata_props.add(key=QUANTIZED, value=json.dumps(facts))
    quantized.producer_name, quantized.producer_version = "gocor", __version__
