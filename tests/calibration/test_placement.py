"""Where 8-bit numbers go, and that ONNX Runtime computes with them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from calibration_tools import pairs, refusal
from onnx import numpy_helper

from gocor.calibration.calibrate import CalibrationConfig, calibrate
from gocor.calibration.placement import place, prepare
from gocor.calibration.selection import select
from gocor.core.errors import ConfigError, ModelError
from gocor.export.checkpoint import seeded_network
from gocor.export.engine import build_engine
from gocor.export.engine_config import EngineConfig
from gocor.export.onnx_export import export_onnx
from gocor.export.openvino_roundings import drop_roundings

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def made(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("cpu") / "model.onnx"
    return calibrate(exported.model, output, pairs(10), CalibrationConfig(target="cpu"))


def made_of(exported: Any) -> set[str]:
    model = prepare(onnx.load(exported.model), "cpu")
    return set(place(model, select(model, "pwcnet"), "cpu").nodes)


def optimized(model: Path, folder: Path) -> onnx.ModelProto:
    """The model as ONNX Runtime computes it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


def test_onnx_runtime_computes_every_chosen_convolution_in_8_bits(made: Any, tmp_path: Path) -> None:
    nodes = optimized(made.path, tmp_path).graph.node
    quantised = {node.name.removesuffix("_quant") for node in nodes if node.op_type == "QLinearConv"}
    assert quantised == {c.name for c in made.convolutions if not c.kept}
    assert len(quantised) == 43
    kinds = [node.op_type for node in nodes]
    assert kinds.count("QLinearConcat") == 21  # 4 in each decoder, and the context network's input
    assert kinds.count("QLinearLeakyRelu") == 43


def test_activations_are_unsigned_and_concatenations_only_copy(made: Any, exported: Any) -> None:
    graph = onnx.load(made.path).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    values = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {constants[node.input[2]].dtype for node in values} == {np.dtype(np.uint8)}
    makers = {output: node for node in graph.node for output in node.output}
    readers = {node.input[0]: node for node in values}
    joined = [node for node in graph.node if node.op_type == "Concat" and node.name in made_of(exported)]
    assert len(joined) == 21
    for node in joined:
        pairs_of = [readers[node.output[0]], *(makers[name] for name in node.input)]
        assert len({tuple(float(constants[name]) for name in n.input[1:]) for n in pairs_of}) == 1, node.name


def test_openvino_concatenates_in_8_bits(made: Any) -> None:
    model = onnx.load(made.path)
    rounded = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    drop_roundings(model)
    joined = [node for node in model.graph.node if node.op_type == "Concat" and node.output[0] in rounded]
    still = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert len(joined) == 21
    assert not {node.output[0] for node in joined} & still


def test_poolings_of_single_pixels_are_for_float32(exported: Any) -> None:
    model = onnx.load(exported.model)
    kinds = {target: [n.op_type for n in prepare(model, target).graph.node] for target in ("cpu", "tensorrt")}
    assert kinds["tensorrt"].count("MaxPool") == 5
    assert kinds["cpu"] == [kind for kind in kinds["tensorrt"] if kind != "MaxPool"]
    assert model == onnx.load(exported.model)


def test_a_kept_convolution_leaves_its_concatenation_in_full_precision(exported: Any) -> None:
    model = prepare(onnx.load(exported.model), "cpu")
    whole = place(model, select(model, "pwcnet"), "cpu")
    kept = place(model, select(model, "pwcnet", ("conv4_1.0",)), "cpu")
    assert set(kept.nodes) < set(whole.nodes)
    assert set(kept.tensors) < set(whole.tensors)
    gone = {node.op_type: 0 for node in model.graph.node}
    for node in model.graph.node:
        if node.name in set(whole.nodes) - set(kept.nodes):
            gone[node.op_type] += 1
    assert {kind: count for kind, count in gone.items() if count} == {"Conv": 1, "LeakyRelu": 1, "Concat": 2}


