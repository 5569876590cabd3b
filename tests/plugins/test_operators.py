"""One table of cases over every implementation of both operators.

The NumPy reference is the oracle of all others; it is held against the definition itself and OpenCV.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from golden import relative_l2
from onnx import TensorProto
from operator_cases import CASES, LARGE, OPERATOR, table
from operator_models import Call, first_shape, model_of, random_inputs

from gocor.plugins import torch_ops
from gocor.plugins.local_correlation.reference import local_correlation
from gocor.plugins.references import REFERENCES
from gocor.plugins.registry import CORRELATIONS
from gocor.plugins.schema import displacements

SMALL = [case for case in CASES if np.prod(case[0]) * displacements(case[1]) < 1e6]

DEVICE = pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])


def tolerance(operator: str, dtype: str) -> float:
    """The schema's; float64 and bfloat16, which PyTorch takes too, by their own rounding."""
    others = {"float64": 1e-12, "bfloat16": 8e-3}
    return (dict(CORRELATIONS[operator].tolerances) | others)[dtype]


# ── the reference


def definition(operator: str, first: np.ndarray, query: np.ndarray, radius: int) -> np.ndarray:
    """Both operators as they are defined, one pixel and displacement after the other."""
    batch, channels, height, width = query.shape
    steps = range(-radius, radius + 1)
    volume = np.zeros((batch, displacements(radius), height, width))
    features = np.zeros(query.shape)
    for n, y, x in np.ndindex(batch, height, width):
        for d, (dy, dx) in enumerate((dy, dx) for dy in steps for dx in steps):
            if not (0 <= y + dy < height and 0 <= x + dx < width):
                continue
            neighbour = query[n, :, y + dy, x + dx].astype(np.float64)
            if operator == "LocalCorrelation":
                volume[n, d, y, x] = first[n, :, y, x] @ neighbour / channels
            else:
                features[n, :, y, x] += first[n, d, y, x] * neighbour / channels
    return volume if operator == "LocalCorrelation" else features


@OPERATOR
@table(SMALL)
def test_reference_is_the_definition(operator: str, shape: tuple[int, ...], radius: int) -> None:
    first, query = random_inputs(operator, shape, radius, np.float64)
    expected = definition(operator, first, query, radius)
    assert relative_l2(REFERENCES[operator](first, query, radius), expected) <= 1e-13


@OPERATOR
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_reference_keeps_the_dtype_and_accumulates_in_more(operator: str, dtype: str) -> None:
    shape, radius = (1, 300, 6, 7), 2
    first, query = random_inputs(operator, shape, radius, dtype)
    actual = REFERENCES[operator](first, query, radius)
    assert actual.dtype == dtype
    exact = REFERENCES[operator](first.astype(np.float64), query.astype(np.float64), radius)
    assert np.array_equal(actual, exact.astype(dtype))


