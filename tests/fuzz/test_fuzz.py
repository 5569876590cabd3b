"""A thousand damaged files for every reader; ``make fuzz`` has a hundred times as many."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fuzz.__main__ as fuzzing
from fuzz.readers import READERS, Reader
from gocor.core.errors import ModelError

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
    assert done.stdout, done.stderr
    return {outcome["name"]: outcome for outcome in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    outcome = outcomes[name]
    assert outcome["failures"] == []
    assert outcome["read"] + outcome["refused"] >= COUNT
    if not name.startswith("record of"):  # what a damaged one is about is computed again
        assert outcome["refused"] > COUNT / 10


# ── that it finds what it is for


def sample(folder: Path) -> Iterator[Path]:
    (folder / "good").write_text("good")
    yield folder / "good"


def reader_that(does: Callable[[], object]) -> Reader:
    """Reads what is good, and does something else with all that is damaged."""

    def read(path: Path) -> None:
        if path.read_text() != "good":
            does()

    return Reader("a reader", ".txt", sample, (lambda data, random: b"bad",), read)


def out_of_memory() -> None:
    try:
        bytearray(1 << 60)
    except MemoryError as error:
        raise ModelError("a.onnx", "is damaged") from error


FAILURES = [
    (lambda: int("x"), "ValueError: invalid literal for int() with base 10: 'x' (test_fuzz.py:"),
    (sys.exit, "SystemExit: "),
    (lambda: b"x" * (650 << 20), "took 6"),
    (out_of_memory, "memory ran out: a.onnx: is damaged"),
    (lambda: os.kill(os.getpid(), signal.SIGSEGV), "ended the process with SIGSEGV"),
    (lambda: os._exit(3), "ended the process with exit code 3"),
]


def failures_of(does: Callable[[], object]) -> list[str]:
    return fuzzing.fuzz(reader_that(does), first=7, count=1, seconds=60).failures


@pytest.mark.parametrize(("does", "failure"), FAILURES)
def test_what_is_a_failure(does: Callable[[], object], failure: str) -> None:
    (found,) = failures_of(does)
    assert found.startswith(f"--only 7: {failure}")


def test_what_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "MOST_SECONDS", 0.5)
    assert failures_of(lambda: all(iter(lambda: 1, 0))) == ["--only 7: ended the process with SIGPROF"]
    monkeypatch.setattr(fuzzing, "MOST_WAITED", 1)
    assert failures_of(lambda: time.sleep(60)) == ["--only 7: ended the process with SIGALRM"]


def test_a_refusal_is_none() -> None:
    def refuse() -> None:
        raise ModelError("a.onnx", "is damaged")

    outcome = fuzzing.fuzz(reader_that(refuse), first=0, count=5, seconds=60)
    assert (outcome.read, outcome.refused, outcome.failures) == (0, 5, [])


def test_a_reader_has_to_read_what_is_valid(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise ModelError(path, "needs a package that is not there")

    with pytest.raises(ModelError, match="needs a package"):
        fuzzing.make_samples(dataclasses.replace(reader_that(int), read=refuse), tmp_path)


@pytest.mark.parametrize("name", ["flow .flo", "image .png", "table of ranges", "checkpoint .pth"])
def test_a_number_stands_for_one_input(name: str, tmp_path: Path) -> None:
    """In any process, whatever other readers did before."""
    made = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        made.append([path.read_bytes() for path in READERS[name].samples(folder)])
    assert made[0] == made[1]
    assert READERS[name].damaged(made[0], 5) == READERS[name].damaged(made[1], 5)
    assert len({READERS[name].damaged(made[0], number) for number in range(20)}) > 10


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["engine"], "no reader 'engine'; there are: engine manifest; "),
        (["--only", "5"], "--only is the number of an input of one reader, and wants its name"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[str, ...],
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", *arguments])
    with pytest.raises(SystemExit) as caught:
        fuzzing.main()
    assert caught.value.code == 2
    assert error in capsys.readouterr().err
