"""Is a package what was made, and do its models give PyTorch's flows here? PyTorch itself is not needed.

Whatever cannot be run on a machine is listed with its reason, and is never counted as passed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gocor.core.errors import ConfigError, GocorError, ModelError, ProviderError
from gocor.core.files import sha256
from gocor.runtime.compare import Comparison, compare_flows, compare_scores
from gocor.runtime.environment import Machine, machine
from gocor.runtime.flow import read_flow
from gocor.runtime.images import load_image
from gocor.runtime.metadata import ORIENTATION_SCORE
from gocor.runtime.package import Package, PackagedModel, PackagedPair, PackagedPrecision
from gocor.runtime.package_choice import CANNOT_RUN
from gocor.runtime.session import ENGINE_PROVIDERS, PROVIDERS, FlowEstimator, load

Progress = Callable[[int, int | None, str], None]
Result = Literal["passed", "failed", "not run"]
FLOW = "flow"


@dataclass(frozen=True)
class PairCheck:
    """What a model says about a pair, compared with PyTorch."""

    name: str
    outputs: tuple[Comparison, ...]


@dataclass(frozen=True)
class ModelCheck:
    """What was found out about a model.

    Attributes:
        path: in the package.
        size: of the images that it is for.
        precision: of it.
        provider: where it ran, or would.
        result: of all pairs.
        reason: why it failed or was not run; empty if it passed.
        worst: of all pairs, of the flow; None if no pair could be compared.
        pairs: every pair.
    """

    path: str
    size: str
    precision: PackagedPrecision
    provider: str
    result: Result
    reason: str = ""
    worst: Comparison | None = None
    pairs: tuple[PairCheck, ...] = ()


@dataclass(frozen=True)
class PackageReport:
    """What was found out about a package.

    Attributes:
        passed: all files are as they were packaged, no model failed, and at least one was run.
        folder: of the package.
        index_sha256: hash of the index, which has the hashes of all else.
        files: number of files that should be there.
        differences: reason by path, of all that is not as it was packaged.
        models: in the order of the index.
        machine: where this was.
    """

    passed: bool
    folder: Path
    index_sha256: str
    files: int
    differences: Mapping[str, str]
    models: tuple[ModelCheck, ...]
    machine: Machine


def check_package(
    folder: str | Path,
    provider: str | None = None,
    threads: int | None = None,
    *,
    index_sha256: str | None = None,
    progress: Progress | None = None,
) -> PackageReport:
    """Compares every file with its hash, and every model that this machine runs with PyTorch's flows.

    A model whose files or pairs are not as they were packaged has failed and is not run.

    Args:
        folder: of the package.
        provider: of ``.onnx`` models: ``cpu``, ``cuda`` or ``tensorrt``; ``cpu`` when None.
        threads: on the CPU; one for each physical core when None.
        index_sha256: that the index must have, known from somewhere else than the package itself.
        progress: called as ``progress(done, total, what)``.

    Returns:
        The report; ``report.passed`` is the verdict.

    Raises:
        ModelError: the folder is no package, or its index is damaged or another one.
        ProviderError: ``provider`` is none of those.
        ConfigError: the number of threads makes no sense.
    """
    if provider not in (None, *PROVIDERS):
        known = ", ".join(PROVIDERS)
        raise ProviderError("provider", f"{provider!r} does not run .onnx models", f"one of {known}")
    if threads is not None and threads < 1:
        raise ConfigError("threads", f"is {threads}", "at least 1")
    package = Package.read(folder)
    found = sha256(package.index)
    if index_sha256 is not None and index_sha256.strip().lower() != found:
        got = f"is not the index that was meant (SHA-256 {found[:12]}…, not {index_sha256[:12]}…)"
        raise ModelError(package.index, got, "get the package again")
    total = 1 + len(package.models)
    if progress:
        progress(0, total, f"hashes of {len(package.files)} files")
    differences = dict(package.differences())
    checks = []
    for number, model in enumerate(package.models):
        if progress:
            progress(1 + number, total, model.path)
        checks.append(_check_model(package, model, differences, provider or "cpu", threads))
    results = {check.result for check in checks}
    return PackageReport(
        passed=not differences and "failed" not in results and "passed" in results,
        folder=package.folder, index_sha256=found, files=len(package.files), differences=differences,
        models=tuple(checks), machine=machine(),
    )  # fmt: skip


def _check_model(
    package: Package, model: PackagedModel, differences: Mapping[str, str], provider: str, threads: int | None
) -> ModelCheck:
    where = provider if model.backend == "onnxruntime" else model.backend

    def check(result: Result, reason: object = "", pairs: tuple[PairCheck, ...] = ()) -> ModelCheck:
        worst = max((pair.outputs[0] for pair in pairs), key=lambda output: output.badness, default=None)
        return ModelCheck(model.path, model.size, model.precision, where, result, str(reason), worst, pairs)

    pairs = package.pairs_for(model)
    needed = {*model.files, *(path for pair in pairs for path in pair.files)}
    if changed := sorted(needed & differences.keys()):
        return check("failed", f"{changed[0]} {differences[changed[0]]}")
    if not pairs:
        return check("failed", "the package has no pair of its size")
    own = provider if model.backend == "onnxruntime" else None
    cores = None if model.backend in ENGINE_PROVIDERS else threads
    try:
        with load(package.folder / model.path, own, cores) as estimator:
            if estimator.metadata != model.metadata:
                return check("failed", "is not what the index says of it")
            done = tuple(_check_pair(package, model, pair, estimator) for pair in pairs)
    except CANNOT_RUN as error:
        return check("not run", error)
    except GocorError as error:
        return check("failed", error)
    wrong = [(pair, output) for pair in done for output in pair.outputs if not output.passed]
    if wrong:
        pair, output = wrong[0]
        return check("failed", f"{output.name} of pair {pair.name}: {output.explain()}", done)
    return check("passed", "", done)


def _check_pair(
    package: Package, model: PackagedModel, pair: PackagedPair, estimator: FlowEstimator
) -> PairCheck:
    reference, query = (load_image(package.folder / path) for path in (pair.reference, pair.query))
    truth, _ = read_flow(package.folder / pair.flow)
    estimate = estimator.estimate(reference, query)
    outputs = [compare_flows(FLOW, estimate.flow, truth, model.tolerance)]
    if pair.orientation_score is not None and estimate.orientation_score is not None:
        expected = np.float32(pair.orientation_score).reshape(1)
        score = np.asarray(estimate.orientation_score, np.float32).reshape(1)
        outputs.append(compare_scores(ORIENTATION_SCORE, score, expected, model.tolerance))
    return PairCheck(pair.name, tuple(outputs))
