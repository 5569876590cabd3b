import csv
import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from packages import make_package

from gocor.core.errors import ConfigError, ImageError, ModelError, OutputError
from gocor.runtime.flow import read_flow
from gocor.runtime.images import load_image, save_image
from gocor.runtime.pairs import find_pairs
from gocor.runtime.run import RunConfig, run_pairs
from gocor.runtime.session import load

BASE = {"flow.flo", "flow.png", "warped.png", "overview.png", "result.json"}


class FakeEstimator:
    """Stands in for a model: every pixel moves by (2, 1), back by (-2, -1); counts its calls."""

    provider = "cpu"

    def __init__(self, path, family="pwcnet"):
        self.path, self.calls, self.value = path, 0, 2.0
        path.write_bytes(b"model")
        self.metadata = SimpleNamespace(
            network="Fake",
            batch=1,
            varies=lambda axis: False,
            spec=SimpleNamespace(name="Fake", family=family, orientation_higher_wins=True),
        )

    def __call__(self, reference, query):
        assert reference.shape == query.shape
        assert reference.dtype == np.uint8
        self.calls += 1
        sign = 1 if reference[0, 0, 0] < query[0, 0, 0] else -1
        flow = np.empty((2, *reference.shape[:2]), np.float32)
        flow[0], flow[1] = sign * self.value, sign
        return flow

    def estimate(self, reference, query):
        score = np.float32(reference[0, 0, 0])
        return SimpleNamespace(flow=self(reference, query), orientation_score=score)


@pytest.fixture
def estimator(tmp_path):
    return FakeEstimator(tmp_path / "model.onnx")


@pytest.fixture
def images(tmp_path):
    """A folder ``l`` and one ``r`` with images a, b and c; those in r are the lighter ones."""
    for offset, folder in enumerate("lr"):
        for name in "abc":
            image = np.random.default_rng(ord(name)).integers(0, 200, (40, 60, 3), np.uint8)
            image[0, 0] = 10 * offset
            save_image(tmp_path / folder / f"{name}.png", image)
    return tmp_path


def single(images):
    return find_pairs(images / "l" / "a.png", images / "r" / "a.png")


def folders(images):
    return find_pairs(images / "l", images / "r")


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_single_pair_goes_straight_into_the_folder(estimator, images):
    out = images / "out" / "deep"
    (result,) = run_pairs(estimator, single(images), RunConfig(out)).results
    assert names(out) == BASE
    flow, valid = read_flow(out / "flow.flo")
    assert valid.all()
    assert (flow[0] == 2).all()
    assert (flow[1] == 1).all()
    query, warped = load_image(images / "r" / "a.png"), load_image(out / "warped.png")
    np.testing.assert_array_equal(warped[:39, :58], query[1:, 2:])
    assert (result.width, result.height, result.skipped) == (60, 40, False)
    assert result.mean_flow == result.max_flow == pytest.approx(5**0.5)
    assert load_image(out / "flow.png").shape == (40, 60, 3)


def test_several_pairs_have_folders(estimator, images):
    seen = []
    report = run_pairs(
        estimator, folders(images), RunConfig(images / "out"), lambda *arguments: seen.append(arguments)
    )
    assert names(images / "out") == {"a", "b", "c"}
    assert all(names(images / "out" / name) == BASE for name in "abc")
    assert seen == [(0, 3, "a"), (1, 3, "b"), (2, 3, "c")]
    assert [result.name for result in report.results] == ["a", "b", "c"]


@pytest.mark.parametrize(("format", "name"), [("kitti", "flow_kitti.png"), ("npy", "flow.npy")])
def test_formats(estimator, images, format, name):
    run_pairs(estimator, single(images), RunConfig(images / "out", format=format))
    assert names(images / "out") == BASE - {"flow.flo"} | {name}
    assert (read_flow(images / "out" / name)[0][0] == 2).all()


def test_consistency(estimator, images):
    (result,) = run_pairs(estimator, single(images), RunConfig(images / "out", consistency=True)).results
    assert names(images / "out") == BASE | {"flow_backward.flo", "consistent.png", "occlusions.png"}
    mask = load_image(images / "out" / "consistent.png")[..., 0]
    assert (mask[:39, :58] == 255).all()
    assert (mask[:, 58:] == 0).all()
    assert result.consistent == pytest.approx(39 * 58 / (40 * 60))
    assert (read_flow(images / "out" / "flow_backward.flo")[0][0] == -2).all()
    assert estimator.calls == 2


def write_points(folder, text):
    (folder / "points.csv").write_text(text)
    return folder / "points.csv"


