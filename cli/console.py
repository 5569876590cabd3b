"""What the commands print: results on stdout; notes, errors and progress on stderr."""

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gocor.core.errors import visible
from gocor.runtime.report import to_json

_PIPE_WIDTH = 160  # rich takes 80 columns for a pipe and would break paths in two
_FIGURES_WIDTH = 80
READER_GONE = 141  # what shells report of a program that SIGPIPE ended

Report = Callable[[int, int | None, str], None]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Ends as programs do whose reader left; rich's 1 would say that verify found a difference."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()
        raise SystemExit(READER_GONE)


def _console(stderr: bool) -> Console:
    console = _Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    return console


stdout = _console(stderr=False)
stderr = _console(stderr=True)


def examples(*commands: str) -> str:
    """Epilog of a command's help: one example a line, ``# comments`` dimmed."""
    lines = [re.sub(r"(\s+#.*)$", r"[dim]\1[/]", escape(command)) for command in commands]
    return "\n\n".join(["[bold]Examples[/]", *lines])


def print_line(label: str, text: object, style: str) -> None:
    """Prints ``label: text`` on stderr as one line, whatever the width of the terminal."""
    stderr.print(Text(visible(f"{label}: {text}"), style=style), soft_wrap=True)


def print_json(report: object) -> None:
    """Prints a report as JSON."""
    stdout.out(to_json(report), highlight=False)


def facts_table(facts: Mapping[str, Any], title: str | None = None) -> Table:
    """A table of two columns, name and value; facts that are None are left out."""
    title = escape(visible(title)) if title else None  # file names may have brackets
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value is not None:
            table.add_row(name, Text("\n".join(map(visible, str(value).split("\n")))))
    return table


def iterations(of_global: int | None, of_local: int | None) -> str | None:
    """``global 3, local 3``, as far as there are such; None without any."""
    counts = (("global", of_global), ("local", of_local))
    return ", ".join(f"{kind} {count}" for kind, count in counts if count is not None) or None


def print_figures(table: Table) -> None:
    """Prints a table of numbers; in a narrow terminal its lines run over rather than columns vanish."""
    if stdout.width < _FIGURES_WIDTH:
        table.width = _FIGURES_WIDTH
    stdout.print(table, crop=False)


@contextlib.contextmanager
def progress(title: str) -> Iterator[Report]:
    """Shows a bar on stderr while the block runs, on a terminal only; it is gone afterwards.

    Yields:
        ``report(done, total, text)``: what was done of how much (None if nobody knows), and what comes now.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("[dim]{task.fields[text]}"),
    )  # fmt: skip
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(title, total=None, text="")

        def report(done: int, total: int | None, text: str = "") -> None:
            bar.update(task, completed=done, total=total, text=text)

        yield report


class _NoteHandler(logging.Handler):
    """Prints the package's log records through the console, so that they do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one record."""
        if record.levelno >= logging.WARNING:
            label, style = record.levelname.lower(), "yellow"
        elif record.levelno >= logging.INFO:
            label, style = "note", "cyan"
        else:
            label, style = record.name, "dim"
        print_line(label, self.format(record), style)


def show_notes(verbose: bool) -> None:
    """Sends the package's notes and warnings to stderr, with ``verbose`` its debug messages, too.

    Other packages' Python warnings tell a user of the command line nothing they can act on; they are
    hidden unless ``verbose``.
    """
    logger = logging.getLogger("gocor")
    for handler in [h for h in logger.handlers if isinstance(h, _NoteHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(_NoteHandler())
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        warnings.simplefilter("ignore")
