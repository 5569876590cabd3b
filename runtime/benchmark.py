"""How fast, side by side: every candidate takes its turn in every round, and every timed run is kept."""

import gc
import logging
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gocor.core.errors import ConfigError, DependencyError
from gocor.core.files import atomic_path, check_writable
from gocor.core.garbage import no_garbage_collection
from gocor.runtime.environment import Machine, machine
from gocor.runtime.openvino_manifest import OPENVINO_SUFFIX
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.session import BUILT_SUFFIXES, ENGINE_SUFFIXES, FlowEstimator, load

PLOT_SUFFIXES = (".png", ".svg", ".pdf")  # matplotlib has others, some of which need LaTeX

Progress = Callable[[int, int, str], None]  # done, total, what comes now


@dataclass(frozen=True)
class Candidate:
    """Something to measure.

    Attributes:
        call: what is timed; it returns when its work is done.
        pairs: image pairs that one call handles.
        facts: what a reader of the report wants to know about it.
        peak_memory_mib: see ``peak_memory_mib``; None if nobody measured it.
    """

    call: Callable[[], object]
    pairs: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)
    peak_memory_mib: float | None = None


@dataclass(frozen=True)
class Result:
    """What was measured of a candidate. Times are in milliseconds for one call.

    Attributes:
        name: of the candidate.
        pairs: image pairs that one call handles.
        facts: what the candidate says about itself.
        peak_memory_mib: see ``peak_memory_mib``; None if nobody measured it.
        pairs_per_second: at the median time.
        time_ratio: median time for a pair over that of the first candidate.
        spread_ms: distance between the quartiles: half of the runs lie within.
        times_ms: every timed run, in order.
    """

    name: str
    pairs: int
    facts: Mapping[str, Any]
    peak_memory_mib: float | None
    pairs_per_second: float
    time_ratio: float
    median_ms: float
    p95_ms: float
    p99_ms: float
    minimum_ms: float
    spread_ms: float
    times_ms: tuple[float, ...]


@dataclass(frozen=True)
class BenchmarkReport:
    """Results of one benchmark, all from the same rounds on the same machine.

    Attributes:
        rounds: timed runs of each candidate.
        warmup: runs of each candidate before them.
        machine: where it ran.
        results: one for each candidate, in the order they were given.
    """

    rounds: int
    warmup: int
    machine: Machine
    results: tuple[Result, ...]


def benchmark(
    candidates: Mapping[str, Callable[[], object] | Candidate],
    rounds: int = 20,
    warmup: int = 3,
    progress: Progress | None = None,
) -> BenchmarkReport:
    """Times candidates in interleaved rounds, so that a machine that slows down slows all of them.

    Each round starts with another candidate, and after each of them has, rounds go backwards as often, so
    that none always runs after the same one.

    Args:
        candidates: by name; the first is what the others are compared with.
        rounds: timed runs of each.
        warmup: runs of each before that, not timed.
        progress: told about every round.

    Raises:
        ConfigError: there are no candidates or no rounds.
    """
    if not candidates:
        raise ConfigError("benchmark", "has no candidates", "at least one")
    _check_rounds(rounds, warmup)
    entries = {n: c if isinstance(c, Candidate) else Candidate(c) for n, c in candidates.items()}
    times: dict[str, list[float]] = {name: [] for name in entries}
    with no_garbage_collection():  # it would be charged to whoever happens to run
        for number in range(-warmup, rounds):
            if progress:
                progress(number + warmup, rounds + warmup, "warm-up" if number < 0 else "timing")
            for name in _order(list(entries), number):
                start = time.perf_counter_ns()
                entries[name].call()
                elapsed = time.perf_counter_ns() - start
                if number >= 0:
                    times[name].append(elapsed / 1e6)
            gc.collect()
    first = next(iter(entries))
    unit = float(np.median(times[first])) / entries[first].pairs
    results = tuple(_result(name, candidate, times[name], unit) for name, candidate in entries.items())
    return BenchmarkReport(rounds, warmup, machine(), results)


