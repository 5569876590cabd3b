import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import gocor
from gocor import __main__ as cli
from gocor.core.errors import ConfigError, ModelError

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes every command fail with the given error."""

    def install(error: BaseException) -> None:
        def command() -> None:
            raise error

        app = typer.Typer(pretty_exceptions_enable=False)
        app.command("work")(command)
        app.callback()(lambda: None)
        monkeypatch.setattr(cli, "app", app)

    return install


def test_version(invoke: Invoke) -> None:
    assert invoke("--version") == (0, f"gocor {gocor.__version__}\n", "")


def test_without_arguments_it_says_what_it_can_do(invoke: Invoke) -> None:
    code, out, _ = invoke()
    assert code == 0
    assert all(f" {command} " in out for command in cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself_with_an_example(invoke: Invoke, command: str) -> None:
    code, out, _ = invoke(command, "--help")
    assert code == 0
    assert f"gocor {command}" in out.split("Usage:")[1].split("\n", 1)[1], "no example in the epilog"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("fly",), "error: No such command 'fly'; see gocor --help\n"),
        (("--fly",), "error: No such option: --fly; see gocor --help\n"),
        (("export",), "error: Missing argument 'checkpoint'; see gocor export --help\n"),
        (("run", "--provider"), "error: Option '--provider' requires an argument; see gocor run --help\n"),
    ],
)
def test_wrong_usage_is_one_line(invoke: Invoke, arguments: tuple[str, ...], text: str) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out, err) == (2, "", text)


def test_an_error_of_ours_is_one_line_and_2(invoke: Invoke, failing: Callable) -> None:
    failing(ModelError("a/very/long/" * 20 + "model.onnx", "is [not] a model", "run gocor export"))
    code, out, err = invoke("work")
    assert (code, out) == (2, "")
    assert err == "error: " + "a/very/long/" * 20 + "model.onnx: is [not] a model; run gocor export\n"


def test_an_error_of_the_system_is_one_line_and_2(invoke: Invoke, failing: Callable) -> None:
    failing(PermissionError(errno.EACCES, os.strerror(errno.EACCES), "secret.png"))
    assert invoke("work") == (2, "", "error: secret.png: Permission denied\n")


@pytest.mark.parametrize(
    ("module", "advice"),
    [("torch", 'pip install "gocor-deploy[export]"'), ("cv2", 'pip install "gocor-deploy[video]"')],
)
def test_a_missing_package_names_the_extra(
    invoke: Invoke, failing: Callable, module: str, advice: str
) -> None:
    failing(ModuleNotFoundError(f"No module named '{module}.x'", name=f"{module}.x"))
    assert invoke("work") == (2, "", f"error: {module} is not installed; {advice}\n")


def test_a_bug_is_told_from_wrong_input(invoke: Invoke, failing: Callable) -> None:
    failing(ZeroDivisionError("division\nby zero"))
    code, _, err = invoke("work")
    assert code == 70
    assert err.startswith("internal error: ZeroDivisionError: division by zero (a bug of gocor; --verbose")
    assert err.count("\n") == 1


def test_ctrl_c_is_quiet(invoke: Invoke, failing: Callable) -> None:
    failing(KeyboardInterrupt())
    assert invoke("work")[0] == 130


def test_too_little_memory_is_no_bug(invoke: Invoke, failing: Callable) -> None:
    failing(MemoryError("Unable to allocate 74.5 GiB"))
    text = "error: out of memory (Unable to allocate 74.5 GiB); smaller images, or a machine with more\n"
    assert invoke("work") == (2, "", text)


PROGRAM = """
import sys, time
from gocor import __main__ as cli
from gocor.console import stdout
from gocor.core.files import atomic_path

@cli.app.command()
def work(text: str, times: int = 1, path: str = ""):
    for _ in range(times):
        stdout.print(text)
    if path:
        with atomic_path(path):
            stdout.print("writing")
            time.sleep(60)

cli.main()
"""


def program(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """The entry point in a process of its own, with a command ``work``."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "work", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment,
    )  # fmt: skip


def test_what_the_terminal_cannot_show_is_escaped() -> None:
    out, err = program("211×150 \udcff", PYTHONIOENCODING="ascii:strict").communicate()
    assert (out, err) == (b"211\\xd7150 \\udcff\n", b"")


def test_told_to_stop_it_leaves_nothing_half_written(tmp_path: Path) -> None:
    process = program("started", "--path", str(tmp_path / "flow.flo"))
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == [b"started\n", b"writing\n"]
    assert list(tmp_path.iterdir())
    process.terminate()
    assert process.communicate() == (b"", b"")
    assert process.returncode == 143
    assert not list(tmp_path.iterdir())


def test_a_reader_that_leaves_is_no_difference_found() -> None:
    process = program("a line", "--times", "10000")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_command_chooses_its_exit_code(invoke: Invoke, failing: Callable) -> None:
    failing(typer.Exit(1))
    assert invoke("work") == (1, "", "")


@pytest.mark.parametrize("arguments", [("--verbose", "work"), ("work", "--verbose")])
def test_verbose_gives_the_traceback_wherever_it_stands(
    invoke: Invoke, failing: Callable, arguments: tuple[str, ...]
) -> None:
    failing(ConfigError("--size", "0x0"))
    code, _, err = invoke(*arguments)
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("error: --size: 0x0\n")
