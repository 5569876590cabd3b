"""``LocalGOCor`` in every form against its NumPy reference, and that against the public code."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from golden import case_names, golden_state_dict, load_case, relative_l2, state_dict_shapes
from onnx import TensorProto, helper, numpy_helper

from gocor.core.errors import GocorError, ShapeError
from gocor.export.networks.filter_optimizer import FilterOptimizer, window_distances
from gocor.export.networks.local_gocor import LocalGOCor
from gocor.plugins.local_gocor.onnx_function import onnx_function
from gocor.plugins.local_gocor.reference import local_gocor as reference_gocor
from gocor.plugins.local_gocor.schema import SCHEMA
from gocor.plugins.onnx_tiles import OPSET
from gocor.plugins.schema import DOMAIN, displacements
from gocor.plugins.torch_ops import local_gocor

# (N, C, H, W), radius, iterations. Tiles are radius² and the neighbourhood 3 of them: below, at and above.
CASES = [
    ((1, 1, 1, 1), 1, 3),
    ((1, 3, 1, 1), 4, 1),
    ((2, 5, 7, 9), 1, 0),
    ((2, 7, 5, 19), 2, 3),
    ((1, 4, 9, 11), 3, 2),
    ((1, 16, 8, 8), 4, 3),
    ((2, 13, 17, 23), 4, 3),
    ((1, 196, 6, 8), 4, 3),
    ((1, 33, 1, 40), 4, 2),
    ((1, 3, 16, 16), 5, 7),
    ((1, 2, 3, 35), 16, 1),
]
ids = [f"{'x'.join(map(str, shape))}-r{radius}-i{count}" for shape, radius, count in CASES]
TABLE = pytest.mark.parametrize(("shape", "radius", "iterations"), CASES, ids=ids)
PARAMETERS = SCHEMA.parameters


def optimizer_of(weights: dict[str, torch.Tensor]) -> FilterOptimizer:
    optimizer = FilterOptimizer(0)
    prefix = "filter_optimizer."
    optimizer.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if prefix in k})
    return optimizer


def golden_parameters(channels: int, radius: int = 4) -> list[np.ndarray]:
    """Inputs after the features that belong to the golden cases' weights."""
    shapes = {
        key.removeprefix("local_corr."): shape
        for key, shape in state_dict_shapes("GLUNet_GOCor").items()
        if key.startswith("local_corr.")
    }
    weights = golden_state_dict(shapes, "local_corr.")
    optimizer = optimizer_of(weights)
    with torch.no_grad():
        maps = [m.numpy() for m in optimizer.score_maps(window_distances(radius))]
        step_length = optimizer.log_step_length.exp()
        regularization = optimizer.regularization / channels**2
    scalars = (weights["filter_initializer.scaling"], step_length, regularization, torch.tensor([0.01]))
    return [*maps, torch.cat(scalars).numpy()]


def inputs_of(
    shape: tuple[int, ...], radius: int, dtype: np.typing.DTypeLike = np.float32
) -> list[np.ndarray]:
    """Reproducible features, of which a corner is zero as in a warped image, and parameters."""
    rng = np.random.default_rng(sum(shape) + radius)
    features = [rng.standard_normal(shape).astype(dtype) for _ in range(2)]
    for feature in features:
        feature[:, :, : shape[2] // 3, : shape[3] // 3] = 0
    return [*features, *golden_parameters(shape[1], radius)]


# ── the reference


@pytest.mark.parametrize("name", case_names("local_gocor_"))
def test_reference_is_the_public_code(name: str) -> None:
    case = load_case(name)
    parameters = golden_parameters(case["reference"].shape[1])
    parameters[-1][-1] = 0
    volume = reference_gocor(case["reference"], case["query"], *parameters, 4, int(case["iterations"]))
    assert volume.dtype == np.float32
    assert relative_l2(volume, case["volume"]) <= 1e-5


def test_a_scaling_of_zero_starts_with_zero_filters() -> None:
    inputs = inputs_of((1, 3, 6, 7), 2)
    inputs[5][0] = 0
    assert not reference_gocor(*inputs, 2, 0).any()
    assert reference_gocor(*inputs, 2, 1).any()


# ── PyTorch


@TABLE
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16], ids=lambda t: t.__name__)
def test_torch(shape: tuple[int, ...], radius: int, iterations: int, dtype: type) -> None:
    inputs = inputs_of(shape, radius, dtype)
    actual = local_gocor(*map(torch.from_numpy, inputs), radius, iterations).numpy()
    assert actual.dtype == dtype
    tolerance = (dict(SCHEMA.tolerances) | {"float64": 1e-12})[dtype.__name__]
    assert relative_l2(actual, reference_gocor(*inputs, radius, iterations)) <= tolerance


