import dataclasses
import hashlib
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_models import save_with_operators
from full_disk import files_up_to
from onnx import TensorProto, helper, parser
from openvino_models import save_xml
from toy_models import METADATA, metadata, save_toy

import gocor
from gocor.core.errors import ConfigError, DependencyError, GocorError, ModelError, OutputError
from gocor.export import openvino
from gocor.export.checkpoint import seeded_network
from gocor.export.engine_config import EngineConfig
from gocor.export.onnx_export import export_onnx
from gocor.export.openvino import build_openvino, check_options
from gocor.runtime.manifest import manifest_path
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.openvino_manifest import OpenVINOManifest, weights_path
from gocor.runtime.openvino_session import OpenVINOEstimator, openvino_core
from gocor.runtime.sample_pair import sample_pair

library = pytest.importorskip("openvino")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """With calls of both of our operators, of function bodies, that is."""
    return save_with_operators(tmp_path / "m.onnx")


def refusal(kind: type[GocorError], *arguments: Any) -> str:
    with pytest.raises(kind) as caught:
        build_openvino(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_three_files_that_belong_together(model: Path) -> None:
    report = build_openvino(model, model.with_suffix(".xml"))
    graph, weights = report.path.read_bytes(), weights_path(report.path).read_bytes()
    assert files(model.parent) == ["m.bin", "m.onnx", "m.xml", "m.xml.json"]
    manifest = OpenVINOManifest.of(report.path)
    assert manifest == report.manifest
    assert manifest.read_checked() == (graph, weights)
    assert manifest.model == "m.onnx"
    assert manifest.model_sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (manifest.backend, manifest.inference_precision) == ("openvino", "f32")
    assert library.__version__.startswith(manifest.library_version)
    assert [str(spec) for spec in manifest.outputs] == ["flow float32 (1, 2, 32, 64)"]
    assert manifest.inputs == manifest.metadata.inputs
    assert report.bytes == len(graph) + len(weights)


def test_function_bodies_are_in_the_graph_and_every_size_is_known(model: Path) -> None:
    report = build_openvino(model, model.with_suffix(".xml"))
    assert not {"Constant", "ShapeOf", "LocalCorrelation"} & report.operators.keys()
    read = openvino_core().read_model(report.path)
    assert all(out.get_partial_shape().is_static for op in read.get_ops() for out in op.outputs())


def test_nothing_is_told_to_anybody(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``openvino.convert_model`` would: it writes a client's number into the home folder, and sends it."""

    def refuse(*_: object) -> None:
        raise AssertionError("somebody wants to talk")

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    build_openvino(model, model.with_suffix(".xml"))
    assert files(home) == []


def test_a_build_that_fails_leaves_the_earlier_files(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build_openvino(model, model.with_suffix(".xml")).path
    before = {name: (model.parent / name).read_bytes() for name in files(model.parent)}
    with monkeypatch.context() as patch:
        patch.setattr(openvino, "_serialize", lambda *_: (b"<net/>", b"weights" * 1000))
        with files_up_to(1000), pytest.raises(OutputError, match="cannot be written"):
            build_openvino(model, path, "bf16")
    with monkeypatch.context() as patch:
        patch.setattr(openvino, "_serialize", lambda *_: (_ for _ in ()).throw(ModelError("m", "broke")))
        assert refusal(ModelError, model, path, "bf16") == "m: broke"
    assert {name: (model.parent / name).read_bytes() for name in files(model.parent)} == before


def test_the_precision_is_in_the_manifest(model: Path) -> None:
    path = build_openvino(model, model.with_suffix(".xml"), "bf16").path
    assert OpenVINOManifest.of(path).inference_precision == "bf16"
    assert "--inference-precision bf16" in OpenVINOManifest.of(path).rebuild


def test_wrong_options(model: Path) -> None:
    xml = model.with_suffix(".xml")
    assert refusal(ConfigError, model, xml, "f16") == "--inference-precision: is 'f16'; f32 or bf16"
    engine = model.with_suffix(".engine")
    assert refusal(ConfigError, model, engine) == f"{engine}: has suffix '.engine'; a name that ends in .xml"
    copy = model.rename(model.with_suffix(".bin"))
    assert refusal(ConfigError, copy, xml) == f"{copy}: is the model itself; another name, such as model.xml"
    assert refusal(ModelError, model, xml).startswith(f"{model}: no such file; ")
    assert files(model.parent) == ["m.bin"]


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"workspace": 1}, "--workspace"),
        ({"optimization_level": 3}, "--optimization-level"),
        ({"timing_cache": Path("t")}, "--timing-cache"),
        ({"compute_capabilities": ("sm_89",)}, "--compute-capability"),
        ({"plugins": "none"}, "--plugins"),
        ({"plugin_library": Path("p.so")}, "--plugin-library"),
        ({"inspect": Path("i.json")}, "--inspect"),
        ({"hardware_compatible": True}, "--hardware-compatible"),
        ({"version_compatible": True}, "--version-compatible"),
        ({"tf32": True}, "--tf32"),
        ({"shapes": ((1, 64, 64), (1, 64, 64), (1, 64, 64))}, "--shapes"),
    ],
)
def test_options_of_engines_are_refused(options: dict[str, Any], option: str) -> None:
    assert set(options) <= {field.name for field in dataclasses.fields(EngineConfig)}
    with pytest.raises(ConfigError) as caught:
        check_options(EngineConfig(backend="openvino", **options))  # type: ignore[arg-type]
    assert str(caught.value) == f"{option}: is for engines, and not there in OpenVINO; leave it out"


