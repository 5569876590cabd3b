"""Looking into dataset folders, with errors that say what should be there."""

import os
from pathlib import Path

from gocor.core.errors import ImageError


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted by name.

    Raises:
        ImageError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise ImageError(
            folder, f"cannot be read ({error.strerror or error})", "a dataset's folder"
        ) from error


def training_folder(root: Path, expected: str) -> Path:
    """The training part of a benchmark, whether its parent or itself was given.

    Raises:
        ImageError: there is no such folder.
    """
    if not root.is_dir():
        raise ImageError(root, "is no folder" if root.exists() else "does not exist", expected)
    return root / "training" if (root / "training").is_dir() else root


def first_folder(parent: Path, names: tuple[str, ...], expected: str) -> Path:
    """The first of some folders that is there.

    Raises:
        ImageError: none is.
    """
    for name in names:
        if (parent / name).is_dir():
            return parent / name
    raise ImageError(parent, f"has no folder {' or '.join(names)}", expected)


def existing(path: Path, role: str) -> Path:
    """The path, if there is a file.

    Raises:
        ImageError: there is none; ``role`` says what it was to be.
    """
    if not os.path.isfile(path):  # Path's method raises an OSError if the name is too long for one
        raise ImageError(path, "does not exist", role)
    return path
