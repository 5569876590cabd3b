"""The examples do what they say."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from gocor.runtime.flow import read_flow
from gocor.runtime.images import save_image
from gocor.runtime.sample_pair import sample_pair

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_estimate_flow(
    exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, query, _ = sample_pair(64, 64)
    save_image(tmp_path / "reference.png", reference)
    save_image(tmp_path / "query.png", query)
    monkeypatch.chdir(tmp_path)
    arguments = [str(exported.model), "reference.png", "query.png", "flow.flo"]
    script = EXAMPLES / "python" / "estimate_flow.py"
    monkeypatch.setattr("sys.argv", [str(script), *arguments])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.startswith("flow.flo: 64×64, mean motion ")
    assert read_flow(tmp_path / "flow.flo")[0].shape == (2, 64, 64)


@pytest.mark.slow
def test_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "demo" / "demo.py"), run_name="__main__")
    out = capfd.readouterr().out
    assert "PASSED on 1 pair" in out
    flow = read_flow(tmp_path / "demo-out" / "flow" / "flow.flo")[0]
    assert np.median(flow[0]) < -10  # the camera moved to the right by about that
    assert abs(np.median(flow[1])) < 1
    named = [Path(line.strip()) for line in out.split("Pictures:\n")[1].split("\n\n")[0].splitlines()]
    assert {path.name for path in named} >= {"overview.png", "flow.png", "warped.png"}
    assert all(path.is_file() for path in named)
