"""Is a model the network it was made from? PyTorch and the model run on the same pairs, and are compared."""

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gocor.core.errors import ConfigError, ModelError
from gocor.core.files import sha256
from gocor.export.checkpoint import load_network, weights_sha256
from gocor.export.networks import Network, create_network
from gocor.export.oracle import load_oracle
from gocor.export.polygraphy_runners import PYTORCH, Arrays, compare_elements, run_all
from gocor.runtime.compare import Comparison, Tolerance, compare_flows, compare_scores, tolerance_for
from gocor.runtime.environment import Machine, machine
from gocor.runtime.images import check_same_size, pad_pair
from gocor.runtime.metadata import ORIENTATION_SCORE, ModelMetadata, Precision
from gocor.runtime.model_hash import model_sha256
from gocor.runtime.openvino_manifest import OPENVINO, read_manifest
from gocor.runtime.pairs import FilePairs, Pair, PairSource, find_pairs
from gocor.runtime.preprocess import as_batches, preprocess, resize_images
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.session import BUILT_SUFFIXES, ENGINE_SUFFIXES, FlowEstimator, check_model_file, load

Progress = Callable[[int, int | None, str], None]  # done, total, what comes now
Images = tuple[np.ndarray, np.ndarray]
SHOWN_HASH = 12  # digits of a hash in an error
MODEL, ONNX_RUNTIME = "model", "ONNX Runtime"  # runners, beside PyTorch's
_WHOLE = "PyTorch ↔ model"
# What is compared, with what is taken for the truth there; what was built is an engine or OpenVINO's.
_STAGES = {
    _WHOLE: (MODEL, PYTORCH),
    "PyTorch ↔ ONNX Runtime": (ONNX_RUNTIME, PYTORCH),
    "ONNX Runtime ↔ {built}": (MODEL, ONNX_RUNTIME),
}

logger = logging.getLogger("gocor")


@dataclass(frozen=True)
class PairResult:
    """All outputs for one pair.

    Attributes:
        name: of the pair.
        height: of its images.
        width: of its images.
        outputs: of the model and of PyTorch compared, in the model's order.
    """

    name: str
    height: int
    width: int
    outputs: tuple[Comparison, ...]


@dataclass(frozen=True)
class Worst:
    """The worst result of an output, and the name of the pair that had it."""

    pair: str
    output: Comparison


