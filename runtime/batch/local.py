"""A batch on this machine."""

import time
from collections.abc import Callable
from dataclasses import replace

from gocor.runtime.batch.index import Outcome
from gocor.runtime.batch.job import BatchConfig, BatchReport, Job, Tally
from gocor.runtime.batch.pipeline import Pipeline
from gocor.runtime.pairs import PairList
from gocor.runtime.session import FlowEstimator, load

Progress = Callable[[Tally], None]


def run_batch(
    pairs: PairList,
    config: BatchConfig,
    progress: Progress = lambda _tally: None,
    load: Callable[..., FlowEstimator] = load,
) -> BatchReport:
    """Computes the flow of every pair of a list, or of those that an earlier run has left.

    A pair whose images cannot be read, or for which the model fails, is recorded as failed and stops nothing.

    Args:
        pairs: the list.
        config: what to compute and write.
        progress: called when something was done, first with what is done before this run.
        load: opens the model: path, provider, threads and precision.

    Raises:
        ConfigError: the folder holds another job.
        OutputError: results cannot be written. Those of complete shards stay, and the next run goes on.
        ModelError: the model cannot be loaded, or fails on whatever it is given.
        ProviderError: the provider is not available here.
        DependencyError: a package is missing.
    """
    began = time.monotonic()
    with Job(pairs, config) as job:
        tally = job.start()
        progress(tally)

        def note(outcome: Outcome) -> None:
            nonlocal tally
            counted = {outcome.status: getattr(tally, outcome.status) + 1}
            tally = replace(tally, **counted)
            progress(tally)

        if tally.finished < tally.total:
            with load(config.model, config.provider, config.threads, config.precision) as estimator:
                for _ in Pipeline(estimator, config, note).run(job.pending()):
                    pass
        return job.finish(tally, time.monotonic() - began)
