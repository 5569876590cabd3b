"""Writing files so that a failure leaves nothing half-written and nothing lost, and hashing them."""

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from gocor.core.errors import OutputError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` and renames it to ``path`` when the block succeeds.

    When the block fails the temporary file is removed and an earlier ``path`` stays as it was. The
    temporary name keeps the suffix, since image writers choose their format by it. A link stays a link: the
    file that it leads to is replaced. A device or pipe, such as ``/dev/stdout``, gets the content copied.

    Raises:
        OutputError: ``path`` is a folder, its folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    with contextlib.ExitStack() as clean_up:
        try:
            if path.is_dir():
                raise OutputError(path, "cannot be written (it is a folder)", "the path of a file")
            # Renamed to /dev/null, a file would be what every other program reads and writes from then on.
            device = path.exists() and not path.is_file()
            target = path if device else Path(os.path.realpath(path))
            folder = Path(tempfile.gettempdir()) if device else target.parent
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f".{target.stem}.{uuid.uuid4().hex[:8]}{target.suffix}"
            clean_up.callback(_remove, temporary)
            temporary.touch(exist_ok=False)
            yield temporary
            if device:
                path.write_bytes(temporary.read_bytes())
            else:
                temporary.replace(target)
        except FileExistsError as error:
            raise OutputError(
                path, "cannot be written (a folder of its path is a file)", "another path"
            ) from error
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(
                path, f"cannot be written ({reason})", "give a writable place with free space"
            ) from error


def check_writable(path: str | Path) -> None:
    """Finds out before long work whether its result can be written; makes the folder, but no file.

    Raises:
        OutputError: as ``atomic_path``.
    """
    with contextlib.suppress(_OnlyAskedError), atomic_path(path):
        raise _OnlyAskedError


class _OnlyAskedError(Exception):
    """Leaves an ``atomic_path`` before anything gets its name."""


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Writes all files whole before any gets its name; the first of them gets it last."""
    with contextlib.ExitStack() as renamed_last_first:
        for path, content in contents.items():
            renamed_last_first.enter_context(atomic_path(path)).write_bytes(content)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
