import csv
import errno
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from batch_jobs import (
    FakeEstimator,
    config,
    flow_files,
    index_rows,
    leftovers,
    parquet_rows,
    results,
    write_image,
    write_list,
    write_rows,
)  # fmt: skip
from full_disk import files_up_to
from packages import make_package

from gocor.core.errors import ConfigError, DependencyError, ImageError, ModelError, OutputError, ProviderError
from gocor.runtime.batch.job import Tally
from gocor.runtime.batch.local import run_batch
from gocor.runtime.batch.pipeline import Pipeline
from gocor.runtime.batch.shards import FileShard
from gocor.runtime.images import load_image
from gocor.runtime.pairs import PairList


@pytest.fixture
def estimator(tmp_path):
    return FakeEstimator(tmp_path / "m.onnx")


@pytest.fixture
def run(tmp_path, estimator):
    """Runs a batch of ``pairs.csv`` into ``out``."""

    def run_with(progress=lambda _tally: None, pairs="pairs.csv", **options):
        return run_batch(PairList(tmp_path / pairs), config(tmp_path, **options), progress, estimator.load)

    return run_with


def means(folder, name):
    """Flow that the estimator gives for pair p0, p1, …"""
    number = int(name[1:])
    return [load_image(folder / f"{i % 7}.png").mean(dtype=np.float32) for i in (number, number + 1)]


FORMATS = [(name, "float32") for name in ("flo", "npy", "kitti", "parquet")] + [("parquet", "float16")]


@pytest.mark.parametrize(("format", "dtype"), FORMATS)
def test_every_pair_gets_its_flow(run, tmp_path, format, dtype):
    write_list(tmp_path, 10)
    report = run(format=format, dtype=dtype)
    assert (report.done, report.failed, report.tally) == (10, 0, Tally(10, 0, 10, 0))
    found = results(tmp_path / "out")
    assert list(found) == [f"p{i}" for i in range(10)]
    for name, (status, flow) in found.items():
        assert status == "done"
        tolerance = {"kitti": 1 / 128, "parquet": 0.05 if dtype == "float16" else 0}.get(format, 0)
        np.testing.assert_allclose(np.array(flow)[:, 0, 0], means(tmp_path, name), atol=tolerance, rtol=1e-6)
        assert np.shape(flow) == (2, 16, 24)
    assert not leftovers(tmp_path / "out")
    assert not (tmp_path / "out" / "failed.csv").exists()


def test_files_lie_in_folders_of_a_shard_each(run, tmp_path):
    write_list(tmp_path, 10)
    assert run().index == tmp_path / "out" / "index.csv"
    names = [[f"p{i}.flo" for i in part] for part in (range(4), range(4, 8), range(8, 10))]
    assert {p.name: sorted(f.name for f in p.iterdir()) for p in (tmp_path / "out" / "flows").iterdir()} == {
        f"00000{number}": ["index.csv", *files] for number, files in enumerate(names)
    }
    assert index_rows(tmp_path / "out")[5] == {
        "name": "p5", "reference": str(tmp_path / "5.png"), "query": str(tmp_path / "6.png"),
        "status": "done", "reason": "", "path": "flows/000001/p5.flo",
        "row": "", "height": "16", "width": "24",
    }  # fmt: skip


def test_parquet_files_say_what_they_hold(run, tmp_path):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    write_list(tmp_path, 6, lost=("no.png", "0.png"))
    assert run(format="parquet", dtype="float16").index == tmp_path / "out" / "index.parquet"
    path = tmp_path / "out" / "flows" / "000001.parquet"
    about = pyarrow.read_schema(path).metadata
    assert about[b"gocor.flow_dtype"] == b"float16"
    assert about[b"gocor.flow_layout"].startswith(b"(2, height, width)")
    first, second, last = parquet_rows(path)
    assert (first["name"], second["name"], len(first["flow"])) == ("p4", "p5", 2 * 16 * 24 * 2)
    assert (last["name"], last["status"], last["flow"], last["height"]) == ("lost", "failed", None, None)
    assert "no.png: does not exist" in last["reason"]
    assert index_rows(tmp_path / "out")[5]["row"] == 1


