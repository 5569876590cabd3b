import json
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluation_pairs import write_constant, write_image
from toy_models import save_toy

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A manifest of three pairs."""
    lines = ["reference,query,flow"]
    for number in range(3):
        for role in ("r", "q"):
            write_image(tmp_path / f"{role}{number}.png", seed=number)
        write_constant(tmp_path / f"{number}.flo", 4, number)
        lines.append(f"r{number}.png,q{number}.png,{number}.flo")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    return tmp_path / "pairs.csv"


def test_models_peers_and_the_zero_flow_side_by_side(invoke: Invoke, table: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("cv2")
    models = [save_toy(tmp_path / name) for name in ("first.onnx", "second[1].onnx")]
    report = tmp_path / "eval.json"
    arguments = (
        "--dataset",
        "manifest",
        "--root",
        table,
        "--threads",
        1,
        "--peers",
        "farneback",
        "--json",
        report,
    )
    code, out, err = invoke("eval", *models, *arguments)
    assert code == 0, err
    header, *rows = [line for line in out.splitlines() if line.strip()]
    assert header.strip() == "manifest: 3 pairs"
    assert all(name in out for name in ("first.onnx", "second[1].onnx", "OpenCV Farnebäck", "zero flow"))
    assert "AEPE visible" not in out  # nobody knows what is hidden
    (shares,) = (row for row in rows if "of zero flow" in row)
    assert shares.split("│")[-2].strip() == "100.0"
    (aepe,) = (row for row in rows if "AEPE, px" in row)
    assert "+0.000" in aepe.split("│")[3]  # the second model is the first one
    content = json.loads(report.read_text())
    zero = content["results"][-1]
    assert zero["groups"]["all"]["aepe"] == pytest.approx((4 + 17**0.5 + 20**0.5) / 3)
    assert [pair["name"] for pair in zero["pairs"]] == ["line 2", "line 3", "line 4"]
    assert f"{zero['groups']['all']['aepe']:.3f}" in aepe.split("│")[-2]


def test_groups_have_figures_of_their_own(invoke: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    for name in ("clean", "final"):
        for frame in (1, 2):
            write_image(tmp_path / name / f"alley/frame_000{frame}.png", seed=frame)
    write_constant(tmp_path / "flow/alley/frame_0001.flo", 3, 4)
    code, out, err = invoke("eval", "--dataset", "sintel", "--root", tmp_path, "--peers", "farneback")
    assert code == 0
    assert [
        line.strip("│ ") for line in out.splitlines() if line.strip("│ ") in ("all", "clean", "final")
    ] == [
        "clean",
        "final",
    ]
    assert out.count("5.000") == 2
    assert "every pixel of the training set counts" in err
    code, out, _ = invoke(
        "eval", "--dataset", "sintel", "--root", tmp_path, "--peers", "farneback", "--group", "final"
    )
    assert code == 0
    assert out.startswith("sintel: 1 pair ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "error: MODEL: is missing; a model, a checkpoint, or --peers\n"),
        (
            ("a.onnx", "--dataset", "tss"),
            "error: --root: is missing; the folder with the dataset, as in --dataset tss",
        ),
        (("a.onnx", "--limit", "0"), "error: limit: is 0; at least 1\n"),
        (("a.onnx",), "error: a.onnx: no such file; give a model made by gocor export\n"),
    ],
)
def test_what_is_wrong_is_one_line(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], text: str
) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    code, out, err = invoke("eval", *arguments, "--json", "eval.json")
    assert (code, out) == (2, "")
    assert err.startswith(text)
    assert err.count("\n") == 1
    assert not Path("eval.json").exists()


def test_an_immeasurable_difference_has_no_sign() -> None:
    from gocor.commands.eval import _cells
    from gocor.evaluation.evaluate import MethodResult
    from gocor.evaluation.scores import Scores

    scores = [Scores(aepe, None, 0, 0, 0, 0, None) for aepe in (2.0, 2.0 - 1e-7, 1.5)]
    results = tuple(MethodResult("", "", {}, {"all": score}, 0.0, ()) for score in scores)
    assert _cells(results, "all", "aepe", False) == [
        "2.000",
        "2.000 [dim]+0.000[/]",
        "1.500 [green]-0.500[/]",
    ]
    assert _cells(results, "all", "aepe_visible", False) == []


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    invoke: Invoke, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gocor.evaluation.evaluate.evaluate", lambda *_: pytest.fail("the work began"))
    code, out, err = invoke("eval", "--dataset", "manifest", "--root", table, "--json", tmp_path)
    assert (code, out) == (2, "")
    assert "cannot be written (it is a folder)" in err
