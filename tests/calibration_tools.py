"""What the tests of calibration share."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gocor.calibration.calibrate import CalibrationConfig, calibrate
from gocor.core.errors import GocorError
from gocor.runtime.pairs import FilePairs, Pair, PairSource
from gocor.runtime.sample_pair import sample_pair


def pairs(count: int, side: int = 64) -> PairSource:
    reference, query, _ = sample_pair(side, side)

    def load(shift: int) -> tuple[np.ndarray, np.ndarray]:
        return np.roll(reference, shift, axis=1), np.roll(query, shift, axis=1)

    return FilePairs([Pair(f"p{i}", (), None, lambda i=i: load(5 * i)) for i in range(count)])  # type: ignore[misc]


def refusal(kind: type[GocorError], *arguments: Any, **settings: Any) -> str:
    with pytest.raises(kind) as error:
        calibrate(*arguments, CalibrationConfig(**settings))
    return str(error.value)


def build_with_rtx(model: Path) -> dict[str, Any]:
    """Layers of the model in TensorRT-RTX, built in a process of its own."""
    pytest.importorskip("tensorrt_rtx", reason='pip install "gocor-deploy[rtx]"')
    program = Path(__file__).parent / "rtx_build.py"
    command = [sys.executable, "-X", "faulthandler", program, "sm_89", model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)[str(model)]
    assert "error" not in outcome, outcome
    return outcome
