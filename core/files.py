"""Writing files so that a failure leaves nothing half-written and nothing lost, and hashing them."""

import contextlib
import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

from gocor.core.errors import OutputError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` and renames it to ``path`` when the block succeeds.

    When the block fails the temporary file is removed and an earlier ``path`` stays as it was. The
    temporary name keeps the suffix, since image writers choose their format by it.

    Raises:
        OutputError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    except FileExistsError as error:
        raise OutputError(
            path, "cannot be written (a folder of its path is a file)", "another path"
        ) from error
    except OSError as error:
        raise OutputError(
            path, f"cannot be written ({error.strerror or error})", "give a writable place with free space"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
