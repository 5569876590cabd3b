"""A thousand damaged files for every reader; ``make fuzz`` has a hundred times as many."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.readers import READERS

pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("openvino")
pytest.importorskip("pyarrow")
pytest.importorskip("cv2")
COUNT = 1000


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, Any]]:
    """What became of the inputs, by reader."""
    command = [sys.executable, "-m", "fuzz", "--count", str(COUNT), "--seconds", "900", "--json"]
    path = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=1800, env=os.environ | path
    )  # libraries write what they found to stderr, as it is
    assert done.returncode in (0, 1), done.stderr
    return {outcome["name"]: outcome for outcome in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    outcome = outcomes[name]
    assert outcome["failures"] == []
    assert outcome["read"] + outcome["refused"] >= COUNT
    if not name.startswith("record of"):  # what a damaged one is about is computed again
        assert outcome["refused"] > COUNT / 10
