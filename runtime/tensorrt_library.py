"""TensorRT and TensorRT-RTX, whose Python interfaces are one: importing them, and hearing what they say."""

import contextlib
import functools
import importlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

from gocor.core.errors import DependencyError
from gocor.runtime.manifest import LIBRARY_NAMES, Backend

MODULES: dict[Backend, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
EXTRAS: dict[Backend, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
# 10.9 brought plugins whose code is in the engine. RTX 1.2 says whether a stream can be captured.
OLDEST: dict[Backend, tuple[int, int]] = {"tensorrt": (10, 9), "tensorrt-rtx": (1, 2)}

logger = logging.getLogger("gocor")

Listener = Callable[[str, str], None]  # severity, as "WARNING", and message


def import_library(backend: Backend) -> Any:
    """The module ``tensorrt`` or ``tensorrt_rtx``.

    Raises:
        DependencyError: it is not installed, its installation is broken, or it is too old.
    """
    name, pip = LIBRARY_NAMES[backend], f'pip install "gocor-deploy[{EXTRAS[backend]}]"'
    try:
        library = importlib.import_module(MODULES[backend])
    except (ImportError, OSError, RuntimeError) as error:  # OSError: it loads shared libraries itself
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DependencyError(name, f"cannot be imported ({reason})", pip) from error
    # Folders of the same name become empty modules; the stub wheels that could not download theirs do, too.
    if not (version := getattr(library, "__version__", "")):
        raise DependencyError(name, "is installed without its libraries", f"{pip}, on a machine with network")
    release = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if release < (oldest := OLDEST[backend]):
        needed = f"{oldest[0]}.{oldest[1]} or later is needed"
        jetpack = " (JetPack 6 has an older one)" if backend == "tensorrt" else ""
        raise DependencyError(name, f"{version} is too old", f"{needed}{jetpack}: {pip}")
    return library


@functools.cache
def library_log(library: Any) -> Any:
    """The one logger of a library, which is kept by it for the life of the process.

    What it hears goes to this package's log, for debugging: TensorRT warns of much that nobody can change,
    and its errors become exceptions here. ``take_error()`` gives the text for those.
    """
    errors = (library.ILogger.INTERNAL_ERROR, library.ILogger.ERROR)

    class LibraryLog(library.ILogger):
        """Passes messages on; called from any thread, by C++, which no exception may reach."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self._error = ""
            self.listeners: list[Listener] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (*errors, library.ILogger.WARNING):
                logger.debug("%s: %s", library.__name__, message)
            if severity in errors and not self._error:
                self._error = message  # the first one is the cause, those after it are consequences
            for listener in self.listeners:
                listener(severity.name, message)

        def take_error(self) -> str:
            """The first error since the last call, in one line; empty if there was none."""
            error, self._error = self._error, ""
            return plain(error)

    return LibraryLog()


@contextlib.contextmanager
def listening(library: Any, listener: Listener) -> Iterator[None]:
    """Lets ``listener`` have every message of a library while the block runs; it must raise nothing."""
    listeners = library_log(library).listeners
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)


def plain(message: str) -> str:
    """A message without what only TensorRT's authors can use: function names, error codes, source files."""
    text = re.sub(r"^.{0,120}?Error Code \d+: ", "", " ".join(message.split()))
    text = re.sub(r"[.,;]? *\(?\bIn \S+ at \S+:\d+\)*", "", text).strip(" .")[:300]
    surplus = text.count(")") - text.count("(")
    return text[: len(text) - surplus] if surplus > 0 else text + ")" * -surplus
