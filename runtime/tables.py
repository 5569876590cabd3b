"""Tables, CSV or Parquet, read row by row as text."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from gocor.core.errors import DependencyError, ImageError
from gocor.core.reading import TABLE, check_size

PARQUET_SUFFIXES = (".parquet", ".pq")
_READABLE = {
    "string", "large_string", "string_view", "double", "float",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}  # fmt: skip
_LONGEST_ROW = 1 << 20  # characters


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """All rows of a table, which may be as large as a limit; see ``iterate_table``."""
    try:
        check_size(path, TABLE, ImageError)
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror or error})", "a table") from error
    return list(iterate_table(path, columns))


def iterate_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV or Parquet file that must have ``columns``, without reading it whole.

    Yields:
        Number of a row and its values as text, those that are missing as "". In a CSV file it is the number
        of the line, and empty lines are left out; in a Parquet file rows count from 1.

    Raises:
        ImageError: the file cannot be read, lacks a column, or a row lacks a value of these columns.
        DependencyError: a Parquet file needs pyarrow.
    """
    try:
        for line, row in (_parquet_rows if _is_parquet(path) else _csv_rows)(path, columns):
            for name in columns:
                if not row[name]:
                    raise ImageError(f"{path}:{line}", f"has no {name}", f"values for {', '.join(columns)}")
            yield line, row
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> ImageError:
    """What is said of a table that cannot be opened."""
    kind = "Parquet" if _is_parquet(path) else "CSV"
    return ImageError(path, f"cannot be read ({error.strerror or error})", f"a {kind} file")


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET_SUFFIXES


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = _RowLines(file)
            reader = csv.DictReader(lines, skipinitialspace=True, strict=True)
            header = [(name or "").strip() for name in reader.fieldnames or ()]
            if missing := [name for name in columns if name not in header]:
                text = f"has no column {missing[0]!r}, its first line is {','.join(header)[:60]!r}"
                raise ImageError(path, text, f"{','.join(columns)} as the first line")
            reader.fieldnames = header
            for row in reader:
                lines.left = _LONGEST_ROW
                yield reader.line_num, {k: (v or "").strip() for k, v in row.items() if k}
    except (UnicodeDecodeError, csv.Error) as error:
        expected = f"columns {','.join(columns)}"
        raise ImageError(path, f"is no CSV file in UTF-8 ({error})", expected) from error


class _RowLines:
    """Lines of a text file, until a row of it has taken too many: it need not have an end.

    Attributes:
        left: characters that the row may still have; to be renewed for each.
    """

    def __init__(self, file: TextIO) -> None:
        self.file, self.left = file, _LONGEST_ROW

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.file.readline(self.left + 1)
        self.left -= len(line)
        if self.left < 0:
            raise csv.Error(f"a row has more than {_LONGEST_ROW} characters")
        if not line:
            raise StopIteration
        return line


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    pyarrow = import_pyarrow(path)
    try:
        with path.open("rb") as opened, pyarrow.parquet.ParquetFile(opened) as file:
            readable = [field.name for field in file.schema_arrow if _is_text_or_number(field.type)]
            if missing := [name for name in columns if name not in readable]:
                text = f"has no column {missing[0]!r} of text, its columns are {', '.join(readable)[:60]!r}"
                raise ImageError(path, text, f"columns {', '.join(columns)}")
            rows = (row for rows in file.iter_batches(4096, columns=readable) for row in rows.to_pylist())
            for line, row in enumerate(rows, 1):
                yield line, {k: "" if v is None else str(v).strip() for k, v in row.items()}
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise ImageError(path, f"is no Parquet file, or damaged ({error})", "a Parquet file") from error


def _is_text_or_number(kind: Any) -> bool:
    """Of an Arrow type: images or flows in other columns would cost as much memory as they are long."""
    text = str(kind)
    return (str(kind.value_type) if text.startswith("dictionary") else text) in _READABLE


def import_pyarrow(where: object) -> Any:
    """The module ``pyarrow`` with ``pyarrow.parquet``.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        hint = 'pip install "gocor-deploy[parquet]"'
        raise DependencyError(where, "Parquet needs pyarrow, which is not installed", hint) from error
    return pyarrow