def test_reference_against_opencv() -> None:
    """OpenCV's Caffe importer knows FlowNet's correlation layer: somebody else's code for the same sum."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the independent oracle of LocalCorrelation")
    prototxt = b"""input: "reference" input: "query"
        layer { name: "volume" type: "Correlation" bottom: "reference" bottom: "query" top: "volume"
          correlation_param { pad: 4 kernel_size: 1 max_displacement: 4 stride_1: 1 stride_2: 1 } }"""
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(prototxt, np.uint8))
    reference, query = random_inputs("LocalCorrelation", (1, 13, 17, 21), 4)
    net.setInput(reference, "reference")
    net.setInput(query, "query")
    expected = net.forward()
    assert relative_l2(local_correlation(reference, query, 4), expected) <= 1e-6


# ── PyTorch


def run_torch(operator: str, first: torch.Tensor, query: torch.Tensor, radius: int) -> torch.Tensor:
    return getattr(torch_ops, CORRELATIONS[operator].torch_name)(first, query, radius)


def check_torch(operator: str, first: torch.Tensor, query: torch.Tensor, radius: int) -> None:
    """The PyTorch operator on these very tensors, whatever their layout, against the reference."""
    expected = REFERENCES[operator](first.double().cpu().numpy(), query.double().cpu().numpy(), radius)
    actual = run_torch(operator, first, query, radius)
    assert actual.dtype == query.dtype
    assert actual.is_contiguous()
    error = relative_l2(actual.double().cpu(), expected)
    assert error <= tolerance(operator, str(query.dtype).removeprefix("torch."))


@DEVICE
@OPERATOR
@table([*CASES, LARGE])
def test_torch(operator: str, shape: tuple[int, ...], radius: int, device: str) -> None:
    first, query = (torch.from_numpy(a).to(device) for a in random_inputs(operator, shape, radius))
    check_torch(operator, first, query, radius)


@DEVICE
@OPERATOR
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@table([((2, 13, 17, 23), 4), ((1, 196, 6, 8), 4)])
def test_torch_dtypes(
    operator: str, shape: tuple[int, ...], radius: int, dtype: torch.dtype, device: str
) -> None:
    first, query = (torch.from_numpy(a).to(device, dtype) for a in random_inputs(operator, shape, radius))
    check_torch(operator, first, query, radius)


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT.contiguous().mT,
    "part of a larger one": lambda x: torch.nn.functional.pad(x, (3, 1, 2, 2))[:, :, 2:-2, 3:-1],
    "every other channel": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "expanded": lambda x: x[:1].expand(2, -1, -1, -1),
}


@DEVICE
@OPERATOR
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_torch_layouts(operator: str, layout: Callable[[torch.Tensor], torch.Tensor], device: str) -> None:
    radius, inputs = 2, random_inputs(operator, (2, 6, 9, 11), 2)
    first, query = (layout(torch.from_numpy(a).to(device)) for a in inputs)
    assert not first.is_contiguous()
    assert not query.is_contiguous()
    check_torch(operator, first, query, radius)


@OPERATOR
def test_torch_leaves_its_inputs_alone(operator: str) -> None:
    first, query = (torch.from_numpy(a) for a in random_inputs(operator, (1, 4, 8, 16), 2))
    kept = first.clone(), query.clone()
    run_torch(operator, first, query, 2).add_(1)
    assert torch.equal(first, kept[0])
    assert torch.equal(query, kept[1])


@OPERATOR
def test_torch_on_an_empty_batch(operator: str) -> None:
    first, query = (torch.from_numpy(a[:0]) for a in random_inputs(operator, (1, 4, 9, 7), 2))
    expected = CORRELATIONS[operator].check(first.shape, query.shape, radius=2)
    assert run_torch(operator, first, query, 2).shape == expected


# ── the function body


@cache
def session(operator: str, radius: int, element: int = TensorProto.FLOAT):
    """ONNX Runtime with one call of symbolic shape, so that one session does for all shapes."""
    import onnxruntime

    channels = displacements(radius) if operator == "LocalCorrelationTranspose" else "C"
    call = Call(operator, radius, ("N", channels, "H", "W"), ("N", "C", "H", "W"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = model_of([call], element).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@OPERATOR
@table([*CASES, LARGE])
def test_function_in_onnxruntime(operator: str, shape: tuple[int, ...], radius: int) -> None:
    pytest.importorskip("onnxruntime")
    first, query = random_inputs(operator, shape, radius)
    (actual,) = session(operator, radius).run(None, {"first0": first, "query0": query})
    assert actual.dtype == np.float32
    assert relative_l2(actual, REFERENCES[operator](first, query, radius)) <= tolerance(operator, "float32")


@OPERATOR
@table([((2, 13, 17, 23), 4), ((1, 196, 6, 8), 4)])
def test_function_in_float16(operator: str, shape: tuple[int, ...], radius: int) -> None:
    pytest.importorskip("onnxruntime")
    first, query = random_inputs(operator, shape, radius, np.float16)
    (actual,) = session(operator, radius, TensorProto.FLOAT16).run(None, {"first0": first, "query0": query})
    assert actual.dtype == np.float16
    assert relative_l2(actual, REFERENCES[operator](first, query, radius)) <= tolerance(operator, "float16")


@OPERATOR
@table([((2, 3, 5, 4), 1), ((1, 2, 3, 7), 2)])
def test_function_in_onnx_reference(operator: str, shape: tuple[int, ...], radius: int) -> None:
    from onnx.reference import ReferenceEvaluator

    first, query = random_inputs(operator, shape, radius)
    model = model_of([Call(operator, radius, first_shape(operator, shape, radius), shape)])
    (actual,) = ReferenceEvaluator(model).run(None, {"first0": first, "query0": query})
    assert relative_l2(actual, REFERENCES[operator](first, query, radius)) <= tolerance(operator, "float32")
