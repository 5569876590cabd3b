"""Sensitivities and repair of a real network, in which one convolution was spoiled for 8 bits on purpose."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import gocor
from gocor.calibration.calibrate import CalibrationConfig, calibrate, measure_sensitivities
from gocor.calibration.forms import RETURNED
from gocor.core.errors import ConfigError
from gocor.runtime.metadata import Repair
from gocor.runtime.pairs import FilePairs, Pair
from gocor.runtime.sample_pair import sample_pair

pytest.importorskip("onnxruntime")

OTHERS = ("decoder [2345]", "pyramid [12456]", "context*")  # kept, to save time


def pairs(count: int = 5) -> FilePairs:
    reference, query, _ = sample_pair(64, 64)

    def load(shift: int) -> tuple[np.ndarray, np.ndarray]:
        return np.roll(reference, shift, axis=1), np.roll(query, shift, axis=1)

    return FilePairs([Pair(f"p{i}", (), None, lambda i=i: load(5 * i)) for i in range(count)])  # type: ignore[misc]


@pytest.fixture(scope="module")
def spoiled(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with huge weights of conv3b that cancel out: 8 bits have no step left for the others."""
    model = onnx.load(exported.model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    maker, reader = (tensors[f"network.{name}.0.weight"] for name in ("conv3aa", "conv3b"))
    values = numpy_helper.to_array(maker).copy()
    values[1] = values[0]
    maker.CopyFrom(numpy_helper.from_array(values, maker.name))
    values = numpy_helper.to_array(reader).copy()
    values[:, :2] = np.float32([1e4, -1e4]).reshape(1, 2, 1, 1)
    reader.CopyFrom(numpy_helper.from_array(values, reader.name))
    path: Path = tmp_path_factory.mktemp("spoiled") / "model.onnx"
    onnx.save(model, path)
    return path


BUDGET = 3.0  # px; the network is wild, and 64×64 pixels are few


@pytest.fixture(scope="module")
def made(spoiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("int8") / "m.onnx"
    return calibrate(spoiled, output, pairs(), CalibrationConfig(keep=OTHERS, budget=BUDGET))


def test_the_spoiled_part_is_the_worst(made: Any) -> None:
    found = made.sensitivities
    assert [(part.part, len(part.members)) for part in found.parts] == [("pyramid 3", 3), ("decoder 6", 5)]
    worst, other = found.parts
    assert worst.aepe > BUDGET > other.aepe
    assert all(0 < part.aepe < part.p99 for part in found.parts)
    assert (found.together.pairs, found.together.apart) == (("p2",), True)
    saved = {part.part: part.saved_bytes for part in found.parts}
    assert saved["decoder 6"] > 10 * saved["pyramid 3"] > 0
    assert sum(saved.values()) == pytest.approx(found.saved_bytes, rel=1e-3)


def test_the_repair_keeps_exactly_the_spoiled_convolution(made: Any) -> None:
    repaired = made.repaired
    assert repaired.kept == ("conv3b.0/Conv",)
    assert [c.name for c in made.convolutions if c.kept == RETURNED] == ["conv3b.0/Conv"]
    assert repaired.before == made.sensitivities.together
    assert made.drift == repaired.after
    assert repaired.after.error <= BUDGET < repaired.before.error
    weights = 64 * 64 * 9
    assert repaired.weight_bytes == pytest.approx(
        3 * weights, rel=0.02
    )  # and the scales that it needs no more
    assert 0 < repaired.work < 0.1
    with gocor.load(made.path) as estimator:
        described = estimator.metadata.int8
    assert described is not None
    assert described.convolutions == 7
    assert described.repair == Repair(BUDGET, repaired.after.error, ("conv3b.0/Conv",))


def test_a_budget_that_cannot_be_met_leaves_earlier_files(
    made: Any, spoiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def repair(*_: object) -> None:  # as in test_repair.py, which saves its measurements
        raise ConfigError("--budget", "cannot be met")

    monkeypatch.setattr("gocor.calibration.calibrate.repair", repair)
    (tmp_path / "m.onnx").write_text("earlier")
    config = CalibrationConfig(keep=OTHERS, budget=1e-5, ranges=made.table)
    with pytest.raises(ConfigError, match="--budget: cannot be met"):
        calibrate(spoiled, tmp_path / "m.onnx", pairs(), config)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "earlier"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"budget": -1.0}, "--budget: is -1 px; a number above 0, as 0.1px"),
        ({"budget": float("nan")}, "--budget: is nan px; a number above 0, as 0.1px"),
        (
            {"budget": 0.1, "ranges": Path("r.json")},
            "--budget: compares flows, and there are no pairs; add --pairs or --synthetic 64 to --ranges",
        ),
        (
            {"sensitivity": True, "ranges": Path("r.json")},
            "--sensitivity: compares flows, and there are no pairs; add --pairs or --synthetic 64 to "
            "--ranges",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], text: str, tmp_path: Path) -> None:
    source = None if "ranges" in settings else pairs()
    with pytest.raises(ConfigError) as error:
        calibrate(tmp_path / "m.onnx", tmp_path / "o.onnx", source, CalibrationConfig(**settings))
    assert str(error.value) == text


def test_there_must_be_a_pair(exported: Any) -> None:
    with pytest.raises(ConfigError) as error:
        measure_sensitivities(exported.model, pairs(0))
    assert str(error.value) == "--pairs: holds no pair; at least one"
