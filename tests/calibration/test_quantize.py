"""The library's graph, after what it does to its surroundings was undone."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from gocor.calibration.quantize import QUANTIZED, quantize, quantized_nodes, weight_bytes
from gocor.calibration.ranges import Range, RangeTable
from gocor.calibration.selection import Convolution, select
from gocor.export.graph import check_portable

pytest.importorskip("onnxruntime")


def table_for(convolutions: tuple[Convolution, ...]) -> RangeTable:
    ranges = {c.tensor: Range(-0.5, 2, -0.5, 2, 0) for c in convolutions if not c.kept}
    return RangeTable("minmax", 9, "12" * 32, "model.onnx", "ab" * 32, ranges)


@pytest.fixture(scope="module")
def original(exported: Any) -> onnx.ModelProto:
    return onnx.load(exported.model)


@pytest.fixture(scope="module")
def convolutions(original: onnx.ModelProto) -> tuple[Convolution, ...]:
    return select(original, "pwcnet", keep=("conv6a.0",))


@pytest.fixture(scope="module")
def quantized(original: onnx.ModelProto, convolutions: tuple[Convolution, ...]) -> onnx.ModelProto:
    return quantize(original, convolutions, table_for(convolutions))


def nodes_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in model.graph.node}


def test_chosen_convolutions_and_no_others_read_8_bits(
    quantized: onnx.ModelProto, convolutions: tuple[Convolution, ...]
) -> None:
    makers = {output: node for node in quantized.graph.node for output in node.output}
    nodes = nodes_of(quantized)
    for convolution in convolutions:
        kinds = {makers[i].op_type for i in nodes[convolution.name].input[:2] if i in makers}
        assert (kinds == {"DequantizeLinear"}) == (not convolution.kept), convolution
    readers = {node.op_type for node in quantized.graph.node for i in node.input
               if i in makers and makers[i].op_type == "DequantizeLinear"}  # fmt: skip
    assert readers == {"Conv"}


def test_everything_else_is_as_it_was(
    original: onnx.ModelProto, quantized: onnx.ModelProto, convolutions: tuple[Convolution, ...]
) -> None:
    chosen = {c.name for c in convolutions if not c.kept}
    after = nodes_of(quantized)
    for node in original.graph.node:
        if node.name not in chosen:
            assert after[node.name] == node
        else:
            assert after[node.name].input[2:] == node.input[2:]  # the bias stays
            assert after[node.name].output == node.output
    for name in ("functions", "opset_import", "ir_version"):
        assert getattr(quantized, name) == getattr(original, name)
    for name in ("input", "output", "name", "value_info"):
        assert getattr(quantized.graph, name) == getattr(original.graph, name)
    check_portable(quantized, "m")


def test_numbers_are_symmetric_and_weights_have_a_scale_for_each_channel(
    quantized: onnx.ModelProto, original: onnx.ModelProto
) -> None:
    constants = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (constants[name] for name in node.input[1:])
            assert zero.dtype == np.int8
            assert not zero.any()
            assert scale.dtype == np.float32
            assert (scale > 0).all()
    assert not [t.name for t in quantized.graph.initializer if t.data_type == TensorProto.INT32]
    node = nodes_of(quantized)["conv3a.0/Conv"]
    weight = next(n for n in quantized.graph.node if n.output[0] == node.input[1])
    before = next(t for t in original.graph.initializer if t.name == "network.conv3a.0.weight")
    integers, scales = constants[weight.input[0]], constants[weight.input[1]]
    assert scales.shape == (64,)
    exact = numpy_helper.to_array(before)
    assert np.abs(integers * scales.reshape(-1, 1, 1, 1) - exact).max() <= 0.5001 * scales.max()
    value = next(n for n in quantized.graph.node if n.output[0] == node.input[0])
    assert constants[value.input[1]] == pytest.approx(2 / 127)  # the larger end counts


def test_it_says_how_it_was_made(original: onnx.ModelProto, quantized: onnx.ModelProto) -> None:
    before, after = ({p.key: p.value for p in m.metadata_props} for m in (original, quantized))
    assert after.pop(QUANTIZED) == (
        '{"target": "tensorrt", "method": "minmax", "samples": 9, "convolutions": 42}'
    )
    assert before == after
    assert quantized.producer_name == "gocor"


def test_weights_are_counted_by_their_bytes(
    original: onnx.ModelProto, quantized: onnx.ModelProto, convolutions: tuple[Convolution, ...]
) -> None:
    before = sum(
        4 * numpy_helper.to_array(t).size for t in original.graph.initializer if t.name.startswith("network.")
    )
    assert weight_bytes(original) == before
    names = {c.weight for c in convolutions if not c.kept}
    sizes = [numpy_helper.to_array(t).size for t in original.graph.initializer if t.name in names]
    assert weight_bytes(quantized) == pytest.approx(before - 3 * sum(sizes), rel=0.01)  # and some scales


def test_the_same_input_gives_the_same_bytes(
    original: onnx.ModelProto, quantized: onnx.ModelProto, convolutions: tuple[Convolution, ...]
) -> None:
    again = quantize(original, convolutions, table_for(convolutions))
    assert again.SerializeToString(deterministic=True) == quantized.SerializeToString(deterministic=True)


def test_the_original_stays_as_it_was(exported: Any, original: onnx.ModelProto) -> None:
    assert original == onnx.load(exported.model)
    assert quantized_nodes(original.graph.node) == 0


def test_weights_that_a_kept_convolution_shares_stay_for_it() -> None:
    """As those of GLU-Net's decoder, which runs at several sizes."""
    text = """<ir_version: 9, opset_import: ["" : 19]>
    shared (float[1,2,8,8] x) => (float[1,2,8,8] y) <float[2,2,1,1] w = {1.0, 0.5, -1.0, 2.0}> {
        a = Conv(x, w)
        b = Conv(a, w)
        y = LeakyRelu(b)
    }"""
    model = onnx.parser.parse_model(text)
    for node, name in zip(model.graph.node, ("conv3a.0/Conv", "conv3a.0/Conv_2", "act"), strict=True):
        node.name = name
    convolutions = select(model, "pwcnet", keep=("conv3a.0/Conv_2",))
    result = quantize(model, convolutions, table_for(convolutions))
    assert nodes_of(result)["conv3a.0/Conv_2"].input == ["a", "w"]
    assert "w" in {tensor.name for tensor in result.graph.initializer}
    onnx.checker.check_model(result, full_check=True)
