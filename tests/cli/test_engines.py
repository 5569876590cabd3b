"""Commands given an engine, on the fake GPU of ``fake_gpu``."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_gpu
import numpy as np
import pytest
from fake_gpu import Gpu, engine_of, save_engine

from gocor.core.files import write_text
from gocor.runtime import benchmark
from gocor.runtime.images import save_image
from gocor.runtime.manifest import manifest_path
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.sample_pair import sample_pair

for _package in ("torch", "onnxruntime", "polygraphy"):
    pytest.importorskip(_package)
Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    gpu = Gpu()
    fake_gpu.install(monkeypatch, gpu)
    yield gpu
    assert gpu.violations == []


@pytest.fixture
def engine(exported: Any, gpu: Gpu, tmp_path: Path) -> Path:
    """Of the exported model, which lies beside it."""
    import onnx

    model = Path(shutil.copy(exported.model, tmp_path / "model.onnx"))
    properties = {p.key: p.value for p in onnx.load(model).metadata_props}
    return engine_of(model, tmp_path / "model.engine", ModelMetadata.from_properties(properties, model))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    reference, query, _ = sample_pair(64, 64)
    save_image(tmp_path / "reference.png", reference)
    save_image(tmp_path / "query.png", query)
    return tmp_path / "reference.png", tmp_path / "query.png"


def test_verify_compares_every_step(exported: Any, invoke: Invoke, engine: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, out, err = invoke("verify", engine, exported.checkpoint, "--json", report)
    assert (code, err) == (0, f"written: {report}\n")
    titles = [line.strip() for line in out.splitlines() if "↔" in line]
    assert titles == ["PyTorch ↔ ONNX Runtime: px", "ONNX Runtime ↔ engine: px", "PyTorch ↔ engine: px"]
    assert f"built from  {engine.with_name('model.onnx')}" in out
    assert "PASSED on 1 pair; " in out
    written = json.loads(report.read_text())
    assert written["provider"] == "tensorrt"
    assert written["onnx"] == str(engine.with_name("model.onnx"))
    assert [stage["name"] for stage in written["stages"]] == [
        "PyTorch ↔ ONNX Runtime",
        "ONNX Runtime ↔ engine",
    ]
    aepe = [stage["worst"][0]["output"]["aepe"] for stage in written["stages"]]
    assert 0 < aepe[0] < 1e-3
    assert aepe[1] == 0  # the fake engine is ONNX Runtime
    assert written["worst"][0]["output"]["aepe"] == aepe[0]


def test_verify_tells_which_step_went_wrong(
    exported: Any, invoke: Invoke, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = fake_gpu.ICudaEngine.infer

    def off(self: Any, feed: Any) -> Any:
        return {name: values + np.float32(0.01) for name, values in infer(self, feed).items()}

    monkeypatch.setattr(fake_gpu.ICudaEngine, "infer", off)
    # The threads are for the ONNX model.
    code, out, err = invoke("verify", engine, exported.checkpoint, "--threads", 1)
    assert code == 1
    assert "FAILED on 1 pair" in out
    lines = err.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "ONNX Runtime ↔ engine, flow, built-in 0", "PyTorch ↔ engine, flow, built-in 0",
    ]  # fmt: skip
    assert all("AEPE 0.0141 px, 0.005 allowed" in line for line in lines)


def test_verify_needs_the_model_of_the_engine(
    exported: Any, invoke: Invoke, engine: Path, tmp_path: Path
) -> None:
    model = engine.with_name("model.onnx")
    moved = model.rename(tmp_path / "elsewhere.onnx")
    code, _, err = invoke("verify", engine, exported.checkpoint)
    assert (code, err) == (
        2, f"error: {model}: is missing, the model that {engine} was built from; give it with --onnx\n",
    )  # fmt: skip
    code, out, _ = invoke("verify", engine, exported.checkpoint, "--onnx", moved)
    assert code == 0
    assert f"built from  {moved}" in out
    moved.write_bytes(moved.read_bytes() + b"\0")
    code, _, err = invoke("verify", engine, exported.checkpoint, "--onnx", moved)
    assert code == 2
    assert err.startswith(f"error: {moved}: is not the model that {engine} was built from (SHA-256 ")
    assert f"give that with --onnx, or rebuild the engine: gocor build {model} -o {engine}" in err
    code, _, err = invoke("verify", engine, exported.checkpoint, "--onnx", tmp_path / "absent.onnx")
    assert (code, err.count("no such file")) == (2, 1)
    code, _, err = invoke("verify", exported.model, exported.checkpoint, "--onnx", moved)
    assert (code, err) == (
        2,
        f"error: --onnx: is for engines, and {exported.model} is a model; leave it out\n",
    )


def test_verify_of_another_checkpoint(invoke: Invoke, engine: Path, tmp_path: Path) -> None:
    import torch

    from gocor.export.checkpoint import seeded_network

    torch.save(seeded_network("PWCNet_GOCor", seed=1).state_dict(), tmp_path / "other.pth")
    code, _, err = invoke("verify", engine, tmp_path / "other.pth")
    assert code == 2
    assert err.startswith(f"error: {engine}: was made from weights ")


def test_run(invoke: Invoke, engine: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    code, out, _ = invoke("run", engine, *pair, "-o", tmp_path / "out", "--format", "npy")
    assert code == 0
    assert "ms per pair on tensorrt" in out
    code, out, _ = invoke(
        "run", engine.with_name("model.onnx"), *pair, "-o", tmp_path / "cpu", "--format", "npy"
    )
    assert "ms per pair on cpu" in out
    np.testing.assert_array_equal(np.load(tmp_path / "out/flow.npy"), np.load(tmp_path / "cpu/flow.npy"))
    code, _, err = invoke("run", engine, *pair, "-o", tmp_path / "out", "--provider", "cuda")
    assert code == 2
    assert err.startswith(f"error: provider: 'cuda' does not run {engine}, which is an engine for tensorrt;")


def test_bench(invoke: Invoke, gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "peak_memory_mib", lambda *_: None)  # in a process without the fakes
    engine = save_engine(tmp_path / "toy.engine")
    report = tmp_path / "bench.json"
    code, out, _ = invoke(
        "bench",
        engine,
        tmp_path / "toy.onnx",
        "--provider",
        "cpu",
        "--rounds",
        2,
        "--warmup",
        0,
        "--threads",
        1,
        "--json",
        report,
    )
    assert code == 0
    results = json.loads(report.read_text())["results"]
    assert [r["name"] for r in results] == ["toy.engine · tensorrt", "toy.onnx · cpu"]
    assert [r["facts"]["provider"] for r in results] == ["tensorrt", "cpu"]
    assert [r["facts"]["threads"] for r in results] == [None, 1]
    assert "toy.engine · tensorrt" in out
    assert invoke("bench", engine, "--threads", 2)[2] == (
        "error: threads: are those of the CPU, and every model is an engine; leave them out\n"
    )


def test_eval(invoke: Invoke, gpu: Gpu, tmp_path: Path) -> None:
    engine = save_engine(tmp_path / "toy.engine")
    code, out, err = invoke(
        "eval", tmp_path / "toy.onnx", engine, "--provider", "cpu", "--threads", 1,
        "--dataset", "synthetic", "--limit", 1,
    )  # fmt: skip
    assert code == 0, err
    assert "32x64 · cpu" in out
    assert "32x64 · tensorrt" in out


def test_an_engine_that_does_not_belong_here_is_one_line(
    invoke: Invoke, gpu: Gpu, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    engine = save_engine(tmp_path / "toy.engine", targets=("sm_89",))
    commands: tuple[tuple[object, ...], ...] = (
        ("run", engine, *pair, "-o", tmp_path / "out"),
        ("bench", engine),
        ("verify", engine, "their.pth"),
    )
    for command in commands:
        code, out, err = invoke(*command)
        assert (code, out) == (2, "")
        assert err.startswith(
            f"error: {engine}: was built for sm_89 (NVIDIA H100); this GPU is sm_90; rebuild"
        )
        assert len(err.splitlines()) == 1
    write_text(manifest_path(engine), "{}")
    code, _, err = invoke("run", engine, *pair, "-o", tmp_path / "out")
    assert code == 2
    assert "is an engine manifest of format none" in err
