"""A model in, its 8-bit form out: select, measure ranges, quantise, and say how far the flow moved."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gocor.calibration.collect import Probe, Progress, collect
from gocor.calibration.drift import Drift, measure_drift
from gocor.calibration.histogram import METHODS, Method, thresholds
from gocor.calibration.pairs import CalibrationPairs, PairChecks, from_source, synthetic
from gocor.calibration.quantize import quantize, quantized_nodes, weight_bytes
from gocor.calibration.ranges import SUFFIX, Range, RangeTable
from gocor.calibration.selection import Convolution, select, tensors_of
from gocor.core.errors import ConfigError, DependencyError, ModelError
from gocor.core.files import atomic_path, check_writable
from gocor.export.engine_source import read_source
from gocor.export.graph import check_portable
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.pairs import PairSource
from gocor.runtime.session import ENGINE_SUFFIXES

DEFAULT_METHOD: Method = "percentile"
MUCH_CLIPPED = 5e-3  # share of a tensor's values


@dataclass(frozen=True)
class CalibrationConfig:
    """How a model is made an 8-bit one.

    Attributes:
        method: how ranges are chosen, one of ``METHODS``; that of ``ranges``, or ``percentile``, when None.
        samples: calibrate with at most so many pairs, spread evenly.
        keep: patterns of convolutions that stay as they are; see ``select``.
        ranges: table of an earlier run to quantise from, rather than measuring pairs.
        synthetic: generate so many pairs of the model's size to calibrate with.
        threads: CPU threads; one for each physical core when None.
    """

    method: Method | None = None
    samples: int = 64
    keep: tuple[str, ...] = ()
    ranges: Path | None = None
    synthetic: int | None = None
    threads: int | None = None

    def check(self, pairs: PairSource | None) -> None:
        """Raises ConfigError if the settings do not go together."""
        if self.method is not None and self.method not in METHODS:
            raise ConfigError("--method", f"is {self.method!r}", f"one of {', '.join(METHODS)}")
        if self.samples < 1:
            raise ConfigError("--samples", f"is {self.samples}", "at least 1")
        if pairs is not None and self.synthetic is not None:
            raise ConfigError("--synthetic", "was given with --pairs", "one or the other")
        if pairs is None and self.synthetic is None and self.ranges is None:
            expected = "--pairs pairs.csv, a video or two folders; or --synthetic 64; or --ranges"
            raise ConfigError("--pairs", "is missing", expected)


@dataclass(frozen=True)
class CalibrationReport:
    """What was written.

    Attributes:
        path: of the 8-bit model.
        source: the model it was made from.
        metadata: of both.
        table: file with the ranges.
        ranges: what is in it.
        convolutions: all of the model, quantised and kept.
        weight_bytes: of the network before.
        quantized_weight_bytes: after, with scales.
        bytes: of the file before.
        quantized_bytes: after.
        drift: None without pairs.
        notes: what is wrong with the pairs or ranges, a line each.
    """

    path: Path
    source: Path
    metadata: ModelMetadata
    table: Path
    ranges: RangeTable
    convolutions: tuple[Convolution, ...]
    weight_bytes: int
    quantized_weight_bytes: int
    bytes: int
    quantized_bytes: int
    drift: Drift | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """The model to quantise."""

    path: Path
    sha256: str
    model: Any  # onnx.ModelProto
    metadata: ModelMetadata


def calibrate(
    model: str | Path,
    output: str | Path,
    pairs: PairSource | None = None,
    config: CalibrationConfig | None = None,
    progress: Progress | None = None,
) -> CalibrationReport:
    """Makes the 8-bit form of a model, and beside it the table of ranges.

    Args:
        model: of ``gocor export``.
        output: of the 8-bit model, ``.onnx``; an earlier one is replaced only by a whole new one.
        pairs: to calibrate with; some are held out to measure the drift.
        config: everything else.
        progress: called as ``progress(done, total, what)``.

    Raises:
        ConfigError: the settings make no sense, or a pattern matches nothing.
        ImageError: a pair cannot be read.
        ModelError: the model is none of ours, is quantised, or gives NaN or infinity.
        OutputError: the files cannot be written.
        DependencyError: a package is missing.
    """
    config, output = config or CalibrationConfig(), Path(output)
    config.check(pairs)
    source = _read(Path(model), output)
    convolutions = select(source.model, source.metadata.spec.family, config.keep, source.path)
    tensors = tensors_of(convolutions)
    used, checks = _pairs(source.metadata, pairs, config), PairChecks()
    if config.ranges:
        table = _reused(config, source, tensors)
    else:
        assert used is not None  # checked with the settings
        table = _measured(config, source, tensors, used, checks, progress)
    quantized = quantize(source.model, convolutions, table)
    check_portable(quantized, output)
    drift, table_path = None, Path(f"{output}{SUFFIX}")
    with atomic_path(output) as temporary:
        temporary.write_bytes(quantized.SerializeToString(deterministic=True))
        if used:
            drift = measure_drift(source.path, temporary, used, config.threads, progress)
        table.save(table_path)
    return CalibrationReport(
        path=output, source=source.path, metadata=source.metadata,
        table=table_path, ranges=table, convolutions=convolutions,
        weight_bytes=weight_bytes(source.model), quantized_weight_bytes=weight_bytes(quantized),
        bytes=source.path.stat().st_size, quantized_bytes=output.stat().st_size,
        drift=drift, notes=(*(checks.notes() if checks.names else ()), *_clipping(table, tensors)),
    )  # fmt: skip


def _read(path: Path, output: Path) -> Source:
    if output.suffix != ".onnx":
        raise ConfigError(output, f"has suffix {output.suffix!r}", "a name that ends in .onnx")
    if output.resolve() == path.resolve():
        raise ConfigError(output, "is the model itself", "another name, such as model.int8.onnx")
    if path.suffix in ENGINE_SUFFIXES:
        raise ModelError(path, "is an engine", "give the model that it was built from")
    if importlib.util.find_spec("onnx") is None:
        raise DependencyError("onnx", "is not installed", 'pip install "gocor-deploy[export]"')
    import onnx

    read = read_source(path)
    model = onnx.load_model_from_string(read.content)
    if count := quantized_nodes(model.graph.node):
        got = f"is already quantised ({count} nodes of 8-bit arithmetic)"
        raise ModelError(path, got, "give the float32 model that it was made from")
    if read.metadata.precision == "bf16":
        got = "computes in bfloat16, which ONNX Runtime does not run on the CPU"
        raise ModelError(path, got, "give the model of gocor export --precision fp16 or fp32")
    check_writable(output)
    return Source(path, read.sha256, model, read.metadata)


def _pairs(
    metadata: ModelMetadata, pairs: PairSource | None, config: CalibrationConfig
) -> CalibrationPairs | None:
    if config.synthetic is not None:
        return synthetic(config.synthetic, *metadata.size)
    return from_source(pairs, config.samples) if pairs is not None else None


def _reused(config: CalibrationConfig, source: Source, tensors: Mapping[str, str]) -> RangeTable:
    assert config.ranges
    table = RangeTable.load(config.ranges)
    table.check_fits(source.sha256, set(tensors), config.ranges)
    if config.method not in (None, table.method):
        got = f"is {config.method}, and {config.ranges} was made with {table.method}"
        raise ConfigError("--method", got, "leave one of both out")
    return table


def _measured(
    config: CalibrationConfig,
    source: Source,
    tensors: Mapping[str, str],
    pairs: CalibrationPairs,
    checks: PairChecks,
    progress: Progress | None,
) -> RangeTable:
    probe = Probe(source.model, source.metadata, tensors, config.threads, source.path)
    histograms = collect(probe, pairs.calibration(), checks, pairs.count, progress)
    method = config.method or DEFAULT_METHOD
    if progress:
        progress(len(checks.names), pairs.count, "choose ranges")
    ranges = {}
    for name, (low, high) in thresholds(histograms, method).items():
        seen = histograms[name]
        clipped = seen.share_above(max(abs(low), abs(high)))
        ranges[name] = Range(seen.minimum, seen.maximum, low, high, clipped)
    return RangeTable(method, len(checks.names), checks.sha256, source.path.name, source.sha256, ranges)


def _clipping(table: RangeTable, tensors: Mapping[str, str]) -> list[str]:
    """A line about the ranges that cut off more than a few values."""
    shares = sorted(((table.ranges[name].clipped, name) for name in tensors), reverse=True)
    many = [share for share, _ in shares if share > MUCH_CLIPPED]
    if not many:
        return []
    share, name = shares[0]
    return [
        f"{len(many)} of {len(tensors)} ranges cut off more than {100 * MUCH_CLIPPED:g} % of their values, "
        f"{name} most: {100 * share:.2g} %; --method minmax cuts off none"
    ]