def test_points(estimator, images):
    points = write_points(images, "y,x\n10,20.5\n0,59\n")
    run_pairs(estimator, single(images), RunConfig(images / "out", points=points))
    with (images / "out" / "points.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert rows[0] == {"x": 20.5, "y": 10, "u": 2, "v": 1, "x_query": 22.5, "y_query": 11}
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "x,y\n1,2\n1,two\n",
            r"points\.csv:3: could not convert string to float: 'two'; numbers for x and y",
        ),
        ("x\n1\n", r"points\.csv: has no column 'y'"),
        ("x,y\n", r"points\.csv: lists no points"),
        (
            "x,y\n1,2\n\n60,2\n",
            r"points\.csv:4: \(60, 2\) is outside the reference; x from 0 to 59, y from 0 to 39",
        ),
        ("x,y\nnan,2\n", r"points\.csv:2: \(nan, 2\) is outside the reference"),
    ],
)
def test_bad_points(estimator, images, text, message):
    config = RunConfig(images / "out", points=write_points(images, text))
    with pytest.raises(ImageError, match=message):
        run_pairs(estimator, single(images), config)
    assert not (images / "out").exists()


def test_two_sizes(estimator, images):
    save_image(images / "r" / "a.png", np.full((50, 30, 3), 99, np.uint8))
    with pytest.raises(ImageError, match=r"a: the reference has 60×40 pixels and the query 30×50.*--pad"):
        run_pairs(estimator, single(images), RunConfig(images / "out"))
    config = RunConfig(images / "out", pad=True, consistency=True)
    run_pairs(estimator, single(images), config)
    assert read_flow(images / "out" / "flow.flo")[0].shape == (2, 40, 60)
    assert read_flow(images / "out" / "flow_backward.flo")[0].shape == (2, 50, 30)
    assert load_image(images / "out" / "consistent.png").shape == (40, 60, 3)


def test_flip_check(images):
    estimator = FakeEstimator(images / "model.onnx", family="glunet")
    (result,) = run_pairs(estimator, single(images), RunConfig(images / "out", flip_check=True)).results
    assert result.flipped is not None
    assert estimator.calls >= 2


def test_flip_check_needs_a_network_that_can(estimator, images):
    config = RunConfig(images / "out", flip_check=True)
    with pytest.raises(
        ConfigError, match="--flip-check: Fake cannot judge orientations; a GLUNet or GLUNet_GOCor"
    ):
        run_pairs(estimator, folders(images), config)
    assert not (images / "out").exists()


def test_done_pairs_are_skipped(estimator, images):
    config = RunConfig(images / "out", consistency=True)
    first = run_pairs(estimator, folders(images), config)
    again = run_pairs(estimator, folders(images), config)
    assert estimator.calls == 6
    assert [result.skipped for result in again.results] == [True] * 3
    assert again.results[1].consistent == first.results[1].consistent
    run_pairs(estimator, folders(images), RunConfig(images / "out", consistency=True, overwrite=True))
    assert estimator.calls == 12


def changed_image(_estimator, images):
    os.utime(images / "r" / "b.png", ns=(1, 1))


def changed_model(estimator, _images):
    estimator.path.write_bytes(b"another model")


def changed_provider(estimator, _images):
    estimator.provider = "cuda"


def missing_result(_estimator, images):
    (images / "out" / "b" / "warped.png").unlink()


def damaged_record(_estimator, images):
    (images / "out" / "b" / "result.json").write_text("[{")


@pytest.mark.parametrize(
    ("change", "calls"),
    [(changed_image, 1), (changed_model, 3), (changed_provider, 3), (missing_result, 1), (damaged_record, 1)],
)
def test_what_changed_is_computed_again(estimator, images, change, calls):
    run_pairs(estimator, folders(images), RunConfig(images / "out"))
    change(estimator, images)
    estimator.calls = 0
    run_pairs(estimator, folders(images), RunConfig(images / "out"))
    assert estimator.calls == calls
    run_pairs(estimator, folders(images), RunConfig(images / "out"))
    assert estimator.calls == calls


def test_another_precision_of_a_package_is_computed_again(images):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make_package(images / "package", precisions=("fp32", "int8"))
    for precision, skipped in ((None, False), ("fp32", True), ("int8", False)):
        with load(images / "package", precision=precision) as estimator:
            (result,) = run_pairs(estimator, single(images), RunConfig(images / "out")).results
        assert result.skipped is skipped


