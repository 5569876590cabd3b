import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from toy_models import METADATA

from gocor.core.errors import MachineError, ModelError
from gocor.core.files import sha256, write_text
from gocor.runtime.manifest import RTX_TARGETS, EngineManifest, manifest_path
from gocor.runtime.metadata import TensorSpec

MANIFEST = EngineManifest(
    path=Path("model.engine"),
    model="model.onnx",
    model_sha256="ab" * 32,
    engine_sha256="cd" * 32,
    backend="tensorrt",
    library_version="11.4.0.106",
    targets=("sm_90",),
    gpu="NVIDIA H100",
    hardware_compatible=False,
    version_compatible=False,
    tf32=False,
    plugins="quick",
    plugin_sha256="ef" * 32,
    inputs=METADATA.inputs,
    outputs=(TensorSpec("flow", "float32", (1, 2, 32, 64)),),
    metadata=METADATA,
    gocor_version="0.1.0",
)


@pytest.fixture
def built(tmp_path: Path) -> EngineManifest:
    """An engine file with its manifest."""
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"a plan")
    manifest = dataclasses.replace(MANIFEST, path=engine, engine_sha256=sha256(engine))
    write_text(manifest_path(engine), manifest.to_json())
    return manifest


def text_of(caught: pytest.ExceptionInfo[ModelError], folder: Path) -> str:
    return str(caught.value).replace(f"{folder}/", "")


def test_a_manifest_reads_back(built: EngineManifest) -> None:
    read = EngineManifest.of(built.path)
    assert read == built
    assert read.path == built.path
    read.check_file()
    assert read.read_checked() == built.path.read_bytes()


def test_json_is_plain_to_read(built: EngineManifest) -> None:
    values = json.loads(manifest_path(built.path).read_text())
    assert values["format"] == 1
    assert values["targets"] == ["sm_90"]
    assert values["inputs"][0] == {"name": "reference", "dtype": "uint8", "shape": [1, 32, 64, 3]}
    assert values["metadata"]["gocor.network"] == "PWCNet_GOCor"
    assert "path" not in values


def test_both_files_may_be_renamed_together(built: EngineManifest) -> None:
    moved = built.path.with_name("other.plan")
    built.path.rename(moved)
    manifest_path(built.path).rename(manifest_path(moved))
    EngineManifest.of(moved).check_file()


def test_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_text("a renamed text file")
    with pytest.raises(ModelError) as caught:
        EngineManifest.of(tmp_path / "model.engine")
    assert text_of(caught, tmp_path) == (
        "model.engine: has no manifest model.engine.json beside it; copy both files, or build the engine "
        "again: gocor build"
    )


