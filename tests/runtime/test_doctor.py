import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import fake_gpu
import pytest

from gocor.runtime import doctor, environment
from gocor.runtime.environment import Package


def test_the_tiny_model_is_what_it_says() -> None:
    parser = pytest.importorskip("onnx.parser")
    text = '<ir_version: 9, opset_import: ["" : 19]> tiny (float[1] x) => (float[1] y) { y = Identity(x) }'
    assert parser.parse_model(text).SerializeToString() == doctor.TINY_MODEL


def test_the_providers_are_really_tried() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    hints = doctor.probe_providers()
    assert list(hints) == ["cpu", "cuda", "tensorrt"]
    assert hints["cpu"] == ""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert 'pip install "gocor-deploy[gpu]"' in hints["cuda"]


def test_files_of_the_user_do_not_pass_for_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "json.py").write_text("raise SystemExit('not the real one')")
    monkeypatch.chdir(tmp_path)
    assert doctor.probe_providers()["cpu"] == ""
    assert [path.name for path in tmp_path.iterdir()] == ["json.py"]


def test_without_onnxruntime_it_says_which_extra_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libfoo.so is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    hint = 'cannot be imported (libfoo.so is broken); pip install "gocor-deploy[cpu]" (or [gpu])'
    assert set(doctor.probe_providers().values()) == {hint}


def answer(monkeypatch: pytest.MonkeyPatch, output: str, errors: str, code: int = 0) -> None:
    done = subprocess.CompletedProcess([], code, output, errors)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: done)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hints = {"cpu": "", "cuda": "did not start", "tensorrt": "did not start"}
    log = "[E:onnxruntime] Failed to load: libcudnn.so.9: cannot open shared object file: No such file"
    answer(monkeypatch, json.dumps(hints), log)
    found = doctor.probe_providers()
    assert found["cpu"] == ""
    assert found["cuda"] == "did not start (libcudnn.so.9: cannot open shared object file)"


def test_an_onnxruntime_that_takes_the_process_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "", "one\nSegmentation fault\n", -11)
    hint = "ONNX Runtime fails here (exit code -11: Segmentation fault)"
    assert doctor.probe_providers() == dict.fromkeys(("cpu", "cuda", "tensorrt"), hint)


def test_an_onnxruntime_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", 180)

    monkeypatch.setattr(doctor.subprocess, "run", hang)
    assert doctor.probe_providers()["cuda"] == "ONNX Runtime did not answer within 180 s"


def test_engines_are_really_tried() -> None:
    pytest.importorskip("tensorrt_rtx")
    hints = doctor.probe_engines()
    assert list(hints) == list(doctor.ENGINE_WORK)
    assert hints["build TensorRT-RTX engines"] == ""
    if not environment.gpus():
        assert hints["run TensorRT-RTX engines"].startswith("GPU: no")


def test_what_engines_need(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = fake_gpu.Gpu()
    fake_gpu.install(monkeypatch, gpu)
    works, build, run = doctor.ENGINE_WORK

    def hints() -> dict[str, str]:
        doctor.print_engine_probe()
        return json.loads(capsys.readouterr().out)

    assert hints() == {works: "", build: "", run: ""}
    gpu.devices = 0
    missing = (
        "GPU: none can be used (no CUDA-capable device is detected); nvidia-smi shows what the driver sees"
    )
    assert hints() == {works: missing, build: "", run: missing}
    gpu.devices = 1
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "10.3.0")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    found = hints()
    assert found[works].startswith("TensorRT: 10.3.0 is too old; ")
    assert found[build].endswith('; pip install "gocor-deploy[rtx]"')

    def refuse(*_: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    fake_gpu.install(monkeypatch, gpu)
    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", refuse)
    assert hints()[works].startswith("TensorRT does not start (it does not say why); ")


def test_a_tensorrt_that_takes_the_process_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "", "terminate called\nAborted\n", -6)
    hint = "TensorRT fails here (exit code -6: Aborted)"
    assert doctor.probe_engines() == dict.fromkeys(doctor.ENGINE_WORK, hint)


def test_what_to_install_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Package("export", "torch>=2.9", "torch 2.5", False),
        Package("export", "onnx>=1.19", "onnx 1.23", True),
        Package("verify", "polygraphy>=0.49", "", False),
        Package("plot", "matplotlib>=3.8", "matplotlib 3.11", True),
        Package("ray", "ray>=2.49", "", False),
    ]
    monkeypatch.setattr(doctor, "packages", lambda: found)
    monkeypatch.setattr(doctor, "probe_providers", lambda: {"cpu": "", "cuda": "no GPU"})
    monkeypatch.setattr(doctor, "probe_openvino", lambda: {"openvino": "no OpenVINO"})
    monkeypatch.setattr(doctor, "probe_engines", lambda: {"run engines": "no TensorRT"})
    here = dataclasses.replace(doctor.machine(), instruction_sets=("avx512_vnni", "avx512_bf16"))
    monkeypatch.setattr(doctor, "machine", lambda: here)
    report = doctor.examine()
    assert {c.name: c.hint for c in report.capabilities} == {
        "export": 'torch 2.5 is not torch>=2.9; pip install "gocor-deploy[export]"',
        "run on cpu": "",
        "run on cuda": "no GPU",
        "run on openvino": "no OpenVINO",
        "int8 faster on the CPU": "",
        "bf16 faster on the CPU": "the CPU lacks AMX (on Arm: BF16)",
        "run engines": "no TensorRT",
        "verify": "torch 2.5 is not torch>=2.9, polygraphy>=0.49 is missing; "
        'pip install "gocor-deploy[verify,export]"',
        "video files": "",
        "bench --plot": "",
        "lists and batches in Parquet": "",
        "batch --ray": 'ray>=2.49 is missing; pip install "gocor-deploy[ray]"',
    }
    assert all(c.works == (not c.hint) for c in report.capabilities)


def test_two_onnxruntimes_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "1.0" if "onnxruntime" in name else "")
    monkeypatch.setattr(doctor, "probe_providers", dict)
    monkeypatch.setattr(doctor, "probe_engines", dict)
    [note] = doctor.examine().notes
    assert note.startswith("onnxruntime and onnxruntime-gpu are both installed")


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gocor.runtime import doctor; doctor.probe_providers = dict; doctor.examine();"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'cv2', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_of_what_is_not_there_is_empty() -> None:
    assert environment.version("no-such-distribution-anywhere") == ""
