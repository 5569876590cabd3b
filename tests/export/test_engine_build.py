"""The branches of a build that need TensorRT and a GPU, on fakes; test_engine.py has a real library."""

import dataclasses
import errno
import json
import os
import sys
from pathlib import Path

import onnx
import pytest
from engine_models import NODES, save_with_operators
from fake_tensorrt import (
    USED,
    BuilderFlag,
    FakeTensorRT,
    HardwareCompatibilityLevel,
    MemoryPoolType,
    ProfilingVerbosity,
    missing_in,
    put_gpu,
    take_gpu,
)
from tensorrt_stubs import process_with_tensorrt
from toy_models import METADATA, save_toy

from gocor.core.errors import ConfigError, DependencyError, GocorError, ModelError, ProviderError
from gocor.core.files import sha256
from gocor.export.engine import EngineReport, build_engine
from gocor.export.engine_config import EngineConfig
from gocor.plugins import ptx
from gocor.plugins.plugin_library import PluginLibrary
from gocor.plugins.registry import KERNELS
from gocor.runtime.manifest import EngineManifest


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """TensorRT and a GPU."""
    fake = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr("gocor.plugins.tensorrt_quick.register", lambda: fake.plugins.update(KERNELS))
    put_gpu(monkeypatch)
    return fake


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_with_operators(tmp_path / "m.onnx")


def build(model: Path, **options: object) -> EngineReport:
    return build_engine(model, model.with_suffix(".engine"), EngineConfig(**options))  # type: ignore[arg-type]


def refusal(kind: type[GocorError], model: Path, **options: object) -> str:
    with pytest.raises(kind) as caught:
        build(model, **options)
    assert not model.with_suffix(".engine").exists()
    return str(caught.value).replace(f"{model.parent}/", "")


def test_the_manifest_says_what_was_built(library: FakeTensorRT, model: Path) -> None:
    report = build(model)
    manifest = EngineManifest.of(report.path)
    assert manifest == report.manifest
    assert (manifest.backend, manifest.library_version) == ("tensorrt", "11.4.0.106")
    assert (manifest.targets, manifest.gpu) == (("sm_90",), "NVIDIA H100")
    assert manifest.plugins == "quick"
    assert manifest.plugin_sha256
    assert manifest.metadata == METADATA
    manifest.check_file()
    manifest.check_runs_on("11.4.0.106", "sm_90")


def test_nothing_is_set_that_was_not_asked_for_but_tf32_is_off(library: FakeTensorRT, model: Path) -> None:
    report = build(model)
    config = library.config
    assert config.flags == set()
    assert config.limits == {}
    assert config.profiling_verbosity is ProfilingVerbosity.DETAILED
    for name in (
        "builder_optimization_level",
        "hardware_compatibility_level",
        "plugins_to_serialize",
        "cache",
    ):
        assert not hasattr(config, name)
    assert not report.manifest.tf32


def test_options_are_set(library: FakeTensorRT, model: Path) -> None:
    report = build(
        model, workspace=4 << 30, optimization_level=5, hardware_compatible=True, version_compatible=True,
        tf32=True,
    )  # fmt: skip
    config = library.config
    assert config.flags == {BuilderFlag.TF32, BuilderFlag.VERSION_COMPATIBLE}
    assert config.limits == {MemoryPoolType.WORKSPACE: 4 << 30}
    assert config.builder_optimization_level == 5
    assert config.hardware_compatibility_level is HardwareCompatibilityLevel.AMPERE_PLUS
    manifest = report.manifest
    assert (manifest.hardware_compatible, manifest.version_compatible, manifest.tf32) == (True, True, True)
    assert manifest.target == "sm_80 and later"


def test_the_inspectors_layers_are_summed_up_and_written(library: FakeTensorRT, model: Path) -> None:
    report = build(model, inspect=model.with_name("layers.json"))
    assert report.operators == dict.fromkeys(KERNELS, 1)
    assert report.layers is not None
    assert report.layers.counts["PluginV3 float32"] == len(KERNELS)
    assert report.layers.plugins == report.operators
    written = json.loads(model.with_name("layers.json").read_text())
    assert sum(report.layers.counts.values()) == len(written["Layers"])


def test_without_plugins_the_function_bodies_are_built(library: FakeTensorRT, model: Path) -> None:
    report = build(model, plugins="none")
    assert (report.manifest.plugins, report.manifest.plugin_sha256) == ("none", "")
    assert report.layers is not None
    assert report.layers.plugins == {}


def test_plugins_that_somebody_else_registered_are_not_taken_in_silence(
    library: FakeTensorRT, model: Path
) -> None:
    library.plugins = {"LocalCorrelation"}
    assert refusal(ModelError, model, plugins="none") == (
        "m.onnx: became plugins in TensorRT's parser (level/LocalCorrelation), though none were asked for; "
        "build in a process of its own, in which no plugins were registered"
    )


