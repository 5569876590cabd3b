"""Ten thousand estimates, in a row and by eight threads at once: memory stays, and every flow is the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_gpu
import numpy as np
import pytest
from fake_gpu import Gpu, save_engine
from load import PAIRS, load
from toy_models import METADATA

from gocor.runtime.tensorrt_session import TensorRTEstimator

pytest.importorskip("onnxruntime")
COUNT = 10_000
WARM_UP, GROWTH = 0.2, 0.02  # shares of the estimates, and of the memory


def check(report: dict[str, Any]) -> None:
    """Holds what ``load`` found against what is promised."""
    assert report["different"] == 0
    assert report["distinct"] == PAIRS  # or equal flows would say nothing
    warm = report["memory"][int(len(report["memory"]) * WARM_UP) :]
    assert len(warm) >= 50
    assert max(warm) <= min(warm) * (1 + GROWTH), warm


def run(model: Path, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "load", str(model), "--count", str(COUNT), "--threads", str(threads)]
    path = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | path)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_many_estimates(library: str, threads: int, exported: Any, tmp_path: Path) -> None:
    """PWC-Net-GOCor at 64×64."""
    model = exported.model
    if library == "openvino":
        pytest.importorskip("openvino")
        from gocor.export.openvino import build_openvino

        model = build_openvino(exported.model, tmp_path / "model.xml").path
    check(run(model, threads))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 8])
def test_many_estimates_with_an_engine(threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the fake GPU, whose engine is a toy: what is worn down are our own lanes, buffers and graphs."""
    gpu = Gpu(devices=1)
    fake_gpu.install(monkeypatch, gpu)
    gpu.log = _Nothing()
    height, width = METADATA.size
    with TensorRTEstimator(save_engine(tmp_path / "toy.engine")) as estimator:

        def estimate(reference: np.ndarray, query: np.ndarray) -> np.ndarray:
            return estimator(reference[:height, :width], query[:height, :width])

        check(load(estimate, COUNT, threads))
    assert gpu.violations == []


class _Nothing(list[str]):
    """A log that keeps nothing: the fake's own would grow."""

    def append(self, _: object) -> None:
        """Forgets it."""