def test_an_unreadable_manifest(tmp_path: Path) -> None:
    (tmp_path / "model.engine.json").mkdir()
    with pytest.raises(ModelError, match=r"model\.engine\.json: cannot be read \(Is a directory\)"):
        EngineManifest.of(tmp_path / "model.engine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": 2},
            "is an engine manifest of format 2; this gocor reads format 1; build the engine again",
        ),
        (
            {"backend": "openvino"},
            "is a damaged engine manifest (backend 'openvino'); build the engine again",
        ),
        ({"plugins": "many"}, "is a damaged engine manifest (plugins 'many')"),
        ({"tf32": "no"}, "is a damaged engine manifest (tf32 'no')"),
        ({"model_sha256": None}, "is a damaged engine manifest (model_sha256 None)"),
        ({"targets": ["H100"]}, "is a damaged engine manifest (targets ['H100'])"),
        ({"targets": 90}, "is a damaged engine manifest (targets 90)"),
        ({"targets": []}, "is a damaged engine manifest (targets [])"),
        ({"inputs": [{"name": "x"}]}, "is a damaged engine manifest (no 'dtype')"),
        *(
            (
                {"outputs": [{"name": "flow", "dtype": "float32", "shape": shape}]},
                f"is a damaged engine manifest (tensor 'flow' 'float32' {shape!r})",
            )
            for shape in ("abc", [1, "2"], [1, 0], [1, -1], [True], 3, None)
        ),
        (
            {"outputs": [{"name": 1, "dtype": "float32", "shape": [1]}]},
            "is a damaged engine manifest (tensor 1 'float32' [1])",
        ),
        (
            {"metadata": dataclasses.replace(METADATA, height=64).to_properties()},
            "is a damaged engine manifest (inputs reference uint8 (1, 32, 64, 3); query uint8 (1, 32, 64, 3) "
            "are not those of its metadata)",
        ),
        ({"metadata": {}}, "is a damaged engine manifest (model.engine.json: was not made by gocor"),
    ],
)
def test_a_damaged_manifest_is_one_clear_line(
    built: EngineManifest, change: dict[str, object], message: str
) -> None:
    path = manifest_path(built.path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError) as caught:
        EngineManifest.of(built.path)
    assert text_of(caught, path.parent).startswith(f"model.engine.json: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is a damaged engine manifest (Expecting value"),
        ("[]", "is an engine manifest of format none"),
        ('{"format": 1}', "is a damaged engine manifest (no 'model')"),
        ("\udcff", "is a damaged engine manifest ('utf-8' codec"),
    ],
)
def test_a_file_that_is_no_manifest(built: EngineManifest, text: str, message: str) -> None:
    manifest_path(built.path).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError) as caught:
        EngineManifest.of(built.path)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"a pla", b"a Plan"], ids=["truncated", "tampered"])
def test_another_file_is_refused(built: EngineManifest, content: bytes) -> None:
    built.path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        built.check_file()
    folder = built.path.parent
    assert text_of(caught, folder) == (
        f"model.engine: is not the file that was built (SHA-256 {sha256(built.path)[:12]}…, not "
        f"{built.engine_sha256[:12]}…); copy it again or rebuild it: gocor build model.onnx -o model.engine"
    )


def test_the_same_version_and_gpu_are_taken() -> None:
    MANIFEST.check_runs_on("11.4.0.106", "sm_90")


def test_another_version_is_refused() -> None:
    with pytest.raises(MachineError) as caught:
        MANIFEST.check_runs_on("11.5.0.1", "sm_90")
    assert str(caught.value) == (
        "model.engine: was built with TensorRT 11.4.0.106; 11.5.0.1 is installed; rebuild it with that: "
        "gocor build model.onnx -o model.engine"
    )


def test_another_gpu_is_refused() -> None:
    with pytest.raises(MachineError) as caught:
        MANIFEST.check_runs_on("11.4.0.106", "sm_89")
    assert str(caught.value) == (
        "model.engine: was built for sm_90 (NVIDIA H100); this GPU is sm_89; rebuild it for this GPU: "
        "gocor build model.onnx -o model.engine"
    )


def test_the_advice_names_the_backend() -> None:
    manifest = dataclasses.replace(MANIFEST, backend="tensorrt-rtx", library_version="1.7.1.116")
    with pytest.raises(ModelError, match=r"built with TensorRT-RTX 1\.7\.1\.116; .* --backend tensorrt-rtx "):
        manifest.check_runs_on("1.6.0.1", "sm_90")


NO_OPERATORS = dataclasses.replace(METADATA, operators={})
RTX = dataclasses.replace(
    MANIFEST,
    backend="tensorrt-rtx",
    library_version="1.7.1.116",
    plugins="none",
    targets=("sm_89",),
    gpu="",
)
BUILD = "gocor build model.onnx -o model.engine"