def test_parquet_rows_are_written_in_groups(run, tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("gocor.runtime.batch.shards._ROW_GROUP", 2 * 2 * 16 * 24 * 4)
    write_list(tmp_path, 5)
    run(format="parquet", shard=5)
    path = tmp_path / "out" / "flows" / "000000.parquet"
    assert pyarrow.ParquetFile(path).num_row_groups == 3
    assert [row["name"] for row in parquet_rows(path)] == [f"p{i}" for i in range(5)]


def test_a_flow_too_large_for_half_precision_fails(run, tmp_path, estimator, monkeypatch):
    pytest.importorskip("pyarrow")
    write_list(tmp_path, 2)
    monkeypatch.setattr(
        FakeEstimator, "__call__", lambda _self, r, _q: np.full((len(r), 2, 16, 24), 1e5, "f4")
    )
    assert run(format="parquet", dtype="float16").failed == 2
    assert (
        results(tmp_path / "out")["p0"][1] == "p0: has a flow of 100000 px; --dtype float32, which holds it"
    )


def test_pairs_of_one_size_share_batches(run, tmp_path, estimator):
    estimator.metadata.batch = 3
    rows = [("0.png", "1.png"), ("big.png", "big.png")]
    write_list(tmp_path, 0)
    write_image(tmp_path / "big.png", size=(20, 30))
    write_rows(tmp_path / "pairs.csv", [(*rows[i % 2], f"p{i}") for i in range(16)])
    run(shard=8)
    small, big = (3, 16, 24), (3, 20, 30)
    assert estimator.batches[:4] == [small, big, (1, *small[1:]), (1, *big[1:])]
    assert estimator.batches[4:] == estimator.batches[:4]
    assert [np.shape(flow) for _, flow in results(tmp_path / "out").values()][:2] == [
        (2, 16, 24),
        (2, 20, 30),
    ]


def test_many_sizes_do_not_pile_up(run, tmp_path, estimator):
    rows = []
    for number in range(12):
        write_image(tmp_path / f"s{number}.png", size=(8, 8 + number))
        rows.append((f"s{number}.png", f"s{number}.png", f"p{number}"))
    write_rows(tmp_path / "pairs.csv", rows)
    run(shard=12, batch=2)
    assert estimator.batches[0] == (1, 8, 8), "waited for a second image of that size for too long"
    assert len(estimator.batches) == 12


def test_the_size_of_batches_can_be_given(run, tmp_path, estimator):
    write_list(tmp_path, 7)
    run(batch=5, shard=7)
    assert [shape[0] for shape in estimator.batches] == [5, 2]


def test_results_do_not_depend_on_who_is_faster(run, tmp_path, monkeypatch):
    write_list(tmp_path, 30, lost=("no.png", "0.png"))
    run(workers=1, batch=3)
    expected, rows = flow_files(tmp_path / "out"), index_rows(tmp_path / "out")
    random = np.random.default_rng(0)

    def slowly(path):
        time.sleep(float(random.random()) / 100)
        return load_image(path)

    monkeypatch.setattr("gocor.runtime.pairs.load_image", slowly)
    run(workers=6, batch=3, restart=True)
    assert flow_files(tmp_path / "out") == expected
    assert index_rows(tmp_path / "out") == rows


def test_pairs_that_fail_stop_nothing(run, tmp_path):
    bad = {
        "lost": ("no.png", "0.png"), "text": ("0.png", "text.png"), "sizes": ("0.png", "big.png"),
        "nan": ("nan.png", "0.png"), "crash": ("crash.png", "0.png"), "bomb": ("bomb.png", "0.png"),
    }  # fmt: skip
    (tmp_path / "text.png").write_text("no image")
    write_image(tmp_path / "big.png", size=(20, 30))
    write_image(tmp_path / "nan.png", first=FakeEstimator.NAN)
    write_image(tmp_path / "crash.png", first=FakeEstimator.BAD)
    (tmp_path / "bomb.png").symlink_to("/dev/null")
    write_list(tmp_path, 5, **bad)
    report = run(batch=4)
    assert (report.done, report.failed) == (5, 6)
    found = results(tmp_path / "out")
    assert [name for name, (status, _) in found.items() if status == "done"] == [f"p{i}" for i in range(5)]
    for name, reason in {
        "lost": "no.png: does not exist; the path of an image",
        "text": "text.png: is of no image format",
        "sizes": "sizes: the reference has 24×16 pixels and the query 30×20; images of one size, or --pad",
        "nan": "m.onnx: gave 768 of 768 flow values that are not finite for nan;",
        "crash": "m.onnx: failed in the library",
    }.items():
        assert reason in found[name][1]
    with (tmp_path / "out" / "failed.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(bad)
    assert [pair.name for pair in PairList(tmp_path / "out" / "failed.csv")] == list(bad)


def test_a_model_that_is_lost_is_found_out_in_small_shards_too(run, tmp_path, estimator):
    write_image(tmp_path / "crash.png", first=FakeEstimator.BAD)
    write_list(tmp_path, 1)
    rows = [("0.png", "1.png", "good"), *(("crash.png", "1.png", f"c{i}") for i in range(20))]
    write_rows(tmp_path / "pairs.csv", rows)
    with pytest.raises(ModelError, match=r"m\.onnx: failed in the library"):
        run(shard=2)
    assert len(list((tmp_path / "out" / "flows").iterdir())) <= 4


def test_images_that_are_missing_are_no_fault_of_the_model(run, tmp_path):
    write_image(tmp_path / "crash.png", first=FakeEstimator.BAD)
    write_list(tmp_path, 1)
    rows = [("0.png", "1.png", "good"), *(("crash.png", "1.png", f"c{i}") for i in range(9))]
    write_rows(tmp_path / "pairs.csv", [*rows, *(("no.png", "0.png", f"n{i}") for i in range(10))])
    assert run(shard=10).failed == 19


def test_images_that_do_not_fit_into_memory(run, tmp_path, monkeypatch):
    def pad(reference, query):
        raise MemoryError

    write_list(tmp_path, 1)
    monkeypatch.setattr("gocor.runtime.batch.pipeline.pad_pair", pad)
    assert run().failed == 1
    assert results(tmp_path / "out")["p0"][1] == "p0: does not fit into memory; smaller images"


def test_failed_pairs_are_tried_again_when_asked_for(run, tmp_path, estimator):
    write_list(tmp_path, 10, late=("late.png", "0.png"))
    assert run().failed == 1
    write_image(tmp_path / "late.png")
    count = len(estimator.batches)
    assert run().failed == 1
    assert len(estimator.batches) == count
    report = run(retry_failed=True)
    assert (report.done, report.failed, report.tally.before) == (11, 0, 8)
    assert len(estimator.batches) == count + 3
    assert not (tmp_path / "out" / "failed.csv").exists()


def test_two_sizes_are_padded_when_asked_for(run, tmp_path, estimator):
    write_image(tmp_path / "big.png", size=(20, 30))
    write_list(tmp_path, 0, mixed=("0.png", "big.png"))
    assert run(pad=True).done == 1
    assert estimator.batches == [(1, 20, 30)]
    assert np.shape(results(tmp_path / "out")["mixed"][1]) == (2, 16, 24)


def test_a_model_that_fails_on_everything_ends_the_job(run, tmp_path):
    write_list(tmp_path, 3)
    write_image(tmp_path / "crash.png", first=FakeEstimator.BAD)
    rows = [("0.png", "1.png", f"p{i}") for i in range(10)] + [
        ("crash.png", "1.png", f"c{i}") for i in range(10)
    ]
    write_rows(tmp_path / "pairs.csv", rows)
    with pytest.raises(ModelError, match=r"m\.onnx: failed in the library; see gocor doctor"):
        run(shard=10)
    assert [p.name for p in (tmp_path / "out" / "flows").iterdir()] == ["000000"]


def test_a_second_run_has_nothing_to_do(run, tmp_path, estimator):
    write_list(tmp_path, 6)
    run()
    before = flow_files(tmp_path / "out")
    (tmp_path / "out" / "index.csv").unlink()
    seen = []
    report = run(seen.append)
    assert (seen, report.tally, report.done) == ([Tally(6, 6)], Tally(6, 6), 6)
    assert len(estimator.batches) == 6
    assert flow_files(tmp_path / "out") == before
    assert len(results(tmp_path / "out")) == 6


@pytest.mark.parametrize("format", ["flo", "parquet"])
@pytest.mark.parametrize("after", [1, 3, 5, 9])
def test_an_interrupted_run_goes_on(run, tmp_path, estimator, format, after):
    write_list(tmp_path, 10)

    def interrupt(tally):
        if tally.finished == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupt, format=format)
    assert not leftovers(tmp_path / "out")
    complete = len(list((tmp_path / "out" / "flows").iterdir()))
    assert complete <= after // 4
    estimator.batches.clear()
    seen = []
    assert run(seen.append, format=format).done == 10
    assert seen[0] == Tally(10, 4 * complete)
    assert len(estimator.batches) == 10 - 4 * complete
    resumed = flow_files(tmp_path / "out")
    run(format=format, restart=True)
    assert flow_files(tmp_path / "out") == resumed
    assert len(results(tmp_path / "out")) == 10


def test_progress_counts_every_pair(run, tmp_path):
    write_list(tmp_path, 3, lost=("no.png", "0.png"))
    seen = []
    run(seen.append, workers=1)
    assert seen == [Tally(4), *(Tally(4, 0, i, 0) for i in (1, 2, 3)), Tally(4, 0, 3, 1)]


def test_csv_and_parquet_lists_are_one_job(run, tmp_path, estimator):
    parquet, table = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow").Table
    write_list(tmp_path, 5)
    with (tmp_path / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    parquet.write_table(table.from_pylist(rows), tmp_path / "pairs.parquet")
    run()
    assert run(pairs="pairs.parquet").tally == Tally(5, 5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": "npy"}, "out: holds a batch with --format flo; another folder, or --restart"),
        ({"shard": 3, "pad": True}, "out: holds a batch with --pad False, with --shard 4;"),
        ({"batch": 2}, "out: holds a batch with --batch None;"),
        ({"provider": "cuda"}, "out: holds a batch on provider cpu;"),
        ({"pairs": "other.csv"}, "out: holds a batch of another list of pairs;"),
        ({}, "out: holds a batch of another model;"),
    ],
)
def test_another_job_is_refused(run, tmp_path, estimator, change, text):
    write_list(tmp_path, 5)
    (tmp_path / "other.csv").write_text("reference,query,name\n0.png,1.png,p0\n")
    run()
    before = flow_files(tmp_path / "out")
    if not change:
        estimator.path.write_bytes(b"another model")
    with pytest.raises(ConfigError, match=text):
        run(**change)
    assert flow_files(tmp_path / "out") == before
    run(**change, restart=True)
    assert len(results(tmp_path / "out")) == (1 if "pairs" in change else 5)
    assert not leftovers(tmp_path / "out")
    run(**change)


def test_what_is_said_again_is_no_change(run, tmp_path):
    write_list(tmp_path, 3)
    run()
    assert run(provider="cpu", threads=2, workers=1).tally.before == 3


def test_folders_that_hold_something_else(run, tmp_path):
    write_list(tmp_path, 1)
    out = tmp_path / "out"
    files = [
        out / name for name in ("index.csv", ".index.lock", ".job.conf", "flows/mine", "flows/.git/config")
    ]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    for options in ({}, {"restart": True}):
        with pytest.raises(
            ConfigError, match=r"out: holds flows, index\.csv, and they are of no batch that gocor knows; ano"
        ):
            run(**options)
    for text in ('{"half', "[1]", '{"name": "another job"}', "[" * 100_000):
        (out / "job.json").write_text(text)
        with pytest.raises(ConfigError, match=r"out: holds job\.json, flows, index\.csv, and they are of"):
            run()
    assert [path.read_text() for path in files] == ["precious"] * len(files)


def test_a_job_without_results_gives_way(run, tmp_path):
    write_list(tmp_path, 3)

    def interrupt(_tally):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupt, provider="cuda")
    assert json.loads((tmp_path / "out" / "job.json").read_text())["provider"] == "cuda"
    assert run(provider="cpu").done == 3