def test_a_parser_that_takes_the_function_body_is_an_error(
    library: FakeTensorRT, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "gocor.plugins.tensorrt_quick.register", lambda: library.plugins.add("LocalCorrelation")
    )
    assert refusal(ModelError, model) == (
        "m.onnx: has nodes that TensorRT's parser did not make plugins of (level/Transpose, level/GOCor); "
        "export it again, or build without a plugin: --plugins none"
    )


def test_an_engine_without_the_plugin_is_an_error(library: FakeTensorRT, model: Path) -> None:
    kept = {"Name": NODES["LocalCorrelation"], "LayerType": "PluginV3", "PluginType": "LocalCorrelation"}
    library.shown = json.dumps({"Layers": [kept, {"Name": "fused", "LayerType": "kgen"}]})
    assert refusal(ModelError, model) == (
        "m.onnx: TensorRT put 0 of 1 LocalCorrelationTranspose into plugin layers; "
        "see the log beside it, or build without a plugin: --plugins none"
    )
    assert not model.with_name("m.engine.json").exists()


def test_a_copy_for_the_plugin_is_not_the_plugin(library: FakeTensorRT, model: Path) -> None:
    library.shown = json.dumps(
        {
            "Layers": [
                {"Name": f"Reformatting CopyNode for Input Tensor 0 to {node}", "LayerType": "Reformat"}
                for node in NODES.values()
            ]
        }
    )
    assert refusal(ModelError, model).startswith(
        "m.onnx: TensorRT put 0 of 1 LocalCorrelation into plugin layers"
    )


def test_a_radius_without_a_kernel_is_refused_before_the_build(library: FakeTensorRT, tmp_path: Path) -> None:
    model = save_with_operators(tmp_path / "wide.onnx", radius=9)
    assert refusal(ConfigError, model).startswith(
        "radius of LocalCorrelation: is 9, and CUDA kernels go up to 8"
    )
    assert library.config is None
    assert build(model, plugins="none").manifest.plugins == "none"


