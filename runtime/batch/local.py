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
        if job.complete:
            progress(tally := job.begin())
        else:
            # Loaded first: a model that does not load must not cost the results that a run is to replace.
            config = job.config
            with load(config.model, config.provider, config.threads, config.precision) as estimator:
                tally = _compute(job, estimator, progress)
        return job.finish(tally, time.monotonic() - began)


def _compute(job: Job, estimator: FlowEstimator, progress: Progress) -> Tally:
    """Computes what is left of a job, and counts it."""
    progress(tally := job.begin())

    def note(outcome: Outcome) -> None:
        nonlocal tally
        tally = replace(tally, **{outcome.status: getattr(tally, outcome.status) + 1})
        progress(tally)

    for _ in Pipeline(estimator, job.config, note).run(job.pending()):
        pass
    return tally