@dataclass(frozen=True)
class Stage:
    """A step on the way from a network to an engine, whose two ends were compared.

    Attributes:
        name: of it.
        worst: of all pairs for each output, in the model's order.
        pairs: every pair.
    """

    name: str
    worst: tuple[Worst, ...]
    pairs: tuple[PairResult, ...]

    @classmethod
    def of(cls, name: str, pairs: Sequence[PairResult]) -> "Stage":
        """Finds the worst of some pairs, of which there is at least one."""
        worst = []
        for outputs in zip(*(pair.outputs for pair in pairs), strict=True):
            pair, output = max(zip(pairs, outputs, strict=True), key=lambda both: both[1].badness)
            worst.append(Worst(pair.name, output))
        return cls(name, tuple(worst), tuple(pairs))

    @property
    def passed(self) -> bool:
        """Every output of every pair is within the tolerance."""
        return all(entry.output.passed for entry in self.worst)


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        passed: every output of every pair is within the tolerance, in every stage, too.
        model: path of the model.
        model_sha256: of the file; of a model of several files, of its manifest, which has their hashes.
        checkpoint: path of the checkpoint; empty for a network from memory.
        checkpoint_sha256: of the file; empty without one.
        metadata: network, size, iterations and hash of the weights, as the model says and as was checked.
        provider: where the model ran; PyTorch runs on the CPU unless the network was on another device.
        precision: lowest that it computed in there, which the tolerance is for.
        placement: number of operators on each of the library's own providers, where it says so.
        tolerance: what was allowed.
        worst: of all pairs for each output, in the model's order.
        pairs: every pair.
        machine: where this was, with the versions of what did the work.
        onnx: path of the ONNX model that an engine was built from; None for an ONNX model.
        stages: the steps on the way to an engine, PyTorch to ONNX Runtime and ONNX Runtime to the engine.
        oracle: the model ran as its oracle, with every rounding to its precision written out.
    """

    passed: bool
    model: Path
    model_sha256: str
    checkpoint: str
    checkpoint_sha256: str
    metadata: ModelMetadata
    provider: str
    precision: Precision
    placement: Mapping[str, int]
    tolerance: Tolerance
    worst: tuple[Worst, ...]
    pairs: tuple[PairResult, ...]
    machine: Machine
    onnx: Path | None = None
    stages: tuple[Stage, ...] = ()
    oracle: bool = False


def verify(
    model: str | Path,
    checkpoint: str | Path | Network,
    pairs: str | Path | PairSource | Sequence[Images] | None = None,
    provider: str | None = None,
    *,
    onnx: str | Path | None = None,
    oracle: bool = False,
    threads: int | None = None,
    pad: bool = False,
    tolerance: float | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Compares a model or engine with the network it was made from, run by PyTorch.

    PyTorch runs the official pipeline at the model's size. Pairs of another size are resized to it by the
    network's own rule before, for both alike. An engine is also compared with the ONNX model that it was
    built from (with that model's oracle if it is in low precision), in ONNX Runtime on the CPU, and that with
    PyTorch.

    Args:
        model: that ``gocor export`` made, or the engine that ``gocor build`` made of one.
        checkpoint: that it was made from, or the network itself.
        pairs: pairs of uint8 RGB images ``(H, W, 3)``, a CSV file, or what ``find_pairs`` gives; the built-in
            pair, for every place of the model's batch another, of several sizes where they vary, if None.
        provider: ``cpu``, ``cuda`` or ``tensorrt``, for an ONNX model; ``cpu`` when None.
        onnx: that the engine was built from; the file of that name beside the engine when None.
        oracle: run the model's oracle, which rounds to its low precision on any CPU as a GPU does.
        threads: of the ONNX model on the CPU; one for each physical core when None.
        pad: pad two images of different sizes with black instead of refusing them.
        tolerance: AEPE allowed for the final flow, px; the other limits grow with it. That of
            ``tolerance_for`` the network's family, the model's precision, and 8 bits when None.
        progress: told about every pair.

    Returns:
        The report; ``report.passed`` is the verdict.

    Raises:
        ModelError: the model was not made from these weights, or from other iterations, or cannot be loaded.
        ConfigError: there are no pairs, the tolerance is none, ``onnx`` is given for a model, or ``oracle``
            for what has none.
        ShapeError: images in memory are not uint8 RGB.
        GocorError: what ``load``, ``load_network`` and reading images say.
    """
    with contextlib.ExitStack() as loaded:
        estimator = loaded.enter_context(_open(model, provider, threads, oracle))
        estimators = {MODEL: estimator}
        if (built_from := _model_of(estimator, onnx)) is not None:
            rounds = estimator.metadata.precision != "fp32"
            estimators[ONNX_RUNTIME] = loaded.enter_context(_open(built_from, "cpu", threads, oracle=rounds))
        described = estimator.metadata
        allowed = tolerance_for(described.spec.family, estimator.precision, described.int8 is not None)
        if tolerance is not None:
            allowed = allowed.scaled_to(tolerance)
        network = _network_of(estimator, checkpoint)
        source = _source(pairs, described)
        results: list[dict[str, PairResult]] = []
        for batch in _batches(source, described, pad):
            if progress:
                progress(len(results), source.expected, batch[0].name)
            results += _compare_batch(estimators, network, batch, allowed)
    if not results:
        raise ConfigError("pairs", "there are none", "at least one pair of images")
    stages = {name: Stage.of(name, [pair[name] for pair in results]) for name in results[0]}
    report = _report(estimator, network, allowed, stages.pop(_WHOLE), tuple(stages.values()), built_from)
    return dataclasses.replace(report, oracle=oracle)


def _open(
    model: str | Path, provider: str | None, threads: int | None, oracle: bool
) -> contextlib.AbstractContextManager[FlowEstimator]:
    """The model, or its oracle."""
    if oracle:
        if Path(model).suffix in BUILT_SUFFIXES:
            raise ConfigError("--oracle", f"is for .onnx models, and {model} is none", "leave it out")
        if provider not in (None, "cpu"):
            raise ConfigError("--oracle", f"runs on the CPU, not on {provider!r}", "leave one of them out")
        return load_oracle(model, threads)
    estimator = load(model, provider, None if Path(model).suffix in ENGINE_SUFFIXES else threads)
    if estimator.provider == "cpu" and estimator.metadata.precision != "fp32":
        text = "%s: ONNX Runtime computes %s in fp32 on the CPU; --oracle rounds as a GPU does"
        logger.info(text, estimator.path.name, estimator.metadata.precision)
    return estimator


