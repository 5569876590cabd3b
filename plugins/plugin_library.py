"""Our operators as a library of TensorRT plugins, ``libgocor_plugins.so``: what a file says of itself.

It is made by ``make plugins``, or by CMake from this folder; programs in C++ and trtexec load it.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

from gocor.core.errors import ConfigError
from gocor.core.files import sha256

REMEDY = "build libgocor_plugins.so with: make plugins TENSORRT_INCLUDE_DIR=…"


@dataclass(frozen=True)
class PluginLibrary:
    """One file of plugins.

    Attributes:
        path: of the file.
        sha256: of its content.
        tensorrt_version: of the headers that it was compiled with, such as ``11.1.0.106``.
        gocor_version: of the sources.
    """

    path: Path
    sha256: str
    tensorrt_version: str
    gocor_version: str

    def check_fits(self, tensorrt_version: str) -> None:
        """Raises ConfigError if the library was built for another major version of TensorRT.

        Such a library loads, and even works until it has an error to log: TensorRT 11.0 changed the layout
        of ``ILoggerFinder``. Within 10.9 to 10.16, and within 11, the interfaces are the same.
        """
        if self.tensorrt_version.split(".")[0] != tensorrt_version.split(".")[0]:
            got = f"was built for TensorRT {self.tensorrt_version}, and this is {tensorrt_version}"
            raise ConfigError(self.path, got, f"{REMEDY} of {tensorrt_version}")


def describe(path: str | Path) -> PluginLibrary:
    """Loads a plugin library into this process, and asks it what it was built from.

    Raises:
        ConfigError: the file is missing, is no library for this machine, or is not one of ours.
    """
    file = Path(path).resolve()
    try:
        library = ctypes.CDLL(str(file))
    except OSError as error:
        raise ConfigError(path, f"cannot be loaded ({error})", REMEDY) from error
    return PluginLibrary(
        path=file,
        sha256=sha256(file),
        tensorrt_version=_ask(library, "gocor_plugins_tensorrt_version", path),
        gocor_version=_ask(library, "gocor_plugins_version", path),
    )


def _ask(library: ctypes.CDLL, question: str, path: str | Path) -> str:
    try:
        function = getattr(library, question)
    except AttributeError as error:
        raise ConfigError(path, f"is not our plugin library (it has no {question})", REMEDY) from error
    function.restype = ctypes.c_char_p
    return str(function().decode())
