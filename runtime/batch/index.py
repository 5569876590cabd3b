"""The index of a batch: one line for each pair, what became of it and where its flow is."""

import contextlib
import csv
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from gocor.core.files import atomic_path
from gocor.runtime.pairs import Pair
from gocor.runtime.tables import import_pyarrow

INDEXES = ("index.csv", "index.parquet")
FAILED = "failed.csv"
_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Outcome:
    """A line of the index: what became of a pair.

    Attributes:
        name: of the pair.
        reference: path of the image.
        query: likewise.
        status: ``done`` or ``failed``.
        reason: why it failed; else empty.
        path: of the file that has the flow, from the job's folder; empty if the pair failed.
        row: in a Parquet file, from 0; None in other formats.
        height: of the flow, px; None if there is none.
        width: likewise.
        seconds: the pair's share of the time that its batch took in the model.
    """

    name: str
    reference: str
    query: str
    status: Literal["done", "failed"]
    reason: str = ""
    path: str = ""
    row: int | None = None
    height: int | None = None
    width: int | None = None
    seconds: float | None = None


COLUMNS = tuple(field.name for field in dataclasses.fields(Outcome))
_NUMBERS = {"row": int, "height": int, "width": int, "seconds": float}


def done(
    pair: Pair, flow_size: tuple[int, int], seconds: float, path: str, row: int | None = None
) -> Outcome:
    """The line about a pair whose flow has that height and width and lies there."""
    return Outcome(pair.name, *_paths(pair), "done", "", path, row, *flow_size, round(seconds, 6))


def failed(pair: Pair, reason: object) -> Outcome:
    """The line about a pair that has no flow."""
    return Outcome(pair.name, *_paths(pair), "failed", str(reason))


def index_file(folder: Path, parquet: bool) -> Path:
    """Where the index of a job is: in Parquet if the flows are."""
    return folder / INDEXES[parquet]


def write_index(folder: Path, shards: Iterable[list[Outcome]], parquet: bool) -> tuple[int, int]:
    """Writes the index, and ``failed.csv``, which is itself a list of pairs, if there are such.

    Args:
        folder: of the job.
        shards: lines of each, in order; taken one after the other.
        parquet: write the index as a Parquet file.

    Returns:
        How many pairs are done, and how many failed.
    """
    counts = {"done": 0, "failed": 0}
    path = index_file(folder, parquet)
    with (
        atomic_path(folder / FAILED) as failures,
        atomic_path(path) as index,
        failures.open("w", newline="", encoding="utf-8") as file,
        (_parquet_index if parquet else _csv_index)(index) as add,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "reference", "query", "reason"))
        for outcomes in shards:
            add(outcomes)
            for outcome in outcomes:
                counts[outcome.status] += 1
                if outcome.status == "failed":
                    writer.writerow((outcome.name, outcome.reference, outcome.query, outcome.reason))
    if not counts["failed"]:
        (folder / FAILED).unlink()
    return counts["done"], counts["failed"]


def write_lines(file: TextIO, outcomes: Iterable[Outcome]) -> None:
    """Writes lines with their header as CSV."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(map(_values, outcomes))


def read_lines(file: TextIO) -> list[Outcome]:
    """Reads what ``write_lines`` wrote; anything else is a ValueError, KeyError or TypeError."""
    return [_outcome(row) for row in csv.DictReader(file, strict=True)]


def index_schema(arrow: Any) -> Any:
    """Columns of the index in Parquet."""
    kinds = {
        "row": arrow.int32(),
        "height": arrow.int32(),
        "width": arrow.int32(),
        "seconds": arrow.float64(),
    }
    return arrow.schema([arrow.field(name, kinds.get(name, arrow.string())) for name in COLUMNS])


def _paths(pair: Pair) -> tuple[str, str]:
    # A path may hold bytes that are no UTF-8, which neither CSV nor Parquet could.
    reference, query = (str(file).encode("utf-8", "backslashreplace").decode() for file in pair.files)
    return reference, query


def _values(outcome: Outcome) -> list[object]:
    return ["" if value is None else value for value in dataclasses.astuple(outcome)]


def _outcome(row: dict[str, str]) -> Outcome:
    values: dict[str, Any] = dict(row)
    for name, number in _NUMBERS.items():
        values[name] = number(row[name]) if row[name] else None
    return Outcome(**values)


@contextlib.contextmanager
def _csv_index(path: Path) -> Iterator[Callable[[list[Outcome]], None]]:
    with path.open("w", newline="", encoding="utf-8") as file:
        write_lines(file, ())
        writer = csv.writer(file, lineterminator="\n")
        yield lambda outcomes: writer.writerows(map(_values, outcomes))


@contextlib.contextmanager
def _parquet_index(path: Path) -> Iterator[Callable[[list[Outcome]], None]]:
    arrow = import_pyarrow("--format parquet")
    schema, waiting = index_schema(arrow), list[dict[str, Any]]()
    with path.open("wb") as file, arrow.parquet.ParquetWriter(file, schema) as writer:

        def flush() -> None:
            writer.write_table(arrow.Table.from_pylist(waiting, schema))
            waiting.clear()

        def add(outcomes: list[Outcome]) -> None:
            waiting.extend(map(dataclasses.asdict, outcomes))
            if len(waiting) >= _ROWS_AT_ONCE:
                flush()

        yield add
        flush()
