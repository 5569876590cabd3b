"""Commands given a model of OpenVINO."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gocor.core.files import sha256
from gocor.runtime import benchmark
from gocor.runtime.images import save_image
from gocor.runtime.manifest import manifest_path
from gocor.runtime.sample_pair import sample_pair

for _package in ("torch", "onnxruntime", "polygraphy", "openvino"):
    pytest.importorskip(_package)
Invoke = Callable[..., tuple[int, str, str]]
OPENVINO = ("--backend", "openvino")


@pytest.fixture(scope="module")
def built(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PWC-Net-GOCor for images of 64x64, built for OpenVINO; a link to the model lies beside it."""
    from gocor.export.openvino import build_openvino

    folder = tmp_path_factory.mktemp("openvino")
    (folder / "model.onnx").symlink_to(exported.model)
    return build_openvino(folder / "model.onnx", folder / "model.xml").path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    reference, query, _ = sample_pair(64, 64)
    save_image(tmp_path / "reference.png", reference)
    save_image(tmp_path / "query.png", query)
    return tmp_path / "reference.png", tmp_path / "query.png"


def facts(out: str) -> dict[str, str]:
    return dict(re.findall(r"^(\S.*?) {2,}(\S.*?) *$", out, re.MULTILINE))


def test_build_says_what_was_built(exported: Any, invoke: Invoke, tmp_path: Path) -> None:
    xml = tmp_path / "model.xml"
    code, out, err = invoke("build", exported.model, "-o", xml, *OPENVINO)
    assert (code, err) == (0, "")
    said = facts(out)
    assert said["model"] == str(xml)
    assert said["network"] == "PWCNet_GOCor"
    assert said["library"].startswith("OpenVINO 20")
    assert said["computes in"] == "f32"
    assert said["outputs"] == "flow float32 (1, 2, 64, 64)"
    assert re.match(r"[\d,]+, every size known: ", said["operators"])
    code, out, _ = invoke(
        "build", exported.model, "-o", xml, *OPENVINO, "--inference-precision", "bf16", "--json"
    )
    report = json.loads(out)
    assert code == 0
    assert report["manifest"]["inference_precision"] == "bf16"
    assert report["operators"]["Convolution"] > 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*OPENVINO, "--tf32"), "--tf32: is for engines, and not there in OpenVINO; leave it out"),
        ((*OPENVINO, "--workspace", "1GiB"), "--workspace: is for engines, and not there in OpenVINO"),
        ((*OPENVINO, "--compute-capability", "89"), "--compute-capability: is for engines, and not there"),
        ((*OPENVINO, "--inference-precision", "f16"), "--inference-precision: is 'f16'; f32 or bf16"),
        (
            ("--inference-precision", "f32"),
            "--inference-precision: is for OpenVINO, and an engine computes in the precision of its model; "
            "gocor export --precision",
        ),
    ],
)
def test_bad_options_are_one_line(
    exported: Any, tmp_path: Path, invoke: Invoke, options: tuple[str, ...], message: str
) -> None:
    code, out, err = invoke("build", exported.model, "-o", tmp_path / "m.xml", *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_verify_compares_every_step(exported: Any, invoke: Invoke, built: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, out, err = invoke("verify", built, exported.checkpoint, "--threads", 1, "--json", report)
    assert (code, err) == (0, f"written: {report}\n")
    titles = [line.strip() for line in out.splitlines() if "↔" in line]
    assert titles == [
        "PyTorch ↔ ONNX Runtime: px", "ONNX Runtime ↔ OpenVINO: px", "PyTorch ↔ OpenVINO: px",
    ]  # fmt: skip
    assert f"built from  {built.with_name('model.onnx')}" in out
    written = json.loads(report.read_text())
    assert (written["provider"], written["precision"]) == ("openvino", "fp32")
    assert written["model_sha256"] == sha256(manifest_path(built)), "the graph says little of weights"
    # OpenVINO's own default on this kind of machine, bfloat16, is off by a thousand times as much.
    assert written["worst"][0]["output"]["relative_l2"] < 1e-4


def test_verify_allows_what_the_precision_does(
    exported: Any, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gocor.runtime.openvino_session import openvino_core

    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    xml, report = tmp_path / "model.xml", tmp_path / "report.json"
    (tmp_path / "model.onnx").symlink_to(exported.model)
    invoke("build", tmp_path / "model.onnx", "-o", xml, *OPENVINO, "--inference-precision", "bf16")
    _, out, _ = invoke("verify", xml, exported.checkpoint, "--json", report)
    written = json.loads(report.read_text())
    assert written["tolerance"]["aepe"] == 0.16
    assert written["precision"] == "bf16"
    assert facts(out)["precision"] == "fp32, computed in bf16"
    assert written["worst"][0]["output"]["relative_l2"] > 1e-4


def test_verify_needs_the_model(exported: Any, invoke: Invoke, built: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(exported.model.read_bytes() + b"\0")
    code, _, err = invoke("verify", built, exported.checkpoint, "--onnx", other)
    assert code == 2
    assert err.startswith(f"error: {other}: is not the model that {built} was built from (SHA-256 ")
    assert "or rebuild the OpenVINO model: gocor build " in err
    code, _, err = invoke("verify", built, exported.checkpoint, "--oracle")
    assert (code, err) == (2, f"error: --oracle: is for .onnx models, and {built} is none; leave it out\n")


def test_run(invoke: Invoke, built: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    code, out, _ = invoke("run", built, *pair, "-o", tmp_path / "out", "--format", "npy")
    assert code == 0
    assert "ms per pair on openvino" in out
    invoke("run", built.with_name("model.onnx"), *pair, "-o", tmp_path / "cpu", "--format", "npy")
    flow, expected = (np.load(tmp_path / folder / "flow.npy") for folder in ("out", "cpu"))
    assert 0 < np.linalg.norm(flow - expected) < 1e-4 * np.linalg.norm(expected)
    code, _, err = invoke("run", built, *pair, "-o", tmp_path / "out", "--provider", "cuda")
    assert (code, err) == (
        2,
        f"error: provider: 'cuda' does not run {built}, which is a model for OpenVINO; openvino, or none\n",
    )


def test_bench(invoke: Invoke, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "peak_memory_mib", lambda *_: None)  # seconds
    report = tmp_path / "bench.json"
    code, _, _ = invoke(
        "bench", built.with_name("model.onnx"), built, "--throughput", "--threads", 2,
        "--rounds", 2, "--warmup", 0, "--json", report,
    )  # fmt: skip
    assert code == 0
    names = [result["name"] for result in json.loads(report.read_text())["results"]]
    assert names == ["model.onnx · cpu", "model.xml · openvino", "model.xml · openvino, throughput"]


def test_eval(invoke: Invoke, built: Path, exported: Any) -> None:
    model = built.with_name("model.onnx")
    code, out, err = invoke(
        "eval", model, built, "--provider", "cpu", "--threads", 1, "--dataset", "synthetic", "--limit", 1
    )
    assert code == 0, err
    assert "64x64 · openvino" in out
    code, _, err = invoke("eval", model, "--provider", "openvino")
    assert err.startswith(
        f"error: provider: 'openvino' runs OpenVINO's own files, and {model} is a model; gocor"
    )
    code, _, err = invoke("eval", exported.checkpoint, "--provider", "openvino")
    assert err == "error: provider: 'openvino' does not run checkpoints; cpu or cuda\n"


def test_inspect(invoke: Invoke, built: Path) -> None:
    code, out, _ = invoke("inspect", built)
    said = facts(out)
    assert code == 0
    assert re.fullmatch(r"model for OpenVINO [\d.]+ or later, built by gocor [\d.]+", said["kind"])
    assert said["computes in"] == "f32"
    assert said["model"] == "model.onnx"
    assert len(said["SHA-256 of the weights' file"]) == 64
    code, out, _ = invoke("inspect", built, "--json")
    assert json.loads(out)["backend"] == "openvino"


def test_calibrate_wants_the_onnx_model(invoke: Invoke, built: Path, tmp_path: Path) -> None:
    code, _, err = invoke("calibrate", built, "-o", tmp_path / "m.onnx", "--synthetic", 2)
    assert code == 2
    assert err.startswith(f"error: {built}: ")
    assert err.count("\n") == 1


def test_doctor_tries_it(invoke: Invoke) -> None:
    from gocor.runtime import doctor

    assert doctor.probe_openvino() == {"openvino": ""}
