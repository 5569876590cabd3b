"""What calibration and budgets say of models whose sizes vary."""

from pathlib import Path

import pytest
from toy_models import metadata, save_toy

from gocor.calibration.calibrate import CalibrationConfig, calibrate
from gocor.calibration.half import HalfConfig, export_within
from gocor.core.errors import ConfigError, ModelError
from gocor.export.checkpoint import seeded_network
from gocor.export.onnx_export import ExportConfig
from gocor.runtime.metadata import Range


def test_8_bits_are_for_fixed_sizes(tmp_path: Path) -> None:
    model = save_toy(tmp_path / "m.onnx", metadata(dynamic={"batch": Range(1)}))
    with pytest.raises(ModelError) as caught:
        calibrate(model, tmp_path / "8.onnx", config=CalibrationConfig(synthetic=2))
    assert str(caught.value) == (
        f"{model}: has sizes that vary (batch from 1), and ranges are measured at one; "
        "give a model exported without --dynamic"
    )


@pytest.mark.parametrize(
    ("asked", "option"), [(HalfConfig(0.1), "--budget"), (HalfConfig(sensitivity=True), "--sensitivity")]
)
def test_budgets_are_for_fixed_sizes(asked: HalfConfig, option: str, tmp_path: Path) -> None:
    config = ExportConfig(64, 64, precision="fp16", dynamic=("batch",))
    with pytest.raises(ConfigError) as caught:
        export_within(seeded_network("PWCNet"), tmp_path / "m.onnx", config, asked)
    assert str(caught.value) == (
        f"{option}: measures parts at one size, and --dynamic was given; leave one of them out"
    )
