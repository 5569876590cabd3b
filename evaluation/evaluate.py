"""Methods side by side on one dataset."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from gocor.core.errors import GocorError, ModelError
from gocor.evaluation.methods import Method
from gocor.evaluation.sample import Dataset, Protocol, Sample, Truth
from gocor.evaluation.scores import PairScores, Scores, mean_of, pool, score
from gocor.runtime.environment import Machine, machine
from gocor.runtime.images import pad_pair

Progress = Callable[[int, int, str], None]  # done, total, what comes now
OVERALL = "all"


@dataclass(frozen=True)
class MethodResult:
    """What one method reached.

    Attributes:
        name: of the method.
        runs: what it ran in and where.
        facts: what the method says about itself.
        groups: figures by group; ``all`` is the whole dataset, where its protocol has such a figure.
        milliseconds: median time for a pair, from images in memory to the flow.
        pairs: figures of each pair.
    """

    name: str
    runs: str
    facts: Mapping[str, object]
    groups: Mapping[str, Scores]
    milliseconds: float
    pairs: tuple[PairScores, ...]


@dataclass(frozen=True)
class EvaluationReport:
    """Results on one dataset.

    Attributes:
        dataset: its name.
        facts: about the dataset.
        protocol: how the figures were averaged.
        pairs: how many were evaluated.
        machine: where it ran.
        results: one for each method, in the order they were given.
    """

    dataset: str
    facts: Mapping[str, object]
    protocol: Protocol
    pairs: int
    machine: Machine
    results: tuple[MethodResult, ...]


def evaluate(
    methods: Sequence[Method], dataset: Dataset, progress: Progress | None = None
) -> EvaluationReport:
    """Runs every method on every pair.

    Images of two sizes are padded with black to a common one, as the official code does, and the flow is cut
    back.

    Args:
        methods: what to measure, with names of their own.
        dataset: what to measure it on.
        progress: called before each pair.

    Raises:
        ImageError: a pair cannot be read; the text names the file.
        ModelError: a method failed; the text names the pair.
    """
    scores: dict[str, list[PairScores]] = {method.name: [] for method in methods}
    for number, sample in enumerate(dataset.samples):
        if progress:
            progress(number, len(dataset.samples), sample.name)
        truth = sample.load()
        for method in methods:
            scores[method.name].append(_measure(method, sample, truth, dataset.protocol))
    results = tuple(_result(method, dataset, scores[method.name]) for method in methods)
    facts = dataset.facts or {}
    return EvaluationReport(dataset.name, facts, dataset.protocol, len(dataset.samples), machine(), results)


def _measure(method: Method, sample: Sample, truth: Truth, protocol: Protocol) -> PairScores:
    height, width = truth.reference.shape[:2]
    images = truth.reference, truth.query
    if truth.reference.shape != truth.query.shape:
        images = pad_pair(*images)
    start = time.perf_counter()
    try:
        flow = method.estimate(*images)[:, :height, :width]
        milliseconds = 1000 * (time.perf_counter() - start)
        scores = score(flow, truth, protocol)
    except GocorError as error:
        raise ModelError(method.name, f"fails on {sample.name}", str(error)) from error
    visible = 0 if truth.visible is None else np.count_nonzero(truth.visible)
    return PairScores(
        sample.name, sample.group, scores, int(np.count_nonzero(truth.valid)), int(visible), milliseconds
    )


def _result(method: Method, dataset: Dataset, pairs: Sequence[PairScores]) -> MethodResult:
    groups = {
        group: pool([pair for pair in pairs if pair.group == group], dataset.protocol)
        for group in dataset.groups
    }
    if dataset.protocol.overall == "groups" and groups:
        groups = {OVERALL: mean_of(list(groups.values())), **groups}
    elif dataset.protocol.overall == "pairs":
        groups = {OVERALL: pool(pairs, dataset.protocol), **groups}
    if len(groups) == 2 and OVERALL in groups:
        del groups[OVERALL]  # of one group, which says the same
    time_each = median(pair.milliseconds for pair in pairs)
    return MethodResult(method.name, method.runs, method.facts, groups, time_each, tuple(pairs))
