"""Optimisation profiles: sizes that an engine may be built for, and what TensorRT-RTX's real builder says."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from fake_gpu import save_engine
from operator_models import FUNCTIONS
from toy_models import METADATA, metadata, save_toy

from gocor.core.errors import ConfigError, ModelError
from gocor.export.checkpoint import seeded_network
from gocor.export.engine import build_engine
from gocor.export.engine_config import EngineConfig
from gocor.export.engine_shapes import check_shapes, parse_shapes
from gocor.export.onnx_export import export_onnx
from gocor.plugins.registry import KERNELS
from gocor.plugins.schema import DOMAIN
from gocor.runtime.manifest import EngineManifest, Shapes, manifest_path
from gocor.runtime.metadata import AXES, Range, TensorSpec

SHAPES = Shapes((1, 64, 64), (1, 64, 128), (3, 128, 192))
TEXT = "1x64x64/1x64x128/3x128x192"
DYNAMIC = metadata(
    io="tensors", height=64, width=128,
    dynamic={"batch": Range(1), "height": Range(64), "width": Range(64)},
)  # fmt: skip
HEIGHTS = metadata(network="GLUNet", io="tensors", height=256, width=320, dynamic={"height": Range(256)})
EXAMPLE = "least/usual/most as batch x height x width: 1x256x256/1x384x512/4x768x1024"


def test_shapes_are_read() -> None:
    assert parse_shapes(TEXT) == parse_shapes(TEXT.upper()) == SHAPES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1x64x64", f"--shapes: is '1x64x64'; {EXAMPLE}"),
        ("64x64/64x64/64x64", f"--shapes: is '64x64/64x64/64x64'; {EXAMPLE}"),
        ("1x64x64/1x32x64/1x64x64", "--shapes: has the height 64/32/64; least/usual/most, from 1"),
        ("0x64x64/1x64x64/1x64x64", "--shapes: has the batch 0/1/1; least/usual/most, from 1"),
    ],
)
def test_shapes_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_shapes(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("described", "shapes", "message"),
    [
        (
            METADATA,
            SHAPES,
            "was given, and m.onnx has one size, 32x64; leave it out, or export with --dynamic",
        ),
        (
            HEIGHTS,
            None,
            f"is missing, and m.onnx has sizes that vary (height from 256 in steps of 8); {EXAMPLE}",
        ),
        (
            DYNAMIC,
            Shapes((1, 64, 64), (1, 64, 96), (1, 64, 128)),
            "has a width that m.onnx cannot have; width: is 96 at the network's input; this model takes "
            "from 64 in steps of 64",
        ),
        (
            HEIGHTS,
            Shapes((1, 256, 256), (1, 256, 320), (1, 256, 320)),
            "has the width 256; that of m.onnx is 320, which does not vary",
        ),
    ],
)
def test_shapes_that_do_not_fit_the_model(described: object, shapes: Shapes | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_shapes(described, shapes, Path("m.onnx"))  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"--shapes: {message}")


def test_the_manifest_has_them(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason='pip install "gocor-deploy[rtx]"')
    model = save_toy(tmp_path / "m.onnx", DYNAMIC)
    config = EngineConfig(backend="tensorrt-rtx", compute_capabilities=("sm_89",), shapes=SHAPES)
    manifest = EngineManifest.of(build_engine(model, tmp_path / "m.engine", config).path)
    assert manifest.shapes == SHAPES
    assert manifest.inputs == DYNAMIC.inputs
    assert manifest.outputs[-1] == TensorSpec("flow2", "float32", ("batch", 2, "height/4", "width/4"))
    assert manifest.metadata == DYNAMIC
    assert manifest.narrowed.dynamic == {
        "batch": Range(1, 3), "height": Range(64, 128), "width": Range(64, 192),
    }  # fmt: skip
    assert (manifest.narrowed.batch, manifest.narrowed.size) == (1, (64, 128))
    assert manifest.rebuild.endswith(f"--shapes {TEXT}")


@pytest.mark.parametrize(
    "shapes",
    [None, 3, [[1, 64, 64]] * 2, [[1, 64], [1, 64], [1, 64]], [[1, 64, 64], [1, 32, 64], [1, 64, 64]],
     [["1", 64, 64]] * 3, [[0, 64, 64]] * 3],
)  # fmt: skip
def test_damaged_shapes_in_a_manifest(shapes: object, tmp_path: Path) -> None:
    path = manifest_path(save_engine(tmp_path / "m.engine", DYNAMIC, shapes=SHAPES))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shapes": shapes}))
    with pytest.raises(ModelError, match="is a damaged engine manifest"):
        EngineManifest.of(tmp_path / "m.engine")


def test_a_manifest_from_before_there_were_shapes(tmp_path: Path) -> None:
    path = manifest_path(save_engine(tmp_path / "m.engine"))
    values = json.loads(path.read_text())
    del values["shapes"]
    path.write_text(json.dumps(values))
    manifest = EngineManifest.of(tmp_path / "m.engine")
    assert manifest.shapes is None
    assert manifest.narrowed == METADATA


def test_the_command_line(tmp_path: Path, invoke: Callable[..., tuple[int, str, str]]) -> None:
    model = save_toy(tmp_path / "m.onnx", DYNAMIC)
    command = ("build", model, "-o", tmp_path / "m.engine", "--backend", "tensorrt-rtx")
    code, _, error = invoke(*command)
    assert code == 2
    assert error.startswith(
        f"error: --shapes: is missing, and {model} has sizes that vary (batch from 1, height"
    )
    code, _, error = invoke(*command, "--shapes", "1x64x64")
    assert (code, error) == (2, f"error: --shapes: is '1x64x64'; {EXAMPLE}\n")


def test_openvino_takes_fixed_sizes(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason='pip install "gocor-deploy[openvino]"')
    from gocor.export.openvino import build_openvino

    model = save_toy(tmp_path / "m.onnx", HEIGHTS)
    with pytest.raises(ModelError) as caught:
        build_openvino(model, tmp_path / "m.xml")
    assert str(caught.value) == (
        f"{model}: has sizes that vary (height from 256 in steps of 8), which are not built for OpenVINO; "
        "export without --dynamic, once for each size"
    )


def test_operators_say_how_many_channels_they_give_at_any_size(tmp_path: Path) -> None:
    """Without that TensorRT refuses what comes after them: a deconvolution of who knows how many channels."""
    rtx = pytest.importorskip("tensorrt_rtx", reason='pip install "gocor-deploy[rtx]"')
    attributes = KERNELS["LocalCorrelation"].node_attributes(radius=4)
    node = onnx.helper.make_node("LocalCorrelation", ["f", "g"], ["volume"], domain=DOMAIN, **attributes)
    shape = ["n", 3, "h", "w"]
    inputs = [onnx.helper.make_tensor_value_info(name, 1, shape) for name in ("f", "g")]
    output = onnx.helper.make_tensor_value_info("volume", 1, ["n", 81, "h", "w"])
    opsets = [onnx.helper.make_opsetid("", 19), onnx.helper.make_opsetid(DOMAIN, 1)]
    graph = onnx.helper.make_graph([node], "g", inputs, [output])
    functions = [FUNCTIONS["LocalCorrelation"]()]
    model = onnx.helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
    logger = rtx.Logger(rtx.Logger.ERROR)
    network = rtx.Builder(logger).create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    assert parser.parse(model.SerializeToString())
    assert tuple(network.get_output(0).shape) == (-1, 81, -1, -1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shapes"),
    [("PWCNet_GOCor", "1x64x64/1x384x512/2x512x640"), ("GLUNet_GOCor", "1x256x256/1x480x640/2x512x1080")],
)
def test_networks_of_varying_sizes_are_built(name: str, shapes: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason='pip install "gocor-deploy[rtx]"')
    _, usual, _ = (parsed := parse_shapes(shapes))
    model = tmp_path / "m.onnx"
    export_onnx(seeded_network(name), model, height=usual[1], width=usual[2], io="tensors", dynamic=AXES)
    config = EngineConfig(backend="tensorrt-rtx", compute_capabilities=("sm_89",), shapes=parsed)
    report = build_engine(model, tmp_path / "m.engine", config)
    assert report.warnings == ()
    assert report.manifest.narrowed.varying is not None
