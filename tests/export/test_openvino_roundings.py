"""What is taken out of 8-bit models for OpenVINO, held against ONNX Runtime."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from gocor.export.openvino_roundings import drop_roundings

IMAGE = np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(np.float32)
JOINED = """
    a = QuantizeLinear(x, s, z)
    b = DequantizeLinear(a, s, z)
    c = LeakyRelu(x)
    d = QuantizeLinear(c, {part})
    e = DequantizeLinear(d, {part})
    f = Concat<axis=1>(b, e)
    g = QuantizeLinear(f, s, z)
    h = DequantizeLinear(g, s, z)
    y = Conv(h, w)"""
ACTIVATED = """
    a = Conv(x, v)
    b = QuantizeLinear(a, s, z)
    c = DequantizeLinear(b, s, z)
    d = {reader}(c)
    e = QuantizeLinear(d, t, z)
    f = DequantizeLinear(e, t, z)
    y = Conv(f, v)"""


def model_of(body: str) -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["" : 17]> m (float[1, 2, 8, 8] x) => (float y) {{{body}}}'
    model = parser.parse_model(text)
    rng = np.random.default_rng(1)
    constants = {
        "s": np.float32(0.02),
        "same": np.float32(0.02),
        "t": np.float32(0.015),
        "z": np.uint8(100),
        "other": np.uint8(99),
        "w": rng.standard_normal((3, 4, 1, 1)).astype(np.float32),
        "v": rng.standard_normal((2, 2, 1, 1)).astype(np.float32),
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    return model


def result(model: onnx.ModelProto) -> np.ndarray:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": IMAGE})[0]


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_parts_on_one_grid_are_not_rounded_again() -> None:
    model = model_of(JOINED.format(part="same, z"))
    before = result(model)
    drop_roundings(model)
    assert kinds(model)["QuantizeLinear"] == kinds(model)["DequantizeLinear"] == 2
    np.testing.assert_array_equal(result(model), before)


@pytest.mark.parametrize("part", ["t, z", "s, other"])
def test_parts_on_other_grids_are(part: str) -> None:
    model = model_of(JOINED.format(part=part))
    before = model.SerializeToString()
    drop_roundings(model)
    assert model.SerializeToString() == before


def test_an_activation_reads_what_its_convolution_computed() -> None:
    model = model_of(ACTIVATED.format(reader="LeakyRelu"))
    before = result(model)
    drop_roundings(model)
    assert kinds(model) == {"Conv": 2, "LeakyRelu": 1, "QuantizeLinear": 1, "DequantizeLinear": 1}
    difference = np.abs(result(model) - before)
    assert 0 < difference.max() < 0.2  # of one step of 0.02, times weights


def test_what_else_reads_a_convolution_reads_it_rounded() -> None:
    model = model_of(ACTIVATED.format(reader="Sigmoid"))
    before = model.SerializeToString()
    drop_roundings(model)
    assert model.SerializeToString() == before


def test_results_of_the_graph_stay_rounded() -> None:
    model = model_of("""
        a = Conv(x, v)
        b = QuantizeLinear(a, s, z)
        y = DequantizeLinear(b, s, z)""")
    before = model.SerializeToString()
    drop_roundings(model)
    assert model.SerializeToString() == before