def _check_rounds(rounds: int, warmup: int) -> None:
    if rounds < 1 or warmup < 0:
        raise ConfigError("benchmark", f"{rounds} rounds, {warmup} warm-up runs", "at least 1 and 0")


def _order(names: list[str], number: int) -> list[str]:
    cycle, start = divmod(number, len(names))
    return (names[start:] + names[:start])[:: -1 if cycle % 2 else 1]


def _result(name: str, candidate: Candidate, times: list[float], unit: float) -> Result:
    lower, median, upper, p95, p99 = np.percentile(times, (25, 50, 75, 95, 99)).tolist()
    return Result(
        name=name,
        pairs=candidate.pairs,
        facts=candidate.facts,
        peak_memory_mib=candidate.peak_memory_mib,
        pairs_per_second=1000 * candidate.pairs / median,
        time_ratio=median / candidate.pairs / unit,
        median_ms=median,
        p95_ms=p95,
        p99_ms=p99,
        minimum_ms=min(times),
        spread_ms=upper - lower,
        times_ms=tuple(times),
    )


def benchmark_models(
    models: Sequence[str | Path],
    providers: Sequence[str | None] = (None,),
    *,
    rounds: int = 20,
    warmup: int = 3,
    threads: int | None = None,
    throughput: bool = False,
    progress: Progress | None = None,
) -> BenchmarkReport:
    """Times every model on every provider: whole calls, from uint8 images in memory to the flow in pixels.

    Each model gets the built-in pair at its own size, its batch full.

    Args:
        models: ``.onnx`` files, engines, and OpenVINO's ``.xml`` files.
        providers: for the ``.onnx`` files; ``cpu`` for None. The others run on what they were built for.
        rounds: timed runs of each.
        warmup: runs of each before that, not timed.
        threads: for operators on the CPU; one for each physical core when None.
        throughput: time ``.xml`` files a second time with several batches side by side, one call for all.
        progress: told about every round.

    Raises:
        ConfigError: there are no rounds; threads are given and every model is an engine; or throughput is
            asked for and there is no ``.xml`` file.
        GocorError: what ``gocor.runtime.session.load`` says about a model or provider.
    """
    _check_rounds(rounds, warmup)  # before loading, which takes its time
    paths = [Path(model) for model in models]
    if threads is not None and paths and all(path.suffix in ENGINE_SUFFIXES for path in paths):
        raise ConfigError("threads", "are those of the CPU, and every model is an engine", "leave them out")
    if throughput and not any(path.suffix == OPENVINO_SUFFIX for path in paths):
        raise ConfigError(
            "--throughput", "is for .xml files, and there is none", "gocor build --backend openvino"
        )
    alike = len({path.name for path in paths}) < len(set(paths))
    candidates = {}
    for run in _runs(paths, providers, threads, throughput):
        name = str(run.model) if alike else run.model.name
        if progress:
            progress(0, rounds + warmup, f"loading {name}")
        candidate = _candidate(run)
        how = f"{candidate.facts['provider']}{', throughput' * run.throughput}"
        candidates[f"{name} · {how}"] = candidate
    return benchmark(candidates, rounds, warmup, progress)


@dataclass(frozen=True)
class _Run:
    """A model and how to load it."""

    model: Path
    provider: str | None
    threads: int | None
    throughput: bool = False

    def load(self) -> FlowEstimator:
        if self.throughput:
            from gocor.runtime.openvino_session import OpenVINOEstimator

            return OpenVINOEstimator(self.model, self.provider, self.threads, throughput=True)
        return load(self.model, self.provider, self.threads)


def _runs(
    paths: Sequence[Path], providers: Sequence[str | None], threads: int | None, throughput: bool
) -> Iterator[_Run]:
    for path in paths:
        for provider in providers if path.suffix not in BUILT_SUFFIXES else (None,):
            yield _Run(path, provider, None if path.suffix in ENGINE_SUFFIXES else threads)
        if throughput and path.suffix == OPENVINO_SUFFIX:
            yield _Run(path, None, threads, throughput=True)