def _model_of(estimator: FlowEstimator, given: str | Path | None) -> Path | None:
    """The ONNX model that an engine was built from; None for an estimator that is none."""
    if estimator.path.suffix not in BUILT_SUFFIXES:
        if given is not None:
            raise ConfigError("--onnx", f"is for engines, and {estimator.path} is a model", "leave it out")
        return None
    manifest = read_manifest(estimator.path)
    path = Path(given) if given is not None else estimator.path.with_name(manifest.model)
    if given is None and not path.exists():
        got = f"is missing, the model that {estimator.path} was built from"
        raise ModelError(path, got, "give it with --onnx")
    if (found := sha256(check_model_file(path))) != manifest.model_sha256:
        hashes = f"SHA-256 {found[:SHOWN_HASH]}…, not {manifest.model_sha256[:SHOWN_HASH]}…"
        got = f"is not the model that {estimator.path} was built from ({hashes})"
        raise ModelError(
            path, got, f"give that with --onnx, or rebuild the {manifest.KIND}: {manifest.rebuild}"
        )
    return path


def built_kind(provider: str) -> str:
    """What ``gocor build`` made, in the names of stages."""
    return "OpenVINO" if provider == OPENVINO else "engine"


def _network_of(estimator: FlowEstimator, checkpoint: str | Path | Network) -> Network:
    """The network that the model was made from, with its iterations, or an error."""
    described = estimator.metadata
    given = isinstance(checkpoint, str | Path)
    network = load_network(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    where = checkpoint if given else "the network"
    if network.spec.name != described.network:
        raise ModelError(
            estimator.path, f"is a {described.network}, and {where} a {network.spec.name}",
            "give the checkpoint it was made from, or export again",
        )  # fmt: skip
    if (found := weights_sha256(network)) != described.weights_sha256:
        came = f" ({described.checkpoint})" if described.checkpoint else ""
        raise ModelError(
            estimator.path,
            f"was made from weights {described.weights_sha256[:SHOWN_HASH]}{came}, "
            f"those of {where} are {found[:SHOWN_HASH]}",
            "give the checkpoint it was made from, or export again",
        )
    counts = described.global_iterations, described.local_iterations
    if counts == (got := _iterations(network)):
        return network
    if not given:
        raise ModelError(
            estimator.path, f"runs {_say(counts)} iterations, the network {_say(got)}", "export again"
        )
    return _with_iterations(network, *counts)


def _iterations(network: Network) -> tuple[int | None, int | None]:
    return network.global_iterations, network.local_iterations


def _say(counts: tuple[int | None, int | None]) -> str:
    kinds = zip(counts, ("global", "local"), strict=True)
    return " and ".join(f"{count} {kind}" for count, kind in kinds if count is not None)


def _with_iterations(network: Network, global_count: int | None, local_count: int | None) -> Network:
    """The same weights with other counts, which are those of the model and no choice to warn about."""
    other = create_network(network.spec.name, global_count or 0, local_count or 0)
    other.load_state_dict(network.state_dict())
    other.info = network.info
    return other.eval()


def _source(pairs: str | Path | PairSource | Sequence[Images] | None, described: ModelMetadata) -> PairSource:
    if isinstance(pairs, PairSource):
        return pairs
    if isinstance(pairs, str | Path):
        return find_pairs(table=pairs)
    if pairs is None:
        sizes = enumerate(_built_in_sizes(described))
        named = {f"built-in {n}": sample_pair(*size, seed=n)[:2] for n, size in sizes}
    else:
        named = {f"pair {number}": images for number, images in enumerate(pairs)}
    return FilePairs([_pair_in_memory(name, images) for name, images in named.items()])


def _built_in_sizes(described: ModelMetadata) -> list[tuple[int, int]]:
    """Sizes of the built-in pairs: the model's own for a full batch; others, too, where sides vary."""
    sizes = [described.size] * _pairs_at_a_time(described)
    sides = [(described.dynamic or {}).get(axis) for axis in ("height", "width")]
    if any(sides):
        step = described.spec.side_multiple
        both = list(zip(described.size, sides, strict=True))
        smallest = tuple(r.minimum if r else side for side, r in both)
        other = tuple(side if not r else side + step if side + step in r else side - step for side, r in both)
        sizes += [(smallest[0], smallest[1]), (other[0], other[1])]
    return sizes


def _pairs_at_a_time(described: ModelMetadata) -> int:
    """As many as the model takes; of a batch that varies, one more than it is meant for if it takes that."""
    return described.for_images(described.batch + 1, *described.size).batch


def _pair_in_memory(name: str, images: Images) -> Pair:
    return Pair(name, (), None, lambda: images)


@dataclass(frozen=True)
class _Prepared:
    """A pair's name, its images' size, the size that the model sees, and its inputs for a batch of one."""

    name: str
    height: int
    width: int
    size: tuple[int, int]
    inputs: Arrays


def _batches(source: PairSource, described: ModelMetadata, pad: bool) -> Iterator[list[_Prepared]]:
    """The pairs, prepared, as many of one size at a time as the model takes."""
    for _, alike in itertools.groupby(_prepare(source, described, pad), key=lambda pair: pair.size):
        while batch := list(itertools.islice(alike, _pairs_at_a_time(described))):
            yield batch


def _prepare(source: Iterable[Pair], described: ModelMetadata, pad: bool) -> Iterator[_Prepared]:
    noted = False
    for pair in source:
        reference, query = pair.load()
        if pad:
            reference, query = pad_pair(reference, query)
        check_same_size(reference, query, pair.name)
        reference, query = as_batches(reference, query)
        height, width = reference.shape[1:3]
        sized = described.for_images(1, height, width)
        if (height, width) != sized.size and not noted:
            noted = True
            text = "images of %dx%d are resized to the model's %dx%d, for PyTorch and the model alike"
            logger.info(text, height, width, *sized.size)
        yield _Prepared(pair.name, height, width, sized.size, _inputs(sized, reference, query))


def _inputs(described: ModelMetadata, reference: np.ndarray, query: np.ndarray) -> Arrays:
    if described.io == "tensors":
        return preprocess(described.spec, reference, query, described.size)
    images = {"reference": reference, "query": query}
    return {n: resize_images(i, *described.size, described.spec.family) for n, i in images.items()}


def _compare_batch(
    estimators: Mapping[str, FlowEstimator], network: Network, batch: list[_Prepared], tolerance: Tolerance
) -> list[dict[str, PairResult]]:
    """For every pair its result in each stage."""
    described = estimators[MODEL].metadata
    taken = described.for_images(len(batch), *batch[0].size).batch
    filled = batch + batch[-1:] * (taken - len(batch))
    inputs = {name: np.concatenate([pair.inputs[name] for pair in filled]) for name in batch[0].inputs}
    sides = run_all(estimators, network, inputs)
    results = []
    for index, pair in enumerate(batch):
        alone = {
            side: {name: array[index : index + 1] for name, array in outputs.items()}
            for side, outputs in sides.items()
        }
        stages = {}
        for name, (side, truth) in _STAGES.items():
            if side in alone and truth in alone:
                outputs = _compare_outputs(described, alone[side], alone[truth], tolerance)
                stages[name.format(built=built_kind(estimators[MODEL].provider))] = PairResult(
                    pair.name, pair.height, pair.width, outputs
                )
        results.append(stages)
    return results


def _compare_outputs(
    described: ModelMetadata, model: Arrays, truth: Arrays, tolerance: Tolerance
) -> tuple[Comparison, ...]:
    """All outputs for one pair, a batch of one."""
    elements = compare_elements(model, truth)
    unit = np.float32(described.spec.flow_unit if described.io == "tensors" else 1)
    outputs = []
    for name in described.output_names:
        if name == ORIENTATION_SCORE:
            output = compare_scores(name, model[name], truth[name], tolerance)
        else:
            flows = model[name][0] * unit, truth[name][0] * unit
            output = compare_flows(name, *flows, tolerance, final=name == described.flow.name)
        outputs.append(dataclasses.replace(output, elements=elements[name]))
    return tuple(outputs)


def _report(
    estimator: FlowEstimator, network: Network, tolerance: Tolerance,
    whole: Stage, stages: tuple[Stage, ...], onnx: Path | None,
) -> VerifyReport:  # fmt: skip
    described, info = estimator.metadata, network.info
    if info and info.weights_sha256 != described.weights_sha256:
        info = None  # the network was changed since it was loaded
    return VerifyReport(
        passed=all(stage.passed for stage in (whole, *stages)),
        model=estimator.path,
        model_sha256=model_sha256(estimator.path),
        checkpoint=str(info.path) if info and info.path else "",
        checkpoint_sha256=info.sha256 if info else "",
        metadata=described,
        provider=estimator.provider,
        precision=estimator.precision,
        placement=estimator.placement,
        tolerance=tolerance,
        worst=whole.worst,
        pairs=whole.pairs,
        machine=machine(),
        onnx=onnx,
        stages=stages,
    )
