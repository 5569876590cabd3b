import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_models import save_with_operators
from fake_tensorrt import FakeTensorRT, put_gpu
from toy_models import save_toy

from gocor.core.errors import ConfigError
from gocor.export.engine_config import EngineConfig
from gocor.plugins.registry import KERNELS
from gocor.runtime.manifest import Shapes

Invoke = Callable[..., tuple[int, str, str]]
RTX = ("--backend", "tensorrt-rtx")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_with_operators(tmp_path / "m.onnx")


def built(out: str) -> dict[str, str]:
    return dict(re.findall(r"^(\S.*?)\s{2,}(.+?)\s*$", out, re.MULTILINE))


def test_the_summary_says_what_was_built(model: Path, invoke: Invoke) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason='pip install "gocor-deploy[rtx]"')
    code, out, err = invoke(
        "build", model, "-o", model.with_suffix(".engine"), *RTX, "--compute-capability", "8.9"
    )
    assert (code, err) == (0, "")
    facts = built(out)
    name = f"TensorRT-RTX {rtx.__version__}"
    assert facts["engine"] == str(model.with_suffix(".engine"))
    assert facts["network"] == "PWCNet_GOCor"
    assert (facts["library"], facts["GPU"]) == (name, "sm_89")
    assert facts["inputs"] == "reference uint8 (1, 32, 64, 3)"
    assert facts["outputs"] == "flow float32 (1, 2, 32, 64)"
    assert (
        facts["operators"]
        == f"1 LocalCorrelation, 1 LocalCorrelationTranspose, 1 LocalGOCor, in layers of {name} itself"
    )
    assert facts["TF32"] == "off"
    assert facts["layers"].endswith("parsed; those of the engine are shown only by its GPU")
    assert facts["log"] == f"{model.with_suffix('.engine')}.log"
    assert "float32 among float16" not in facts


def test_everything_as_json(model: Path, invoke: Invoke) -> None:
    pytest.importorskip("tensorrt_rtx", reason='pip install "gocor-deploy[rtx]"')
    code, out, _ = invoke("build", model, "-o", model.with_suffix(".engine"), *RTX, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["manifest"]["backend"] == "tensorrt-rtx"
    assert report["operators"] == dict.fromkeys(KERNELS, 1)
    assert report["bytes"] == model.with_suffix(".engine").stat().st_size


def test_layers_of_an_engine_are_summed_up(
    model: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = FakeTensorRT()
    library.shown = json.dumps(
        {
            "Layers": [
                {"Name": "copy", "LayerType": "Reformat", "Outputs": [{"DataType": "Half"}]},
                {"Name": "warp", "LayerType": "GridSample", "Outputs": [{"DataType": "Float"}]},
            ]
        }
    )
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    put_gpu(monkeypatch)
    code, out, _ = invoke("build", model, "-o", model.with_suffix(".engine"), "--plugins", "none")
    facts = built(out)
    assert code == 0
    assert facts["GPU"] == "sm_90 (NVIDIA H100)"
    assert facts["layers"] == "2: Reformat float16 1, GridSample float32 1"
    assert facts["float32 among float16"] == "1: warp"
    assert facts["reformats"] == "1: copy"


def test_of_many_layers_the_first_are_named(
    model: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = FakeTensorRT()
    copies = [{"Name": f"copy{i}", "LayerType": "Reformat"} for i in range(40)]
    library.shown = json.dumps({"Layers": copies})
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    put_gpu(monkeypatch)
    command = ("build", model, "-o", model.with_suffix(".engine"), "--plugins", "none")
    _, out, _ = invoke(*command)
    facts = built(out)
    assert facts["reformats"] == "40: copy0, copy1, copy2 and 37 more; --json has all"
    assert facts["float32 among float16"] == "none"
    _, out, _ = invoke(*command, "--json")
    assert json.loads(out)["layers"]["reformats"] == [f"copy{i}" for i in range(40)]


def test_options_reach_the_library(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    calls = []

    def build_engine(model: Path, path: Path, config: EngineConfig, progress: object) -> None:
        assert callable(progress)
        calls.append((model, path, config))
        raise ConfigError("here", "is far enough")

    monkeypatch.setattr("gocor.export.engine.build_engine", build_engine)
    code, _, err = invoke(
        *("build", "m.onnx", "-o", "m.engine", *RTX, "--workspace", "4GiB", "--optimization-level", "5"),
        *("--timing-cache", "t.cache", "--compute-capability", "sm_89", "--compute-capability", "12.0"),
        *("--plugins", "none", "--plugin-library", "p.so", "--inspect", "i.json", "--hardware-compatible"),
        *("--version-compatible", "--tf32", "--shapes", "1x64x64/1x64x128/2x64x128"),
    )
    assert (code, err) == (2, "error: here: is far enough\n")
    assert calls == [
        (
            Path("m.onnx"),
            Path("m.engine"),
            EngineConfig(
                backend="tensorrt-rtx",
                workspace=4 << 30,
                optimization_level=5,
                timing_cache=Path("t.cache"),
                compute_capabilities=("sm_89", "sm_120"),
                plugins="none",
                plugin_library=Path("p.so"),
                inspect=Path("i.json"),
                hardware_compatible=True,
                version_compatible=True,
                tf32=True,
                shapes=Shapes((1, 64, 64), (1, 64, 128), (2, 64, 128)),
            ),
        )
    ]


def test_what_was_not_given_is_the_configs_own_default(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    calls = []

    def build_engine(model: Path, path: Path, config: EngineConfig, progress: object) -> None:
        calls.append(config)
        raise ConfigError("here", "is far enough")

    monkeypatch.setattr("gocor.export.engine.build_engine", build_engine)
    invoke("build", "m.onnx", "-o", "m.engine")
    assert calls == [EngineConfig()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--workspace", "much"), "--workspace: is 'much'; a size, as 4GiB or 512MiB"),
        (("--optimization-level", "9"), "--optimization-level: is 9; 0 to 5"),
        (("--compute-capability", "ada"), "--compute-capability: is 'ada'; as sm_89 or 8.9"),
        (("--plugins", "some"), "--plugins: is 'some'; auto or none"),
        (("--backend", "onnx"), "--backend: is 'onnx'; one of tensorrt, tensorrt-rtx, openvino"),
        (
            (*RTX, "--version-compatible"),
            "--version-compatible: is not there in TensorRT-RTX; build an engine",
        ),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path, invoke: Invoke, options: tuple[str, ...], message: str
) -> None:
    code, out, err = invoke("build", save_toy(tmp_path / "m.onnx"), "-o", tmp_path / "m.engine", *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_there_is_no_precision_flag(invoke: Invoke) -> None:
    _, out, _ = invoke("build", "--help")
    assert not re.search(r"--(fp16|half|int8|fp8|bf16|best|precision)", out)
