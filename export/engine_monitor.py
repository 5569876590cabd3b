"""Watching a build: its messages, its progress, and stopping it."""

import contextlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

Progress = Callable[[int, int | None, str], None]

# The parser inlines a function body for each call and names the copies' nodes alike. The names are used for
# debugging only; those of the graph itself are unique (graph.name_nodes), and other names are reported.
_SAME_NAMES = re.compile(r"A node named node_of_\w+ already exists, the output tensors of this new instance")


class BuildLog:
    """Everything that a library says during a build.

    Attributes:
        lines: as ``[WARNING] …``, in order.
        warnings: without repetitions, and without those that every model of ours causes.
    """

    def __init__(self, verbose: bool) -> None:
        self.lines: list[str] = []
        self._warnings: dict[str, None] = {}
        self._verbose = verbose

    def hear(self, severity: str, message: str) -> None:
        """Takes one message; called from any thread."""
        if self._verbose or severity != "VERBOSE":
            self.lines.append(f"[{severity}] {message}")
        if severity == "WARNING" and not _SAME_NAMES.search(message):
            self._warnings[message] = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know."""
        return tuple(self._warnings)


class Steps:
    """Passes the steps of a build on to a progress bar, and stops the build when asked to.

    Called by C++, which no exception may pass: one is kept and raised by ``raise_if_stopped``.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._totals: dict[str, int] = {}
        self._stopped: BaseException | None = None

    def start(self, phase: str, total: int) -> None:
        """A phase of so many steps begins."""
        self._totals[phase] = total
        self._report(0, phase)

    def step(self, phase: str, index: int) -> bool:
        """A step is done; gives whether to go on."""
        self._report(index + 1, phase)
        return self._stopped is None

    def stop(self, reason: BaseException) -> None:
        """Lets the build end after the present step."""
        self._stopped = self._stopped or reason

    def raise_if_stopped(self) -> None:
        """Raises what stopped the build, if anything did."""
        if self._stopped is not None:
            raise self._stopped

    def _report(self, done: int, phase: str) -> None:
        if self._progress is None or self._stopped is not None:
            return
        try:
            self._progress(done, self._totals.get(phase), phase)
        except BaseException as error:
            self.stop(error)


def progress_monitor(library: Any, steps: Steps) -> Any:
    """A library's ``IProgressMonitor`` over ``steps``."""

    class Monitor(library.IProgressMonitor):
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            steps.start(phase_name, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            pass

        def step_complete(self, phase_name: str, step: int) -> bool:
            return steps.step(phase_name, step)

    return Monitor()


@contextlib.contextmanager
def stoppable(steps: Steps) -> Iterator[None]:
    """Turns Ctrl-C and SIGTERM within the block into an orderly end of the build.

    By default they raise inside of whatever Python code runs, here a callback of C++, and end the process
    with a core dump.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals, and may say what they do
        return

    def stop(number: int, _: FrameType | None) -> None:
        steps.stop(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
