"""The command line of packages, on one that is made of a seeded network."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from other_python import in_python_with

from gocor.core.files import sha256
from gocor.runtime.flow import read_flow
from gocor.runtime.images import load_image
from gocor.runtime.package import Package
from gocor.runtime.session import load

for _package in ("torch", "onnx", "onnxruntime", "polygraphy"):
    pytest.importorskip(_package)
Invoke = Callable[..., tuple[int, str, str]]
DEPLOYED = ["numpy", "typer", "rich", "pillow", "onnxruntime"]
MAIN = "from gocor.__main__ import main; main()"


class Made(NamedTuple):
    """A package, what was printed, and the checkpoint."""

    folder: Path
    out: str
    err: str
    checkpoint: Path


@pytest.fixture(scope="module")
def made(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Do not write to it."""
    from gocor.__main__ import invoke

    folder = tmp_path_factory.mktemp("made") / "package"
    words = ("package", exported.checkpoint, "-o", folder, "--size", "64x64", "--iterations", "1")
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = invoke([*map(str, words), "--licence", "only for tests"])
    assert code == 0, err.getvalue()
    return Made(folder, out.getvalue(), err.getvalue(), exported.checkpoint)


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """One to write to."""
    return Path(shutil.copytree(made.folder, tmp_path / "package"))


def test_it_holds_everything_a_team_needs(made: Made) -> None:
    package = Package.read(made.folder)
    paths = {file.path for file in package.files}
    assert paths >= {
        "README.md", "reproduce.sh", "requirements.txt", "models/64x64.fp32.onnx",
        "reports/report.md", "reports/verification.json", "reports/precision.json",
        "pairs/64x64/pairs.csv", "pairs/64x64/1/reference.png", "pairs/64x64/2/flow.npy",
        "cpp/runtime/cpp/CMakeLists.txt", "cpp/runtime/cpp/include/gocor.hpp", "cpp/core/version.py",
        "cpp/examples/cpp/estimate.cpp",
    }  # fmt: skip
    assert not [path for path in paths if path.endswith((".pyc", ".so"))]
    assert [model.ran for model in package.models] == [True]
    assert package.licence == "only for tests"
    assert [path.name for path in made.folder.parent.iterdir()] == ["package"]


def test_it_says_what_was_made_and_how_to_check_it(made: Made) -> None:
    index = sha256(made.folder / "package.json")
    assert re.search(r"64x64\.fp32\.onnx │ 64x64 +│ fp32 +│ cpu +│ .* │ passed", made.out)
    assert f"gocor verify {made.folder} --sha256 {index}" in made.out
    assert "only for tests" in made.out


def test_the_truth_is_pytorchs_flow(made: Made) -> None:
    from gocor.export.checkpoint import load_network
    from gocor.export.estimate import estimate_flow

    folder = made.folder / "pairs/64x64/2"
    images = [load_image(folder / f"{name}.png") for name in ("reference", "query")]
    network = load_network(made.checkpoint, 1)
    np.testing.assert_allclose(read_flow(folder / "flow.npy")[0], estimate_flow(network, *images), atol=1e-3)
    rows = list(csv.reader((made.folder / "pairs/64x64/pairs.csv").open()))
    assert rows[:2] == [["reference", "query", "name"], ["1/reference.png", "1/query.png", "1"]]


def test_reports_are_about_the_files_in_it(made: Made) -> None:
    text = (made.folder / "reports/verification.json").read_text()
    assert str(made.folder.parent) not in text
    assert str(made.checkpoint.parent) not in text
    (verified,) = json.loads(text)
    assert verified["report"]["passed"] is True
    assert verified["report"]["model"] == "models/64x64.fp32.onnx"
    assert verified["report"]["model_sha256"] == sha256(made.folder / "models/64x64.fp32.onnx")
    assert verified["report"]["checkpoint"] == "seeded.pth"
    page = (made.folder / "reports/report.md").read_text()
    assert re.search(r"\| `models/64x64\.fp32\.onnx` \| cpu \| fp32 \| .* \| 0\.005 \| passed \|", page)
    assert sha256(made.checkpoint) in page


