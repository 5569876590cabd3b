import dataclasses
import logging
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openvino_models import save_xml
from toy_models import METADATA, metadata, save_toy

import gocor
from gocor.core.errors import GocorError
from gocor.core.files import write_text
from gocor.runtime import benchmark, openvino_session
from gocor.runtime.manifest import manifest_path
from gocor.runtime.metadata import TensorSpec
from gocor.runtime.openvino_manifest import OpenVINOManifest, weights_path
from gocor.runtime.openvino_session import Execution, OpenVINOEstimator, openvino_core

openvino = pytest.importorskip("openvino")
HAS_BF16 = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def pairs(count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    shape = (32, 64, 3) if count is None else (count, 32, 64, 3)
    return random.integers(0, 256, shape, np.uint8), random.integers(0, 256, shape, np.uint8)


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    return save_xml(tmp_path / "toy.xml")


def refusal(run: Callable[[], object]) -> str:
    with pytest.raises(GocorError) as caught:
        run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_built_model_gives_its_flow(xml: Path) -> None:
    reference, query = pairs()
    with gocor.load(xml) as estimator:
        flow = estimator(reference, query)
        assert estimator.metadata == METADATA
        assert estimator.provider == "openvino"
        assert estimator.placement["CPU"] > 3
        assert repr(estimator) == f"<OpenVINOEstimator PWCNet_GOCor 32x64 batch 1 on openvino, {xml}>"
    assert (flow.shape, flow.dtype) == ((2, 32, 64), np.float32)
    np.testing.assert_allclose(flow[0], reference.mean(), rtol=1e-6)
    np.testing.assert_allclose(flow[1], query.mean(), rtol=1e-6)


def test_every_output_by_name(tmp_path: Path) -> None:
    """Also those that are equal, which OpenVINO makes one."""
    described = metadata(io="tensors", height=64)
    inputs = {i.name: np.full(i.shape, 0.5, np.float32) for i in described.inputs}
    with gocor.load(save_xml(tmp_path / "toy.xml", described), "openvino") as estimator:
        outputs = estimator.run(inputs)
    assert tuple(outputs) == described.output_names
    assert (outputs["flow2"] == 0.5).all()
    assert not any(outputs[name].any() for name in ("flow6", "flow5", "flow4", "flow3"))


def test_it_says_how_it_runs(xml: Path) -> None:
    with OpenVINOEstimator(xml, threads=1) as estimator:
        assert estimator.execution == Execution("f32", 1, 1, {})
        assert estimator.streams == 1
        assert estimator.precision == "fp32"


def test_many_pairs_side_by_side(tmp_path: Path) -> None:
    reference, query = pairs(7)
    xml = save_xml(tmp_path / "toy.xml", metadata(batch=2))
    with OpenVINOEstimator(str(xml), threads=2, throughput=True) as estimator:
        assert estimator.streams == estimator.execution.streams >= 1
        flow = estimator(reference, query)
    for index in range(7):
        np.testing.assert_allclose(flow[index, 0], reference[index].mean(), rtol=1e-6)
        np.testing.assert_allclose(flow[index, 1], query[index].mean(), rtol=1e-6)


def test_a_batch_that_fails_side_by_side_is_heard_of(xml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Mapping[str, np.ndarray]:
        raise ValueError("in a thread")

    with OpenVINOEstimator(xml, threads=2, throughput=True) as estimator:
        estimator.streams = 2
        monkeypatch.setattr(estimator, "_run", fail)
        with pytest.raises(ValueError, match="in a thread"):
            estimator(*pairs(3))


def test_threads_share_an_estimator(xml: Path) -> None:
    work = [pairs(1 + number % 3) for number in range(24)]
    with gocor.load(xml) as estimator:
        alone = [estimator(*pair) for pair in work]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda pair: estimator(*pair), work))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_inputs_are_not_written_to_and_results_stay(xml: Path) -> None:
    reference, query = pairs()
    for image in (reference, query):
        image.setflags(write=False)
    with gocor.load(xml) as estimator:
        first = estimator(reference, query)
        kept = first.copy()
        estimator(query, reference)
    np.testing.assert_array_equal(first, kept)


def test_arrays_that_are_not_contiguous(xml: Path) -> None:
    reference, query = pairs()
    with gocor.load(xml) as estimator:
        flow = estimator(reference[::-1, ::-1], query.transpose(1, 0, 2).copy().transpose(1, 0, 2))
    np.testing.assert_allclose(flow[0], reference.mean(), rtol=1e-6)
    np.testing.assert_allclose(flow[1], query.mean(), rtol=1e-6)


