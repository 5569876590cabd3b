"""Low precision in the graph: legal, as the policy says, and no cast for nothing."""

import dataclasses
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gocor.core.errors import ConfigError, ModelError
from gocor.export.checkpoint import seeded_network
from gocor.export.onnx_export import export_onnx
from gocor.export.precision import (
    POLICIES,
    Casts,
    check_policy,
    count_casts,
    lower,
    scope_of,
    value_types,
)
from gocor.plugins.registry import OPERATORS
from gocor.runtime.metadata import GocorForm, Io, Precision
from gocor.runtime.spec import SPECS

SMALL = {"pwcnet": (60, 128), "glunet": (256, 250)}
REAL = {"pwcnet": (384, 512), "glunet": (480, 640)}
# Casts of the models here; a fused GOCor takes none of its own.
CASTS = {"PWCNet": 19, "PWCNet_GOCor": 19, "GLUNet": 20, "GLUNet_GOCor": 20}
# Whatever the policies say: what is never to be computed in low precision.
NEVER = {
    *("GridSample", "Resize", "MatMul", "Div", "Sqrt", "Reciprocal", "Exp", "Softmax", "Pow"),
    *("ReduceSum", "ReduceMean", "ReduceMax", "Add", "Sub", "Mul", "Clip", "Floor", "Min", "Max"),
}
LOW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@cache
def exported(name: str, io: Io = "images", gocor: GocorForm = "fused") -> bytes:
    """A network's FP32 model."""
    height, width = SMALL[SPECS[name].family] if io == "images" else (256, 256)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        network = seeded_network(name, iterations=1)
        export_onnx(network, path, height=height, width=width, io=io, gocor=gocor)
        return path.read_bytes()


def lowered(
    name: str, precision: Precision = "fp16", io: Io = "images", gocor: GocorForm = "fused"
) -> onnx.ModelProto:
    model = onnx.load_from_string(exported(name, io, gocor))
    lower(model, POLICIES[name], precision)
    return model


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", SPECS)
def test_the_graph_is_legal_and_as_the_policy_says(name: str, precision: Precision) -> None:
    model = lowered(name, precision)
    # At opset 19 ONNX knows no BF16 convolution, which TensorRT takes.
    onnx.checker.check_model(model, full_check=precision == "fp16")
    check_policy(model, POLICIES[name], precision)
    types = value_types(model)
    interface = {*(value.name for value in (*model.graph.input, *model.graph.output))}
    assert {types[value] for value in interface} == {TensorProto.UINT8, TensorProto.FLOAT}
    low_kinds = {node.op_type for node in model.graph.node if any(types[v] in LOW for v in node.output)}
    assert low_kinds.isdisjoint(NEVER)
    assert low_kinds >= {"Conv", "LeakyRelu", "Concat", "Cast"}
    assert len(low_kinds & set(OPERATORS)) == (precision == "fp16")


@pytest.mark.parametrize("name", SPECS)
def test_no_cast_undoes_another_and_none_is_made_twice(name: str) -> None:
    model = lowered(name)
    assert count_casts(model) == Casts(CASTS[name], cancelling=0)
    casts = [(node.input[0], node.attribute[0].i) for node in model.graph.node if node.op_type == "Cast"]
    assert len(set(casts)) == len(casts)
    assert count_casts(onnx.load_from_string(exported(name))) == Casts(0, 0)