@pytest.mark.parametrize(
    ("changes", "sm", "command"),
    [
        ({}, "sm_89", BUILD),
        ({"plugins": "none"}, "sm_89", f"{BUILD} --plugins none"),
        ({"plugins": "none", "metadata": NO_OPERATORS}, "sm_89", BUILD),
        ({"plugins": "library"}, "sm_89", f"{BUILD} --plugin-library libgocor_plugins.so"),
        (
            {"version_compatible": True, "hardware_compatible": True, "tf32": True},
            "sm_89",
            f"{BUILD} --hardware-compatible --version-compatible --tf32",
        ),
        ({"hardware_compatible": True}, "sm_75", f"{BUILD} --plugins none"),
        ({"plugins": "library"}, "sm_75", f"{BUILD} --plugins none"),
        (
            {"path": Path("my engines/a.engine"), "model": "m;l.onnx"},
            "sm_89",
            "gocor build 'my engines/m;l.onnx' -o 'my engines/a.engine'",
        ),
    ],
)
def test_the_command_keeps_what_the_manifest_knows(changes: dict[str, Any], sm: str, command: str) -> None:
    assert dataclasses.replace(MANIFEST, **changes).rebuild_for(sm) == command


@pytest.mark.parametrize(
    ("targets", "sm", "options"),
    [
        (("sm_89",), "sm_89", " --compute-capability sm_89"),
        (("sm_89",), "sm_120", " --compute-capability sm_120"),
        (("sm_89", "sm_120"), "sm_120", " --compute-capability sm_89 --compute-capability sm_120"),
        (RTX_TARGETS[1:], "sm_120", ""),
        (RTX_TARGETS[1:], "sm_75", " --compute-capability sm_75"),
    ],
)
def test_the_command_for_rtx_names_the_gpu(targets: tuple[str, ...], sm: str, options: str) -> None:
    manifest = dataclasses.replace(RTX, targets=targets, tf32=True)
    assert manifest.rebuild_for(sm) == f"{BUILD} --backend tensorrt-rtx{options} --tf32"


def test_a_gpu_that_rtx_does_not_build_for_takes_an_engine_of_tensorrt() -> None:
    with pytest.raises(ModelError) as caught:
        RTX.check_runs_on("1.7.1.116", "sm_90")
    assert str(caught.value) == (
        "model.engine: was built for sm_89; this GPU is sm_90, for which TensorRT-RTX does not build; use "
        f"TensorRT: {BUILD} --backend tensorrt"
    )
    assert RTX.rebuild_for("sm_70") == f"{BUILD} --backend tensorrt --plugins none"


def test_the_targets_of_rtx_are_those_of_the_library() -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason='pip install "gocor-deploy[rtx]"')
    members = [name for name in rtx.ComputeCapability.__members__ if name.startswith("SM")]
    assert [f"sm_{name[2:]}" for name in members] == list(RTX_TARGETS)


@pytest.mark.parametrize(
    ("installed", "taken"),
    [("11.4.0.106", True), ("11.10.0.3", True), ("11.3.0.9", False), ("12.0.0.1", False), ("10.9", False)],
)
def test_version_compatible_means_later_ones_of_the_major_version(installed: str, taken: bool) -> None:
    manifest = dataclasses.replace(MANIFEST, version_compatible=True)
    if taken:
        manifest.check_runs_on(installed, "sm_90")
    else:
        with pytest.raises(ModelError, match=r"was built with TensorRT 11\.4"):
            manifest.check_runs_on(installed, "sm_90")


@pytest.mark.parametrize(("sm", "taken"), [("sm_80", True), ("sm_120", True), ("sm_75", False)])
def test_hardware_compatible_means_from_ampere_on(sm: str, taken: bool) -> None:
    manifest = dataclasses.replace(MANIFEST, hardware_compatible=True)
    if taken:
        manifest.check_runs_on("11.4.0.106", sm)
    else:
        with pytest.raises(ModelError, match=r"was built for sm_80 and later; this GPU is sm_75"):
            manifest.check_runs_on("11.4.0.106", sm)


def test_several_targets() -> None:
    manifest = dataclasses.replace(MANIFEST, targets=("sm_89", "sm_120"), gpu="")
    manifest.check_runs_on("11.4.0.106", "sm_120")
    assert manifest.target == "sm_89, sm_120"
