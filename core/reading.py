"""Reading files that anybody may have written: never more of them than a limit, and JSON that cannot hurt.

The limits are far above what is met in practice. Each one has an environment variable that raises it, which
the error names.
"""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gocor.core.errors import ConfigError, GocorError

MIB = 1 << 20


@dataclass(frozen=True)
class Limit:
    """How large files of one kind may be.

    Attributes:
        kind: what such a file is called in errors.
        mebibytes: unless the environment says otherwise.
    """

    kind: str
    mebibytes: int

    @property
    def variable(self) -> str:
        """The environment variable with another number of MiB, such as ``GOCOR_MAX_MODEL_MIB``."""
        return f"GOCOR_MAX_{self.kind.upper().replace(' ', '_')}_MIB"

    @property
    def bytes(self) -> int:
        """The limit that holds in this process.

        Raises:
            ConfigError: the variable holds something else than a whole number.
        """
        text = os.environ.get(self.variable, str(self.mebibytes))
        if not (text.isascii() and text.isdecimal() and 0 < len(text) < 10):
            raise ConfigError(self.variable, f"is {text!r}", "a number of MiB")
        return int(text) * MIB

    def exceeded(self, path: object, size: int, error: type[GocorError]) -> GocorError:
        """The error that refuses ``size`` bytes."""
        needed = -(-size // MIB)
        got = f"is too large for a {self.kind} ({needed} MiB, and {self.bytes // MIB} are read)"
        return error(path, got, f"where you trust it: {self.variable}={needed}")


MANIFEST = Limit("manifest", 1)
DOCUMENT = Limit("document", 64)  # other JSON of ours: ranges, indices, records
MODEL = Limit("model", 2048)  # protobuf, which ONNX is written in, ends there, too
CHECKPOINT = Limit("checkpoint", 4096)
IMAGE = Limit("image", 512)
FLOW = Limit("flow", 1024)
TABLE = Limit("table", 512)
LIMITS = (MANIFEST, DOCUMENT, MODEL, CHECKPOINT, IMAGE, FLOW, TABLE)


def check_size(path: str | Path, limit: Limit, error: type[GocorError]) -> None:
    """Refuses a file that is too large before a library reads it.

    Raises:
        GocorError: of type ``error``; the text says how to raise the limit.
        OSError: the file cannot be asked.
    """
    if (size := os.stat(path).st_size) > limit.bytes:
        raise limit.exceeded(path, size, error)


def read_bytes(path: str | Path, limit: Limit, error: type[GocorError]) -> bytes:
    """The content of a file, or of a pipe, which does not say how long it is.

    Raises:
        GocorError: of type ``error``: there is more than the limit.
        OSError: the file cannot be read.
    """
    check_size(path, limit, error)
    content, most = io.BytesIO(), limit.bytes  # which gives its bytes away without a second copy
    with open(path, "rb", buffering=0) as file:
        while block := file.read(min(64 * MIB, max(MIB, os.fstat(file.fileno()).st_size - content.tell()))):
            content.write(block)
            if content.tell() > most:
                raise limit.exceeded(path, content.tell(), error)
    return content.getvalue()


def read_json(path: str | Path, limit: Limit, error: type[GocorError]) -> Any:
    """What a JSON file in UTF-8 holds.

    Raises:
        GocorError: of type ``error``: it is too large.
        ValueError: it is no JSON; see ``parse_json``.
        OSError: the file cannot be read.
    """
    return parse_json(read_bytes(path, limit, error).decode("utf-8"))


def parse_json(text: str) -> Any:
    """``json.loads`` with one exception for all that can be wrong.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or has ``NaN`` or ``Infinity``, which JSON has
            not.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
