"""A batch on a Ray cluster: the same shards, computed by actors of Ray Data, each of which has a model.

Ray places the actors, hands shards to them, and starts them again when they or their machines die. What is
done is told by the shards in the folder of the job alone, as on one machine: one that a dying actor left half
written was never there, and one that it had just finished is not written again.
"""

import contextlib
import itertools
import logging
import os
import pickle
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gocor.core.errors import ConfigError, DependencyError, GocorError, ModelError
from gocor.runtime.batch.index import Outcome
from gocor.runtime.batch.job import BatchConfig, BatchReport, Job, Shard, Tally
from gocor.runtime.batch.local import Progress
from gocor.runtime.batch.pipeline import Pipeline
from gocor.runtime.batch.shards import abandoned, finished_shards, read_shard
from gocor.runtime.model_hash import model_sha256
from gocor.runtime.pairs import PairList, file_pair
from gocor.runtime.session import ENGINE_PROVIDERS, ENGINE_SUFFIXES, FlowEstimator, load
from gocor.runtime.tables import import_pyarrow

LOCAL = "local"
# Ray starts an actor again for ever, but it may be a pair that kills it: so many may die over one shard.
_DEATHS = 10
_SHARDS_AT_ONCE = 2000  # whose paths are handed to Ray at a time
_GPU_PROVIDERS = ("cuda", *ENGINE_PROVIDERS)


@dataclass(frozen=True)
class RayConfig:
    """Where a batch runs.

    Attributes:
        address: ``local`` starts a cluster on this machine and ends it afterwards; ``auto`` finds the one
            that this machine belongs to; else ``HOST:PORT`` of a cluster's head.
        workers: models to load. When None, one for each GPU, or on CPUs one for each machine.
    """

    address: str = LOCAL
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError("--ray-workers", f"is {self.workers}", "at least 1")


def run_batch_on_ray(
    pairs: PairList, config: BatchConfig, ray: RayConfig, progress: Progress = lambda _tally: None
) -> BatchReport:
    """Computes a batch as ``run_batch`` does, on a cluster.

    Every machine must have this package and see model, images and the job's folder under the same paths.

    Args:
        pairs: the list.
        config: what to compute and write. ``threads`` are those of each worker.
        ray: where.
        progress: called when shards were done, first with what is done before this run.

    Raises:
        ConfigError: the folder holds another job, there is no such cluster, or it is too small.
        DependencyError: Ray is not installed.
        OutputError, ModelError, ProviderError: as ``run_batch``, from whichever worker.
    """
    began = time.monotonic()
    library = _import_ray()
    here = os.path.abspath
    config = replace(config, model=Path(here(config.model)), output=Path(here(config.output)))
    with Job(pairs, config) as job:
        if job.complete:
            progress(tally := job.begin())
        else:
            with _cluster(library, ray.address):
                tally = _compute(library, job, _Workers.of(library, job.config, ray), progress)
        return job.finish(tally, time.monotonic() - began)


