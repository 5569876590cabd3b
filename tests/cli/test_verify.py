import json
from collections.abc import Callable
from pathlib import Path

import pytest

Invoke = Callable[..., tuple[int, str, str]]


def test_a_model_is_its_checkpoint(exported, invoke: Invoke, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, out, err = invoke("verify", exported.model, exported.checkpoint, "--json", report)
    assert (code, err) == (0, f"written: {report}\n")
    assert "PASSED" in out
    assert "AEPE 0.005 px" in out
    written = json.loads(report.read_text())
    assert written["passed"] is True
    assert written["worst"][0]["output"]["aepe"] < 0.005


def test_outside_of_the_tolerance_it_says_where_and_ends_with_1(
    exported, invoke: Invoke, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    code, out, err = invoke(
        "verify", exported.model, exported.checkpoint, "--tolerance", "1e-12", "--json", report
    )
    assert code == 1
    assert "FAILED" in out
    assert err.startswith("flow, built-in 0: ")
    assert "; worst at x=" in err
    assert json.loads(report.read_text())["passed"] is False


def test_another_checkpoint_is_refused(exported, invoke: Invoke, tmp_path: Path) -> None:
    import torch

    from gocor.export.checkpoint import seeded_network

    torch.save(seeded_network("PWCNet_GOCor", seed=1).state_dict(), tmp_path / "other.pth")
    code, out, err = invoke("verify", exported.model, tmp_path / "other.pth")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {exported.model}: was made from weights ")
    assert "(seeded.pth)" in err


def test_pairs_of_a_table(exported, invoke: Invoke, tmp_path: Path) -> None:
    from gocor.runtime.images import save_image
    from gocor.runtime.sample_pair import sample_pair

    reference, query, _ = sample_pair(70, 90)
    save_image(tmp_path / "a.png", reference)
    save_image(tmp_path / "b.png", query)
    (tmp_path / "pairs.csv").write_text("reference,query\na.png,b.png\nb.png,a.png\n")
    code, out, err = invoke("verify", exported.model, exported.checkpoint, "--pairs", tmp_path / "pairs.csv")
    assert code == 0
    assert "2 pairs" in out
    assert err.startswith("note: images of 70x90 are resized")


@pytest.mark.parametrize("tolerance", ["0", "-1", "nan"])
def test_a_tolerance_must_be_one(exported, invoke: Invoke, tolerance: str) -> None:
    code, _, err = invoke("verify", exported.model, exported.checkpoint, "--tolerance", tolerance)
    assert code == 2
    assert "--tolerance: is" in err
