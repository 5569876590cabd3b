"""The oracle rounds, and rounds as half precision does."""

import operator
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import TensorProto, helper, numpy_helper
from operator_models import Call, first_shape, model_of, random_inputs

from gocor.core.errors import ConfigError
from gocor.export.checkpoint import seeded_network
from gocor.export.onnx_export import export_onnx
from gocor.export.oracle import load_oracle, oracle_model
from gocor.plugins.registry import CORRELATIONS

ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

HALF = TensorProto.FLOAT16
F16 = np.float16


def half_model(body: str, inputs: str) -> onnx.ModelProto:
    """A model whose inputs and output are float32, computing in half between."""
    names = [part.split("] ")[1] for part in inputs.split("; ")]
    casts = "".join(f"{name} = Cast<to=10>({name}_in)\n" for name in names)
    given = ", ".join(f"{part}_in" for part in inputs.split("; "))
    text = f"""<ir_version: 9, opset_import: ["" : 19]>
    half ({given}) => (float out) {{ {casts} {body}
    out = Cast<to=1>(low) }}"""
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def run(model: onnx.ModelProto, *inputs: np.ndarray, optimise: bool = True) -> np.ndarray:
    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {entry.name: array for entry, array in zip(session.get_inputs(), inputs, strict=True)}
    return np.asarray(session.run(None, feed)[0])


@pytest.mark.parametrize("optimise", [True, False])
def test_it_rounds_where_onnx_runtime_does_not(optimise: bool) -> None:
    model = half_model("sum = Add(x, one)\nlow = Sub(sum, x)", "float[1] x")
    model.graph.initializer.append(numpy_helper.from_array(F16([1]), "one"))
    x = np.float32([2048])  # the next number in half precision is 2050
    assert run(model, x, optimise=optimise) == 1
    assert run(oracle_model(model), x, optimise=optimise) == 0


def test_the_model_stays_and_the_oracle_is_a_legal_float_model() -> None:
    shape = (1, 16, 9, 11)
    calls = [Call(name, 2, first_shape(name, shape, 2), shape) for name in CORRELATIONS]
    model = model_of(calls, HALF)
    before = model.SerializeToString()
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == HALF
    assert not oracle_model(model).functions
    assert model.SerializeToString() == before


ELEMENTWISE = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.truediv,
}  # fmt: skip


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_elementwise_operators_are_those_of_half_precision(kind: str) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=1000).astype(F16).astype(np.float32) for _ in range(2))
    model = half_model(f"low = {kind}(a, b)", "float[1000] a; float[1000] b")
    got = run(oracle_model(model), a, b)
    expected = ELEMENTWISE[kind](torch.from_numpy(a).half(), torch.from_numpy(b).half())
    np.testing.assert_array_equal(got, expected.float().numpy())
    reference = onnx.reference.ReferenceEvaluator(model).run(None, {"a_in": a, "b_in": b})[0]
    np.testing.assert_array_equal(got, reference)


def test_a_convolution_is_that_of_half_precision() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 8, 10, 12)).astype(F16)
    weight, bias = rng.normal(size=(4, 8, 3, 3)).astype(F16), rng.normal(size=4).astype(F16)
    model = half_model(
        "wide = Conv<pads=[1, 1, 1, 1]>(x, weight, bias)\nlow = LeakyRelu<alpha=0.1>(wide)",
        "float[1,8,10,12] x",
    )
    model.graph.initializer.extend(
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    )
    got = run(oracle_model(model), x.astype(np.float32))
    np.testing.assert_array_equal(got, got.astype(F16))
    x_, weight_, bias_ = (torch.from_numpy(array) for array in (x, weight, bias))
    half = torch.nn.functional.leaky_relu(torch.conv2d(x_, weight_, bias_, padding=1), 0.1)
    exact = torch.nn.functional.leaky_relu(
        torch.conv2d(x_.double(), weight_.double(), bias_.double(), padding=1), 0.1
    ).numpy()
    ulp = np.spacing(np.abs(exact).astype(F16)).astype(np.float64)
    assert (np.abs(got - exact) <= 1.4 * ulp).all()  # ½ of one, and 0.1 · ½ of one up to 16 times as big
    assert (np.abs(got - half.float().numpy()) <= 3 * ulp).all()
    assert (got != exact.astype(np.float32)).mean() > 0.9


@pytest.mark.parametrize("name", CORRELATIONS)
@pytest.mark.parametrize("channels", [16, 196])
def test_correlations_keep_the_tolerance_of_half_precision(name: str, channels: int) -> None:
    """196 channels: the bodies round 1/196 to half precision, which is within one rounding of the result."""
    shape = (1, channels, 9, 11)
    first, query = random_inputs(name, shape, 4, F16)
    model = model_of([Call(name, 4, first_shape(name, shape, 4), shape)], HALF)
    for value in (*model.graph.input, *model.graph.output):  # its interface in float, as networks have it
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    node = model.graph.node[0]
    into = [helper.make_node("Cast", [value], [f"{value}_low"], to=HALF) for value in node.input]
    out = helper.make_node("Cast", ["out_low"], [node.output[0]], to=TensorProto.FLOAT)
    node.input[:] = [f"{value}_low" for value in node.input]
    node.output[:] = ["out_low"]
    model.graph.node.insert(0, into[0])
    model.graph.node.insert(0, into[1])
    model.graph.node.append(out)
    got = run(oracle_model(model), first.astype(np.float32), query.astype(np.float32))
    expected = run(
        model_of([Call(name, 4, first.shape, query.shape)]),
        *(a.astype(np.float32) for a in (first, query)),
    )
    np.testing.assert_array_equal(got, got.astype(F16))
    assert np.abs(got - expected).max() <= 2e-3 * np.abs(expected).max()
    assert (got != expected).any()


def test_everything_low_in_a_network_is_rounded(tmp_path: Path) -> None:
    export_onnx(
        seeded_network("PWCNet_GOCor", iterations=1),
        tmp_path / "m.onnx",
        height=64,
        width=64,
        precision="fp16",
    )
    oracle = oracle_model(onnx.load(tmp_path / "m.onnx"))
    onnx.checker.check_model(oracle, full_check=True)
    rounded = [node.output[0] for node in oracle.graph.node if node.output[0] + ".rounded" in node.input]
    assert len(rounded) > 120
    shown = [*rounded[:3], *rounded[100:103], *rounded[-3:]]
    oracle.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in shown)
    session = ort.InferenceSession(oracle.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 255, (2, 1, 64, 64, 3), np.uint8)
    for values in session.run(shown, dict(zip(("reference", "query"), images, strict=True))):
        np.testing.assert_array_equal(values, values.astype(F16))
        assert values.any()


def test_a_float_model_has_no_oracle(exported) -> None:  # type: ignore[no-untyped-def]
    text = r"--oracle: is for fp16 and bf16, and .*model\.onnx computes in fp32; leave it out"
    with pytest.raises(ConfigError, match=text), load_oracle(exported.model):
        pass