@pytest.mark.parametrize("option", ["restart", "retry_failed"])
def test_a_model_that_does_not_load_costs_no_results(run, tmp_path, estimator, monkeypatch, option):
    def refuse(*_arguments):
        raise ProviderError("provider", "'cuda' is not available here")

    write_list(tmp_path, 5, lost=("no.png", "0.png"))
    monkeypatch.setattr(estimator, "load", refuse)
    with pytest.raises(ProviderError):
        run()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    monkeypatch.undo()
    run()
    before = flow_files(tmp_path / "out")
    monkeypatch.setattr(estimator, "load", refuse)
    with pytest.raises(ProviderError):
        run(**{option: True})
    assert flow_files(tmp_path / "out") == before
    assert len(results(tmp_path / "out")) == 6


def test_a_shard_that_is_lost_while_the_batch_runs(run, tmp_path):
    write_list(tmp_path, 10)
    shard = tmp_path / "out" / "flows" / "000000"

    def remove(tally):
        if tally.finished == 9:
            while not shard.exists():
                time.sleep(0.001)
            shutil.rmtree(shard)

    with pytest.raises(OutputError, match=r"out/flows: lost shard 0 while the batch ran; the same command"):
        run(remove, workers=1)
    assert not (tmp_path / "out" / "index.csv").exists()
    assert run().tally == Tally(10, 6, 4)