def test_other_options_replace_the_earlier_files(estimator, images):
    points = write_points(images, "x,y\n1,2\n")
    out = images / "out"
    run_pairs(estimator, single(images), RunConfig(out, consistency=True, points=points))
    (out / "mine.txt").write_text("")
    run_pairs(estimator, single(images), RunConfig(out, format="npy"))
    assert names(out) == BASE - {"flow.flo"} | {"flow.npy", "mine.txt"}
    points.write_text("x,y\n3,4\n")
    run_pairs(estimator, single(images), RunConfig(out, points=points))
    points.write_text("x,y\n5,6\n")
    assert not run_pairs(estimator, single(images), RunConfig(out, points=points)).results[0].skipped


def test_a_record_cannot_name_foreign_files(estimator, images):
    out = images / "out"
    run_pairs(estimator, single(images), RunConfig(out))
    (images / "precious").write_text("")
    record = json.loads((out / "result.json").read_text())
    (out / "result.json").write_text(json.dumps(record | {"files": ["../precious"], "identity": {}}))
    run_pairs(estimator, single(images), RunConfig(out))
    assert (images / "precious").exists()


def test_a_pair_that_fails_does_not_stop_the_others(estimator, images):
    pairs = folders(images)
    (images / "r" / "b.png").write_bytes(b"no image")
    report = run_pairs(estimator, pairs, RunConfig(images / "out"))
    assert [result.name for result in report.results] == ["a", "c"]
    ((name, error),) = report.failures
    assert name == "b"
    assert "b.png: is of no image format" in error
    assert names(images / "out") == {"a", "c"}


def test_a_single_pair_fails_at_once(estimator, images):
    with pytest.raises(ImageError, match=r"no\.png: cannot be read"):
        run_pairs(estimator, find_pairs(images / "no.png", images / "r" / "a.png"), RunConfig(images / "out"))
    estimator.value = np.nan
    with pytest.raises(
        ModelError, match=r"model\.onnx: gave 2400 of 4800 flow values that are not finite for a"
    ):
        run_pairs(estimator, single(images), RunConfig(images / "out"))
    assert not (images / "out").exists()


@pytest.mark.parametrize("input_name", ["warped.png", "occlusions.png", "points.csv", "link.png"])
def test_inputs_are_not_overwritten(estimator, images, input_name):
    reference, points = images / "l" / "a.png", None
    if input_name == "points.csv":
        points = write_points(images, "x,y\n1,2\n")
    elif input_name in ("warped.png", "occlusions.png"):
        reference = reference.rename(images / input_name)
    else:
        (images / "flow.png").symlink_to(reference)
    before = {path: path.read_bytes() for path in images.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"-o: results in .* would overwrite the input .*; another folder"):
        run_pairs(estimator, find_pairs(reference, images / "r" / "a.png"), RunConfig(images, points=points))
    assert {path: path.read_bytes() for path in images.rglob("*") if path.is_file()} == before


def test_a_model_of_several_pairs_is_said_to_be_slow(estimator, images, caplog):
    run_pairs(estimator, folders(images), RunConfig(images / "out"))
    assert not caplog.messages
    estimator.metadata.batch = 4
    run_pairs(estimator, folders(images), RunConfig(images / "out"))
    assert caplog.messages == [
        "model.onnx computes 4 pairs at a time and is given one; a model of --batch 1 is that much faster"
    ]


def test_bad_options():
    with pytest.raises(ConfigError, match="--format: unknown 'exr'; one of flo, kitti, npy"):
        RunConfig(Path("out"), format="exr")
    for value in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"--max-flow: is .*; a positive number of pixels"):
            RunConfig(Path("out"), max_flow=value)


def test_output_that_cannot_be(estimator, images):
    (images / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"out.*: cannot be written"):
        run_pairs(estimator, single(images), RunConfig(images / "out"))
    assert (images / "out").read_text() == "a file"


@pytest.mark.parametrize("full_at", range(1, 6))
def test_full_disk_leaves_nothing_half_written(estimator, images, monkeypatch, full_at):
    out, real, count = images / "out", Path.write_bytes, 0
    run_pairs(estimator, single(images), RunConfig(out))
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def write_until_full(path, data):
        nonlocal count
        count += 1
        if count == full_at:
            real(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    estimator.value = 5.0
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
        run_pairs(estimator, single(images), RunConfig(out, overwrite=True))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_full_disk_stops_the_run(estimator, images, monkeypatch):
    def full(_path, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError):
        run_pairs(estimator, folders(images), RunConfig(images / "out"))
    assert estimator.calls == 1


def test_max_flow_sets_the_colours(estimator, images):
    run_pairs(estimator, single(images), RunConfig(images / "a"))
    run_pairs(estimator, single(images), RunConfig(images / "b", max_flow=100))
    full, faint = (load_image(images / name / "flow.png").astype(int) for name in "ab")
    assert full.min() < 30
    assert faint.min() > 240