def test_relus_and_poolings_of_the_other_family_stay_in_8_bits() -> None:
    text = """<ir_version: 9, opset_import: ["" : 19]>
    vgg (float[1,2,8,8] x) => (float[1,2,2,2] y) <float[2,2,1,1] w = {1.0, 0.5, -1.0, 2.0},
      float[2,2,1,1] v = {1.0, 0.5, -1.0, 2.0}> {
        a = Conv(x, w)
        b = Relu(a)
        c = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(b)
        d = Conv(c, v)
        y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(d)
    }"""
    model = onnx.parser.parse_model(text)
    names = ["pyramid.level_1.0/Conv", "relu", "pool", "pyramid.level_1.2/Conv", "last"]
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    placement = place(model, select(model, "glunet"), "cpu")
    assert placement.nodes == tuple(names[:4])
    assert list(placement.tensors) == ["x", "c", "b", "d"]


def test_the_flow_is_near_that_of_the_other_form(made: Any, exported: Any, tmp_path: Path) -> None:
    other = calibrate(exported.model, tmp_path / "m.onnx", pairs(10))
    assert 0 < made.drift.aepe < 2 * other.drift.aepe


def test_glunet_in_8_bits_for_a_cpu(tmp_path: Path) -> None:
    export_onnx(seeded_network("GLUNet_GOCor"), tmp_path / "m.onnx", height=256, width=256)
    config = CalibrationConfig(target="cpu")
    report = calibrate(tmp_path / "m.onnx", tmp_path / "q.onnx", pairs(2, 256), config)
    nodes = optimized(report.path, tmp_path).graph.node
    quantised = sum(node.op_type == "QLinearConv" for node in nodes)
    assert quantised == sum(not c.kept for c in report.convolutions)
    assert not any(node.op_type == "Relu" for node in nodes if node.name.startswith("pyramid.level_2"))
    # Without the matrix of global GOCor's regulariser, 4 MB of float32, it would be 0.27.
    assert report.quantized_weight_bytes < 0.32 * report.weight_bytes


def test_tensorrt_is_not_given_this_form(made: Any, tmp_path: Path) -> None:
    """RTX's parser refuses the zero points, and names a node only."""
    with pytest.raises(ModelError) as error:
        build_engine(made.path, tmp_path / "m.engine", EngineConfig(backend="tensorrt-rtx"))
    assert str(error.value) == (
        f"{made.path}: has the 8-bit form for CPUs, whose numbers TensorRT does not take; "
        "gocor calibrate --target tensorrt makes TensorRT's"
    )


def test_fp16_models_and_unknown_targets_are_refused(tmp_path: Path, exported: Any) -> None:
    export_onnx(seeded_network("PWCNet"), tmp_path / "m.onnx", height=64, width=64, precision="fp16")
    text = refusal(ModelError, tmp_path / "m.onnx", tmp_path / "q.onnx", pairs(2), target="cpu")
    assert text == (
        f"{tmp_path / 'm.onnx'}: is in fp16, which CPUs compute in fp32; give the model of gocor export "
        "without --precision for --target cpu"
    )
    text = refusal(ConfigError, exported.model, tmp_path / "q.onnx", pairs(2), target="gpu")
    assert text == "--target: is 'gpu'; one of tensorrt, cpu"


def test_ranges_for_another_target_are_refused(made: Any, exported: Any, tmp_path: Path) -> None:
    table = calibrate(exported.model, tmp_path / "t.onnx", pairs(2)).table
    text = refusal(ConfigError, exported.model, tmp_path / "q.onnx", None, target="cpu", ranges=table)
    assert text.startswith(f"{table}: has no range of ")
    assert text.endswith("; it was measured with --keep or for another --target; measure again")
    again = calibrate(
        exported.model, tmp_path / "a.onnx", config=CalibrationConfig(target="cpu", ranges=made.table)
    )
    assert again.path.read_bytes() == made.path.read_bytes()


def test_channels_stay_evened_out_when_a_reader_is_kept_later(
    made: Any, exported: Any, tmp_path: Path
) -> None:
    """The range of what conv3a gives was measured with its channels divided, whoever reads them."""
    config = CalibrationConfig(target="cpu", ranges=made.table, keep=("conv3aa.0",))
    kept = calibrate(exported.model, tmp_path / "m.onnx", config=config)
    stored = [{t.name: t for t in onnx.load(report.path).graph.initializer} for report in (made, kept)]
    (name,) = [c.weight for c in kept.convolutions if c.name == "conv3a.0/Conv"]
    assert stored[1][f"{name}_scale"] == stored[0][f"{name}_scale"]
    assert "conv3aa.0/Conv" not in {c.name for c in kept.convolutions if not c.kept}
