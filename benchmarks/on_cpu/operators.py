"""The operators alone, each way checked against the NumPy semantics before it is timed."""

import copy
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from on_gpu.levels import ITERATIONS, RADIUS, random_inputs
from onnx import TensorProto, helper
from shift_correlation import shift_correlation, shift_correlations
from torch import Tensor, nn

from gocor.export.graph import attach_functions
from gocor.export.networks.local_gocor import LocalGOCor
from gocor.plugins.onnx_tiles import OPSET
from gocor.plugins.references import REFERENCES
from gocor.plugins.registry import OPERATORS
from gocor.plugins.schema import DOMAIN
from gocor.plugins.torch_ops import local_correlation
from gocor.runtime.onnxruntime_session import open_session
from on_cpu.networks import MismatchError, relative_l2
from on_cpu.plan import ORT, SHIFTS, TILES, Entries, Entry, Plan
from on_cpu.workshop import Workshop

UNFOLD, SLICES, OPENCV = "PyTorch, F.unfold", "ONNX Runtime, 81 slices", "OpenCV, cv2.dnn"
FUSED, UNROLLED, PLAIN = "LocalGOCor", "unrolled", "LocalCorrelation"
Shape = tuple[int, int, int]  # C, H, W
SHAPES: tuple[Shape, ...] = ((32, 112, 256), (64, 56, 128), (512, 32, 32), (256, 130, 130))
PWCNET_LEVELS: tuple[Shape, ...] = (
    (196, 6, 8), (128, 12, 16), (96, 24, 32), (64, 48, 64), (32, 96, 128),
)  # fmt: skip
TOLERANCE = 1e-5  # relative L2 against float64
LARGEST_UNFOLDED = 2**31  # bytes that F.unfold may make
CORRELATION_LAYER = """
input: "reference" input_dim: 1 input_dim: {0} input_dim: {1} input_dim: {2}
input: "query" input_dim: 1 input_dim: {0} input_dim: {1} input_dim: {2}
layer {{
  name: "volume" type: "Correlation" bottom: "reference" bottom: "query" top: "volume"
  correlation_param {{ pad: {3} kernel_size: 1 max_displacement: {3} stride_1: 1 stride_2: 1 }}
}}
"""


def plans(quick: bool, rounds: int | None) -> Iterator[Plan]:
    """A group for each operator and size."""
    for shape in SHAPES[1:2] if quick else SHAPES:
        count = rounds or (2 if quick else 15 if shape == SHAPES[-1] else 25)
        name = f"LocalCorrelation {shape_name(shape)}"
        yield Plan(name, "operators", count, 1 if quick else 2, partial(correlations, shape))
    levels = PWCNET_LEVELS[2:3] if quick else PWCNET_LEVELS
    name = "LocalGOCor at the levels of PWC-Net 384×512"
    yield Plan(name, "operators", rounds or (2 if quick else 25), 2, partial(gocors, levels))


def shape_name(shape: Shape) -> str:
    """As people write it."""
    return "×".join(map(str, shape))


def correlations(shape: Shape, workshop: Workshop) -> Entries:
    """``LocalCorrelation`` by everything that has it."""
    made, case = Entries(), shape_name(shape)
    reference, query = random_inputs("LocalCorrelation", (1, *shape), RADIUS, "float32")
    expected = REFERENCES["LocalCorrelation"](reference.astype(np.float64), query.astype(np.float64), RADIUS)
    tensors = torch.from_numpy(reference), torch.from_numpy(query)
    calls: dict[str, Callable[[], object]] = {
        SHIFTS: partial(torch_call, shift_correlation, *tensors, RADIUS),
        UNFOLD: partial(torch_call, unfold_correlation, *tensors, RADIUS),
        TILES: partial(torch_call, local_correlation, *tensors, RADIUS),
        SLICES: session_call(slices_model(shape), workshop, reference, query),
        ORT: session_call(operator_model("LocalCorrelation", (1, *shape)), workshop, reference, query),
    }
    if importlib.util.find_spec("cv2") is None:
        made.failed[f"{case} · {OPENCV}"] = 'pip install "opencv-python-headless<5"'
    else:
        calls[OPENCV] = opencv_call(reference, query, workshop.threads)
    made.ready = [checked(case, way, call, expected) for way, call in calls.items()]
    made.notes = ["OpenCV's inputs are set before; only its forward pass is timed."]
    return made


def gocors(levels: Sequence[Shape], workshop: Workshop) -> Entries:
    """GOCor as one operator, step by step, by shifts; and a correlation, which is the least it can cost."""
    made = Entries()
    for shape in levels:
        case, size = shape_name(shape), (1, *shape)
        features = random_inputs("LocalCorrelation", size, RADIUS, "float32")
        tensors = tuple(map(torch.from_numpy, features))
        module = frozen_gocor()
        with torch.inference_mode():
            expected = copy.deepcopy(module).double()(*(t.double() for t in tensors)).numpy()
        correlation = REFERENCES["LocalCorrelation"](*(a.astype(np.float64) for a in features), RADIUS)
        calls: dict[str, Callable[[], object]] = {
            SHIFTS: partial(by_shifts, module, *tensors),
            UNROLLED: session_call(gocor_model(module, tensors, fused=False), workshop, *features),
            FUSED: session_call(gocor_model(module, tensors, fused=True), workshop, *features),
        }
        made.ready += [checked(case, way, call, expected) for way, call in calls.items()]
        plain = session_call(operator_model("LocalCorrelation", size), workshop, *features)
        made.ready.append(checked(case, PLAIN, plain, correlation))
    made.notes = [f"{ITERATIONS} iterations; all but the shifts in ONNX Runtime."]
    return made