@dataclass(frozen=True)
class _Workers:
    """How many actors there are, and what each of them has."""

    count: int
    cpus: int
    gpus: int

    @classmethod
    def of(cls, library: Any, config: BatchConfig, ray: RayConfig) -> "_Workers":
        """As wanted, or as the cluster suggests.

        Raises:
            ConfigError: the cluster does not have so much.
        """
        has = library.cluster_resources()
        cpus, gpus = int(has.get("CPU", 0)), int(has.get("GPU", 0))
        if config.provider in _GPU_PROVIDERS or config.model.suffix in ENGINE_SUFFIXES:
            wanted = cls(ray.workers or max(1, gpus), config.threads or 1, 1)
        else:
            machines = sum(node["Alive"] for node in library.nodes())
            count = ray.workers or machines
            wanted = cls(count, config.threads or max(1, cpus // count), 0)
        for name, there, needed in (("CPU", cpus, wanted.cpus), ("GPU", gpus, wanted.gpus)):
            if wanted.count * needed > there:
                text = f"{wanted.count} with {needed} {name} each are more than the cluster's {there}"
                raise ConfigError("--ray-workers", text, "fewer of them, fewer --threads, or more machines")
        return wanted


class _Worker:
    """A model in an actor of Ray Data, which computes shards."""

    def __init__(self, config: BatchConfig, expected_sha256: str, threads: int | None) -> None:
        self.config, self.expected_sha256, self.threads = config, expected_sha256, threads
        self._pipeline: Pipeline | None = None

    def __call__(self, shards: Any) -> dict[str, list[Any]]:
        """Computes the shards in the rows of an Arrow table; an error is a result, too."""
        rows = [self._outcome_of(row) for row in shards.to_pylist()]
        return {name: [row[place] for row in rows] for place, name in enumerate(("done", "failed", "error"))}

    def load(self) -> FlowEstimator:
        """The model on this machine, if it is the one that the job was started with."""
        config = self.config
        if model_sha256(config.model) != self.expected_sha256:
            where = f"{config.model} on {os.uname().nodename}"
            raise ModelError(where, "is another file than where the job was started", "copy it there")
        return load(config.model, config.provider, self.threads, config.precision)

    def _outcome_of(self, row: dict[str, Any]) -> tuple[int, int, bytes]:
        try:
            outcomes = self._compute(_shard_of(row))
        except GocorError as error:
            return 0, 0, pickle.dumps(error)
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        return len(outcomes) - failed, failed, b""

    def _compute(self, shard: Shard) -> list[Outcome]:
        if path := finished_shards(self.config.output).get(shard.number):
            return read_shard(path)  # by an actor that died before it could say so
        if (deaths := abandoned(self.config.output, shard.number)) >= _DEATHS:
            text = (
                f"was killed {deaths} times over shard {shard.number}, {shard.pairs[0].name} and what follows"
            )
            raise ModelError(self.config.model, text, "look for the pair that does it, or for want of memory")
        pipeline, outcomes = self._loaded(), list[Outcome]()
        pipeline.note = outcomes.append
        for _ in pipeline.run([shard]):
            pass
        return outcomes

    def _loaded(self) -> Pipeline:
        """One for all shards: it counts what fails in a row."""
        if self._pipeline is None:
            self._pipeline = Pipeline(self.load(), self.config)
        return self._pipeline


def _try_model(worker: _Worker) -> bytes:
    """Loads the model and lets it go; the error is the result, too."""
    try:
        worker.load().close()
    except GocorError as error:
        return pickle.dumps(error)
    return b""


def _compute(library: Any, job: Job, workers: _Workers, progress: Progress) -> Tally:
    """Computes what is left of a job, and counts it."""
    if job.replaces:
        _check_model(library, job, workers)
    progress(tally := job.begin())
    for done, failed in _results(library, job, workers):
        tally = replace(tally, done=tally.done + done, failed=tally.failed + failed)
        progress(tally)
    return tally


def _check_model(library: Any, job: Job, workers: _Workers) -> None:
    """Loads the model where a worker would: one that does not load must not cost earlier results."""
    task = library.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(_try_model)
    with _errors_of_ray(library, job):
        if error := library.get(task.remote(_Worker(*_worker_arguments(job, workers)))):
            raise pickle.loads(error)


def _results(library: Any, job: Job, workers: _Workers) -> Iterator[tuple[int, int]]:
    """Numbers of pairs that are done and that failed, shard by shard as they come."""
    data, shards, arguments = library.data, job.pending(), _worker_arguments(job, workers)
    while some := [_table_of(shard) for shard in itertools.islice(shards, _SHARDS_AT_ONCE)]:
        results = data.from_arrow(some).map_batches(
            _Worker, batch_size=None, batch_format="pyarrow", fn_constructor_args=arguments,
            compute=data.ActorPoolStrategy(size=min(workers.count, len(some))),
            num_cpus=workers.cpus, num_gpus=workers.gpus,
        )  # fmt: skip
        with _errors_of_ray(library, job):
            for row in results.iter_rows():
                if row["error"]:
                    raise pickle.loads(row["error"])
                yield row["done"], row["failed"]


def _worker_arguments(job: Job, workers: _Workers) -> tuple[BatchConfig, str, int | None]:
    """What a ``_Worker`` is made of."""
    threads = job.config.threads if workers.gpus else workers.cpus
    return job.config, job.model_sha256, threads


@contextlib.contextmanager
def _errors_of_ray(library: Any, job: Job) -> Iterator[None]:
    """Turns those that are Ray's own into one line."""
    try:
        yield
    except library.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(job.config.model, f"failed on Ray ({reason})", "see the logs of Ray") from error


def _table_of(shard: Shard) -> Any:
    """A shard as a table of one row, which Ray Data cannot tear apart. Paths are bytes, as for Linux."""
    arrow = import_pyarrow("--ray")
    files = zip(*(pair.files for pair in shard.pairs), strict=True)
    reference, query = ([os.fsencode(file) for file in column] for column in files)
    names = [pair.name for pair in shard.pairs]
    row = {"shard": shard.number, "names": names, "references": reference, "queries": query}
    return arrow.Table.from_pylist([row])


def _shard_of(row: dict[str, Any]) -> Shard:
    columns: Iterable[tuple[str, bytes, bytes]] = zip(
        row["names"], row["references"], row["queries"], strict=True
    )
    pairs = (file_pair(name, *(Path(os.fsdecode(file)) for file in files)) for name, *files in columns)
    return Shard(row["shard"], tuple(pairs))


@contextlib.contextmanager
def _cluster(library: Any, address: str) -> Iterator[None]:
    """Connects to a cluster, unless this process already is, and leaves it; a local one ends with that.

    Raises:
        ConfigError: there is none at the address.
    """
    if library.is_initialized():
        yield
        return
    try:
        library.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--ray {address}", f"cannot be reached ({reason})", "local, auto or HOST:PORT"
        ) from error
    try:
        yield
    finally:
        library.shutdown()


def _import_ray() -> Any:
    """The module ``ray``, told to be quiet, and to tell nobody that it is used.

    Raises:
        DependencyError: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DependencyError(
            "--ray", "needs Ray, which is not installed", 'pip install "gocor-deploy[ray]"'
        ) from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray
