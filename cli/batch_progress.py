"""How far a batch is, shown while it runs: a bar on a terminal, elsewhere a line now and then."""

import contextlib
import time
from collections.abc import Callable, Iterator

from gocor.console import print_line, stderr
from gocor.runtime.batch.job import BatchConfig, Tally

_SECONDS_BETWEEN_LINES = 30.0

Show = Callable[[Tally], None]


class Speed:
    """Pairs per second of a run, and what that means for the rest of it.

    Attributes:
        seconds: since the first tally.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.began, self.seconds = clock, clock(), 0.0
        self._tally: Tally | None = None

    def update(self, tally: Tally) -> None:
        """Takes note of how far the run is; its first tally starts the clock."""
        if self._tally is None:
            self.began = self.clock()
        self._tally, self.seconds = tally, self.clock() - self.began

    def __str__(self) -> str:
        """``12.3 pairs/s, 1:02:03 left``; empty until a pair is finished."""
        tally = self._tally
        if tally is None or not (finished := tally.done + tally.failed) or self.seconds <= 0:
            return ""
        left = round((tally.total - tally.finished) * self.seconds / finished)
        return f"{rate(finished, self.seconds)}, {duration(left)} left"


def rate(pairs: int, seconds: float) -> str:
    """``12.3 pairs/s``, and whole pairs from a thousand on."""
    value = pairs / seconds
    return f"{value:.3g} pairs/s" if value < 999.5 else f"{value:.0f} pairs/s"


def duration(seconds: int) -> str:
    """``1:02:03``, or ``2:03`` below an hour."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextlib.contextmanager
def batch_progress(config: BatchConfig, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """Shows on stderr how far a batch is while the block runs; the function that it gives takes tallies."""
    try:
        speed = Speed(clock)
        with _bar(speed) if stderr.is_terminal else contextlib.nullcontext(_lines(speed)) as show:
            yield show
    except (KeyboardInterrupt, SystemExit):
        print_line("note", f"stopped; the same command{_without(config)} goes on from here", "cyan")
        raise


def _without(config: BatchConfig) -> str:
    """Options that would have what this run has done removed and computed again."""
    given = {"--restart": config.restart, "--retry-failed": config.retry_failed}
    names = [name for name, is_given in given.items() if is_given]
    return f" without {' and '.join(names)}" if names else ""


@contextlib.contextmanager
def _bar(speed: Speed) -> Iterator[Show]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("pairs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[speed]}"), TextColumn("[red]{task.fields[failed]}"),
    )  # fmt: skip
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("pairs", total=None, speed="", failed="")

        def show(tally: Tally) -> None:
            speed.update(tally)
            failed = f"{tally.failed} failed" if tally.failed else ""
            bar.update(task, completed=tally.finished, total=tally.total, speed=str(speed), failed=failed)

        yield show


def _lines(speed: Speed) -> Show:
    due = _SECONDS_BETWEEN_LINES

    def show(tally: Tally) -> None:
        nonlocal due
        speed.update(tally)
        if speed.seconds < due or tally.finished == tally.total:
            return
        due = speed.seconds + _SECONDS_BETWEEN_LINES
        failed = f", {tally.failed} failed" if tally.failed else ""
        print_line("note", f"{tally.finished} of {tally.total} pairs{failed}, {speed}", "cyan")

    return show
