"""Puts 8-bit convolutions into a model, as pairs of QuantizeLinear and DequantizeLinear.

Weights are int8 with a scale for each output channel; biases stay as they are, since TensorRT refuses int32
ones. Where activations become 8-bit, and of which kind, depends on the target: see ``placement``.
"""

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gocor.calibration.placement import Placement, Target, place
from gocor.calibration.ranges import RangeTable
from gocor.calibration.selection import Convolution
from gocor.core.version import __version__
from gocor.runtime.metadata import PREFIX

if TYPE_CHECKING:
    import onnx

QUANTIZED = PREFIX + "int8"  # property of the result: how it was made
OPERATORS = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger")
# The library's defaults quantise biases, which TensorRT refuses.
_OPTIONS = {"WeightSymmetric": True, "QuantizeBias": False}


def quantize(
    model: "onnx.ModelProto",
    convolutions: Sequence[Convolution],
    table: RangeTable,
    target: Target = "tensorrt",
) -> "onnx.ModelProto":
    """A copy of a model in which the convolutions that are not kept compute with 8-bit numbers.

    Args:
        model: of ``prepare``, in float32 or with float16 features.
        convolutions: of ``select``.
        table: ranges of the tensors of ``place``.
        target: where the result is to run fast.
    """
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel

    placement = place(model, convolutions, target)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantized = _library(copy, placement, table, target)
    _restore_others(quantized, model, placement, target)
    ONNXModel(quantized).topological_sort()  # the library appends its nodes
    chosen = sum(not convolution.kept for convolution in convolutions)
    facts = {"target": target, "method": table.method, "samples": table.samples, "convolutions": chosen}
    _restore_facts(quantized, model, facts)
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


def _library(
    model: "onnx.ModelProto", placement: Placement, table: RangeTable, target: Target
) -> "onnx.ModelProto":
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    symmetric = target == "tensorrt"
    options = {
        "ActivationSymmetric": symmetric,
        # A ReLU is what rounding to unsigned numbers does anyway; as a node of its own it would be computed.
        "QDQKeepRemovableActivations": False,
        "OpTypesToExcludeOutputQuantization": ["Conv"] if symmetric else [],
    }
    kinds = {node.op_type for node in model.graph.node if node.name in placement.nodes}
    with contextlib.redirect_stdout(io.StringIO()):  # which belongs to results
        quantizer = QDQQuantizer(
            model, per_channel=True, reduce_range=False, weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, _ranges(model, placement, table)),
            nodes_to_quantize=list(placement.nodes), nodes_to_exclude=[], op_types_to_quantize=sorted(kinds),
            extra_options=_OPTIONS | options,
        )  # fmt: skip
        return quantizer.quantize_model()


def _ranges(
    model: "onnx.ModelProto", placement: Placement, table: RangeTable
) -> dict[str, tuple[np.floating, np.floating]]:
    """Ends of each tensor's range in the type of its scale, which is that of the weights."""
    from onnx import helper

    ends = {name: (table.ranges[name].low, table.ranges[name].high) for name in placement.tensors}
    for family in placement.families:
        together = (min(ends[name][0] for name in family), max(ends[name][1] for name in family))
        ends |= dict.fromkeys(family, together)
    for node in model.graph.node:
        if node.name in placement.nodes and node.op_type == "Relu":
            ends.setdefault(node.input[0], ends[node.output[0]])  # cut off by the rounding
    weights = {
        node.input[1] for node in model.graph.node if node.name in placement.nodes and node.op_type == "Conv"
    }
    (kind,) = {
        helper.tensor_dtype_to_np_dtype(tensor.data_type).type
        for tensor in model.graph.initializer
        if tensor.name in weights
    }
    return {name: (kind(low), kind(high)) for name, (low, high) in ends.items()}


def _restore_others(
    quantized: "onnx.ModelProto", original: "onnx.ModelProto", placement: Placement, target: Target
) -> None:
    """Gives every other node its own inputs back, as far as those exist in full precision.

    The library puts the quantised tensor in front of all that read it: flow heads, correlations, warps.
    """
    names = set(placement.nodes)
    before = {node.name: node for node in original.graph.node if node.name not in names}
    made: set[str] = set()
    if target == "cpu":
        made.update(name for node in original.graph.node if node.name in names for name in node.output)
    needed: set[str] = set()
    for node in quantized.graph.node:
        if node.name in before:
            for i, name in enumerate(before[node.name].input):
                if name not in made:
                    node.input[i] = name
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
