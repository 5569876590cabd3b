"""Engines built by TensorRT-RTX's real parser and builder, of models small enough to take no time."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_gpu
import onnx
import pytest
from engine_models import save_with_operators
from fake_tensorrt import put_gpu, take_gpu
from full_disk import files_up_to
from onnx import helper, parser
from test_dependencies import in_python_with
from toy_models import METADATA, metadata, save_toy

from gocor.core.errors import (
    ConfigError,
    DependencyError,
    GocorError,
    ModelError,
    OutputError,
    ProviderError,
)  # fmt: skip
from gocor.core.files import sha256
from gocor.core.version import __version__
from gocor.export.engine import EngineReport, build_engine
from gocor.export.engine_build import EngineBuild
from gocor.export.engine_config import EngineConfig
from gocor.export.engine_monitor import Progress, Steps
from gocor.plugins.registry import KERNELS
from gocor.runtime.environment import gpus
from gocor.runtime.manifest import EngineManifest, manifest_path
from gocor.runtime.session import load

rtx = pytest.importorskip("tensorrt_rtx", reason='pip install "gocor-deploy[rtx]"')
SM89 = ("sm_89",)


def build(model: Path, progress: Progress | None = None, **options: object) -> EngineReport:
    options = {"compute_capabilities": SM89} | options
    config = EngineConfig(backend="tensorrt-rtx", **options)  # type: ignore[arg-type]
    return build_engine(model, model.with_suffix(".engine"), config, progress)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_toy(tmp_path / "m.onnx")


@contextmanager
def refused(kind: type[GocorError], message: str, model: Path) -> Iterator[None]:
    """The block fails with a text that begins so, and leaves no engine and nothing half-written."""
    before = {path: path.read_bytes() for path in model.parent.iterdir() if path.is_file()}
    with pytest.raises(kind) as caught:
        yield
    assert str(caught.value).replace(f"{model.parent}/", "").startswith(message)
    after = {path: path.read_bytes() for path in model.parent.iterdir() if path.suffix != ".log"}
    assert after == {path: content for path, content in before.items() if path.suffix != ".log"}


def test_an_engine_its_manifest_and_its_log_are_written(model: Path) -> None:
    report = build(model)
    assert sorted(path.name for path in model.parent.iterdir()) == [
        "m.engine", "m.engine.json", "m.engine.log", "m.onnx",
    ]  # fmt: skip
    assert report.bytes == report.path.stat().st_size
    assert report.network["cast float32"] == 2
    assert report.operators == {}
    assert report.warnings == ()
    log = report.log.read_text()
    assert log.startswith(f"gocor {__version__}, TensorRT-RTX {rtx.__version__}\n{model}\nEngineConfig(")
    assert "[INFO] " in log
    assert "[VERBOSE] " not in log


def test_anybody_can_make_a_context_of_the_engine(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this flag TensorRT-RTX makes none that has memory of its own, as everybody asks for by default."""
    flags, build_plan = [], EngineBuild._build

    def spy(self: EngineBuild, builder: Any, network: Any, settings: Any, steps: Steps) -> Any:
        flags.append(settings.get_flag(rtx.BuilderFlag.REQUIRE_USER_ALLOCATION))
        return build_plan(self, builder, network, settings, steps)

    monkeypatch.setattr(EngineBuild, "_build", spy)
    build(model)
    assert flags == [False]


def test_an_engine_does_not_load_without_its_gpu(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(model).path
    if not gpus():
        with pytest.raises(ProviderError, match=r"^GPU: .*; nvidia-smi shows what the driver sees$"):
            load(path)
    gpu = fake_gpu.Gpu(capability=(12, 0))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake_gpu.runtime_module(gpu))
    with pytest.raises(ModelError, match=r"m\.engine: was built for sm_89; this GPU is sm_120; rebuild it"):
        load(path)


@pytest.mark.skipif(bool(gpus()), reason="needs a machine without a GPU")
def test_what_the_real_library_says_becomes_one_line(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(model).path
    gpu = fake_gpu.Gpu(capability=(8, 9))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake_gpu.runtime_module(gpu))
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: TensorRT-RTX cannot load it: ")
    command = f"gocor build {model} -o {path} --backend tensorrt-rtx --compute-capability sm_89"
    assert str(caught.value).endswith(f"; rebuild it: {command}")
    assert "driver version is insufficient" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_manifest_says_what_was_built(model: Path) -> None:
    manifest = EngineManifest.of(build(model).path)
    assert manifest.model == "m.onnx"
    assert manifest.model_sha256 == sha256(model)
    assert (manifest.backend, manifest.library_version) == ("tensorrt-rtx", rtx.__version__)
    assert (manifest.targets, manifest.gpu) == (SM89, "")
    assert (manifest.tf32, manifest.plugins, manifest.plugin_sha256) == (False, "none", "")
    assert manifest.inputs == METADATA.inputs
    assert manifest.outputs == (METADATA.flow,)
    assert manifest.metadata == METADATA
    manifest.check_file()
    manifest.check_runs_on(rtx.__version__, "sm_89")