def test_a_list_that_changes_while_the_batch_runs(run, tmp_path):
    path = write_list(tmp_path, 60)
    whole = path.read_text()

    def change(tally):
        if tally.finished == 9:
            while not (tmp_path / "out" / "flows" / "000000").exists():
                time.sleep(0.001)
            path.write_text(whole.replace("1.png", "2.png"))

    with pytest.raises(ImageError, match=r"pairs\.csv: was changed since the batch began; put it back, or"):
        run(change, workers=1)
    with pytest.raises(ConfigError, match="out: holds a batch of another list of pairs;"):
        run()
    path.write_text(whole)
    assert run().done == 60
    found = results(tmp_path / "out")
    for name, (_, flow) in found.items():
        np.testing.assert_allclose(np.array(flow)[:, 0, 0], means(tmp_path, name), rtol=1e-6)


def test_a_job_of_a_later_version(run, tmp_path):
    write_list(tmp_path, 1)
    run()
    record = json.loads((tmp_path / "out" / "job.json").read_text())
    (tmp_path / "out" / "job.json").write_text(json.dumps(record | {"later": 1}))
    with pytest.raises(ConfigError, match="out: holds a batch of another version of gocor; another folder"):
        run()


@pytest.mark.parametrize("name", ["index.csv", "failed.csv", "flows/000000/index.csv"])
@pytest.mark.parametrize("format", ["flo", "parquet"])
def test_the_list_is_not_overwritten(run, tmp_path, name, format):
    path = write_list(tmp_path, 1)
    (tmp_path / "out" / "flows" / "000000").mkdir(parents=True)
    path.rename(tmp_path / "out" / name)
    with pytest.raises(
        ConfigError, match=rf"-o: results in .*out would overwrite the list .*{name}; another"
    ):
        run(pairs=f"out/{name}", format=format, restart=True)
    assert (tmp_path / "out" / name).exists()


