"""What one machine measured, as a JSON file that can be read back; needs no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gocor.core.errors import ConfigError, ModelError
from gocor.runtime.report import write_json

FORMAT = 1
PARTS = ("networks", "operators", "growth", "sessions")


@dataclass(frozen=True)
class Row:
    """One candidate.

    Attributes:
        case: what was computed, such as ``PWCNet_GOCor`` or ``32×112×256``.
        way: what computed it, such as ``ONNX Runtime``.
        median_ms: of one call.
        spread_ms: distance between the quartiles.
        times_ms: every timed call, in order.
        error: relative L2 of the result, against what the part says; None if nobody looked.
        peak_memory_mib: of a fresh process that does nothing else; None if nobody looked.
    """

    case: str
    way: str
    median_ms: float
    spread_ms: float
    times_ms: tuple[float, ...]
    error: float | None = None
    peak_memory_mib: float | None = None


@dataclass(frozen=True)
class Group:
    """Candidates that took turns in the same rounds.

    Attributes:
        part: of the benchmark.
        rounds: timed calls of each candidate.
        warmup: calls of each before.
        date: when it was, UTC.
        commit: of the source tree, with ``+`` if files were changed; empty if nobody knows.
        seconds: that it took.
        rows: one for each candidate.
        failed: why a candidate has no row.
        notes: what else a reader should know.
    """

    part: str
    rounds: int
    warmup: int
    date: str
    commit: str
    seconds: float
    rows: tuple[Row, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def find(self, case: str, way: str) -> Row | None:
        """A candidate, or None where it has no row."""
        return next((row for row in self.rows if (row.case, row.way) == (case, way)), None)

    @property
    def cases(self) -> list[str]:
        """In order."""
        return list(dict.fromkeys(row.case for row in self.rows))

    @property
    def ways(self) -> list[str]:
        """In order."""
        return list(dict.fromkeys(row.way for row in self.rows))


@dataclass(frozen=True)
class Results:
    """Everything from one machine.

    Attributes:
        machine: the computer and its libraries.
        cores: that the process was pinned to.
        threads: of each library.
        groups: by name, such as ``networks: PWC-Net 384×512``.
        format: of the file.
    """

    machine: Mapping[str, Any]
    cores: tuple[int, ...]
    threads: int
    groups: Mapping[str, Group]
    format: int = FORMAT

    def of(self, part: str) -> dict[str, Group]:
        """Groups of a part, by name."""
        return {name: group for name, group in self.groups.items() if group.part == part}

    def with_group(self, name: str, group: Group) -> "Results":
        """These results with one more group, or another one in place of that of the same name."""
        groups = {**self.groups, name: group}
        return Results(self.machine, self.cores, self.threads, groups)

    def after(self, earlier: "Results", path: Path) -> "Results":
        """These results in addition to those that an earlier run left in a file.

        Raises:
            ConfigError: the earlier run was on another processor, or with other threads.
        """
        before, now = (f"{r.machine.get('cpu')} with {r.threads} threads" for r in (earlier, self))
        if before != now:
            raise ConfigError(path, f"has results of {before}", f"another --json for {now}")
        return Results(self.machine, self.cores, self.threads, {**earlier.groups, **self.groups})

    def save(self, path: Path) -> None:
        """Writes the file.

        Raises:
            OutputError: it cannot be written.
        """
        write_json(path, self)


def load(path: Path) -> Results:
    """Reads a file of ``Results.save``.

    Raises:
        ModelError: there is no such file, or it holds something else.
    """
    expected = "a file that this benchmark wrote"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        groups = {name: _group(entry) for name, entry in content.pop("groups").items()}
        results = Results(**{**content, "cores": tuple(content["cores"])}, groups=groups)
    except OSError as error:
        raise ModelError(path, f"cannot be read ({error.strerror})", expected) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(path, "holds no results of this benchmark", expected) from error
    if results.format != FORMAT:
        raise ModelError(path, f"has format {results.format}", f"expected {FORMAT}")
    return results


def _group(entry: dict[str, Any]) -> Group:
    rows = tuple(Row(**{**row, "times_ms": tuple(row["times_ms"])}) for row in entry["rows"])
    return Group(**{**entry, "rows": rows, "notes": tuple(entry["notes"])})
