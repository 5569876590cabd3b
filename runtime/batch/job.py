"""A batch and its folder: what is computed, what of it is done, and that nothing else gets in there."""

import contextlib
import itertools
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from gocor.core.errors import ConfigError, OutputError
from gocor.core.files import atomic_path, sync, write_to_disk, writing
from gocor.core.reading import DOCUMENT, read_json
from gocor.runtime.batch.index import FAILED, INDEXES, Outcome, index_file, write_index
from gocor.runtime.batch.shards import (
    FLOWS,
    BatchFormat,
    Dtype,
    finished_shards,
    holds_results,
    read_shard,
    remove_leftovers,
    remove_shards,
)  # fmt: skip
from gocor.runtime.flow import FlowFormat
from gocor.runtime.model_hash import model_sha256
from gocor.runtime.package import Package
from gocor.runtime.package_choice import find_candidates
from gocor.runtime.pairs import Pair, PairList
from gocor.runtime.session import BUILT_SUFFIXES
from gocor.runtime.tables import import_pyarrow

JOB = "job.json"  # written first: it says what the shards beside it are
FORMATS = (*get_args(FlowFormat), "parquet")
RESULTS = (*INDEXES, FAILED)  # written when all shards are there
_LOCK = ".lock"
_FORMAT_VERSION = 1
_DECISIVE = ("precision", "format", "dtype", "pad", "batch", "shard")  # options that decide on the results

_log = logging.getLogger("gocor")