def checked(case: str, way: str, call: Callable[[], object], expected: np.ndarray) -> Entry:
    """A candidate that gives what the NumPy semantics say."""
    error = relative_l2(np.asarray(call()), expected)
    if not error <= TOLERANCE:
        got = f"differs from the reference by {error:.1e}"
        raise MismatchError(f"{case} · {way}", got, f"at most {TOLERANCE:.0e}")
    return Entry(case, way, call, error)


# ── PyTorch


def torch_call(operator: Callable[..., Tensor], *inputs: Tensor | int) -> Tensor:
    """One call without a graph."""
    with torch.inference_mode():
        return operator(*inputs)


def unfold_correlation(reference: Tensor, query: Tensor, radius: int) -> Tensor:
    """By ``F.unfold``, which makes a tensor of 81 times the features."""
    side = 2 * radius + 1
    columns = F.unfold(query, side, padding=radius).unflatten(1, (query.shape[1], side * side))
    volume = (columns * reference.flatten(2)[:, :, None]).mean(1)
    return volume.unflatten(2, reference.shape[2:])


def by_shifts(module: nn.Module, *inputs: Tensor) -> Tensor:
    """A module whose correlations are computed by shifts."""
    with shift_correlations():
        return torch_call(module, *inputs)


def frozen_gocor() -> LocalGOCor:
    """GOCor as it starts into training, its maps computed beforehand as in every export."""
    module = LocalGOCor(ITERATIONS, RADIUS).eval()
    with torch.no_grad():
        module.filter_optimizer.frozen = module.filter_optimizer.score_maps(module.distances)
    return module


# ── ONNX Runtime


def session_call(model: onnx.ModelProto, workshop: Workshop, *inputs: np.ndarray) -> Callable[[], object]:
    """A model in ONNX Runtime, with the options that every model of this package gets."""
    path = Path(workshop.folder / "operator.onnx")  # only until it is loaded
    path.write_bytes(model.SerializeToString())
    session = open_session(path, "cpu", workshop.threads)
    names = [node.name for node in session.get_inputs()]
    feeds = dict(zip(names, inputs, strict=True))
    return lambda: session.run(None, feeds)[0]


def operator_model(operator: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A graph of one correlation of ours, with its function body."""
    schema = OPERATORS[operator]
    node = helper.make_node(
        operator, schema.inputs, ["volume"], domain=DOMAIN, **schema.node_attributes(radius=RADIUS)
    )
    inputs = dict.fromkeys(schema.inputs, shape)
    model = _model([node], inputs, (), [helper.make_opsetid(DOMAIN, schema.version)])
    attach_functions(model)
    return model


def gocor_model(module: LocalGOCor, inputs: tuple[Tensor, ...], fused: bool) -> onnx.ModelProto:
    """The module as ``gocor export`` leaves it: one operator, or correlations and steps between them."""
    module = copy.deepcopy(module)
    module.fused = fused
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses packages that nobody needs here
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, inputs, dynamo=True, opset_version=OPSET, verbose=False)
    model = program.model_proto  # type: ignore[union-attr]
    attach_functions(model)
    return model


def slices_model(shape: Shape) -> onnx.ModelProto:
    """``LocalCorrelation`` as exporters leave the loop: pad, 81 × (slice, multiply, mean), concatenate."""
    side, (_, height, width) = 2 * RADIUS + 1, shape
    constants = {"pads": [0, 0, RADIUS, RADIUS, 0, 0, RADIUS, RADIUS], "axes": [2, 3], "channels": [1]}
    nodes = [helper.make_node("Pad", ["query", "pads"], ["padded"])]
    for d in range(side * side):
        dy, dx = divmod(d, side)
        constants |= {f"start{d}": [dy, dx], f"end{d}": [dy + height, dx + width]}
        nodes += [
            helper.make_node("Slice", ["padded", f"start{d}", f"end{d}", "axes"], [f"shifted{d}"]),
            helper.make_node("Mul", ["reference", f"shifted{d}"], [f"product{d}"]),
            helper.make_node("ReduceMean", [f"product{d}", "channels"], [f"mean{d}"], keepdims=1),
        ]
    nodes.append(helper.make_node("Concat", [f"mean{d}" for d in range(side * side)], ["volume"], axis=1))
    initializers = [
        helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        for name, values in constants.items()
    ]
    return _model(nodes, dict.fromkeys(("reference", "query"), (1, *shape)), initializers, [])


def _model(
    nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, tuple[int, ...]],
    initializers: Sequence[onnx.TensorProto], domains: Sequence[onnx.OperatorSetIdProto],
) -> onnx.ModelProto:  # fmt: skip
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in inputs.items()]
    volume = helper.make_tensor_value_info("volume", TensorProto.FLOAT, [None] * 4)
    graph = helper.make_graph(nodes, "operator", values, [volume], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET), *domains], ir_version=9)


# ── OpenCV


def opencv_call(reference: np.ndarray, query: np.ndarray, threads: int) -> Callable[[], object]:
    """The layer ``Correlation`` of OpenCV 4."""
    import cv2

    cv2.setNumThreads(threads)
    layer = CORRELATION_LAYER.format(*reference.shape[1:], RADIUS)
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(layer.encode(), np.uint8))
    net.setInput(reference, "reference")
    net.setInput(query, "query")
    return lambda: net.forward("volume")
