"""A batch that is killed loses nothing, doubles nothing, and ends as one that was left alone."""

import os
import random
import signal
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
    results,
    write_image,
    write_list,
)
from toy_models import metadata, save_toy

from gocor.runtime.batch.job import Tally
from gocor.runtime.batch.local import run_batch
from gocor.runtime.pairs import PairList

OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir")


def run_and_die(folder: Path, options: dict[str, object], deadline: int) -> bool:
    """Runs a batch in a child process that kills itself before its ``deadline``-th operation on files.

    Returns:
        Whether it came to that.
    """
    child = os.fork()
    if not child:
        count, lock = 0, threading.Lock()

        def before(operation: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if operation in OPERATIONS and str(arguments[0]).startswith(str(folder / "out")):
                with lock:
                    count += 1
                    if count == deadline:
                        os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(before)
            run(folder, options)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def run(folder: Path, options: dict[str, object]) -> Tally:
    estimator = FakeEstimator(folder / "m.onnx", batch=2)
    return run_batch(PairList(folder / "pairs.csv"), config(folder, **options), load=estimator.load).tally


@pytest.mark.parametrize("options", [{}, {"format": "parquet"}], ids=["files", "parquet"])
def test_a_kill_before_any_operation_on_files(tmp_path, options):
    options = {"shard": 2, "workers": 1, **options}
    write_list(tmp_path, 4, lost=("no.png", "0.png"))
    run(tmp_path, options)
    expected, rows = flow_files(tmp_path / "out"), index_rows(tmp_path / "out")
    for deadline in range(1, 100):
        (tmp_path / "out").rename(tmp_path / f"done{deadline}")
        if not run_and_die(tmp_path, options, deadline):
            break
        before = {path.name for path in (tmp_path / "out").glob("flows/[0-9]*")}
        tally = run(tmp_path, options)
        assert tally.before == sum({"000002": 1}.get(name[:6], 2) for name in before)
        assert flow_files(tmp_path / "out") == expected, deadline
        assert index_rows(tmp_path / "out") == rows, deadline
        assert not leftovers(tmp_path / "out"), deadline
    assert 20 < deadline < 99


def test_a_kill_while_earlier_results_are_removed(tmp_path):
    write_list(tmp_path, 2)
    for deadline in range(1, 100):
        run(tmp_path, {"shard": 1, "restart": True})
        died = run_and_die(tmp_path, {"restart": True, "format": "npy"}, deadline)
        run(tmp_path, {"restart": True, "format": "npy"})
        assert set(flow_files(tmp_path / "out")) == {"flows/000000/p0.npy", "flows/000000/p1.npy"}, deadline
        assert not leftovers(tmp_path / "out"), deadline
        if not died:
            break
    assert 10 < deadline < 99


def test_a_kill_while_failed_pairs_are_tried_again(tmp_path):
    write_list(tmp_path, 1, late=("late.png", "0.png"))
    for deadline in range(1, 100):
        run(tmp_path, {"restart": True})
        write_image(tmp_path / "late.png")
        died = run_and_die(tmp_path, {"retry_failed": True}, deadline)
        run(tmp_path, {"retry_failed": True})
        assert [status for status, _ in results(tmp_path / "out").values()] == ["done", "done"], deadline
        (tmp_path / "late.png").unlink()
        if not died:
            break
    assert 10 < deadline < 99


class Command:
    """``gocor batch`` on a small model, in a process of its own."""

    def __init__(self, folder: Path, pairs: int, options: str) -> None:
        save_toy(folder / "m.onnx", metadata(batch=2))
        for number in range(7):
            write_image(folder / f"{number}.png", number, size=(32, 64))
        write_list(folder, pairs, lost=("no.png", "0.png"))
        self.folder, self.options = folder, options.split()

    def start(self, out: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "gocor", "batch", "--pairs", "pairs.csv", "--model", "m.onnx"]
        command += ["-o", out, "--shard", "5", "--threads", "1", *self.options]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, stdout=pipe, stderr=pipe, text=True)

    def finish(self, out: str) -> str:
        process = self.start(out)
        printed, said = process.communicate(timeout=300)
        assert process.returncode == 3, said
        return printed

    def shards(self, out: str) -> int:
        return len(list((self.folder / out).glob("flows/[0-9]*")))


def kill_at_random(command: Command, kills: int, seed: int) -> None:
    """Kills a batch again and again, each time after it has completed a random number of shards more."""
    generator = random.Random(seed)
    command.finish("whole")
    expected = command.shards("whole")
    for kill in range(kills):
        process = command.start("out")
        # So that the last kill still finds something to do; and then at no certain point of a shard.
        most = max(1, (expected - command.shards("out")) // (kills - kill + 1))
        goal = command.shards("out") + generator.randint(0, most)
        while command.shards("out") < goal and process.poll() is None:
            time.sleep(0.002)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=generator.random() / 50)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert command.shards("out") < expected
    assert "done, 1 failed" in command.finish("out")
    whole, out = command.folder / "whole", command.folder / "out"
    assert flow_files(out) == flow_files(whole)
    assert index_rows(out) == index_rows(whole)
    assert not leftovers(out)
    first, last = (results(out)[name][1] for name in ("p0", "lost"))
    assert np.ptp(np.array(first)[0]) == 0
    assert "no.png: does not exist" in last


def test_three_kills(tmp_path):
    kill_at_random(Command(tmp_path, 200, "--format npy"), 3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["flo", "kitti", "parquet"])
def test_fifty_kills(tmp_path, format):
    kill_at_random(Command(tmp_path, 4000, f"--format {format}"), 50, seed=2)


def test_a_batch_that_is_told_to_stop(tmp_path):
    command = Command(tmp_path, 2000, "")
    process = command.start("out")
    while not command.shards("out"):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed) == (143, "")
    assert said == "note: stopped; the same command goes on from here\n"
    assert command.shards("out")
    assert not leftovers(tmp_path / "out")