def test_a_closed_estimator_says_so(xml: Path) -> None:
    with gocor.load(xml) as estimator:
        estimator(*pairs())
    assert refusal(lambda: estimator(*pairs())) == f"{xml}: was closed; load it again to go on"


def test_a_call_that_outlives_its_estimator_leaves_nothing(
    xml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Request:
        def infer(self, *_: object, **__: object) -> dict[str, np.ndarray]:
            estimator.close()
            return {"flow": np.zeros((1, 2, 32, 64), np.float32)}

    estimator = OpenVINOEstimator(xml)
    monkeypatch.setattr(estimator, "_idle", [Request()])
    assert not estimator(*pairs()).any()
    assert estimator._idle == []


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bfloat16")
def test_bf16_is_what_the_manifest_or_the_caller_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_session, "instruction_sets", lambda: ("avx512f", "avx512_bf16"))
    xml = save_xml(tmp_path / "toy.xml", inference_precision="bf16")
    with caplog.at_level(logging.WARNING, "gocor"), gocor.load(xml) as estimator:
        assert estimator.precision == "bf16"
    [record] = caplog.records
    assert record.getMessage() == (
        "toy.xml: this CPU has no AMX, without which bf16 was seen to take half as long again as f32"
    )
    with OpenVINOEstimator(xml, inference_precision="f32") as estimator:
        assert estimator.precision == "fp32"
    monkeypatch.setattr(openvino_session, "instruction_sets", lambda: ("avx512f", "amx_bf16"))
    caplog.clear()
    with OpenVINOEstimator(xml):
        assert not caplog.records


