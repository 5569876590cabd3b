"""The parts of the benchmark. What one finds out is kept, whatever happens to it or the next."""

import dataclasses
import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from source_tree import commit

from gocor.core.errors import DependencyError, GocorError
from on_gpu import facts
from on_gpu.correctness import QUICK_SHAPES, SHAPES, cases, check, level_cases
from on_gpu.engines import time_engines
from on_gpu.kernel_times import time_row
from on_gpu.kernels import Kernels
from on_gpu.levels import QUICK_LEVELS, RADIUS, SIZES, works
from on_gpu.networks import time_network
from on_gpu.results import Part
from on_gpu.sanitizer import runs, sanitize
from on_gpu.timing import measure_limits

GOCOR = "PWCNet_GOCor"  # the network of a quick run, and of the engines
Report = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class Setting:
    """What all parts share.

    Attributes:
        kernels: ours, on the GPU.
        origin: where they came from.
        quick: take a sample of the cases only.
        device: ``cpu`` for a dry run, where ``kernels`` has a driver that can do without a GPU.
    """

    kernels: Kernels
    origin: str
    quick: bool
    device: str = "cuda"

    @property
    def samples(self) -> int:
        """Timed samples of each candidate."""
        return 10 if self.quick else 50


def run_part(name: str, setting: Setting, report: Report) -> Part:
    """Runs a part; what stops it becomes its reason."""
    rows: list[Any] = []
    found: dict[str, Any] = {}
    status, reason, start = "done", "", time.monotonic()
    try:
        RUNNERS[name](setting, rows, found, report)
    except DependencyError as error:
        status, reason = "not run", str(error)
    except (GocorError, OSError, RuntimeError) as error:  # PyTorch and CUDA raise RuntimeError
        status, reason = "failed", " ".join(str(error).split())[:500]
    return Part(
        status,
        reason,
        datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M"),
        commit(),
        setting.quick,
        setting.origin,
        time.monotonic() - start,
        found,
        tuple(rows),
    )


def _correctness(setting: Setting, rows: list[Any], found: dict[str, Any], report: Report) -> None:
    table = list(cases(QUICK_SHAPES, (RADIUS,)) if setting.quick else [*cases(SHAPES), *level_cases()])
    report(0, len(table), "loading the kernels")
    setting.kernels.prepare(dict.fromkeys((case.operator, case.dtype, case.radius) for case in table))
    loaded = setting.kernels.loaded.values()
    found["kernels"] = [{k: v for k, v in vars(kernel).items() if k != "function"} for kernel in loaded]
    for number, case in enumerate(table):
        report(number, len(table), f"{case.operator} {case.dtype} radius {case.radius}")
        rows.extend(check(setting.kernels, case, torch.device(setting.device)))


def _sanitizer(setting: Setting, rows: list[Any], found: dict[str, Any], report: Report) -> None:
    plan = list(runs(setting.quick))
    for number, (tool, planted) in enumerate(plan):
        report(number, len(plan), f"{tool} {planted}")
        rows.append(sanitize(tool, planted, (RADIUS,) if setting.quick else ()))


def _kernels(setting: Setting, rows: list[Any], found: dict[str, Any], report: Report) -> None:
    plan = list(works(QUICK_LEVELS) if setting.quick else works())
    report(0, len(plan), "limits of the GPU")
    limits = measure_limits(setting.kernels, setting.samples)
    found |= {"limits": dataclasses.asdict(limits), "clocks_before": facts.clocks()}
    for number, work in enumerate(plan):
        report(
            number, len(plan), f"{work.operator} {work.dtype}, {work.level.network} level {work.level.name}"
        )
        rows.append(time_row(setting.kernels, work, limits, setting.samples))
    found["clocks_after"] = facts.clocks()


def _networks(setting: Setting, rows: list[Any], found: dict[str, Any], report: Report) -> None:
    plan = (GOCOR,) if setting.quick else tuple(SIZES)
    for number, name in enumerate(plan):
        report(number, len(plan), name)
        rows.append(time_network(setting.kernels, name, setting.samples))


def _engines(setting: Setting, rows: list[Any], found: dict[str, Any], report: Report) -> None:
    report(0, None, GOCOR)
    rows.extend(time_engines(GOCOR, setting.samples))


RUNNERS: dict[str, Callable[[Setting, list[Any], dict[str, Any], Report], None]] = {
    "correctness": _correctness,
    "sanitizer": _sanitizer,
    "kernels": _kernels,
    "networks": _networks,
    "engines": _engines,
}
