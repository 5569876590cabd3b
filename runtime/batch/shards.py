"""Where the results of a batch lie: shards, each of which appears whole, by one rename, or not at all.

A shard is the flows of so many pairs in a row of the list, and the lines of the index about them. That it is
there is the only record of its pairs being done: nothing can be recorded and not there, or be there twice.
What is in a shard depends on the list and the options alone, so whoever computes it again, after a kill or on
another machine, computes the same.
"""

import contextlib
import csv
import errno
import os
import re
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gocor.core.errors import ModelError, OutputError
from gocor.core.files import sync, write_to_disk, writing
from gocor.runtime.batch.index import COLUMNS, Outcome, done, index_schema, read_lines, write_lines
from gocor.runtime.flow import FlowFormat, encode_flow
from gocor.runtime.pairs import Pair
from gocor.runtime.tables import import_pyarrow

Dtype = Literal["float32", "float16"]
BatchFormat = FlowFormat | Literal["parquet"]

FLOWS = "flows"  # the folder of all shards
_SUFFIXES = {"flo": ".flo", "kitti": ".png", "npy": ".npy"}
_PART = "index.csv"  # lines of the index about the shard that it lies in
_ROW_GROUP = 32 << 20  # bytes of flow that wait to be written together
# Of a shard in Parquet: where the flow lies goes without saying.
_OWN_COLUMNS = tuple(name for name in COLUMNS if name not in ("path", "row"))
_SHARD_NAME = re.compile(r"(\d{6,})(\.parquet)?")
# What a killed process leaves: a shard, index or record half written, or shards that were to be removed.
_LEFTOVER = re.compile(r"\.(\d{6,}|flows|job|index|failed)(\.parquet)?\.[0-9a-f]{8}(\.\w+)?")


