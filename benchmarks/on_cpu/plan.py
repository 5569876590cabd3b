"""What a group of candidates is before it has been timed; needs no torch."""

import datetime
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gocor.runtime.benchmark import Candidate, Progress, benchmark
from on_cpu.results import Group, Row

if TYPE_CHECKING:
    from on_cpu.workshop import Workshop

# How a network or an operator is computed.
SHIFTS, TILES, COMPILED = "PyTorch, 81 shifts", "PyTorch, tiles", "torch.compile"
ORT, ORT_INT8 = "ONNX Runtime", "ONNX Runtime, INT8"
OPENVINO, OPENVINO_INT8 = "OpenVINO", "OpenVINO, INT8"
QUIET = 0.05  # cores that other processes may use without a note


@dataclass(frozen=True)
class Entry:
    """A candidate that is ready to run.

    Attributes:
        case: see ``results.Row``.
        way: likewise.
        call: what is timed.
        error: see ``results.Row``.
        peak_memory_mib: likewise.
    """

    case: str
    way: str
    call: Callable[[], object]
    error: float | None = None
    peak_memory_mib: float | None = None


@dataclass
class Entries:
    """What a plan made.

    Attributes:
        ready: candidates.
        failed: why one is missing, by name.
        notes: see ``results.Group``.
    """

    ready: list[Entry] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A group to be measured.

    Attributes:
        name: of the group.
        part: of the benchmark.
        rounds: see ``results.Group``.
        warmup: likewise.
        make: makes and checks the candidates.
    """

    name: str
    part: str
    rounds: int
    warmup: int
    make: Callable[["Workshop"], Entries]


def measure(plan: Plan, made: Entries, commit: str, progress: Progress) -> Group:
    """Times what a plan made."""
    start, busy = time.monotonic(), others_busy_seconds()
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
    candidates: Mapping[str, Candidate] = {
        f"{entry.case} · {entry.way}": Candidate(entry.call) for entry in made.ready
    }
    results = benchmark(candidates, plan.rounds, plan.warmup, progress).results
    rows = tuple(
        Row(e.case, e.way, result.median_ms, result.spread_ms, result.times_ms, e.error, e.peak_memory_mib)
        for e, result in zip(made.ready, results, strict=True)
    )
    seconds = time.monotonic() - start
    notes = (*made.notes, *_disturbance((others_busy_seconds() - busy) / seconds))
    return Group(plan.part, plan.rounds, plan.warmup, date, commit, seconds, rows, made.failed, notes)


def others_busy_seconds() -> float:
    """Time of all cores that other processes have used so far; 0 where the system does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system = map(int, stat.read_text().split()[1:4])
    own = os.times()
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - own.user - own.system


def _disturbance(cores: float) -> Iterator[str]:
    if cores > QUIET:
        yield f"Meanwhile other processes kept {cores:.1f} of {os.cpu_count()} cores busy."
