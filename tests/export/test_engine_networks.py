"""NVIDIA's real parser and builder take every graph that we export: small ones, slowly those of real size."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from engine_models import build_apart, try_apart
from onnx import TensorProto
from operator_models import Call, first_shape, model_of

from gocor.export.checkpoint import seeded_network
from gocor.export.onnx_export import export_onnx
from gocor.plugins.registry import CORRELATIONS
from gocor.runtime.manifest import EngineManifest
from gocor.runtime.metadata import Io
from gocor.runtime.spec import SPECS

pytest.importorskip("tensorrt_rtx", reason='pip install "gocor-deploy[rtx]"')

# The smallest sizes that the networks work at; PWC-Net also in a batch, and of a size that has to be resized.
SMALL = {
    "PWCNet": {"height": 60, "width": 128, "batch": 2},
    "GLUNet": {"height": 256, "width": 250},
    "GLUNet_GOCor": {"height": 256, "width": 256},
}
# Sizes of the data sets that the networks are evaluated on.
REAL = {"pwcnet": ((384, 512), (448, 1024)), "glunet": ((480, 640),)}
TARGETS = ("sm_89", "sm_120")


def check(report: dict[str, Any], target: str) -> None:
    """No warning, our operators in function bodies, and a manifest that fits."""
    assert report["warnings"] == []
    log = Path(report["log"]).read_text()
    assert "clamp" not in log.lower()
    assert "unsupported" not in log.lower()
    manifest = EngineManifest.of(report["path"])
    manifest.check_file()
    assert manifest.targets == (target,)
    assert manifest.plugins == "none"
    spec = manifest.metadata.spec
    (operator,) = report["operators"]
    assert operator == ("LocalGOCor" if spec.local_gocor else "LocalCorrelation")
    assert report["operators"][operator] >= 3
    assert report["network"]["grid_sample float32"] >= 3
    assert not [kind for kind in report["network"] if "float64" in kind]


@pytest.mark.parametrize("name", SMALL)
def test_a_small_model_of_the_network_is_built(name: str, tmp_path: Path) -> None:
    exported = export_onnx(seeded_network(name, iterations=1), tmp_path / f"{name}.onnx", **SMALL[name])  # type: ignore[arg-type]
    report = build_apart(exported.path, tmp_path / "m.engine", "--compute-capability", "sm_89")
    check(report, "sm_89")


def test_the_model_of_the_other_tests_is_built(exported: Any, tmp_path: Path) -> None:
    """PWC-Net-GOCor; TF32 is a flag of the builder's that only this test sets on a real network."""
    report = build_apart(exported.model, tmp_path / "m.engine", "--compute-capability", "sm_120", "--tf32")
    check(report, "sm_120")
    assert report["manifest"]["tf32"]


def test_turing_is_refused_with_the_librarys_reason(exported: Any, tmp_path: Path) -> None:
    done = try_apart(exported.model, tmp_path / "m.engine", "--compute-capability", "sm_75")
    assert done.returncode == 2
    assert "FP32 GEMM is not supported" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "m.engine").exists()


@pytest.mark.parametrize("element", ["FLOAT", "FLOAT16"])
def test_each_function_body_is_built_alone(element: str, tmp_path: Path) -> None:
    files = []
    for operator in CORRELATIONS:
        for radius, shape in ((4, (1, 32, 24, 20)), (2, (2, 3, 7, 9))):
            call = Call(operator, radius, first_shape(operator, shape, radius), shape)
            files.append(tmp_path / f"{operator}_r{radius}.onnx")
            onnx.save(model_of([call], getattr(TensorProto, element)), files[-1])
    program = Path(__file__).parents[1] / "rtx_build.py"
    command = [sys.executable, "-X", "faulthandler", program, "sm_89", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for file, outcome in json.loads(done.stdout).items():
        assert "error" not in outcome, (file, outcome)
        assert outcome["warnings"] == []
        assert outcome["layers"][f"matrix_multiply {'float32' if element == 'FLOAT' else 'float16'}"] == 1


def cases() -> list[tuple[str, Io, int, int]]:
    """Network, form and size of every model in the matrix."""
    return [
        (name, io, *size)
        for name, spec in SPECS.items()
        for io in ("images", "tensors")
        for size in REAL[spec.family]
    ]  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "io", "height", "width"), cases())
def test_the_whole_matrix(
    name: str, io: Io, height: int, width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "m.onnx"
    export_onnx(seeded_network(name), model, height=height, width=width, io=io)
    for target in TARGETS:
        report = build_apart(model, tmp_path / f"{target}.engine", "--compute-capability", target)
        check(report, target)
        seconds = f"{report['parse_seconds']:.1f} s to parse, {report['build_seconds']:.1f} s to build"
        size = f"{sum(report['network'].values()):,} layers, {report['bytes'] / 1e6:.1f} MB"
        with capsys.disabled():
            print(f"\n{name:12} {io:7} {height}x{width:<4} {target:6} {seconds}, {size}", end="")
