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
    with writing(path), contextlib.ExitStack() as clean_up:
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


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns what goes wrong while ``path`` is written into an ``OutputError`` that names it."""
    try:
        yield
    except FileExistsError as error:
        raise OutputError(
            path, "cannot be written (a folder of its path is a file)", "another path"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            path, f"cannot be written ({reason})", "give a writable place with free space"
        ) from error


def write_to_disk(path: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk, where it outlasts a power failure."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Waits until what was written to a file or renamed in a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


@contextlib.contextmanager
def atomic_folder(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """Gives a new folder beside ``path`` and renames it to ``path`` when the block succeeds.

    When the block fails that folder is removed and an earlier ``path`` stays as it was. A link stays a link:
    the folder that it leads to is replaced.

    Args:
        path: of the folder; an empty one may be there.
        replace: take the place of one that is not empty, which is removed with all that is in it.

    Raises:
        OutputError: ``path`` is a file, is there and not to be replaced, or cannot be written.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    with writing(path):
        if path.exists() and not path.is_dir():
            raise OutputError(path, "is a file", "the path of a folder")
        if path.is_dir() and any(path.iterdir()) and not replace:
            raise OutputError(path, "is there already, and not empty", "a new folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
            built = Path(temporary) / target.name  # made anew: the temporary folder is for its owner only
            built.mkdir()
            yield built
            _exchange(built, target, Path(temporary) / "earlier")


def _exchange(built: Path, target: Path, earlier: Path) -> None:
    """Renames ``built`` to ``target``; what was there goes to ``earlier``, or comes back if that fails."""
    if target.exists():
        target.rename(earlier)
    try:
        built.rename(target)
    except OSError:
        if earlier.exists():
            earlier.rename(target)
        raise


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