def convolution_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the weights of a model's convolutions, which is what a network's size comes from."""
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    used = {name for node in convolutions for name in node.input[1:]}
    return sum(
        numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer if tensor.name in used
    )


@pytest.mark.parametrize("name", SPECS)
def test_weights_are_stored_once_in_their_precision(name: str) -> None:
    before, after = onnx.load_from_string(exported(name)), lowered(name)
    assert convolution_bytes(after) <= 0.505 * convolution_bytes(before)
    assert after.ByteSize() <= 0.56 * before.ByteSize()  # GLU-Net's score maps, regulariser and resizing stay
    stored = {tensor.name: tensor for tensor in after.graph.initializer}
    used = {value for node in after.graph.node for value in node.input}
    assert set(stored) <= used
    original = {tensor.name: numpy_helper.to_array(tensor) for tensor in before.graph.initializer}
    for weight, tensor in stored.items():
        base = weight.removesuffix(".float16")
        assert weight == base or base not in stored or np.prod(tensor.dims) == 1, f"{base} is there twice"
        values = numpy_helper.to_array(tensor)
        np.testing.assert_array_equal(values, original[base].astype(values.dtype))


def test_every_flow_of_the_tensors_is_float() -> None:
    model = lowered("PWCNet_GOCor", io="tensors")
    check_policy(model, POLICIES["PWCNet_GOCor"], "fp16")
    types = value_types(model)
    heads = [node for node in model.graph.node if scope_of(node).startswith("predict_flow")]
    assert {scope_of(node)[-2:]: types[node.output[0]] for node in heads} == {
        ".0": TensorProto.FLOAT16, ".1": TensorProto.FLOAT,
    }  # fmt: skip
    deconvolutions = [node for node in model.graph.node if scope_of(node).startswith("deconv")]
    assert {types[node.output[0]] for node in deconvolutions} == {TensorProto.FLOAT}


@pytest.mark.parametrize("name", ["PWCNet_GOCor", "GLUNet_GOCor"])
def test_gocors_step_is_float_between_its_correlations(name: str) -> None:
    model = lowered(name, gocor="unrolled")
    check_policy(model, POLICIES[name], "fp16")
    types = value_types(model)
    nodes = [node for node in model.graph.node if scope_of(node).startswith(("local_corr", "corr."))]
    kinds = {types[node.output[0]]: set() for node in nodes}  # type: dict[int, set[str]]
    for node in nodes:
        kinds[types[node.output[0]]].add(node.op_type)
    assert kinds[TensorProto.FLOAT16] == {"LocalCorrelation", "LocalCorrelationTranspose"}
    assert kinds[TensorProto.FLOAT] >= {"Div", "ReduceSum", "Clip", "Mul", "Sub"}


@pytest.mark.parametrize("name", ["PWCNet_GOCor", "GLUNet_GOCor"])
def test_the_fused_gocor_takes_low_features_and_full_parameters(name: str) -> None:
    model = lowered(name)
    types = value_types(model)
    fused = [node for node in model.graph.node if node.op_type == "LocalGOCor"]
    assert fused
    for node in fused:
        kinds = [types[value] for value in (*node.input, *node.output)]
        assert kinds == [TensorProto.FLOAT16] * 2 + [TensorProto.FLOAT] * 4 + [TensorProto.FLOAT16]


def test_the_lint_finds_what_must_not_run_low() -> None:
    policy = POLICIES["PWCNet_GOCor"]
    careless = dataclasses.replace(policy, low=(*policy.low, "predict_flow*"), keep=())
    model = onnx.load_from_string(exported("PWCNet_GOCor"))
    lower(model, careless, "fp16")
    check_policy(model, careless, "fp16")
    with pytest.raises(ModelError, match=r"predict_flow6\.1/Conv: runs in float16; the policy keeps it in"):
        check_policy(model, policy, "fp16")

    model = lowered("PWCNet_GOCor")
    sample = next(node for node in model.graph.node if node.op_type == "GridSample")
    back = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    grid = helper.make_node("Cast", [sample.input[1]], ["low_grid"], to=TensorProto.FLOAT16)
    model.graph.node.insert(list(model.graph.node).index(sample), grid)
    sample.input[:] = [back[sample.input[0]], "low_grid"]
    with pytest.raises(ModelError, match=r"GridSample: runs in float16|contradictory types"):
        check_policy(model, policy, "fp16")


def test_the_lint_finds_mixed_types() -> None:
    model = lowered("PWCNet")
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    back = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    convolution.input[0] = back[convolution.input[0]]
    with pytest.raises(ModelError, match=r"contradictory types .*Conv|mixes float and float16"):
        check_policy(model, POLICIES["PWCNet"], "fp16")


def test_a_weight_beyond_the_range_is_refused_by_name() -> None:
    model = onnx.load_from_string(exported("PWCNet"))
    tensor = next(t for t in model.graph.initializer if t.name == "network.conv3a.0.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0, 0, 0] = -7e4
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    text = r"network\.conv3a\.0\.weight: has a weight of 7e\+04, which float16 cannot hold; use --precision"
    with pytest.raises(ModelError, match=text):
        lower(onnx.ModelProto.FromString(model.SerializeToString()), POLICIES["PWCNet"], "fp16")
    lower(model, POLICIES["PWCNet"], "bf16")


def test_what_is_low_already_or_matches_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="PWCNet: computes in low precision already; give a model exported"):
        lower(lowered("PWCNet"), POLICIES["PWCNet"], "fp16")
    policy = dataclasses.replace(POLICIES["PWCNet"], low=("conv*", "decoder9*"))
    with pytest.raises(ConfigError, match=r"PWCNet: has no module 'decoder9\*'; a pattern of module paths"):
        lower(onnx.load_from_string(exported("PWCNet")), policy, "fp16")


def test_a_module_can_be_kept() -> None:
    policy = POLICIES["PWCNet"]
    model = onnx.load_from_string(exported("PWCNet"))
    lower(model, dataclasses.replace(policy, keep=(*policy.keep, "conv2_*")), "fp16")
    types = value_types(model)
    decoder = [n for n in model.graph.node if n.op_type == "Conv" and scope_of(n).startswith("conv2_")]
    assert {types[node.input[1]] for node in decoder} == {TensorProto.FLOAT}
    assert count_casts(model).cancelling == 0


def test_export_says_its_precision_and_gives_equal_bytes_in_another_process(tmp_path: Path) -> None:
    code = (
        "import sys; from gocor.export.checkpoint import seeded_network as s;"
        "from gocor.export.onnx_export import export_onnx as e;"
        "e(s('PWCNet_GOCor', 1), sys.argv[1], height=64, width=64, precision='fp16')"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "there.onnx"], check=True, timeout=300)
    here = tmp_path / "here.onnx"
    report = export_onnx(seeded_network("PWCNet_GOCor", 1), here, height=64, width=64, precision="fp16")
    assert here.read_bytes() == (tmp_path / "there.onnx").read_bytes()
    assert report.metadata.precision == "fp16"
    assert report.casts == Casts(CASTS["PWCNet_GOCor"], 0)
    properties = {entry.key: entry.value for entry in onnx.load(here).metadata_props}
    assert properties["gocor.precision"] == "fp16"


def build(*files: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Outcome of each file with TensorRT-RTX's parser and builder, in a process of its own."""
    pytest.importorskip("tensorrt_rtx", reason='pip install "gocor-deploy[rtx]"')
    program = Path(__file__).parents[1] / "rtx_build.py"
    command = [sys.executable, "-X", "faulthandler", program, "sm_89", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, dict[str, dict[str, int]]] = json.loads(done.stdout)
    return outcomes


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("PWCNet", "fp16"),
        ("GLUNet", "fp16"),
        pytest.param("PWCNet", "bf16", marks=pytest.mark.slow),
        pytest.param("PWCNet_GOCor", "fp16", marks=pytest.mark.slow),
        pytest.param("PWCNet_GOCor", "bf16", marks=pytest.mark.slow),
        pytest.param("GLUNet", "bf16", marks=pytest.mark.slow),
        pytest.param("GLUNet_GOCor", "fp16", marks=pytest.mark.slow),
        pytest.param("GLUNet_GOCor", "bf16", marks=pytest.mark.slow),
    ],
)
def test_tensorrt_rtx_builds_a_small_model(name: str, precision: Precision, tmp_path: Path) -> None:
    onnx.save(lowered(name, precision), tmp_path / "m.onnx")
    (outcome,) = build(tmp_path / "m.onnx").values()
    assert "error" not in outcome, outcome
    assert not outcome["warnings"]
    kind = "float16" if precision == "fp16" else "bfloat16"
    layers = outcome["layers"]
    assert layers[f"convolution {kind}"] > 10 * layers.get("convolution float32", 0) / 3
    assert layers["grid_sample float32"] >= 3
    assert f"grid_sample {kind}" not in layers


@pytest.mark.slow
@pytest.mark.parametrize("io", ["images", "tensors"])
@pytest.mark.parametrize("name", SPECS)
def test_tensorrt_rtx_builds_every_network_in_its_size(name: str, io: Io, tmp_path: Path) -> None:
    height, width = REAL[SPECS[name].family]
    export_onnx(
        seeded_network(name), tmp_path / "m.onnx", height=height, width=width, io=io, precision="fp16"
    )
    (outcome,) = build(tmp_path / "m.onnx").values()
    assert "error" not in outcome, outcome
    assert not outcome["warnings"]
