import contextlib
import resource
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from toy_models import metadata, save_toy

import gocor.commands.run as command
from gocor.__main__ import invoke
from gocor.runtime.flow import read_flow
from gocor.runtime.images import load_image, save_image


class FakeEstimator(contextlib.AbstractContextManager):
    provider = "cpu"
    metadata = SimpleNamespace(
        network="PWCNet", batch=1, spec=SimpleNamespace(name="PWCNet", family="pwcnet")
    )

    def __init__(self, path):
        self.path, self.closed = path, False

    def __exit__(self, *_error):
        self.closed = True

    def __call__(self, reference, _query):
        flow = np.zeros((2, *reference.shape[:2]), np.float32)
        flow[0] = 3
        return flow


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a model and images; calls of ``load`` are in ``loaded``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"model")
    for name in ("l/a.png", "l/b.png", "r/a.png", "r/b.png"):
        save_image(tmp_path / name, np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8))
    return tmp_path


@pytest.fixture
def loaded(monkeypatch):
    calls = []

    def load(path, provider="cpu", threads=None, precision=None):
        calls.append((str(path), provider, threads))
        return FakeEstimator(path)

    monkeypatch.setattr(command, "load", load)
    return calls


def run(text):
    return invoke(["run", *text.split()])


def test_single_pair(folder, loaded, capsys):
    assert run("m.onnx l/a.png r/a.png -o out --provider cuda --threads 3") == 0
    assert loaded == [("m.onnx", "cuda", 3)]
    printed = capsys.readouterr()
    for text in (
        "64×32",
        "mean 3 px, largest 3 px",
        "per pair on",
        "out: flow.flo flow.png warped.png overview.png",
    ):
        assert text in printed.out
    assert printed.err == ""
    assert (folder / "out" / "result.json").is_file()


def test_done_before_is_said(folder, loaded, capsys):
    run("m.onnx l/a.png r/a.png -o out")
    run("m.onnx l r -o many")
    capsys.readouterr()
    assert run("m.onnx l/a.png r/a.png -o out") == 0
    assert "before; --overwrite computes it again" in capsys.readouterr().out
    assert run("m.onnx l r -o many") == 0
    assert "2 were done before; --overwrite computes them again" in capsys.readouterr().out
    assert run("m.onnx l r -o many --overwrite") == 0
    assert "done before" not in capsys.readouterr().out


def test_every_option_arrives(folder, loaded, capsys):
    (folder / "p.csv").write_text("x,y\n1,2\n")
    (folder / "pairs.csv").write_text("reference,query,name\nl/a.png,r/b.png,first\n")
    options = "--format npy --pad --consistency --points p.csv --max-flow 30 --overwrite"
    assert run(f"m.onnx --pairs pairs.csv -o out {options}") == 0
    written = {path.name for path in (folder / "out" / "first").iterdir()}
    expected = "flow.npy flow_backward.npy consistent.png occlusions.png points.csv flow.png warped.png"
    assert written == {*expected.split(), "overview.png", "result.json"}
    printed = capsys.readouterr().out
    assert "1 done, 0 failed" in printed
    assert "consistent" in printed
    pale = load_image(folder / "out" / "first" / "flow.png")
    assert pale[0, 0].min() > 220


def test_failed_pairs_are_counted(folder, loaded, capsys):
    (folder / "l" / "b.png").write_bytes(b"no image")
    assert run("m.onnx l r -o out") == 2
    printed = capsys.readouterr()
    assert "1 done, 1 failed" in printed.out
    lines = printed.err.splitlines()
    assert "b: " in lines[0]
    assert "b.png: is of no image format" in lines[0]
    assert lines[1] == "error: 1 of 2 pairs: failed; the lines above say why"
    assert (folder / "out" / "a" / "result.json").is_file()


def test_all_pairs_failed(folder, loaded, capsys):
    for name in "ab":
        (folder / "l" / f"{name}.png").write_bytes(b"no image")
    assert run("m.onnx l r -o out") == 2
    assert "error: 2 of 2 pairs: failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("m.onnx -o out", "REFERENCE: is missing"),
        ("m.onnx l/a.png -o out", "QUERY: is missing"),
        ("m.onnx l/a.png r/no.png -o out", "r/no.png: "),
        ("m.onnx l/a.png r/a.png -o m.onnx", "cannot be written"),
        ("m.onnx l/a.png r/a.png -o out --format exr", "--format: unknown 'exr'"),
        ("m.onnx l/a.png r/a.png -o out --max-flow -3", "--max-flow: is -3.0"),
        ("m.onnx l/a.png r/a.png -o out --flip-check", "--flip-check: PWCNet cannot judge orientations"),
        ("m.onnx l/a.png r/a.png -o out --points no.csv", "no.csv: cannot be read"),
        ("m.onnx --pairs no.csv -o out", "no.csv: cannot be read"),
        ("m.onnx l/a.png r/a.png", "'--output'"),
        ("m.onnx l/a.png r/a.png -o out --threads two", "'--threads'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(folder, loaded, capsys, arguments, text):
    assert run(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert text in lines[0]
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("no.onnx l/a.png r/a.png -o out", "no.onnx: no such file"),
        ("m.onnx l/a.png r/a.png -o out --provider abacus", "provider: unknown name 'abacus'"),
    ],
)
def test_errors_of_the_model(folder, capsys, arguments, text):
    assert run(arguments) == 2
    assert text in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.fixture
def toy(folder):
    pytest.importorskip("onnxruntime")
    return save_toy(folder / "toy.onnx")


def test_with_a_model(folder, toy, capsys):
    assert run("toy.onnx l/a.png r/b.png -o out --consistency") == 0
    flow, _ = read_flow(folder / "out" / "flow.flo")
    np.testing.assert_allclose(flow[0], load_image(folder / "l" / "a.png").mean(), rtol=1e-6)
    assert capsys.readouterr().err == ""


def test_another_size_is_noted_once(folder, toy, capsys):
    for name in ("l/a.png", "l/b.png", "r/a.png", "r/b.png"):
        save_image(folder / name, np.full((40, 50, 3), 9, np.uint8))
    assert run("toy.onnx l r -o out") == 0
    assert read_flow(folder / "out" / "a" / "flow.flo")[0].shape == (2, 40, 50)
    assert capsys.readouterr().err.count("images of 40x50 are resized") == 1


def test_flip_check_with_a_model(folder, capsys):
    pytest.importorskip("onnxruntime")
    save_toy(folder / "glu.onnx", metadata(network="GLUNet_GOCor", height=256, width=256))
    assert run("glu.onnx l/a.png r/a.png -o out --flip-check") == 0
    assert "mirrored" in capsys.readouterr().out


def test_full_disk(folder, toy):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    command = [sys.executable, "-m", "gocor", "run", "toy.onnx", "l/a.png", "r/a.png", "-o", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr.startswith("error: out/")
    assert "cannot be written (File too large)" in done.stderr
    assert not list((folder / "out").iterdir())