def _candidate(run: _Run) -> Candidate:
    estimator = run.load()
    reference, query = _full_batch(estimator)
    described = estimator.metadata
    facts = {
        "model": str(run.model),
        "network": described.network,
        "size": f"{described.height}x{described.width}",
        "batch": described.batch,
        "io": described.io,
        "global_iterations": described.global_iterations,
        "local_iterations": described.local_iterations,
        "weights_sha256": described.weights_sha256,
        "provider": estimator.provider,
        "precision": estimator.precision,
        "operators_by_provider": dict(estimator.placement),
        "streams": estimator.streams,
        "threads": None if run.model.suffix in ENGINE_SUFFIXES else run.threads or "default",
    }
    memory = peak_memory_mib(_load_and_run, run)
    return Candidate(lambda: estimator(reference, query), len(reference), facts, memory)


def _full_batch(estimator: FlowEstimator) -> tuple[np.ndarray, np.ndarray]:
    """Pairs for one call, in every stream a full batch."""
    described = estimator.metadata
    count = described.batch * estimator.streams
    pairs = [sample_pair(*described.size, seed)[:2] for seed in range(count)]
    return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])


def _load_and_run(run: _Run) -> None:
    estimator = run.load()
    pairs = _full_batch(estimator)
    for _ in range(2):  # the second call may grow the arena once more
        estimator(*pairs)


def peak_memory_mib(function: Callable[..., object], *arguments: object) -> float | None:
    """Most main memory that a fresh Python process ever held while it ran ``function(*arguments)``.

    Everything counts: the interpreter, the libraries that the function imports, the model. A process of its
    own is the only way not to measure what earlier candidates left behind. Memory of a GPU is not in it.

    Args:
        function: importable by name.
        arguments: picklable.

    Returns:
        MiB, or None on a system that does not tell.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run_and_ask, function, arguments).result()


def _run_and_ask(function: Callable[..., object], arguments: tuple[object, ...]) -> float | None:
    logging.getLogger("gocor").addHandler(logging.NullHandler())  # who asked has heard it from his own models
    function(*arguments)
    return _peak_of_this_process()


def _peak_of_this_process() -> float | None:
    # On Linux getrusage's figure starts with the peak of the process that started this one.
    try:
        match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        return int(match[1]) / 1024 if match else None
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def check_plot(path: str | Path) -> None:
    """Finds out before a long benchmark whether ``plot`` can write this file.

    Raises:
        DependencyError: matplotlib is not installed.
        ConfigError: it is no ``.png``, ``.svg`` or ``.pdf`` file.
        OutputError: it cannot be written.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        hint = 'pip install "gocor-deploy[plot]"'
        raise DependencyError("matplotlib", f"cannot be imported ({error})", hint) from error
    if (suffix := Path(path).suffix).lower() not in PLOT_SUFFIXES:
        raise ConfigError(path, f"has suffix {suffix!r}", f"one of {' '.join(PLOT_SUFFIXES)}")
    check_writable(path)


def plot(report: BenchmarkReport, path: str | Path) -> None:
    """Draws every run of every candidate as a picture, in the format of the path's suffix.

    Raises:
        DependencyError: matplotlib is not installed.
        ConfigError: the suffix is that of no picture.
        OutputError: the file cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    count = len(report.results)
    figure = Figure(figsize=(9, 1.6 + 0.6 * count), layout="constrained")
    axes = figure.add_subplot()
    for row, result in enumerate(report.results):
        times = np.array(result.times_ms) / result.pairs
        axes.hlines(row, *np.percentile(times, (25, 75)), linewidth=14, color="tab:blue", alpha=0.3)
        axes.plot(times, np.full(len(times), row), "|", color="tab:blue", alpha=0.7)
        axes.plot(np.median(times), row, "o", color="tab:blue")
        axes.annotate(f"{np.median(times):.1f}", (np.median(times), row), (0, 9), textcoords="offset points")
    axes.set_yticks(range(count), [result.name for result in report.results])
    axes.set_ylim(-0.6, count - 0.4)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(f"ms for a pair: median, quartiles and each of {report.rounds} interleaved runs")
    axes.set_title(report.machine.cpu, fontsize="medium")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