def test_a_cpu_without_bf16_is_no_cpu_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return ["FP32", "INT8"]

    xml = save_xml(tmp_path / "toy.xml", inference_precision="bf16")
    monkeypatch.setattr(openvino_session, "openvino_core", Core)
    assert refusal(lambda: gocor.load(xml)) == (
        f"--inference-precision: bf16 is not there on this CPU; f32: gocor build {xml.with_suffix('.onnx')} "
        f"-o {xml} --backend openvino"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inference_precision": "bf16"}, "in bf16; f32, which was asked for"),
        ({"convolutions": {"f32": 3, "bf16": 1}}, "in bf16; f32, which was asked for"),
        ({"convolutions": {"f32": 3, "u8": 2, "i8": 2}}, ""),
    ],
)
def test_what_runs_is_what_was_asked_for(
    xml: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    """OpenVINO's default on a CPU with AVX512-BF16 is bfloat16."""
    runs = dataclasses.replace(Execution("f32", 1, 1, {}), **changes)
    monkeypatch.setattr(openvino_session, "_execution", lambda *_: runs)
    if not message:
        gocor.load(xml).close()
        return
    assert refusal(lambda: gocor.load(xml)) == (f"--inference-precision: OpenVINO computes {xml} {message}")


def test_another_device_is_an_error(xml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Compiled:
        def get_runtime_model(self) -> Any:
            return types.SimpleNamespace(get_ops=list)

        def get_property(self, name: str) -> list[str]:
            assert name == "EXECUTION_DEVICES"
            return ["GPU.0"]

    monkeypatch.setattr(openvino_session, "_compile", lambda *_: Compiled())
    monkeypatch.setattr(openvino_session, "_execution", lambda *_: Execution("f32", 1, 1, {}))
    assert refusal(lambda: gocor.load(xml)) == f"provider: OpenVINO runs {xml} on GPU.0; the CPU"


def test_wrong_options(xml: Path) -> None:
    model = xml.with_suffix(".onnx")
    assert refusal(lambda: gocor.load(model, "openvino")) == (
        f"provider: 'openvino' runs OpenVINO's own files, and {model} is a model; "
        f"gocor build {model} -o model.xml --backend openvino"
    )
    assert refusal(lambda: gocor.load(xml, "cpu")) == (
        f"provider: 'cpu' does not run {xml}, which is a model for OpenVINO; openvino, or none"
    )
    assert refusal(lambda: gocor.load(xml, "gpu")) == "provider: unknown name 'gpu'; one of openvino"
    assert refusal(lambda: gocor.load(xml, threads=0)) == "threads: is 0; at least 1"
    assert refusal(lambda: OpenVINOEstimator(xml, inference_precision="f16")) == (  # type: ignore[arg-type]
        "--inference-precision: is 'f16'; f32 or bf16"
    )


def test_files_that_do_not_belong_together(xml: Path) -> None:
    weights = weights_path(xml)
    content = weights.read_bytes()
    weights.write_bytes(content + b"\0")
    assert refusal(lambda: gocor.load(xml)).startswith(f"{weights}: is not the file that was built (SHA-256 ")
    weights.unlink()
    assert refusal(lambda: gocor.load(xml)).startswith(f"{weights}: is missing, the weights of {xml}; ")
    weights.write_bytes(content)
    manifest_path(xml).unlink()
    assert "has no manifest toy.xml.json beside it" in refusal(lambda: gocor.load(xml))


def rewrite(xml: Path, **changes: object) -> None:
    manifest = dataclasses.replace(OpenVINOManifest.of(xml), **changes)  # type: ignore[arg-type]
    write_text(manifest_path(xml), manifest.to_json())


def test_a_graph_that_is_none(xml: Path) -> None:
    import hashlib

    xml.write_bytes(b"<net>no graph</net>")
    rewrite(xml, xml_sha256=hashlib.sha256(xml.read_bytes()).hexdigest())
    text = refusal(lambda: gocor.load(xml))
    assert text.startswith(f"{xml}: cannot be loaded by OpenVINO (")
    assert text.endswith(f"; rebuild it: gocor build {xml.with_suffix('.onnx')} -o {xml} --backend openvino")
    assert ".cpp" not in text


def test_a_graph_that_is_not_what_its_manifest_says(xml: Path) -> None:
    rewrite(xml, outputs=(TensorSpec("flow", "float32", (1, 2, 64, 64)),))
    assert refusal(lambda: gocor.load(xml)).startswith(
        f"{xml}: has other outputs than its manifest says (flow float32 (1, 2, 64, 64)); rebuild it: "
        "gocor build "
    )


def test_a_newer_model_is_refused(xml: Path) -> None:
    rewrite(xml, library_version="2999.1.0")
    assert "was built with OpenVINO 2999.1.0; 20" in refusal(lambda: gocor.load(xml))


def test_a_failing_model_names_its_file(xml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Request:
        def infer(self, *_: object, **__: object) -> None:
            raise RuntimeError(
                "Exception from src/inference.cpp:74:\nException from src/x.cpp:1:\nout of memory"
            )

    with OpenVINOEstimator(xml) as estimator:
        monkeypatch.setattr(estimator, "_idle", [Request()])
        assert refusal(lambda: estimator(*pairs())) == (
            f"{xml}: failed in OpenVINO (out of memory); see gocor doctor"
        )


def test_ctrl_c_after_estimators_have_come_and_gone(xml: Path) -> None:
    script = """if True:
        import gc, signal, sys, threading, gocor
        first, second = (gocor.load(sys.argv[1]) for _ in range(2))
        first.close()
        del first
        there = [second]
        del second
        thread = threading.Thread(target=there.clear)
        thread.start()
        thread.join()
        gc.collect()
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs of a background
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            print("in order")
    """
    command = [sys.executable, "-X", "faulthandler", "-c", script, str(xml)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "in order\n"


def test_without_openvino_it_says_which_extra_brings_it(xml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    text = refusal(lambda: gocor.load(xml))
    assert text.startswith("openvino: cannot be imported (")
    assert text.endswith('; pip install "gocor-deploy[openvino]"')
    for version, said in (("2023.3.0-1-abc", "2023.3.0"), ("", "what is installed")):
        monkeypatch.setitem(sys.modules, "openvino", types.SimpleNamespace(__version__=version))
        assert refusal(lambda: gocor.load(xml)) == (
            f'openvino: {said} is too old; 2025.4 or later is needed: pip install "gocor-deploy[openvino]"'
        )


def test_both_modes_in_one_benchmark(xml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "peak_memory_mib", lambda *_: None)
    models = [xml.with_suffix(".onnx"), xml]
    report = benchmark.benchmark_models(models, rounds=2, warmup=0, threads=2, throughput=True)
    names = ["toy.onnx · cpu", "toy.xml · openvino", "toy.xml · openvino, throughput"]
    assert [result.name for result in report.results] == names
    facts = [result.facts for result in report.results]
    assert [fact["provider"] for fact in facts] == ["cpu", "openvino", "openvino"]
    assert {fact["threads"] for fact in facts} == {2}
    assert [result.pairs for result in report.results] == [1, 1, facts[2]["streams"]]
    assert refusal(lambda: benchmark.benchmark_models([models[0]], throughput=True)) == (
        "--throughput: is for .xml files, and there is none; gocor build --backend openvino"
    )


def test_memory_is_measured_in_another_process(xml: Path) -> None:
    run = benchmark._Run(xml, None, 1, throughput=True)
    assert (benchmark.peak_memory_mib(benchmark._load_and_run, run) or 99) > 20


def test_a_toy_of_onnx_runs_nowhere_else(tmp_path: Path) -> None:
    renamed = save_toy(tmp_path / "toy.onnx").rename(tmp_path / "toy.xml")
    assert "has no manifest toy.xml.json beside it" in refusal(lambda: gocor.load(renamed))
