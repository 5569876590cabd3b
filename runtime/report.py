"""Reports as JSON, the same way in every command."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from gocor.core.files import write_text


def to_json(report: object) -> str:
    """A report as JSON text: dataclasses, mappings, sequences, paths and NumPy's numbers and arrays."""
    text = json.dumps(report, indent=2, ensure_ascii=False, default=_plain)
    # File names need not be UTF-8; Python's escape for what cannot be encoded is JSON's, too.
    return text.encode("utf-8", "backslashreplace").decode()


def write_json(path: str | Path, report: object) -> None:
    """Writes a report as JSON, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, to_json(report) + "\n")


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a report")