class ShardWriter(ABC):
    """Writes one shard under a name that begins with a dot, until it is complete.

    Attributes:
        final: path that it will have.
        temporary: path that it has before.
    """

    def __init__(self, folder: Path, number: int, suffix: str = "") -> None:
        name = f"{number:06d}"
        self.final = folder / FLOWS / f"{name}{suffix}"
        self.temporary = folder / FLOWS / f".{name}.{uuid.uuid4().hex[:8]}{suffix}"

    def begin(self) -> None:
        """Makes ``temporary``. Whoever calls it holds the writer already, to discard it if stopped meanwhile.

        Raises:
            OutputError: the folder cannot be written.
        """
        with writing(self.final):
            self._make()

    @abstractmethod
    def add(self, pair: Pair, flow: np.ndarray, seconds: float) -> Outcome:
        """Writes the flow ``(2, H, W)`` of a pair.

        Raises:
            OutputError: the disk is full, or the like.
            ModelError: the flow does not fit into the format.
        """

    def finish(self, outcomes: Iterable[Outcome]) -> None:
        """Writes the lines of the index, those of failed pairs included, and gives the shard its name."""
        with writing(self.final):
            self._complete(list(outcomes))
            try:
                os.rename(self.temporary, self.final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                self.discard()  # another machine was faster, with the same content
            sync(self.final.parent)

    def discard(self) -> None:
        """Removes what was written, unless the shard is complete."""
        shutil.rmtree(self.temporary, ignore_errors=True)

    @abstractmethod
    def _make(self) -> None:
        """Makes the file or folder that takes the flows."""

    @abstractmethod
    def _complete(self, outcomes: list[Outcome]) -> None:
        """Writes what is left to write, down to the disk."""


class FileShard(ShardWriter):
    """A folder with a flow file for each pair. ``add`` may be called by several threads."""

    def __init__(self, folder: Path, number: int, format: FlowFormat) -> None:
        super().__init__(folder, number)
        self.format = format

    def add(self, pair: Pair, flow: np.ndarray, seconds: float) -> Outcome:
        """Writes the pair's file."""
        name = pair.name + _SUFFIXES[self.format]
        final = self.final / name
        content = encode_flow(flow, self.format, where=final)
        with writing(final):
            write_to_disk(self.temporary / name, content)
        return done(pair, flow.shape[1:], seconds, f"{FLOWS}/{self.final.name}/{name}")

    def _make(self) -> None:
        self.temporary.mkdir(parents=True)

    def _complete(self, outcomes: list[Outcome]) -> None:
        with (self.temporary / _PART).open("w", newline="", encoding="utf-8") as file:
            write_lines(file, outcomes)
            file.flush()
            os.fsync(file.fileno())
        sync(self.temporary)


class ParquetShard(ShardWriter):
    """A Parquet file with a row for each pair; failed pairs come last. ``add`` is for one thread."""

    def __init__(self, folder: Path, number: int, dtype: Dtype) -> None:
        super().__init__(folder, number, ".parquet")
        self.arrow, self.dtype = import_pyarrow("--format parquet"), np.dtype(dtype).newbyteorder("<")
        self.schema = _flow_schema(self.arrow, dtype)
        self.rows: list[dict[str, Any]] = []
        self.count = self.waiting = 0
        self.open = contextlib.ExitStack()

    def add(self, pair: Pair, flow: np.ndarray, seconds: float) -> Outcome:
        """Adds the pair's row; rows are written some at a time."""
        with np.errstate(over="ignore"):
            values = flow.astype(self.dtype)
        if not np.isfinite(values).all():
            largest = float(np.abs(flow).max())
            raise ModelError(pair.name, f"has a flow of {largest:g} px", "--dtype float32, which holds it")
        outcome = done(pair, flow.shape[1:], seconds, f"{FLOWS}/{self.final.name}", self.count)
        self._add_row(outcome, values.tobytes())
        return outcome

    def discard(self) -> None:
        """Closes and removes the file."""
        with contextlib.suppress(OSError):  # of a full disk, which is why it is discarded
            self.open.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink(missing_ok=True)

    def _make(self) -> None:
        self.temporary.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.open.enter_context(self.temporary.open("xb"))
        # Flows hardly compress, and no two are equal.
        options: Any = {"use_dictionary": ["status"], "compression": {"flow": "NONE"}}
        options["write_statistics"] = ["name"]
        writer = self.arrow.parquet.ParquetWriter(self.file, self.schema, **options)
        self.writer = self.open.enter_context(writer)

    def _complete(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.status == "failed":
                self._add_row(outcome, None)
        self._flush()
        self.writer.close()
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()

    def _add_row(self, outcome: Outcome, flow: bytes | None) -> None:
        self.rows.append({name: getattr(outcome, name) for name in _OWN_COLUMNS} | {"flow": flow})
        self.count += 1
        self.waiting += len(flow or b"")
        if self.waiting >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self.rows:
            with writing(self.final):
                self.writer.write_table(self.arrow.Table.from_pylist(self.rows, self.schema))
            self.rows, self.waiting = [], 0


def open_shard(folder: Path, number: int, format: BatchFormat, dtype: Dtype) -> ShardWriter:
    """A shard to write, number ``number`` of the job in ``folder``; nothing of it is on the disk yet."""
    if format == "parquet":
        return ParquetShard(folder, number, dtype)
    return FileShard(folder, number, format)


def finished_shards(folder: Path) -> dict[int, Path]:
    """The shards that are there, by number."""
    try:
        names = os.listdir(folder / FLOWS)
    except FileNotFoundError:
        return {}
    found = ((_SHARD_NAME.fullmatch(name), name) for name in names)
    return {int(match[1]): folder / FLOWS / name for match, name in found if match}


def holds_results(folder: Path) -> bool:
    """Whether anything lies where the shards do, what killed processes left apart."""
    flows = folder / FLOWS
    return flows.is_dir() and any(not _LEFTOVER.fullmatch(path.name) for path in flows.iterdir())


def abandoned(folder: Path, number: int) -> int:
    """How many processes began the shard and have not completed it."""
    return len(list(folder.glob(f"{FLOWS}/.{number:06d}.*")))


def remove_leftovers(folder: Path) -> None:
    """Removes what processes left that were killed; none may be at work in the folder."""
    for place in (folder, folder / FLOWS):
        for path in list(place.iterdir()) if place.is_dir() else ():
            if _LEFTOVER.fullmatch(path.name):
                _remove(path)


def remove_shards(paths: Iterable[Path]) -> None:
    """Removes shards, or the folder of all, each at once: a half-removed one does not count."""
    for path in paths:
        with writing(path):
            away = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
            os.rename(path, away)
        _remove(away)


def read_shard(path: Path) -> list[Outcome]:
    """Lines of the index about the pairs of a shard.

    Raises:
        OutputError: the shard is not what was once written.
    """
    try:
        outcomes = _read_parquet_part(path) if path.suffix == ".parquet" else _read_part(path)
        if wrong := {outcome.status for outcome in outcomes} - {"done", "failed"}:
            raise ValueError(f"status {wrong.pop()!r}")
        return outcomes
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError, csv.Error) as error:
        hint = "remove it, and its pairs are computed again"
        raise OutputError(path, f"is damaged ({error})", hint) from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _read_part(path: Path) -> list[Outcome]:
    with (path / _PART).open(newline="", encoding="utf-8") as file:
        return read_lines(file)


def _read_parquet_part(path: Path) -> list[Outcome]:
    arrow = import_pyarrow(path)
    rows = arrow.parquet.read_table(path, columns=list(_OWN_COLUMNS), partitioning=None).to_pylist()
    where = f"{FLOWS}/{path.name}"
    return [
        Outcome(**row, path=where, row=number) if row["status"] == "done" else Outcome(**row)
        for number, row in enumerate(rows)
    ]


def _flow_schema(arrow: Any, dtype: Dtype) -> Any:
    fields = [field for field in index_schema(arrow) if field.name in _OWN_COLUMNS]
    about = {"gocor.flow_dtype": dtype, "gocor.flow_layout": "(2, height, width), little-endian, x first"}
    return arrow.schema([*fields, arrow.field("flow", arrow.binary())], about)
