"""8-bit models in OpenVINO: in 8 bits, and as good as in ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gocor
from gocor.calibration.calibrate import CalibrationConfig, calibrate
from gocor.runtime.sample_pair import sample_pair

for _package in ("onnxruntime", "openvino"):
    pytest.importorskip(_package)


@pytest.fixture(scope="module")
def int8(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PWC-Net-GOCor for images of 64x64 with 8-bit convolutions."""
    path = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    return calibrate(exported.model, path, config=CalibrationConfig(synthetic=4, threads=1)).path


def test_it_computes_in_8_bits_what_onnxruntime_does(int8: Path, exported: Any) -> None:
    """OpenVINO's passes for 8 bits move factors through the whole graph, GOCor included."""
    from gocor.export.openvino import build_openvino
    from gocor.runtime.openvino_session import OpenVINOEstimator

    report = build_openvino(int8, int8.with_suffix(".xml"))
    reference, query, _ = sample_pair(64, 64)
    with gocor.load(exported.model) as full, gocor.load(int8) as expected:
        truth, flow = full(reference, query), expected(reference, query)
    with OpenVINOEstimator(report.path, threads=1) as estimator:
        came = estimator(reference, query)
        eights = sum(n for name, n in estimator.execution.convolutions.items() if name in ("u8", "i8"))
    assert eights >= 40
    assert report.bytes < 0.4 * exported.model.stat().st_size
    off, own = (np.hypot(*(f - truth)).mean() for f in (flow, came))
    assert own < 1.5 * off
    assert np.hypot(*(came - flow)).mean() < off