@pytest.mark.parametrize(
    "described",
    [
        metadata(batch=2, height=48),
        metadata(network="GLUNet_GOCor", height=256, width=264, io="tensors"),
    ],
    ids=["batch", "tensors"],
)
def test_interfaces_of_all_kinds(tmp_path: Path, described: object) -> None:
    report = build(save_toy(tmp_path / "m.onnx", described))  # type: ignore[arg-type]
    assert report.manifest.inputs == report.manifest.metadata.inputs
    assert tuple(output.name for output in report.manifest.outputs) == described.output_names  # type: ignore[attr-defined]


def test_without_targets_it_is_built_for_all_from_ampere_on(model: Path) -> None:
    manifest = build(model, compute_capabilities=()).manifest
    assert set(manifest.targets) >= {"sm_80", "sm_86", "sm_89", "sm_120"}
    assert "sm_75" not in manifest.targets


def test_where_there_is_a_gpu_the_engine_is_opened_if_it_can_be(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it cannot: an engine for another GPU is no failure, but nothing is said of its layers."""
    put_gpu(monkeypatch, "NVIDIA RTX 4090", "sm_89")
    monkeypatch.setattr(rtx.Runtime, "deserialize_cuda_engine", lambda runtime, plan: None)
    report = build(model)
    assert report.layers is None
    assert (report.manifest.gpu, report.manifest.target) == ("", "sm_89")
    with refused(ModelError, "m.onnx: TensorRT-RTX cannot open the engine that it built (", model):
        build(model, inspect=model.with_name("layers.json"))


def test_our_operators_are_built_of_their_function_bodies(tmp_path: Path) -> None:
    report = build(save_with_operators(tmp_path / "m.onnx"))
    assert report.operators == dict.fromkeys(KERNELS, 1)
    assert report.manifest.plugins == "none"
    assert not any("plugin" in kind for kind in report.network)
    assert report.layers is None  # only a GPU can open an engine


def test_options_reach_the_builder(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []
    real = EngineBuild._build

    def recorded(self: EngineBuild, builder: object, network: object, settings: Any, steps: Steps) -> object:
        targets = [settings.get_compute_capability(i).name for i in range(settings.num_compute_capabilities)]
        limit = settings.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE)
        tf32 = settings.get_flag(rtx.BuilderFlag.TF32)
        seen.append((tf32, limit, targets))
        return real(self, builder, network, settings, steps)

    monkeypatch.setattr(EngineBuild, "_build", recorded)
    build(model, workspace=1 << 20, compute_capabilities=("sm_86", "sm_120"))
    assert seen.pop() == (False, 1 << 20, ["SM86", "SM120"])
    report = build(model, tf32=True)
    assert seen.pop()[0] is True
    assert report.manifest.tf32


def test_equal_models_give_equal_engines(model: Path) -> None:
    first = build(model).manifest
    assert build(model).manifest == first
    assert build(model, tf32=True).manifest.engine_sha256 != first.engine_sha256


def test_progress_is_that_of_the_library(model: Path) -> None:
    seen: list[tuple[int, int | None, str]] = []
    build(model, lambda done, total, phase: seen.append((done, total, phase)))
    assert seen[0][0] == 0
    assert seen[0][2] == "Building engine"
    assert all(total is not None and 0 <= done <= total for done, total, _ in seen)
    assert len({phase for _, _, phase in seen}) > 3


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_ctrl_c_leaves_the_earlier_engine(
    model: Path, number: signal.Signals, raised: type[BaseException]
) -> None:
    before = build(model).manifest
    content = before.path.read_bytes()
    with pytest.raises(raised):
        build(model, lambda done, total, phase: signal.raise_signal(number), tf32=True)
    assert EngineManifest.of(before.path) == before
    assert before.path.read_bytes() == content


def test_an_error_in_the_callers_progress_comes_out(model: Path) -> None:
    def fail(done: int, total: int | None, phase: str) -> None:
        raise ValueError("a broken bar")

    with pytest.raises(ValueError, match="a broken bar"):
        build(model, fail)
    assert not model.with_suffix(".engine").exists()


def test_a_full_disk_leaves_the_earlier_engine_and_its_manifest(model: Path) -> None:
    before = build(model).manifest
    with refused(OutputError, "m.engine: cannot be written (File too large)", model), files_up_to(8192):
        build(model, tf32=True)
    assert EngineManifest.of(before.path) == before
    before.check_file()


def test_a_new_engine_replaces_the_pair(model: Path) -> None:
    build(model)
    again = build(model, tf32=True)
    assert EngineManifest.of(again.path).tf32
    EngineManifest.of(again.path).check_file()


def test_a_place_that_cannot_be_written_is_found_before_the_build(model: Path) -> None:
    model.with_name("m.engine").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        build(model, lambda *step: pytest.fail("it was built"))


def test_an_engine_is_named_engine(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"m\.plan: has suffix '\.plan'; a name that ends in \.engine"):
        build_engine(model, model.with_suffix(".plan"), EngineConfig("tensorrt-rtx"))


def test_the_inspector_needs_a_gpu(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_gpu(monkeypatch)
    message = (
        "--inspect: opens the engine on its GPU, and no NVIDIA driver is installed on this machine; leave"
    )
    with refused(ConfigError, message, model):
        build(model, inspect=model.with_name("layers.json"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.onnx", None, "none.onnx: no such file; give a model made by gocor export"),
        ("empty.onnx", b"", "empty.onnx: is empty; give a model made by gocor export"),
        ("text.onnx", b"just some text", "text.onnx: is damaged or no ONNX model; give a model made by"),
        (
            "their.pth",
            b"PK",
            "their.pth: is a checkpoint; make a model of it: gocor export their.pth -o model.onnx",
        ),
    ],
)
def test_what_is_no_model(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        build(file)
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(message)


def test_a_truncated_model(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-40])
    with refused(ModelError, "m.onnx: is damaged or no ONNX model; give a model made by gocor export", model):
        build(model)


def test_a_model_of_somebody_else(tmp_path: Path) -> None:
    model = save_toy(tmp_path / "m.onnx", properties={})
    with refused(
        ModelError, "m.onnx: was not made by gocor (no gocor.network property); run gocor export", model
    ):
        build(model)


def test_gridsample_of_opset_20_is_refused_before_tensorrt_samples_it_wrongly(model: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 20]>
        toy (float[1,1,4,4] x, float[1,4,4,2] grid) => (float[1,1,4,4] y)
        { y = GridSample<mode="linear">(x, grid) }"""
    late = parser.parse_model(text)
    helper.set_model_props(late, METADATA.to_properties())
    onnx.save(late, model)
    message = "m.onnx: has GridSample of opset 20, which TensorRT samples as nearest; export at opset 19"
    with refused(ModelError, message, model):
        build(model)


def test_what_the_parser_refuses(model: Path) -> None:
    """Bytes are transposed after they were cast; the other way round NVIDIA's parser refuses them."""
    changed = onnx.load(model)
    changed.graph.node.extend(
        [
            helper.make_node("Transpose", ["reference"], ["turned"], "early/Transpose", perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["turned"], ["unused"], "late/Cast", to=1),
        ]
    )
    onnx.save(changed, model)
    message = (
        f"m.onnx: is refused by the parser of TensorRT-RTX {rtx.__version__} "
        "(early/Transpose: API Usage Error (early/Transpose: first input has type UInt8 but must have type"
    )
    with refused(ModelError, message, model):
        build(model)
    assert "early/Transpose" in model.with_name("m.engine.log").read_text()


def test_metadata_of_another_model(tmp_path: Path) -> None:
    model = save_toy(tmp_path / "m.onnx", properties=metadata(height=64).to_properties())
    with refused(ModelError, "m.onnx: became a network of reference uint8 (1, 32, 64, 3); query", model):
        build(model)


@pytest.mark.parametrize(
    ("backend", "module", "extra"),
    [("tensorrt", "tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx", "rtx")],
)
def test_a_library_that_is_not_installed(
    model: Path, monkeypatch: pytest.MonkeyPatch, backend: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=rf'; pip install "gocor-deploy\[{extra}\]"$'):
        build_engine(model, model.with_suffix(".engine"), EngineConfig(backend))  # type: ignore[arg-type]


def test_onnx_that_is_not_installed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        DependencyError, match=r'onnx: is not installed; pip install "gocor-deploy\[tensorrt\]"'
    ):
        build(model)


def test_it_needs_neither_torch_nor_onnxruntime(model: Path) -> None:
    code = "from gocor.__main__ import main; main()"
    engine = model.with_suffix(".engine")
    done = in_python_with(
        ["numpy", "typer", "rich", "onnx", "tensorrt-rtx", "cuda-python"],
        code,
        *("build", str(model), "-o", str(engine), "--backend", "tensorrt-rtx", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["manifest"]["engine_sha256"] == sha256(engine)
    assert manifest_path(engine).exists()