def test_its_readme_says_how_to_use_it(made: Made) -> None:
    text = (made.folder / "README.md").read_text()
    for words in (
        "# package\n", "`seeded.pth` (GOCor iterations: 1 local)", "only for tests", "gocor verify .",
        'gocor.load(".")', "gocor run . pairs/64x64/1/reference.png", "cmake -S cpp/runtime/cpp",
        "reproduce.sh seeded.pth",
    ):  # fmt: skip
        assert words in text
    for path in re.findall(r"(?:models|pairs|reports|cpp)/[\w./-]+\w", text):
        assert (made.folder / path).exists(), path


def test_the_python_of_its_readme_runs(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (made.folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(made.folder)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert out.getvalue() == "(2, 64, 64) models/64x64.fp32.onnx made for images of this size\n"


def test_the_script_has_the_commands_versions_and_hashes(made: Made) -> None:
    text = (made.folder / "reproduce.sh").read_text()
    for line in (
        'gocor export "$CHECKPOINT" -o models/64x64.fp32.onnx --size 64x64 --local-iterations 1',
        'gocor verify models/64x64.fp32.onnx "$CHECKPOINT" --pairs "$PACKAGE/pairs/64x64/pairs.csv" '
        "--json reports/64x64.fp32.onnx.json",
        f"{sha256(made.folder / 'models/64x64.fp32.onnx')}  models/64x64.fp32.onnx",
        f"    {sha256(made.checkpoint)}*) ;;",
    ):
        assert f"\n{line}\n" in text
    assert subprocess.run(["bash", "-n", made.folder / "reproduce.sh"]).returncode == 0
    versions = (made.folder / "requirements.txt").read_text()
    assert re.search(r"^torch==[\d.]+$", versions, re.MULTILINE)
    assert "openvino" not in versions  # which made nothing of it


def test_the_script_refuses_another_checkpoint_before_it_writes(made: Made, tmp_path: Path) -> None:
    (tmp_path / "other.pth").write_bytes(b"other weights")
    for words, text in (
        (["other.pth", "again"], "other.pth: is not the checkpoint that the package was made of (another"),
        (["absent.pth", "again"], "absent.pth: no such file; the checkpoint that the package was made of"),
        ([made.checkpoint, "."], ".: is there already; a new folder"),
    ):
        run = ["bash", made.folder / "reproduce.sh", *words]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(text)
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


def test_it_is_verified_without_pytorch_and_the_checkpoint(made: Made, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = in_python_with(DEPLOYED, MAIN, "verify", str(made.folder), "--json", str(report))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == f"written: {report}\n"
    assert "PASSED models: 1 passed; " in result.stdout
    assert "all as they were packaged" in result.stdout
    written = json.loads(report.read_text())
    assert written["passed"] is True
    assert written["models"][0]["worst"]["aepe"] < 0.005
    assert "torch" in in_python_with(DEPLOYED, "import torch").stderr


def test_it_runs_without_pytorch(made: Made, tmp_path: Path) -> None:
    pair = made.folder / "pairs/64x64/1"
    images = (str(pair / "reference.png"), str(pair / "query.png"))
    result = in_python_with(DEPLOYED, MAIN, "run", str(made.folder), *images, "-o", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    assert f"note: {made.folder}: images of 64x64 run in models/64x64.fp32.onnx on cpu (" in result.stderr
    flow, truth = read_flow(tmp_path / "out/flow.flo")[0], read_flow(pair / "flow.npy")[0]
    assert float(np.hypot(*(flow - truth)).mean()) < 0.005


def test_tampering_ends_with_1(copied: Path, invoke: Invoke) -> None:
    model = copied / "models/64x64.fp32.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    (copied / "extra.txt").touch()
    (copied / "README.md").unlink()
    code, out, err = invoke("verify", copied)
    assert code == 1
    assert "FAILED models: 1 failed; " in out
    assert "3 not as packaged" in out
    lines = err.splitlines()
    assert "README.md: is missing" in lines
    assert "extra.txt: is a file that is not in package.json" in lines
    assert any(line.startswith("models/64x64.fp32.onnx: is not the file that was packaged") for line in lines)
    assert lines[-1].startswith("failed: 64x64.fp32.onnx: models/64x64.fp32.onnx is not the file that ")
    with load(copied) as estimator, pytest.raises(Exception, match="is not the file that was packaged"):
        estimator(*[np.zeros((64, 64, 3), np.uint8)] * 2)


def test_another_package_in_its_place_is_found_by_its_hash(made: Made, invoke: Invoke) -> None:
    index = sha256(made.folder / "package.json")
    assert invoke("verify", made.folder, "--sha256", index)[0] == 0
    code, out, err = invoke("verify", made.folder, "--sha256", "ab" * 32)
    assert (code, out) == (2, "")
    assert "package.json: is not the index that was meant (SHA-256 " in err


def test_what_cannot_run_here_is_no_pass(made: Made, invoke: Invoke) -> None:
    code, out, err = invoke("verify", made.folder, "--provider", "cuda")
    if "not in this build of onnxruntime" not in err:
        pytest.skip("ONNX Runtime here has CUDA")
    assert code == 1
    assert "FAILED models: 1 not run; " in out
    assert "not run: 64x64.fp32.onnx: provider: 'cuda' is not in this build" in err
    assert err.endswith("note: no model could be run here, so nothing is known about their flows\n")


def test_inspect_says_which_model_runs_and_why(made: Made, invoke: Invoke) -> None:
    code, out, err = invoke("inspect", made.folder, "--size", "64x64", "--size", "100x90")
    assert (code, err) == (0, "")
    assert re.search(r"64x64 +│ models/64x64\.fp32\.onnx │ made for images of this size", out)
    assert re.search(r"100x90 +│ models/64x64\.fp32\.onnx │ the only size; images are resized to it", out)
    for words in ("kind", "seeded.pth", "only for tests", "fp32 runs on", "2 with PyTorch's flows"):
        assert words in out
    code, out, _ = invoke("inspect", made.folder, "--json")
    found = json.loads(out)
    assert found["choices"][0]["exact"] is True
    assert found["obstacles"] == {"models/64x64.fp32.onnx": ""}
    assert found["package"]["licence"] == "only for tests"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("verify {made} {checkpoint}", "CHECKPOINT: means nothing for a package; leave it out"),
        ("verify {made} --tolerance 0", "--tolerance: means nothing for a package; leave it out"),
        ("verify {made} --oracle", "--oracle: means nothing for a package; leave it out"),
        ("verify {made} --provider abacus", "provider: 'abacus' does not run .onnx models; one of "),
        ("verify {made} --threads 0", "threads: is 0; at least 1"),
        ("verify {made} --json {made}/r.json", "--json: {made}/r.json would lie in the package, and "),
        ("verify {here}/absent", "{here}/absent: no such file; give a model made by gocor export"),
        ("verify {model}", "CHECKPOINT: is missing; gocor verify MODEL CHECKPOINT; a package goes without"),
        ("verify {model} {checkpoint} --sha256 ab", "--sha256: means nothing for a model; leave it out"),
        ("verify {here}", "{here}: holds no package.json; a model file, or a folder of gocor package"),
        ("inspect {model} --size 64x64", "--size: means nothing for a file; leave it out"),
        ("inspect {made} --size 0x64", "images: are 0x64; sides from 1"),
        ("inspect {made} --precision int8", "precision: 'int8' is not in {made}; it has fp32"),
        ("inspect {made} --provider openvino", "provider: 'openvino' runs no fp32 model of {made}; one of "),
        ("run {model} a.png b.png -o out --precision fp32", "precision: chooses among a package's models, "),
        ("run {made} a.png b.png -o out --precision fp16", "precision: 'fp16' is not in {made}; it has fp32"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_one_line(
    made: Made, exported: Any, tmp_path: Path, invoke: Invoke, command: str, text: str
) -> None:
    places = {
        "made": made.folder, "checkpoint": made.checkpoint, "model": exported.model, "here": tmp_path,
    }  # fmt: skip
    code, out, err = invoke(*command.format(**places).split())
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {text.format(**places)}")
    assert len(err.splitlines()) == 1


SIZED = "package {checkpoint} -o out --size 64x64 "


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (SIZED + "--size 64x64", "--size: has 64x64 twice; each once"),
        (SIZED + "--precision fp32,fp64", "--precision: has 'fp64'; some of fp32,fp16,int8"),
        (SIZED + "--precision fp16,fp16", "--precision: has fp16 twice; each once"),
        (SIZED + "--backend abacus", "--backend: has 'abacus'; some of onnxruntime,openvino,tensorrt,"),
        (SIZED + "--precision int8", "--precision: has int8, and nothing to calibrate with; --pairs or "),
        (SIZED + "--synthetic 9", "--synthetic: is to calibrate with; add int8 to --precision"),
        (SIZED + "--precision int8 --synthetic 9 --pairs {pairs}", "--synthetic: was given with --pairs; "),
        (SIZED + "--tolerance 1", "--tolerance: is for lower precision, and this is fp32; leave it out"),
        (SIZED + "--tolerance 0 --precision fp16", "--tolerance: is 0.0; pixels above 0, such as 0.2"),
        (SIZED + "--licence \n", "--licence: is no line of text; one line, of at most 1000 characters"),
        (SIZED + "--dynamic depth", "--dynamic: has 'depth'; some of batch,height,width"),
        (SIZED + "--threads 0", "--threads: is 0; at least 1"),
        (SIZED + "--precision int8 --synthetic 0", "--synthetic: is 0; at least 1"),
        (SIZED + "--samples 0", "--samples: is 0; at least 1"),
        (SIZED + "--batch 0", "--batch: is 0; at least 1"),
        (SIZED + "--backend tensorrt", "{tensorrt}"),
        ("package {checkpoint} -o out --size 64", "--size: is '64'; height x width in pixels, as 384x512"),
        ("package {checkpoint} -o {made} --size 64x64", "{made}: is a package already; another folder, or "),
        ("package {checkpoint} -o {here} --size 64x64", "{here}: holds other files (no whole "),
        ("package {checkpoint} -o {here} --size 64x64 --overwrite", "{here}: holds other files (no whole "),
        ("package {checkpoint} -o {checkpoint} --size 64x64", "{checkpoint}: is a file; the path of "),
        ("package absent.pth -o out --size 64x64", "absent.pth: no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_packaged_is_one_line(
    made: Made, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").touch()
    places = {
        "made": made.folder, "checkpoint": made.checkpoint, "here": tmp_path, "tensorrt": "",
        "pairs": made.folder / "pairs/64x64/pairs.csv",
    }  # fmt: skip
    code, out, err = invoke(*command.format(**places).split(" "))
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {text.format(**places)}")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_overwrite_takes_away_nothing_but_a_package(
    copied: Path, made: Made, tmp_path: Path, invoke: Invoke
) -> None:
    words = ("package", made.checkpoint, "--size", "64x64", "--overwrite", "-o")
    (copied / "models/weights.pth").touch()
    code, _, err = invoke(*words, copied)
    assert code == 2
    assert err == (
        f"error: {copied}/models/weights.pth: would be lost with the package that it is in, and is none of "
        "its files; move it away, or package into another folder\n"
    )
    (tmp_path / "program").mkdir()
    (tmp_path / "program/package.json").write_text('{"name": "program", "version": "1.0.0"}')
    code, _, err = invoke(*words, tmp_path / "program")
    assert (code, "program: holds other files (no whole package.json of gocor package)" in err) == (2, True)
    assert (tmp_path / "program/package.json").exists()


def test_a_failure_leaves_the_earlier_package(
    copied: Path, made: Made, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gocor.calibration.packaging import build
    from gocor.core.errors import ModelError

    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}

    def fail(root: Path, *_: object) -> None:
        raise ModelError(root / "models/64x64.fp32.onnx", "cannot be made", f"see {root}/reports")

    monkeypatch.setattr(build, "make_model", fail)
    words = ("package", made.checkpoint, "-o", copied, "--size", "64x64", "--iterations", "1", "--overwrite")
    code, out, err = invoke(*words)
    assert (code, out) == (2, "")
    assert err == "error: models/64x64.fp32.onnx: cannot be made; see reports\n"
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before
    assert [path.name for path in copied.parent.iterdir()] == ["package"]


@pytest.mark.slow
def test_a_glu_nets_orientation_is_held_against_pytorch_too(tmp_path: Path, invoke: Invoke) -> None:
    import torch

    from gocor.export.checkpoint import seeded_network

    torch.save(seeded_network("GLUNet").state_dict(), tmp_path / "glunet.pth")
    folder = tmp_path / "package"
    code, _, err = invoke("package", tmp_path / "glunet.pth", "-o", folder, "--size", "256x264")
    assert code == 0, err
    assert all(isinstance(pair.orientation_score, float) for pair in Package.read(folder).pairs)
    report = tmp_path / "report.json"
    assert invoke("verify", folder, "--json", report)[0] == 0
    (check,) = json.loads(report.read_text())["models"]
    assert [output["name"] for output in check["pairs"][0]["outputs"]] == ["flow", "orientation_score"]


@pytest.mark.slow
def test_the_whole_way(made: Made, tmp_path: Path, invoke: Invoke) -> None:
    """Every precision, OpenVINO and a model of any size; made again by its script; its C++ built and run."""
    pytest.importorskip("openvino")
    pytest.importorskip("skimage")
    folder = tmp_path / "whole"
    words = ("package", "pwcnet-gocor-demo", "-o", folder, "--size", "128x128", "--size", "64x128")
    options = ("--precision", "fp16,int8", "--synthetic", "9", "--backend", "openvino")
    code, _, err = invoke(*words, *options, "--dynamic", "batch,height,width")
    assert code == 0, err
    package = Package.read(folder)
    assert len(package.models) == 13
    assert all(model.ran for model in package.models)
    lowered = json.loads((folder / "reports/precision.json").read_text())
    assert {one["path"].rpartition("/")[2] for one in lowered} >= {"128x128.fp16.onnx", "64x128.int8.xml"}
    assert all(one["bytes"] < 0.6 * one["fp32_bytes"] for one in lowered)
    assert invoke("verify", folder)[0] == 0
    with load(folder, precision="int8") as estimator:
        assert estimator.provider == "openvino"
        estimator(*[load_image(folder / "pairs/64x128/1" / f"{n}.png") for n in ("reference", "query")])
        assert estimator.chosen.model.path == "models/64x128.int8.xml"  # type: ignore[attr-defined]
    with load(folder, provider="cpu") as estimator:
        estimator(*[np.zeros((150, 200, 3), np.uint8)] * 2)
        assert estimator.chosen.model.path == "models/any.fp32.onnx"  # type: ignore[attr-defined]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = {"capture_output": True, "text": True, "cwd": folder, "env": os.environ | {"PATH": path}}
    again = subprocess.run(["bash", "reproduce.sh", tmp_path / "again"], **run)
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-2000:]
    assert "models/128x128.int8.onnx: OK" in again.stdout
    (commands,) = re.findall(
        r"## In C\+\+.*?```console\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL
    )
    script = "set -e\n" + re.sub(r"^\$ ", "", commands, flags=re.MULTILINE)
    built = subprocess.run(["bash", "-c", script], **run)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    truth = read_flow(folder / "pairs/128x128/1/flow.npy")[0]
    assert float(np.hypot(*(read_flow(tmp_path / "flow.flo")[0] - truth)).mean()) < 0.005
    assert invoke("verify", folder)[0] == 0  # nothing was left in it
