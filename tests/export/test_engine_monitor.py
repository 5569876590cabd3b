import signal
import threading

import pytest

from gocor.export.engine_monitor import BuildLog, Steps, stoppable

SAME_NAMES = (
    "ImporterContext.hpp:501: A node named node_of_sums already exists, the output tensors of this new "
    "instance will not be queryable."
)


def test_only_the_names_of_inlined_functions_are_no_warning() -> None:
    log = BuildLog(verbose=False)
    log.hear("WARNING", SAME_NAMES)
    log.hear("WARNING", SAME_NAMES.replace("node_of_sums", "conv1a.0/Conv"))
    log.hear("WARNING", "Weights are clamped")
    log.hear("WARNING", "Weights are clamped")
    assert log.warnings == (SAME_NAMES.replace("node_of_sums", "conv1a.0/Conv"), "Weights are clamped")
    assert len(log.lines) == 4


def test_the_log_keeps_the_verbose_messages_when_asked() -> None:
    for verbose, lines in ((False, ["[INFO] a"]), (True, ["[INFO] a", "[VERBOSE] b"])):
        log = BuildLog(verbose)
        log.hear("INFO", "a")
        log.hear("VERBOSE", "b")
        assert log.lines == lines


def test_steps_reach_the_progress_bar() -> None:
    seen: list[tuple[int, int | None, str]] = []
    steps = Steps(lambda done, total, phase: seen.append((done, total, phase)))
    steps.start("Building", 6)
    steps.start("Timing", 2)
    assert steps.step("Timing", 0)
    assert steps.step("Building", 0)
    assert seen == [(0, 6, "Building"), (0, 2, "Timing"), (1, 2, "Timing"), (1, 6, "Building")]


def test_an_error_in_the_progress_bar_ends_the_build_in_order() -> None:
    def fail(done: int, total: int | None, phase: str) -> None:
        raise ValueError("a broken bar")

    steps = Steps(fail)
    steps.start("Building", 6)
    assert not steps.step("Building", 0)
    with pytest.raises(ValueError, match="a broken bar"):
        steps.raise_if_stopped()


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_signals_end_the_build_in_order(number: signal.Signals, raised: type[BaseException]) -> None:
    steps, before = Steps(None), signal.getsignal(number)
    with stoppable(steps):
        signal.raise_signal(number)  # to this thread: os.kill may pick another, and the handler runs late
        assert not steps.step("Building", 0)
    assert signal.getsignal(number) is before
    with pytest.raises(raised):
        steps.raise_if_stopped()


def test_a_build_in_another_thread_leaves_signals_alone() -> None:
    inside: list[object] = []

    def work() -> None:
        with stoppable(Steps(None)):
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [signal.getsignal(signal.SIGINT)]