@pytest.mark.parametrize(("iterations", "initializer"), [(0, "simple"), (2, "simple"), (2, "zeros")])
def test_the_module_computes_the_same_in_both_forms(iterations: int, initializer: str) -> None:
    options = {"initializer": initializer, "steplength_regularization": 0.05, "initial_regularization": 0.3}
    module = LocalGOCor(iterations, 3, **options)  # type: ignore[arg-type]
    features = [torch.from_numpy(a) for a in inputs_of((2, 5, 9, 11), 3)[:2]]
    results = {}
    for module.fused in (False, True):
        module.zero_grad()
        volume = module(*features)
        (volume**2).sum().backward()
        results[module.fused] = volume.detach(), {k: p.grad for k, p in module.named_parameters()}
    (expected, expected_grads), (volume, grads) = results[False], results[True]
    assert relative_l2(volume, expected) <= 1e-6
    for name, grad in expected_grads.items():
        if grad is None:
            assert grads[name] is None or not grads[name].any(), name
        else:
            torch.testing.assert_close(grads[name], grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max()))
    assert set(module.state_dict()) == {name for name, _ in module.named_parameters()}


def tiny(requires_grad: bool = True) -> list[torch.Tensor]:
    inputs = [torch.from_numpy(a).double() for a in inputs_of((1, 2, 3, 4), 1)]
    generator = torch.Generator().manual_seed(1)
    features = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in inputs[:2]]
    return [t.clone().requires_grad_(requires_grad) for t in (*features, *inputs[2:5], inputs[5] + 0.05)]


def test_gradients_once_and_twice() -> None:
    assert torch.autograd.gradcheck(lambda *tensors: local_gocor(*tensors, 1, 2), tiny())
    assert torch.autograd.gradgradcheck(lambda *tensors: local_gocor(*tensors, 1, 1), tiny())


def test_gradients_are_computed_for_what_wants_them() -> None:
    inputs = tiny(requires_grad=False)
    inputs[1].requires_grad_()
    local_gocor(*inputs, 1, 2).sum().backward()
    assert [tensor.grad is not None for tensor in inputs] == [False, True, False, False, False, False]


def test_torchs_own_check_of_the_operator() -> None:
    torch.library.opcheck(torch.ops.gocor.local_gocor.default, (*tiny(), 1, 2))


def test_shapes_and_attributes_are_checked() -> None:
    tensors = [torch.from_numpy(a) for a in inputs_of((1, 3, 5, 7), 2)]
    with pytest.raises(ShapeError, match="LocalGOCor: inputs of shapes"):
        local_gocor(*tensors, 3, 1)
    with pytest.raises(GocorError, match="iterations: is -1; a whole number from 0 to 1000"):
        local_gocor(*tensors, 2, -1)


# ── the function body


def model_of(
    radius: int, iterations: int, dims: tuple[int | str, ...] = ("N", "C", "H", "W"), element: int = 1
) -> onnx.ModelProto:
    """One node whose inputs have the schema's names."""
    names = (*SCHEMA.inputs, *PARAMETERS)
    attributes = SCHEMA.node_attributes(radius=radius, iterations=iterations)
    node = helper.make_node(SCHEMA.name, names, ["volume"], domain=DOMAIN, **attributes)
    shapes = [dims] * 2 + [(displacements(radius),)] * 3 + [(4,)]
    kinds = [element] * 2 + [TensorProto.FLOAT] * 4
    values = [helper.make_tensor_value_info(*value) for value in zip(names, kinds, shapes, strict=True)]
    output = helper.make_tensor_value_info("volume", element, [None] * 4)
    return helper.make_model(
        helper.make_graph([node], "fused", values, [output]),
        functions=[onnx_function(iterations)],
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        ir_version=9,
    )