def test_one_process_at_a_time(run, tmp_path):
    write_list(tmp_path, 3)
    run()
    hold = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(); input()"
    command = [sys.executable, "-u", "-c", hold, tmp_path / "out" / ".lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(OutputError, match=r"out: is being written by another gocor batch; wait for it"):
            run()
        other.kill()
    run()


def test_a_file_system_without_locks(run, tmp_path, monkeypatch, caplog):
    def refuse(*_arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    write_list(tmp_path, 1)
    monkeypatch.setattr("fcntl.flock", refuse)
    assert run().done == 1
    assert "out: cannot be locked (No locks available); see that no other gocor batch writes" in caplog.text


@pytest.mark.parametrize("format", ["flo", "parquet"])
def test_full_disk(run, tmp_path, format):
    write_list(tmp_path, 10)
    write_image(tmp_path / "big.png", size=(200, 300))
    rows = [("0.png", "1.png", f"p{i}") for i in range(4)] + [
        ("big.png", "big.png", f"b{i}") for i in range(4)
    ]
    write_rows(tmp_path / "pairs.csv", rows)
    with files_up_to(100_000), pytest.raises(OutputError, match=r"cannot be written \(File too large\)"):
        run(format=format)
    assert [p.name[:6] for p in (tmp_path / "out" / "flows").iterdir()] == ["000000"]
    assert run(format=format).tally == Tally(8, 4, 4, 0)
    assert len(results(tmp_path / "out")) == 8


def test_an_index_that_does_not_fit_on_the_disk(run, tmp_path):
    write_list(tmp_path, 60)
    with files_up_to(4000), pytest.raises(OutputError, match=r"index\.csv: cannot be written"):
        run()
    assert run().tally == Tally(60, 60)


def test_a_shard_that_somebody_damaged(run, tmp_path):
    write_list(tmp_path, 8)
    run()
    part = tmp_path / "out" / "flows" / "000001" / "index.csv"
    good = part.read_text()
    for text in (
        "name,size\nx,1\n",
        good.replace("done", "eaten"),
        good.replace(",16,", ",x,"),
        good[:-80],
        '"' * 99,
    ):
        part.write_text(text)
        with pytest.raises(OutputError, match=r"flows/000001: is damaged .*; remove it, and its pairs are"):
            run()
    shutil.rmtree(part.parent)
    assert run().tally == Tally(8, 4, 4)


def test_a_parquet_file_that_somebody_damaged(run, tmp_path):
    pytest.importorskip("pyarrow")
    write_list(tmp_path, 8)
    run(format="parquet")
    (tmp_path / "out" / "flows" / "000001.parquet").write_text("no Parquet")
    with pytest.raises(OutputError, match=r"flows/000001\.parquet: is damaged .*; remove it, and its pairs"):
        run(format="parquet")


def test_a_bounded_number_of_pairs_is_on_the_way(run, tmp_path, estimator, monkeypatch):
    write_list(tmp_path, 120)
    lock, begun, most, finished = threading.Lock(), 0, 0, 0

    def counted(path):
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun / 2 - finished)
        return load_image(path)

    def note(tally):
        nonlocal finished
        finished = tally.finished

    monkeypatch.setattr("gocor.runtime.pairs.load_image", counted)
    slow = FakeEstimator.__call__
    monkeypatch.setattr(FakeEstimator, "__call__", lambda *a: (time.sleep(0.002), slow(*a))[1])
    run(note, workers=2, batch=3, shard=50)
    assert 2 < most <= Pipeline(estimator, config(tmp_path, workers=2, batch=3)).most_pairs == 22


def test_reading_model_and_writing_overlap(run, tmp_path, estimator, monkeypatch):
    """The model waits for an image that it does not need yet, writers for flows of later pairs."""
    write_list(tmp_path, 12)
    read, computed = threading.Semaphore(0), threading.Semaphore(0)
    waited = []

    def reads(path):
        read.release()
        return load_image(path)

    def computes(self, reference, query):
        waited.append(all(read.acquire(timeout=10) for _ in range(3 if len(waited) < 6 else 1)))
        computed.release()
        return model(self, reference, query)

    def writes(self, pair, flow, seconds):
        if pair.name == "p0":
            waited.append(all(computed.acquire(timeout=10) for _ in range(2)))
        return add(self, pair, flow, seconds)

    def completes(self, outcomes):
        if outcomes[0].name == "p0":
            waited.append(all(computed.acquire(timeout=10) for _ in range(4)))
        return complete(self, outcomes)

    model, add, complete = FakeEstimator.__call__, FileShard.add, FileShard._complete
    monkeypatch.setattr("gocor.runtime.pairs.load_image", reads)
    monkeypatch.setattr(FakeEstimator, "__call__", computes)
    monkeypatch.setattr(FileShard, "add", writes)
    monkeypatch.setattr(FileShard, "_complete", completes)
    assert run(workers=2, shard=4).done == 12
    assert len(waited) == 14
    assert all(waited)


@pytest.mark.parametrize(("format", "operation"), [("flo", "mkdir"), ("parquet", "open")])
def test_a_batch_that_is_told_to_stop_while_it_makes_a_shard(run, tmp_path, monkeypatch, format, operation):
    """A signal that comes within an operation on files is heard after it."""
    write_list(tmp_path, 6)
    make = getattr(Path, operation)

    def stopped(path, *arguments, **options):
        made = make(path, *arguments, **options)
        if path.name.startswith(".000001."):
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(Path, operation, stopped)
    with pytest.raises(KeyboardInterrupt):
        run(format=format, shard=2)
    assert not leftovers(tmp_path / "out")
    monkeypatch.undo()
    assert run(format=format, shard=2).done == 6


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"format": "exr"}, "--format: unknown 'exr'; one of flo, kitti, npy, parquet"),
        ({"dtype": "int8"}, "--dtype: unknown 'int8'; one of float32, float16"),
        ({"dtype": "float16"}, "--dtype: is float16 with --format flo; --format parquet"),
        ({"batch": 0}, "--batch: is 0; at least 1"),
        ({"shard": 0}, "--shard: is 0; at least 1"),
        ({"workers": -1}, "--workers: is -1; at least 1"),
        ({"threads": 0}, "--threads: is 0; at least 1"),
    ],
)
def test_bad_options(tmp_path, options, text):
    with pytest.raises(ConfigError, match=text):
        config(tmp_path, **options)