def test_an_operator_without_a_kernel_is_refused_before_the_build(
    library: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its function body would do, but nobody asked for that."""
    model = save_with_operators(tmp_path / "new.onnx")
    left = {name: schema for name, schema in KERNELS.items() if name != "LocalCorrelation"}
    monkeypatch.setattr("gocor.export.engine_plugins.KERNELS", left)
    assert refusal(ConfigError, model) == (
        f"{NODES['LocalCorrelation']}: is a LocalCorrelation, which has no plugin yet; "
        "build without a plugin: --plugins none, or a model of gocor export --gocor unrolled"
    )
    assert library.config is None
    assert build(model, plugins="none").manifest.plugins == "none"


def fake_library(
    file: Path, monkeypatch: pytest.MonkeyPatch, tensorrt: str = "11.1.0.106", content: bytes = b"ELF"
) -> Path:
    """A file that says of itself what a plugin library says; real ones need TensorRT's headers."""
    file.write_bytes(content)
    described = PluginLibrary(file, sha256(file), tensorrt, "0.1.0")
    monkeypatch.setattr("gocor.export.engine_plugins.describe", lambda path: described)
    return file


def test_a_plugin_library_is_loaded_and_named_by_its_hash(
    library: FakeTensorRT, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fake_library(model.with_name("libgocor_plugins.so"), monkeypatch)
    library.in_library = set(KERNELS)
    report = build(model, plugin_library=file)
    assert (report.manifest.plugins, report.manifest.plugin_sha256) == ("library", sha256(file))
    build(model, plugin_library=file, version_compatible=True)
    assert library.config.plugins_to_serialize == [str(file)]


def test_a_plugin_library_may_be_a_bare_name_in_the_working_folder(
    library: FakeTensorRT, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fake_library(model.with_name("libgocor_plugins.so"), monkeypatch)
    library.in_library = set(KERNELS)
    monkeypatch.chdir(model.parent)
    report = build(model, plugin_library=Path(file.name), version_compatible=True)
    assert report.manifest.plugins == "library"
    assert library.config.plugins_to_serialize == [str(file.resolve())]


def test_the_plugin_library_is_not_taken_for_the_packages_plugins(
    library: FakeTensorRT, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fake_library(model.with_name("libgocor_plugins.so"), monkeypatch)
    library.in_library = set(KERNELS)
    build(model, plugin_library=file)
    model.with_suffix(".engine").unlink()
    assert refusal(ConfigError, model) == (
        f"TensorRT: has the plugins of the library of SHA-256 {sha256(file)[:12]}… in this process, and was "
        "to take those of this package; build in a process of its own"
    )
    fake_library(file, monkeypatch, content=b"ELF, built anew")
    assert f"was to take those of the library of SHA-256 {sha256(file)[:12]}…" in refusal(
        ConfigError, model, plugin_library=file
    )


def test_the_packages_plugins_are_not_taken_for_a_plugin_library(
    library: FakeTensorRT, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fake_library(model.with_name("libgocor_plugins.so"), monkeypatch)
    library.in_library = set(KERNELS)
    build(model)
    build(model).path.unlink()  # again the same is no mixture
    assert refusal(ConfigError, model, plugin_library=file) == (
        "TensorRT: has the plugins of this package in this process, and was to take those of the library of "
        f"SHA-256 {sha256(file)[:12]}…; build in a process of its own"
    )


def test_plugins_of_unknown_origin_are_not_taken_for_ours(library: FakeTensorRT, model: Path) -> None:
    library.plugins = {"LocalCorrelation"}
    assert refusal(ConfigError, model) == (
        "TensorRT: has the plugins of somebody else in this process, and was to take those of this package; "
        "build in a process of its own"
    )


@pytest.mark.parametrize(
    ("sm", "driver", "message"),
    [
        ("sm_75", 13040, "plugins: need a GPU from sm_80 on, and this one is sm_75; build without a plugin:"),
        (
            "sm_80",
            12020,
            "plugins: need a driver for CUDA 12.4, and this one is for CUDA 12.2; update the driver, or "
            "build without a plugin: --plugins none",
        ),
    ],
)
def test_a_gpu_or_driver_that_cannot_take_the_plugins_is_found_before_the_build(
    library: FakeTensorRT,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    sm: str,
    driver: int,
    message: str,
) -> None:
    put_gpu(monkeypatch, "NVIDIA T4", sm, driver)
    assert refusal(ConfigError, model).startswith(message)
    assert library.config is None
    assert build(model, plugins="none").manifest.targets == (sm,)


def test_a_model_without_our_operators_needs_no_plugins(
    library: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpu(monkeypatch, "NVIDIA T4", "sm_75", 12020)
    assert build(save_toy(tmp_path / "m.onnx")).manifest.plugins == "none"


def test_the_oldest_driver_and_gpu_are_those_of_the_ptx() -> None:
    text = (ptx.FOLDER / "local_correlation_f32_r1.ptx").read_text()
    assert f".target sm_{ptx.OLDEST_SM}\n" in text
    assert (".version 8.4\n" in text, ptx.OLDEST_CUDA) == (True, 12040)


def test_an_operator_of_a_later_gocor_is_built_of_its_body(library: FakeTensorRT, model: Path) -> None:
    later = onnx.load(model)
    function = onnx.FunctionProto()
    function.CopyFrom(later.functions[0])
    function.name = "LaterCorrelation"
    later.functions.append(function)
    node = onnx.NodeProto()
    node.CopyFrom(next(node for node in later.graph.node if node.op_type == later.functions[0].name))
    node.op_type, node.name, node.output[0] = "LaterCorrelation", "level/Later", "later"
    later.graph.node.append(node)
    onnx.save(later, model)
    report = build(model)
    assert report.operators == dict.fromkeys(KERNELS, 1)
    assert report.manifest.plugins == "quick"


@pytest.mark.parametrize(
    ("operators", "reason"),
    [
        (set(), "cannot be loaded"),
        (
            {"LocalCorrelation"},
            "has no plugin LocalCorrelationTranspose, LocalGOCor of the version asked for",
        ),
    ],
)
def test_a_plugin_library_that_does_not_fit(
    library: FakeTensorRT,
    model: Path,
    operators: set[str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = fake_library(model.with_name("libother.so"), monkeypatch)
    library.in_library = operators
    assert refusal(ConfigError, model, plugin_library=file) == (
        f"libother.so: {reason}; build libgocor_plugins.so against TensorRT 11.4.0.106, or without a plugin: "
        "--plugins none"
    )


def test_a_plugin_library_of_another_tensorrt(
    library: FakeTensorRT, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fake_library(model.with_name("libgocor_plugins.so"), monkeypatch, tensorrt="10.13.3.9")
    library.in_library = set(KERNELS)
    assert "was built for TensorRT 10.13.3.9, and this is 11.4.0.106" in refusal(
        ConfigError, model, plugin_library=file
    )


def test_a_file_that_is_no_library(library: FakeTensorRT, model: Path) -> None:
    text = model.with_name("notes.so")
    text.write_text("hello")
    assert refusal(ConfigError, model, plugin_library=text).startswith("notes.so: cannot be loaded (")


def test_a_timing_cache_is_made_and_used(library: FakeTensorRT, model: Path) -> None:
    file = model.with_name("timing.cache")
    build(model, timing_cache=file)
    assert library.config.cache.content == b""
    assert file.read_bytes() == b"measured"
    build(model, timing_cache=file)
    assert library.config.cache.content == b"measured"


def test_a_timing_cache_of_another_gpu(library: FakeTensorRT, model: Path) -> None:
    file = model.with_name("timing.cache")
    file.write_bytes(b"of another")
    assert refusal(ConfigError, model, timing_cache=file) == (
        "--timing-cache: timing.cache is of another GPU or another version of TensorRT "
        "(it does not say why); another file, which will be made"
    )
    assert file.read_bytes() == b"of another"


def test_a_timing_cache_that_cannot_be_read(
    library: FakeTensorRT, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = model.with_name("timing.cache")
    file.write_bytes(b"measured")
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:  # whoever runs the tests may be allowed to read everything
        if path == file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert refusal(ConfigError, model, timing_cache=file) == (
        "--timing-cache: timing.cache cannot be read (Permission denied); check its permissions"
    )


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("m.onnx", "the model"),
        ("sub/../m.engine", "the engine"),
        ("m.engine.json", "its manifest"),
        ("m.engine.log", "its log"),
        ("link", "the model"),
    ],
)
@pytest.mark.parametrize("option", ["inspect", "timing_cache"])
def test_no_output_is_written_over_another_file(
    library: FakeTensorRT, model: Path, option: str, name: str, role: str
) -> None:
    (model.parent / "sub").mkdir()
    (model.parent / "link").symlink_to(model)
    before = model.read_bytes()
    written = f"--{option.replace('_', '-')}"
    assert refusal(ConfigError, model, **{option: model.parent / name}) == (
        f"{name}: cannot be both {role} and {written}; a path of its own for each"
    )
    assert library.config is None
    assert model.read_bytes() == before
    assert not model.with_name("m.engine.log").exists()


def test_the_engine_is_not_written_over_the_model(library: FakeTensorRT, model: Path) -> None:
    named = model.rename(model.with_suffix(".engine"))
    with pytest.raises(ConfigError, match=r"m\.engine: cannot be both the model and the engine; a path of"):
        build(named)
    assert named.exists()


def test_two_outputs_may_go_to_one_device(library: FakeTensorRT, model: Path) -> None:
    null = Path(os.devnull)
    assert build(model, inspect=null, timing_cache=null).path.exists()


def test_without_a_gpu_tensorrt_is_refused_in_one_sentence(
    library: FakeTensorRT, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_gpu(monkeypatch)
    assert refusal(ProviderError, model) == (
        "TensorRT: builds on the GPU that the engine is for, and no NVIDIA driver is installed on this "
        "machine; build there, or for RTX GPUs: --backend tensorrt-rtx"
    )


def test_without_cuda_python_the_gpu_is_not_blamed(
    library: FakeTensorRT, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> int:
        raise DependencyError("cuda-python", "cannot be imported", 'pip install "gocor-deploy[tensorrt]"')

    monkeypatch.setattr("gocor.runtime.cuda.current_device", missing)
    assert refusal(DependencyError, model).startswith("cuda-python: cannot be imported; pip install")


def test_a_builder_that_does_not_start(library: FakeTensorRT, model: Path) -> None:
    library.starts_not = "CUDA initialization failure with error: 35"
    assert refusal(ProviderError, model) == (
        "TensorRT: does not start (CUDA initialization failure with error: 35); "
        "see gocor doctor for the GPU and its driver"
    )


def test_a_failed_build_says_why(library: FakeTensorRT, model: Path) -> None:
    library.fails = (
        "IBuilder::buildSerializedNetwork: Error Code 2: OutOfMemory (Requested size was 9 bytes.)"
    )
    assert refusal(ModelError, model) == (
        "m.onnx: cannot be built by TensorRT 11.4.0.106 (OutOfMemory (Requested size was 9 bytes.)); "
        "see the log beside the engine"
    )
    assert "OutOfMemory" in model.with_name("m.engine.log").read_text()


def test_an_engine_that_cannot_be_opened_is_none(library: FakeTensorRT, model: Path) -> None:
    library.shown = ""
    assert refusal(ModelError, model) == (
        "m.onnx: TensorRT cannot open the engine that it built (the magic tag does not match); "
        "see the log beside the engine"
    )


def test_the_fakes_and_the_code_use_names_that_tensorrt_has(tmp_path: Path) -> None:
    with process_with_tensorrt(tmp_path) as in_tensorrt:
        assert in_tensorrt(missing_in, "tensorrt", USED) == []


def test_the_code_uses_names_that_rtx_has() -> None:
    pytest.importorskip("tensorrt_rtx")
    assert missing_in("tensorrt_rtx", USED) == []


def test_facts_of_a_config_are_in_the_log(library: FakeTensorRT, model: Path) -> None:
    build(model, tf32=True)
    config = dataclasses.replace(EngineConfig(), tf32=True)
    assert str(config) in model.with_name("m.engine.log").read_text()