@cache
def session(radius: int, iterations: int, element: int = TensorProto.FLOAT):
    """ONNX Runtime with symbolic shapes, so that one session does for all."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = model_of(radius, iterations, element=element).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_function(inputs: list[np.ndarray], radius: int, iterations: int) -> np.ndarray:
    element = helper.np_dtype_to_tensor_dtype(inputs[0].dtype)
    feeds = dict(zip((*SCHEMA.inputs, *PARAMETERS), inputs, strict=True))
    (volume,) = session(radius, iterations, element).run(None, feeds)
    return volume


@TABLE
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=lambda t: t.__name__)
def test_function_in_onnxruntime(shape: tuple[int, ...], radius: int, iterations: int, dtype: type) -> None:
    inputs = inputs_of(shape, radius, dtype)
    actual = run_function(inputs, radius, iterations)
    assert actual.dtype == dtype
    error = relative_l2(actual, reference_gocor(*inputs, radius, iterations))
    assert error <= SCHEMA.tolerances[dtype.__name__]


@pytest.mark.parametrize("zero", [0.0, 1e-45, 1e-38], ids=str)
def test_scores_of_zero_have_the_slope_in_between(zero: float) -> None:
    """Scores on the zero part of a reference are exactly zero; two thirds of these images are."""
    inputs = inputs_of((1, 4, 12, 12), 2)
    inputs[0][:, :, :, :8] = 0
    inputs[0][0, 0, 0, 0] = zero
    expected = reference_gocor(*inputs, 2, 3)
    assert relative_l2(run_function(inputs, 2, 3), expected) <= 1e-6
    assert relative_l2(local_gocor(*map(torch.from_numpy, inputs), 2, 3), expected) <= 1e-6


def test_float16_is_rounded_once() -> None:
    """All arithmetic is float32: λ/C² of the golden weights would be zero in float16."""
    inputs = inputs_of((1, 128, 8, 12), 4, np.float16)
    exact = reference_gocor(*(a.astype(np.float64) for a in inputs), 4, 3)
    actual = run_function(inputs, 4, 3)
    assert relative_l2(actual, exact) <= 3e-4
    assert (actual == exact.astype(np.float16)).mean() > 0.99


def test_onnx_accepts_the_body() -> None:
    model = model_of(4, 3, (1, 8, 9, 14))
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert inferred.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_body_is_small_standard_and_without_waste(iterations: int) -> None:
    function = onnx_function(iterations)
    assert list(function.input) == [*SCHEMA.inputs, *SCHEMA.parameters]
    assert list(function.attribute) == [attribute.name for attribute in SCHEMA.attributes]
    assert {node.domain for node in function.node} == {""}
    assert {node.op_type for node in function.node}.isdisjoint({"Loop", "Scan", "If", "Sign", "PRelu"})
    assert len(function.node) <= 160 + 25 * iterations
    used = {name for node in function.node for name in node.input} | set(function.output)
    unused = {name for node in function.node for name in node.output} - used
    assert unused <= (
        {"step_length", "regularization", "steplength_regularization"} if not iterations else set()
    )
    assert onnx_function(iterations).SerializeToString() == function.SerializeToString()


def test_function_in_onnx_reference() -> None:
    from onnx.reference import ReferenceEvaluator

    inputs = inputs_of((1, 3, 5, 4), 1)
    model = model_of(1, 2, (1, 3, 5, 4))
    (actual,) = ReferenceEvaluator(model).run(
        None, dict(zip((*SCHEMA.inputs, *PARAMETERS), inputs, strict=True))
    )
    assert relative_l2(actual, reference_gocor(*inputs, 1, 2)) <= SCHEMA.tolerances["float32"]


@pytest.mark.parametrize("element", ["FLOAT", "FLOAT16"])
def test_function_in_tensorrt_rtx(element: str, tmp_path: Path) -> None:
    """Parsed and built, with parameters that are constants as in every exported model."""
    pytest.importorskip("tensorrt_rtx", reason='pip install "gocor-deploy[rtx]"')
    files = []
    for radius, shape, iterations in ((4, (1, 32, 24, 20), 3), (2, (2, 3, 7, 9), 1)):
        model = model_of(radius, iterations, shape, getattr(TensorProto, element))
        for name, values in zip(PARAMETERS, golden_parameters(shape[1], radius), strict=True):
            model.graph.initializer.append(numpy_helper.from_array(values, name))
        del model.graph.input[2:]
        files.append(tmp_path / f"r{radius}.onnx")
        onnx.save(model, files[-1])
    program = Path(__file__).parents[1] / "rtx_build.py"
    command = [sys.executable, "-X", "faulthandler", program, "sm_89", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for (file, outcome), count in zip(json.loads(done.stdout).items(), (8, 4), strict=True):
        assert "error" not in outcome, (file, outcome)
        assert outcome["warnings"] == []
        assert outcome["layers"]["matrix_multiply float32"] == count
