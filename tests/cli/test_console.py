import io
import logging
import warnings
from collections.abc import Iterator

import pytest
from rich.console import Console

from gocor import console


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    logger = logging.getLogger("gocor")
    handlers, level = logger.handlers[:], logger.level
    with warnings.catch_warnings():
        yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_notes_and_warnings_are_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_notes(verbose=False)
    console.show_notes(verbose=False)  # a second time changes nothing
    logger = logging.getLogger("gocor.runtime")
    logger.info("resized from %d", 7)
    logger.warning("trained with [3]")
    logger.debug("details")
    captured = capsys.readouterr()
    assert captured.err == "note: resized from 7\nwarning: trained with [3]\n"
    assert captured.out == ""


def test_verbose_adds_the_details(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_notes(verbose=True)
    logging.getLogger("gocor.export").debug("folding constants")
    assert capsys.readouterr().err == "gocor.export: folding constants\n"


def test_a_table_of_facts_leaves_out_what_is_unknown() -> None:
    paper = Console(width=60, file=io.StringIO())
    paper.print(console.facts_table({"network": "PWCNet", "iterations": None, "path": "a[1].onnx"}))
    assert [line.split() for line in paper.file.getvalue().splitlines()] == [
        ["network", "PWCNet"],
        ["path", "a[1].onnx"],
    ]


def test_a_title_is_shown_as_it_is() -> None:
    shown = Console(width=60, file=io.StringIO())
    shown.print(console.facts_table({"kind": "model"}, title="a[/b]\x1b[red].onnx"))
    title = "".join(line.strip() for line in shown.file.getvalue().splitlines()[:-1])
    assert title == r"a[/b]\x1b[red].onnx"


def test_progress_is_silent_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("export") as report:
        report(1, 3, "folding")
    assert capsys.readouterr() == ("", "")