@dataclass(frozen=True)
class BatchConfig:
    """What to compute and write.

    Attributes:
        model: path of the model file, or of a package's folder.
        output: folder of the job.
        provider: where to run an ``.onnx`` file: ``cpu`` when None. Other files know.
        threads: of the CPU, for the model; one for each physical core when None.
        precision: of a package's models, ``fp32`` when None; a model has its own.
        format: of the flows: ``flo``, ``kitti`` or ``npy`` files, or ``parquet``.
        dtype: of the flows in Parquet.
        pad: pad images of two sizes to their common size; otherwise such a pair fails.
        batch: pairs that the model is given at a time; as many as it was exported for when None.
        shard: pairs that appear together, in one folder or Parquet file; what a kill costs at most.
        workers: threads that read images, and as many that write; one for each core, up to 8, when None.
        restart: remove the results of an earlier job in the folder.
        retry_failed: compute shards again in which pairs failed.
    """

    model: Path
    output: Path
    provider: str | None = None
    threads: int | None = None
    precision: str | None = None
    format: BatchFormat = "flo"
    dtype: Dtype = "float32"
    pad: bool = False
    batch: int | None = None
    shard: int = 100
    workers: int | None = None
    restart: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        for option, value, known in (
            ("--format", self.format, FORMATS),
            ("--dtype", self.dtype, get_args(Dtype)),
        ):
            if value not in known:
                raise ConfigError(option, f"unknown {value!r}", f"one of {', '.join(known)}")
        for name in ("threads", "batch", "shard", "workers"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ConfigError(f"--{name}", f"is {number}", "at least 1")
        if self.dtype != "float32" and self.format != "parquet":
            raise ConfigError("--dtype", f"is {self.dtype} with --format {self.format}", "--format parquet")

    @property
    def parquet(self) -> bool:
        """Flows and index are Parquet files."""
        return self.format == "parquet"


@dataclass(frozen=True)
class Shard:
    """Pairs whose results appear together."""

    number: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Tally:
    """How far a job is.

    Attributes:
        total: pairs of the job.
        before: of them done or failed in earlier runs.
        done: in this run.
        failed: in this run.
    """

    total: int
    before: int = 0
    done: int = 0
    failed: int = 0

    @property
    def finished(self) -> int:
        """Pairs that need nothing any more."""
        return self.before + self.done + self.failed


@dataclass(frozen=True)
class BatchReport:
    """What a job has come to.

    Attributes:
        tally: of the run that finished it.
        done: pairs that have a flow, of all runs.
        failed: pairs that have none.
        index: file that says about each pair what became of it and where its flow is.
        seconds: that this run took.
    """

    tally: Tally
    done: int
    failed: int
    index: Path
    seconds: float = field(compare=False)


class Job:
    """A batch in its folder; one process at a time may have it. Open it with ``with``.

    Nothing in the folder is changed before ``begin``, so that a model can be loaded before that.

    Attributes:
        config: what to compute; of a package, with the provider and precision that were chosen.
        pairs: of which pairs.
        model_sha256: of the model; see the function of that name.
    """

    def __init__(self, pairs: PairList, config: BatchConfig) -> None:
        self.pairs = pairs
        self.model_sha256 = model_sha256(config.model)
        self.config = _chosen(config)
        self._anew = False
        self._close = contextlib.ExitStack()

    def __enter__(self) -> "Job":
        """Takes the folder, which is made if there is none.

        Raises:
            ConfigError: the folder holds another job, or something that is none; or another process has it.
            OutputError: the folder cannot be written.
            DependencyError: the results shall be Parquet files and pyarrow is not installed.
        """
        folder = self.config.output
        if self.config.parquet:
            import_pyarrow("--format parquet")
        self._check_list_survives()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as close:
            close.enter_context(_locked(folder))
            self._anew = self._is_another()
            self._close = close.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._close.close()

    @property
    def finished(self) -> dict[int, Path]:
        """Shards that are there, by number."""
        return finished_shards(self.config.output)

    @property
    def complete(self) -> bool:
        """Everything was computed before, and nothing shall be computed again."""
        return not self._again and self._tally().finished == self.pairs.expected

    @property
    def replaces(self) -> bool:
        """Whether ``begin`` is to remove results."""
        return self._again and holds_results(self.config.output)

    def begin(self) -> Tally:
        """Removes what is to be computed again, and records what the job is.

        Returns:
            What is done before the first pair of this run.
        """
        folder = self.config.output
        with writing(folder):
            remove_leftovers(folder)
            if self._anew:
                self._replace()
            elif self.config.retry_failed:
                remove_shards(path for path in self.finished.values() if _has_failures(path))
            (folder / FLOWS).mkdir(exist_ok=True)
            sync(folder)
        return self._tally()

    def pending(self) -> Iterator[Shard]:
        """Shards that are not there, in order; the list is read as they are taken."""
        finished, pairs = self.finished, iter(self.pairs)
        for number in itertools.count():
            if not (taken := tuple(itertools.islice(pairs, self.config.shard))):
                return
            if number not in finished:
                self.pairs.check_unchanged()
                yield Shard(number, taken)

    def finish(self, tally: Tally, seconds: float) -> BatchReport:
        """Writes the index of the job, all of whose shards are there."""
        folder, finished, parquet = self.config.output, self.finished, self.config.parquet
        remove_leftovers(folder)  # of actors that died; nobody is at work any more
        shards = (self._outcomes(number, finished) for number in range(self._shards))
        done, failed = write_index(folder, shards, parquet)
        return BatchReport(tally, done, failed, index_file(folder, parquet), seconds)

    @property
    def _again(self) -> bool:
        """What is there may have to be computed again."""
        return self._anew or self.config.retry_failed

    @property
    def _shards(self) -> int:
        return -(-self.pairs.expected // self.config.shard)

    def _tally(self) -> Tally:
        there = self.finished.keys() & range(self._shards)
        return Tally(self.pairs.expected, sum(map(self._size, there)))

    def _size(self, number: int) -> int:
        """Pairs of a shard; the last one has what is left."""
        return min(self.config.shard, self.pairs.expected - number * self.config.shard)

    def _outcomes(self, number: int, finished: dict[int, Path]) -> list[Outcome]:
        if (path := finished.get(number)) is None:
            text = f"lost shard {number} while the batch ran"
            raise OutputError(self.config.output / FLOWS, text, "the same command computes it again")
        outcomes = read_shard(path)
        if len(outcomes) != self._size(number):
            text = f"is damaged ({len(outcomes)} pairs instead of {self._size(number)})"
            raise OutputError(path, text, "remove it, and its pairs are computed again")
        return outcomes

    def _check_list_survives(self) -> None:
        folder, path = self.config.output.resolve(), self.pairs.path.resolve()
        ours = [folder / name for name in (FLOWS, JOB, *RESULTS)]
        if any(place in (path, *path.parents) for place in ours):
            raise ConfigError("-o", f"results in {folder} would overwrite the list {path}", "another folder")

    def _is_another(self) -> bool:
        """Whether the job is begun anew; if that costs the results of another one, it has to be asked for."""
        folder, identity = self.config.output, self._identity()
        recorded = _read_record(folder)
        if recorded is None:
            if names := [name for name in (JOB, FLOWS, *RESULTS) if (folder / name).exists()]:
                text = f"holds {', '.join(names)}, and they are of no batch that gocor knows"
                raise ConfigError(folder, text, "another folder, or remove them")
        elif recorded != identity and not self.config.restart and holds_results(folder):
            text = f"holds a batch {_difference(recorded, identity)}"
            raise ConfigError(folder, text, "another folder, or --restart to remove what is there")
        return self.config.restart or recorded != identity

    def _replace(self) -> None:
        """Removes the results of an earlier job, and records this one, down to the disk."""
        folder = self.config.output
        if (folder / FLOWS).exists():
            remove_shards([folder / FLOWS])
        for name in RESULTS:
            (folder / name).unlink(missing_ok=True)
        with atomic_path(folder / JOB) as temporary:
            write_to_disk(temporary, json.dumps(self._identity(), indent=2).encode() + b"\n")

    def _identity(self) -> dict[str, Any]:
        """What decides on the results. Neither threads nor machines do."""
        config = self.config
        provider = config.provider
        if config.model.suffix == ".onnx":
            provider = provider or "cpu"
        elif config.model.suffix in BUILT_SUFFIXES:
            provider = None  # it runs where it was built for, whether that is said again or not
        return {
            "format_version": _FORMAT_VERSION,
            "model_sha256": self.model_sha256,
            "provider": provider,
            "pairs": self.pairs.expected,
            "pairs_sha256": self.pairs.sha256,
            **{f"--{name}": getattr(config, name) for name in _DECISIVE},
        }


def _chosen(config: BatchConfig) -> BatchConfig:
    """Of a package, decides where its models run, once for all machines and for all runs of the job."""
    if not config.model.is_dir():
        return config
    found = find_candidates(Package.read(config.model), config.precision, config.provider)  # type: ignore[arg-type]
    for name, reason in found.passed_over.items():
        _log.info("%s: %s does not run here: %s", config.model, name, reason)
    return replace(config, provider=found.provider, precision=found.models[0].precision)


def _difference(recorded: dict[str, Any], identity: dict[str, Any]) -> str:
    """``of another model, with --format flo`` and the like."""
    names = [name for name in identity if recorded.get(name) != identity[name]]
    if "model_sha256" in names:  # which has a provider of its own
        names = [name for name in names if name != "provider"]
    said = {
        "format_version": "of another version of gocor", "model_sha256": "of another model",
        "provider": f"on provider {recorded.get('provider')}", "pairs_sha256": "of another list of pairs",
    }  # fmt: skip
    texts = [said.get(name, f"with {name} {recorded.get(name)}") for name in names if name != "pairs"]
    return ", ".join(texts) or said["format_version"]


def _read_record(folder: Path) -> dict[str, Any] | None:
    """What the folder's job is; None if nothing readable says so."""
    try:
        record = read_json(folder / JOB, DOCUMENT, OutputError)
    except (OSError, ValueError, OutputError):
        return None
    return record if isinstance(record, dict) and "pairs_sha256" in record else None


def _has_failures(path: Path) -> bool:
    return any(outcome.status == "failed" for outcome in read_shard(path))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of the folder; the lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with writing(folder / _LOCK):
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(folder, "is being written by another gocor batch", "wait for it") from error
        except OSError as error:  # some network file systems know no locks
            text = "%s: cannot be locked (%s); see that no other gocor batch writes there"
            _log.warning(text, folder, error.strerror)
        yield
    finally:
        os.close(descriptor)
