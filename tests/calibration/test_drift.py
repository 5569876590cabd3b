import dataclasses
import logging
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from toy_models import METADATA, save_toy

from gocor.calibration.drift import Drift, DriftMeter
from gocor.calibration.pairs import CalibrationPairs
from gocor.core.errors import ModelError
from gocor.runtime.pairs import Pair
from gocor.runtime.session import load

pytest.importorskip("onnxruntime")


def pairs_of(*greys: int, side: int = 32) -> tuple[CalibrationPairs, list[str]]:
    """Grey pairs, and the names of those that were loaded, once for each time."""
    loaded: list[str] = []

    def pair(grey: int) -> Pair:
        def load_images() -> tuple[np.ndarray, np.ndarray]:
            loaded.append(str(grey))
            return (np.full((side, 2 * side, 3), grey, np.uint8),) * 2

        return Pair(str(grey), (), None, load_images)

    return CalibrationPairs(lambda: iter(()), 0, tuple(map(pair, greys)), apart=False), loaded


def scaled(path: Path, factor: float) -> onnx.ModelProto:
    """A toy model whose flow is so many times as long."""
    model = onnx.load(save_toy(path))
    model.graph.node[-1].output[0] = "short"
    model.graph.node.append(helper.make_node("Mul", ["short", "factor"], ["flow"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    return model


def test_errors_are_those_of_all_pixels_of_all_pairs(tmp_path: Path) -> None:
    before = save_toy(tmp_path / "before.onnx")
    pairs, loaded = pairs_of(10, 30)
    meter = DriftMeter(before, pairs, 1)
    model = scaled(tmp_path / "toy.onnx", 1.5)
    expected = [math.hypot(0.5 * grey, 0.5 * grey) for grey in (10, 30)]
    drift = meter.measure_model(model)
    assert (drift.pairs, drift.apart) == (("10", "30"), False)
    assert drift.aepe == pytest.approx(sum(expected) / 2)
    assert (drift.p99, drift.maximum) == pytest.approx((expected[1], expected[1]))
    assert drift.error == drift.aepe
    assert meter.measure(load(before, "cpu")) == Drift(("10", "30"), False, 0, 0, 0)
    assert loaded == ["10", "30"]  # once, as they are small


def test_images_that_are_not_small_are_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gocor.calibration.drift.REMEMBERED", 0)
    pairs, loaded = pairs_of(10, 30)
    meter = DriftMeter(save_toy(tmp_path / "before.onnx"), pairs, 1)
    meter.measure_model(scaled(tmp_path / "toy.onnx", 1.5))
    assert loaded == ["10", "30"] * 2


def test_a_flow_that_is_not_finite_is_no_figure(tmp_path: Path) -> None:
    meter = DriftMeter(save_toy(tmp_path / "before.onnx"), pairs_of(10)[0], 1)
    drift = meter.measure_model(scaled(tmp_path / "toy.onnx", math.nan))
    assert dataclasses.astuple(drift)[2:] == (None, None, None)
    assert drift.error == math.inf


def test_the_model_before_must_give_a_finite_flow(tmp_path: Path) -> None:
    path = tmp_path / "before.onnx"
    onnx.save(scaled(tmp_path / "toy.onnx", math.inf), path)
    with pytest.raises(ModelError) as error:
        DriftMeter(path, pairs_of(10)[0], 1)
    assert str(error.value) == (
        f"{path}: its flow holds NaN or infinity in 4,096 of 4,096 values for pair 10; look at its weights "
        "and at the pair"
    )


def test_another_size_is_noted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert METADATA.size == (32, 64)
    with caplog.at_level(logging.WARNING, "gocor"):
        meter = DriftMeter(save_toy(tmp_path / "before.onnx"), pairs_of(10, side=64)[0], 1)
        for factor in (2, 3):
            meter.measure_model(scaled(tmp_path / "toy.onnx", factor))
    assert [record.getMessage()[:35] for record in caplog.records] == ["before.onnx is made for 32x64; imag"]
