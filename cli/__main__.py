"""The command ``gocor``.

Exit codes: 0 done, 1 verify found a difference, 2 wrong input, 3 a batch is done but for pairs that failed,
70 a bug of gocor, 130 Ctrl-C, 141 nobody reads the output any more, 143 told to stop.
"""

import importlib
import inspect
import io
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gocor.console import print_line, show_notes, stderr
from gocor.core.errors import GocorError
from gocor.core.version import __version__

COMMANDS = (
    "export", "calibrate", "build", "verify", "package",
    "run", "batch", "triton", "inspect", "bench", "eval", "doctor",
)  # fmt: skip
EXTRA_OF = {
    "torch": "export", "onnx": "export", "onnxscript": "export", "safetensors": "export",
    "onnxruntime": "cpu", "openvino": "openvino", "polygraphy": "verify", "cv2": "video",
    "matplotlib": "plot", "pyarrow": "parquet", "skimage": "train",
}  # fmt: skip

WRONG_INPUT, INTERNAL_ERROR, INTERRUPTED, TERMINATED = 2, 70, 130, 143

# Typer carries its own copy of click; of its usage errors only this one is public.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="gocor",
    help="From GOCor checkpoints to ONNX models verified against PyTorch, and optical flow from them.",
    epilog="Start with: [bold]gocor export their.pth -o model.onnx --size 384x512[/]",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gocor {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Say more, and give tracebacks. May stand anywhere in the line.")
    ] = False,
) -> None:
    """Options of every command; ``invoke`` has taken ``--verbose`` out before they are parsed."""


def _register(name: str) -> None:
    module = importlib.import_module(f"gocor.commands.{name}")
    function = getattr(module, name)
    # Typer's rich mode would keep the line breaks of the source inside of a paragraph.
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    text = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    app.command(name, help=text, epilog=module.EPILOG)(function)


for _name in COMMANDS:
    _register(_name)


def invoke(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; what goes wrong is one line on stderr."""
    verbose = "--verbose" in arguments
    arguments = [argument for argument in arguments if argument != "--verbose"] or ["--help"]
    show_notes(verbose)
    try:
        code = app(args=arguments, prog_name="gocor", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if verbose:
            stderr.print_exception()
        return _explain(error, arguments[0])
    return code if isinstance(code, int) else 0


def _explain(error: Exception, command: str) -> int:
    """Says in one line what went wrong with a command and returns the exit code."""
    text, code = str(error), WRONG_INPUT
    if isinstance(error, _UsageError):
        known = f"gocor {command}" if command in COMMANDS else "gocor"  # some errors know of no command
        text = f"{error.format_message().rstrip('.')}; see {known} --help"
    elif isinstance(error, ModuleNotFoundError) and (package := (error.name or "").split(".")[0]) in EXTRA_OF:
        text = f'{package} is not installed; pip install "gocor-deploy[{EXTRA_OF[package]}]"'
    elif isinstance(error, OSError) and not isinstance(error, GocorError):
        text = f"{error.filename}: {error.strerror}" if error.filename else text
    elif isinstance(error, MemoryError):
        text = f"out of memory{f' ({text})' if text else ''}; smaller images, or a machine with more"
    elif not isinstance(error, GocorError):
        text = f"{type(error).__name__}: {error} (a bug of gocor; --verbose gives the traceback for a report)"
        code = INTERNAL_ERROR
    print_line("error" if code == WRONG_INPUT else "internal error", " ".join(text.split()), style="red")
    return code


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # × on an ASCII terminal or a file name that is no UTF-8 must not cost a finished run its report.
            stream.reconfigure(errors="backslashreplace")
    # As an exception, so that temporary files go: timeout, docker stop and batch systems end runs like this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    sys.exit(invoke(sys.argv[1:]))


if __name__ == "__main__":
    main()
