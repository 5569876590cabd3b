"""Reading, estimating and writing at the same time, with a bounded number of pairs on the way."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from gocor.core.errors import GocorError, ImageError, ModelError, OutputError
from gocor.runtime.batch.index import Outcome, failed
from gocor.runtime.batch.job import BatchConfig, Shard
from gocor.runtime.batch.shards import ShardWriter, open_shard
from gocor.runtime.flow import check_finite
from gocor.runtime.images import check_same_size, pad_pair
from gocor.runtime.pairs import Pair
from gocor.runtime.session import FlowEstimator

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_WORKERS = 8
# So many pairs in a row must have failed in the model, and none of a shard succeeded, for it to be at fault.
_ENOUGH_FAILURES = 8


@dataclass(eq=False)
class _Open:
    """A shard on its way through the pipeline."""

    shard: Shard
    writer: ShardWriter
    outcomes: list[Outcome] = field(default_factory=list)
    estimated: int = 0
    model_error: ModelError | None = None


@dataclass(frozen=True)
class _Images:
    """A pair that was read: two images of one size, and that of the reference before padding."""

    pair: Pair
    reference: np.ndarray
    query: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class _Flow:
    """What the model gave for a pair."""

    pair: Pair
    flow: np.ndarray
    seconds: float


class Pipeline:
    """Takes shards through a model. Threads read ahead and write behind; the model runs in the caller's.

    Which pairs the model gets together depends on the list alone, and so does every bit of the flows.
    """

    def __init__(
        self,
        estimator: FlowEstimator,
        config: BatchConfig,
        note: Callable[[Outcome], None] = lambda _outcome: None,
    ) -> None:
        """Prepares to write into the job's folder.

        Args:
            estimator: the model.
            config: what to write.
            note: called about every pair, in no certain order, before its shard is complete.
        """
        self.estimator, self.config, self.note = estimator, config, note
        self.batch = config.batch or estimator.metadata.batch
        self.workers = config.workers or min(_MOST_WORKERS, os.cpu_count() or 1)
        self._unfinished: dict[int, _Open] = {}
        self._model_failures = 0  # since it last gave a flow

    @property
    def most_pairs(self) -> int:
        """So many pairs are in memory at most: read ahead, waiting for a full batch, in it, being written."""
        return self._ahead + self._waiting + self._behind + self.batch

    @property
    def _ahead(self) -> int:
        return 2 * self.batch + self.workers

    @property
    def _waiting(self) -> int:
        return 2 * self.batch

    @property
    def _behind(self) -> int:
        return self.batch + self.workers

    def run(self, shards: Iterable[Shard]) -> Iterator[Shard]:
        """Computes shards, and yields each when it is on the disk.

        Raises:
            OutputError: results cannot be written. Complete shards stay; of others nothing is left.
            ModelError: the model fails on whatever it is given.
        """
        # Rows of a Parquet file are written one after the other.
        writers = 1 if self.config.parquet else self.workers
        with contextlib.ExitStack() as stack:
            stack.callback(self._discard)
            reading = stack.enter_context(ThreadPoolExecutor(self.workers, "gocor-read"))
            writing = stack.enter_context(ThreadPoolExecutor(writers, "gocor-write"))
            read = _ahead(reading, self._read, self._events(shards), self._ahead)
            stack.enter_context(contextlib.closing(read))
            written = _ahead(writing, self._write, self._estimates(read), self._behind, early=True)
            stack.enter_context(contextlib.closing(written))
            # Until a shard is down on the disk the model goes on with the next one.
            finishing = stack.enter_context(ThreadPoolExecutor(1, "gocor-finish"))
            finished = _ahead(finishing, self._finish, self._collected(written), 2, early=True)
            yield from stack.enter_context(contextlib.closing(finished))

    def _collected(self, written: Iterable[tuple[_Open, Outcome | None]]) -> Iterator[_Open]:
        """Shards all of whose pairs are written or failed."""
        for opened, outcome in written:
            if outcome is not None:
                opened.outcomes.append(outcome)
                self.note(outcome)
            elif opened.model_error and not opened.estimated and self._model_failures >= _ENOUGH_FAILURES:
                # A GPU that fell off the bus would otherwise make failed pairs of all that are left.
                raise opened.model_error
            else:
                yield opened

    def _events(self, shards: Iterable[Shard]) -> Iterator[tuple[_Open, Pair | None]]:
        """Every pair with its shard, and None at the end of each shard."""
        for shard in shards:
            opened = _Open(shard, self._open(shard))
            self._unfinished[shard.number] = opened
            opened.writer.begin()
            for pair in shard.pairs:
                yield opened, pair
            yield opened, None

    def _open(self, shard: Shard) -> ShardWriter:
        return open_shard(self.config.output, shard.number, self.config.format, self.config.dtype)

    def _read(self, event: tuple[_Open, Pair | None]) -> tuple[_Open, _Images | Outcome | None]:
        opened, pair = event
        if pair is None:
            return opened, None
        try:
            reference, query = pair.load()
            if not self.config.pad:
                check_same_size(reference, query, pair.name)
            return opened, _Images(pair, *pad_pair(reference, query), reference.shape[:2])
        except GocorError as error:
            return opened, failed(pair, error)
        except MemoryError:
            return opened, failed(pair, ImageError(pair.name, "does not fit into memory", "smaller images"))

    def _estimates(
        self, read: Iterable[tuple[_Open, _Images | Outcome | None]]
    ) -> Iterator[tuple[_Open, _Flow | Outcome | None]]:
        """Flows, in batches of images of one size out of one shard."""
        waiting: dict[tuple[int, ...], list[_Images]] = {}
        for opened, item in read:
            if isinstance(item, _Images):
                waiting.setdefault(item.reference.shape, []).append(item)
                yield from self._full_batches(opened, waiting)
            else:
                while waiting and item is None:  # the end of the shard
                    yield from self._estimate(opened, waiting.pop(next(iter(waiting))))
                yield opened, item
            del item  # while the next one is waited for, this one's images would stay in memory

    def _full_batches(
        self, opened: _Open, waiting: dict[tuple[int, ...], list[_Images]]
    ) -> Iterator[tuple[_Open, _Flow | Outcome]]:
        size = max(waiting, key=lambda size: len(waiting[size]))
        if len(waiting[size]) >= self.batch or sum(map(len, waiting.values())) > self._waiting:
            yield from self._estimate(opened, waiting.pop(size))

    def _estimate(self, opened: _Open, images: list[_Images]) -> Iterator[tuple[_Open, _Flow | Outcome]]:
        """Runs the model; if it fails on a batch, on each pair by itself."""
        start = time.perf_counter()
        try:
            reference, query = (
                np.stack([getattr(i, name) for i in images]) for name in ("reference", "query")
            )
            flows = self.estimator(reference, query)
        except (GocorError, MemoryError) as error:
            if len(images) > 1:
                for image in images:
                    yield from self._estimate(opened, [image])
            else:
                yield opened, self._model_failed(opened, images[0].pair, error)
            return
        seconds = (time.perf_counter() - start) / len(images)
        for image, flow in zip(images, flows, strict=True):
            height, width = image.size
            flow = flow[:, :height, :width]
            try:
                check_finite(flow, self.estimator.path, image.pair.name)
            except ModelError as error:
                yield opened, self._model_failed(opened, image.pair, error)
                continue
            opened.estimated += 1
            self._model_failures = 0
            yield opened, _Flow(image.pair, flow, seconds)

    def _model_failed(self, opened: _Open, pair: Pair, error: GocorError | MemoryError) -> Outcome:
        if isinstance(error, MemoryError):
            error = ModelError(self.estimator.path, f"ran out of memory with {pair.name}", "smaller images")
        if isinstance(error, ModelError):  # and not that these images are none for it
            opened.model_error = error
            self._model_failures += 1
        return failed(pair, error)

    def _write(self, item: tuple[_Open, _Flow | Outcome | None]) -> tuple[_Open, Outcome | None]:
        opened, result = item
        if not isinstance(result, _Flow):
            return opened, result
        try:
            return opened, opened.writer.add(result.pair, result.flow, result.seconds)
        except OutputError:
            raise
        except GocorError as error:
            return opened, failed(result.pair, error)

    def _finish(self, opened: _Open) -> Shard:
        order = {pair.name: place for place, pair in enumerate(opened.shard.pairs)}
        opened.writer.finish(sorted(opened.outcomes, key=lambda outcome: order[outcome.name]))
        del self._unfinished[opened.shard.number]
        return opened.shard

    def _discard(self) -> None:
        for opened in self._unfinished.values():
            opened.writer.discard()
        self._unfinished.clear()


def _ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], limit: int, early: bool = False
) -> Generator[Result, None, None]:
    """Results in order, of which the pool computes up to ``limit`` before they are asked for.

    With ``early`` a result is given as soon as it is there, and not only when ``limit`` are under way: for
    the end of a pipeline, where what waits is news.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            del item
            while waiting and (len(waiting) >= limit or (early and waiting[0].done())):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
