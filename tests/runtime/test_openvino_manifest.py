import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from toy_models import METADATA

from gocor.core.errors import ModelError
from gocor.core.files import write_text
from gocor.runtime.manifest import EngineManifest, manifest_path
from gocor.runtime.metadata import TensorSpec
from gocor.runtime.openvino_manifest import OpenVINOManifest, read_manifest, weights_path

MANIFEST = OpenVINOManifest(
    path=Path("model.xml"),
    model="model.onnx",
    model_sha256="ab" * 32,
    library_version="2026.4.1",
    inputs=METADATA.inputs,
    outputs=(TensorSpec("flow", "float32", (1, 2, 32, 64)),),
    metadata=METADATA,
    gocor_version="0.1.0",
    backend="openvino",
    xml_sha256="cd" * 32,
    bin_sha256="ef" * 32,
    inference_precision="f32",
)


@pytest.fixture
def built(tmp_path: Path) -> OpenVINOManifest:
    """Graph and weights with their manifest."""
    graph = tmp_path / "model.xml"
    graph.write_bytes(b"<net/>")
    weights_path(graph).write_bytes(b"weights")
    hashes = {
        "xml_sha256": hashlib.sha256(b"<net/>").hexdigest(),
        "bin_sha256": hashlib.sha256(b"weights").hexdigest(),
    }
    manifest = dataclasses.replace(MANIFEST, path=graph, **hashes)
    write_text(manifest_path(graph), manifest.to_json())
    return manifest


def text_of(caught: pytest.ExceptionInfo[ModelError], folder: Path) -> str:
    return str(caught.value).replace(f"{folder}/", "")


def test_a_manifest_reads_back(built: OpenVINOManifest) -> None:
    read = read_manifest(built.path)
    assert read == built
    assert isinstance(read, OpenVINOManifest)
    assert read.read_checked() == (b"<net/>", b"weights")
    assert read.library == "OpenVINO 2026.4.1"


def test_json_is_plain_to_read(built: OpenVINOManifest) -> None:
    values = json.loads(manifest_path(built.path).read_text())
    assert values["format"] == 1
    assert values["backend"] == "openvino"
    assert values["inference_precision"] == "f32"
    assert values["metadata"]["gocor.network"] == "PWCNet_GOCor"
    assert values["outputs"] == [{"name": "flow", "dtype": "float32", "shape": [1, 2, 32, 64]}]
    assert "path" not in values


def test_all_files_may_be_renamed_together(built: OpenVINOManifest) -> None:
    moved = built.path.with_name("other.xml")
    manifest_path(built.path).rename(manifest_path(moved))
    built.weights.rename(weights_path(moved))
    built.path.rename(moved)
    read_manifest(moved).check_file()


def test_another_file_is_refused(built: OpenVINOManifest, tmp_path: Path) -> None:
    rebuild = "gocor build model.onnx -o model.xml --backend openvino"
    for path, was in ((built.path, built.xml_sha256), (built.weights, built.bin_sha256)):
        content = path.read_bytes()
        path.write_bytes(b"other")
        with pytest.raises(ModelError) as caught:
            built.check_file()
        came = hashlib.sha256(b"other").hexdigest()
        assert text_of(caught, tmp_path) == (
            f"{path.name}: is not the file that was built (SHA-256 {came[:12]}…, not {was[:12]}…); "
            f"copy it again or rebuild it: {rebuild}"
        )
        path.write_bytes(content)
    built.weights.unlink()
    with pytest.raises(ModelError) as caught:
        built.check_file()
    assert text_of(caught, tmp_path) == (
        f"model.bin: is missing, the weights of model.xml; copy it, too, or rebuild the model: {rebuild}"
    )


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_manifest(tmp_path / "model.xml")
    assert text_of(caught, tmp_path) == (
        "model.xml: has no manifest model.xml.json beside it; copy both files, or build the OpenVINO model "
        "again: gocor build"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": 2},
            "is an OpenVINO model manifest of format 2; this gocor reads format 1; build the OpenVINO model "
            "again",
        ),
        ({"backend": "tensorrt"}, "is a damaged OpenVINO model manifest (backend 'tensorrt')"),
        (
            {"inference_precision": "f16"},
            "is a damaged OpenVINO model manifest (inference_precision 'f16')",
        ),
        ({"bin_sha256": 5}, "is a damaged OpenVINO model manifest (bin_sha256 5)"),
    ],
)
def test_a_damaged_manifest_is_one_clear_line(
    built: OpenVINOManifest, change: dict[str, object], message: str
) -> None:
    path = manifest_path(built.path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError) as caught:
        read_manifest(built.path)
    assert text_of(caught, path.parent).startswith(f"model.xml.json: {message}")


def test_an_engines_manifest_is_none_of_openvino(built: OpenVINOManifest) -> None:
    engine = built.path.with_name("model.engine")
    manifest_path(built.path).rename(manifest_path(engine))
    with pytest.raises(ModelError, match=r"is a damaged engine manifest \(no 'engine_sha256'\)"):
        EngineManifest.of(engine)


@pytest.mark.parametrize("installed", ["2026.4.1", "2026.4.0", "2026.5.0", "2027.0"])
def test_the_same_and_newer_versions_read_it(installed: str) -> None:
    MANIFEST.check_runs_on(installed)


def test_an_older_version_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        dataclasses.replace(MANIFEST, inference_precision="bf16").check_runs_on("2025.4.1")
    assert str(caught.value) == (
        "model.xml: was built with OpenVINO 2026.4.1; 2025.4.1 is installed, which is older; update "
        "OpenVINO, or rebuild the model: gocor build model.onnx -o model.xml --backend openvino "
        "--inference-precision bf16"
    )