def test_no_option_of_engines_is_forgotten() -> None:
    check_options(EngineConfig(backend="openvino"))  # type: ignore[arg-type]
    assert len(dataclasses.fields(EngineConfig)) == 12  # those above, and the backend


def test_a_model_in_bf16_is_refused(tmp_path: Path) -> None:
    model = save_toy(tmp_path / "m.onnx", metadata(precision="bf16"))
    assert refusal(ModelError, model, tmp_path / "m.xml") == (
        f"{model}: is in bf16, which OpenVINO takes as an option of its own; "
        "the fp32 model with --inference-precision bf16"
    )


def save_text(path: Path, body: str, described: ModelMetadata = METADATA) -> Path:
    text = f"""<ir_version: 9, opset_import: ["" : 19]>
    m (uint8[1, 32, 64, 3] reference, uint8[1, 32, 64, 3] query) => (float[1, 2, 32, 64] flow) {{
        r = Cast<to=1>(reference)
        q = Cast<to=1>(query)
        channels = Constant<value_ints=[-1]>()
        mr = ReduceMean(r, channels)
        mq = ReduceMean(q, channels)
        means = Concat<axis=3>(mr, mq)
        both = Transpose<perm=[0, 3, 1, 2]>(means)
        {body}
    }}"""
    built = parser.parse_model(text)
    helper.set_model_props(built, described.to_properties())
    onnx.save(built, path)
    return path


def test_sizes_that_are_known_only_when_it_runs(tmp_path: Path) -> None:
    body = """places = NonZero(both)
        count = ReduceMax<keepdims=0>(places)
        scale = Cast<to=1>(count)
        flow = Mul(both, scale)"""
    model = save_text(tmp_path / "m.onnx", body)
    text = refusal(ModelError, model, tmp_path / "m.xml")
    assert text.startswith(f"{model}: has sizes that OpenVINO does not know before it runs (")


def test_an_operator_that_openvino_has_not(tmp_path: Path) -> None:
    model = save_text(tmp_path / "m.onnx", "flow = Det(both)")
    text = refusal(ModelError, model, tmp_path / "m.xml")
    assert text.startswith(f"{model}: cannot be read by OpenVINO (")
    assert text.endswith("); export again")


def test_a_model_that_is_not_what_its_metadata_says(tmp_path: Path) -> None:
    taller = metadata(height=48).to_properties()
    model = save_toy(tmp_path / "m.onnx", METADATA, taller)
    text = refusal(ModelError, model, tmp_path / "m.xml")
    assert text.startswith(f"{model}: is not what its metadata says (reference uint8 (1, 48, 64, 3); ")


