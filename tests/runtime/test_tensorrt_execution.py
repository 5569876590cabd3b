"""The pool of lanes alone, with lanes that do nothing; ``test_tensorrt_session.py`` has whole calls."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from gocor.runtime.cuda import CudaError
from gocor.runtime.tensorrt_execution import ClosedError, Lane, Lanes


class Idle:
    """A lane that only knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def pool(make: Callable[[], object], limit: int) -> Lanes:
    return Lanes(make, limit, "toy.engine")  # type: ignore[arg-type]


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_lanes_are_made_when_there_are_more_calls_than_lanes() -> None:
    made: list[Idle] = []
    lanes = pool(lambda: made.append(Idle()) or made[-1], 3)
    for _ in range(5):
        with lanes.lane():
            pass
    assert len(made) == 1
    with lanes.lane() as first, lanes.lane() as second:
        assert first is not second
    assert len(made) == 2


def test_after_a_failure_who_waits_tries_itself() -> None:
    started, go = threading.Event(), threading.Event()
    outcomes: list[object] = [Idle(), CudaError("TensorRT", "bad luck"), Idle()]

    def make() -> object:
        outcome = outcomes.pop(0)
        if isinstance(outcome, CudaError):
            started.set()
            go.wait(30)
            raise outcome
        return outcome

    lanes = pool(make, 2)

    def use() -> Lane:
        with lanes.lane() as lane:
            return lane

    with ThreadPoolExecutor(2) as threads, lanes.lane():
        failing = threads.submit(use)
        started.wait(30)
        waiting = threads.submit(use)
        wait_until(lambda: lanes._changed._waiters)  # type: ignore[attr-defined]
        go.set()
        with pytest.raises(CudaError, match="bad luck"):
            failing.result(30)
        assert waiting.result(30) is not None


def test_closing_closes_idle_lanes_now_and_others_when_they_come_back() -> None:
    made: list[Idle] = []
    lanes = pool(lambda: made.append(Idle()) or made[-1], 2)
    with lanes.lane(), lanes.lane():
        pass
    with lanes.lane() as busy:
        lanes.close()
        assert [lane.closed for lane in made] == [lane is not busy for lane in made]
    assert all(lane.closed for lane in made)
    with pytest.raises(ClosedError), lanes.lane():
        pass


def test_a_failing_first_lane_is_an_error() -> None:
    def fail() -> None:
        raise CudaError("TensorRT", "out of memory")

    with pytest.raises(CudaError, match="out of memory"):
        pool(fail, 2)