def test_parquet_without_pyarrow(run, tmp_path, monkeypatch):
    write_list(tmp_path, 1)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DependencyError, match=r"--format parquet: Parquet needs pyarrow.*gocor-deploy\[parquet\]"
    ):
        run(format="parquet")


def test_a_folder_that_cannot_be(run, tmp_path):
    write_list(tmp_path, 1)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"out: cannot be written"):
        run()


def test_a_package_has_a_model_for_each_size(tmp_path):
    make_package(tmp_path / "package")
    for number, size in enumerate([(32, 64), (64, 64)]):
        write_image(tmp_path / f"{number}.png", number, size=size)
    rows = [(f"{i % 2}.png", f"{i % 2}.png", f"p{i}") for i in range(4)]
    pairs = PairList(write_rows(tmp_path / "pairs.csv", rows))
    options = {"model": tmp_path / "package", "threads": 1}
    assert run_batch(pairs, config(tmp_path, **options)).done == 4
    again = run_batch(pairs, config(tmp_path, **options, provider="cpu", precision="fp32"))
    assert again.tally.before == 4, "what was chosen for the package is what is said here"
    for number, (_, flow) in enumerate(results(tmp_path / "out").values()):
        image = load_image(tmp_path / f"{number % 2}.png")
        assert np.shape(flow) == (2, *image.shape[:2])
        np.testing.assert_allclose(np.array(flow)[0], image.mean(), rtol=1e-5)
    shutil.rmtree(tmp_path / "package")
    make_package(tmp_path / "package", sizes=[(64, 64)])
    with pytest.raises(ConfigError, match="out: holds a batch of another model;"):
        run_batch(pairs, config(tmp_path, model=tmp_path / "package"))


def test_a_folder_that_is_no_package(run, tmp_path):
    write_list(tmp_path, 1)
    with pytest.raises(ModelError, match=r"package\.json: no such file; give a model made by gocor export"):
        run(model=tmp_path)