def test_files_that_openvino_cannot_save(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Could not open file")

    monkeypatch.setattr(library, "save_model", fail)
    text = refusal(ModelError, model, model.with_suffix(".xml"))
    assert text.startswith(f"{model}: cannot be saved by OpenVINO (Could not open file); is /")


def test_packages_that_are_missing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xml = model.with_suffix(".xml")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        assert refusal(DependencyError, model, xml).endswith('; pip install "gocor-deploy[openvino]"')
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    hint = 'onnx: is not installed; pip install "gocor-deploy[openvino]"'
    assert refusal(DependencyError, model, xml) == hint


def quantized(path: Path) -> Path:
    """A convolution of 8-bit numbers with our interface."""
    from onnx import numpy_helper

    weights = np.random.default_rng(0).integers(-127, 128, (2, 2, 3, 3)).astype(np.int8)
    scale = float(np.float32(2.0))
    body = f"""step = Constant<value_float={scale}>()
        none = Constant<value = int8 {{0}}>()
        steps = Constant<value_floats=[0.001, 0.002]>()
        nones = Constant<value = int8[2] {{0, 0}}>()
        bytes = QuantizeLinear(both, step, none)
        features = DequantizeLinear(bytes, step, none)
        kernel = DequantizeLinear<axis=0>(weights, steps, nones)
        flow = Conv<pads=[1, 1, 1, 1]>(features, kernel)"""
    save_text(path, body)
    saved = onnx.load(path)
    saved.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    onnx.save(saved, path)
    return path


def test_8_bits_stay_8_bits(tmp_path: Path) -> None:
    """Weights in the file, and arithmetic in the library."""
    pytest.importorskip("onnxruntime")
    model = quantized(tmp_path / "m.onnx")
    report = build_openvino(model, tmp_path / "m.xml")
    types = {op.get_element_type() for op in openvino_core().read_model(report.path).get_ops()}
    assert library.Type.i8 in types
    random = np.random.default_rng(1)
    reference, query = random.integers(0, 256, (2, 32, 64, 3), np.uint8)
    with gocor.load(model) as before, OpenVINOEstimator(report.path) as after:
        np.testing.assert_allclose(after(reference, query), before(reference, query), rtol=1e-5, atol=1e-4)
        assert set(after.execution.convolutions) <= {"u8", "i8"}
        assert sum(after.execution.convolutions.values()) == 1


def test_the_toy_of_other_tests_is_small(tmp_path: Path) -> None:
    assert save_xml(tmp_path / "toy.xml").stat().st_size < 1 << 16


def test_half_precision_weights_stay_half(tmp_path: Path) -> None:
    from onnx import numpy_helper

    body = """half = Cast<to=10>(both)
        more = Conv<pads=[1, 1, 1, 1]>(half, weights)
        flow = Cast<to=1>(more)"""
    model = save_text(tmp_path / "m.onnx", body, metadata(precision="fp16"))
    saved = onnx.load(model)
    weights = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float16)
    saved.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    assert saved.graph.initializer[0].data_type == TensorProto.FLOAT16
    onnx.save(saved, model)
    report = build_openvino(model, tmp_path / "m.xml")
    assert weights.tobytes() in weights_path(report.path).read_bytes()
    with OpenVINOEstimator(report.path) as estimator:
        assert estimator.precision == "fp16"
        assert estimator.execution.convolutions == {"f32": 1}
    assert manifest_path(report.path).exists()


def test_a_network_in_fp16_is_computed_in_fp32(tmp_path: Path) -> None:
    """As in ONNX Runtime, which rounds here and there."""
    pytest.importorskip("onnxruntime")
    network = seeded_network("PWCNet_GOCor", iterations=1)
    model = export_onnx(
        network, tmp_path / "m.onnx", height=64, width=64, io="tensors", precision="fp16"
    ).path
    report = build_openvino(model, tmp_path / "m.xml")
    assert report.bytes < 25e6
    reference, query, _ = sample_pair(64, 64)
    with gocor.load(model) as onnxruntime, OpenVINOEstimator(report.path) as estimator:
        expected, flow = onnxruntime(reference, query), estimator(reference, query)
        assert set(estimator.execution.convolutions) == {"f32"}
    assert np.linalg.norm(flow - expected) <= 2e-3 * np.linalg.norm(expected)
