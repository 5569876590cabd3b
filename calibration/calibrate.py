"""A model in, its 8-bit form out: select, measure ranges, quantise, and say how far the flow moved."""

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gocor.calibration.collect import Progress
from gocor.calibration.drift import Drift, DriftMeter
from gocor.calibration.equalize import equalize, find_sources
from gocor.calibration.forms import record, trials_of, without
from gocor.calibration.histogram import METHODS, Method
from gocor.calibration.measure import Measurement
from gocor.calibration.pairs import CalibrationPairs, PairChecks, from_source, synthetic
from gocor.calibration.placement import TARGETS, Target, place, prepare
from gocor.calibration.quantize import quantize, quantized_nodes, weight_bytes
from gocor.calibration.ranges import SUFFIX, RangeTable
from gocor.calibration.repair import Repaired, Sensitivities, repair, sensitivities
from gocor.calibration.selection import Convolution, select
from gocor.core.errors import ConfigError, DependencyError, ModelError
from gocor.core.files import atomic_path, check_writable
from gocor.export.engine_source import read_source
from gocor.export.graph import check_portable
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.pairs import PairSource
from gocor.runtime.session import ENGINE_SUFFIXES, load

DEFAULT_METHOD: Method = "percentile"
MUCH_CLIPPED = 5e-3  # share of a tensor's values


@dataclass(frozen=True)
class CalibrationConfig:
    """How a model is made an 8-bit one.

    Attributes:
        target: where the model is to be fast, one of ``TARGETS``; see ``placement``.
        method: how ranges are chosen, one of ``METHODS``; that of ``ranges``, or ``percentile``, when None.
        samples: calibrate with at most so many pairs, spread evenly.
        keep: patterns of convolutions that stay as they are; see ``select``.
        equalize: even out channels before; see ``equalize``.
        ranges: table of an earlier run to quantise from, rather than measuring pairs.
        synthetic: generate so many pairs of the model's size to calibrate with.
        threads: CPU threads; one for each physical core when None.
        sensitivity: measure what each part of the network does to the flow.
        budget: keep parts until the mean end-point error against the model before is within it, px.
    """

    target: Target = "tensorrt"
    method: Method | None = None
    samples: int = 64
    keep: tuple[str, ...] = ()
    equalize: bool = True
    ranges: Path | None = None
    synthetic: int | None = None
    threads: int | None = None
    sensitivity: bool = False
    budget: float | None = None

    def check(self, pairs: PairSource | None) -> None:
        """Raises ConfigError if the settings do not go together."""
        if self.target not in TARGETS:
            raise ConfigError("--target", f"is {self.target!r}", f"one of {', '.join(TARGETS)}")
        if self.method is not None and self.method not in METHODS:
            raise ConfigError("--method", f"is {self.method!r}", f"one of {', '.join(METHODS)}")
        if self.samples < 1:
            raise ConfigError("--samples", f"is {self.samples}", "at least 1")
        if pairs is not None and self.synthetic is not None:
            raise ConfigError("--synthetic", "was given with --pairs", "one or the other")
        if pairs is None and self.synthetic is None and self.ranges is None:
            expected = "--pairs pairs.csv, a video or two folders; or --synthetic 64; or --ranges"
            raise ConfigError("--pairs", "is missing", expected)
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise ConfigError("--budget", f"is {self.budget:g} px", "a number above 0, as 0.1px")
        for option, asked in (("--sensitivity", self.sensitivity), ("--budget", self.budget is not None)):
            if asked and pairs is None and self.synthetic is None:
                got = "compares flows, and there are no pairs"
                raise ConfigError(option, got, "add --pairs or --synthetic 64 to --ranges")


@dataclass(frozen=True)
class SensitivityReport:
    """What was measured of a model, and nothing written.

    Attributes:
        source: the model.
        metadata: of it.
        ranges: that the convolutions were quantised with.
        sensitivities: of its parts.
        notes: what is wrong with the pairs or ranges, a line each.
    """

    source: Path
    metadata: ModelMetadata
    ranges: RangeTable
    sensitivities: Sensitivities
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CalibrationReport:
    """What was written.

    Attributes:
        path: of the 8-bit model.
        source: the model it was made from.
        metadata: of that.
        table: file with the ranges.
        ranges: what is in it.
        convolutions: all of the model, quantised and kept.
        weight_bytes: of the network before.
        quantized_weight_bytes: after, with scales.
        bytes: of the file before.
        quantized_bytes: after.
        drift: None without pairs.
        notes: what is wrong with the pairs or ranges, a line each.
        sensitivities: of its parts; None if nobody asked and no budget made it necessary.
        repaired: how it came into the budget; None without one.
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
    sensitivities: Sensitivities | None = None
    repaired: Repaired | None = None


@dataclass(frozen=True)
class Source:
    """The model to quantise."""

    path: Path
    sha256: str
    model: Any  # onnx.ModelProto
    metadata: ModelMetadata


@dataclass(frozen=True)
class _Prepared:
    """All that is known before the first convolution is quantised."""

    source: Source
    model: Any  # onnx.ModelProto, as it is quantised
    convolutions: tuple[Convolution, ...]
    pairs: CalibrationPairs | None
    table: RangeTable
    notes: tuple[str, ...]


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
        ConfigError: the settings make no sense, a pattern matches nothing, or the budget cannot be met.
        ImageError: a pair cannot be read.
        ModelError: the model is none of ours, is quantised, or gives NaN or infinity.
        OutputError: the files cannot be written.
        DependencyError: a package is missing.
    """
    config, output = config or CalibrationConfig(), Path(output)
    config.check(pairs)
    _check_output(output, Path(model))
    prepared = _prepare(Path(model), pairs, config, progress)
    source, table, table_path = prepared.source, prepared.table, Path(f"{output}{SUFFIX}")
    meter = DriftMeter(source.path, prepared.pairs, config.threads, progress) if prepared.pairs else None
    convolutions, found, repaired = _study(prepared, meter, config, progress)
    quantized = quantize(prepared.model, convolutions, table, config.target)
    if repaired:
        record(quantized, repaired)
    check_portable(quantized, output)
    with atomic_path(output) as temporary:
        temporary.write_bytes(quantized.SerializeToString(deterministic=True))
        drift = meter.measure(load(temporary, "cpu", config.threads), progress) if meter else None
        table.save(table_path)
    return CalibrationReport(
        path=output, source=source.path, metadata=source.metadata,
        table=table_path, ranges=table, convolutions=convolutions,
        weight_bytes=weight_bytes(source.model), quantized_weight_bytes=weight_bytes(quantized),
        bytes=source.path.stat().st_size, quantized_bytes=output.stat().st_size,
        drift=drift, notes=prepared.notes, sensitivities=found, repaired=repaired,
    )  # fmt: skip


def measure_sensitivities(
    model: str | Path,
    pairs: PairSource | None = None,
    config: CalibrationConfig | None = None,
    progress: Progress | None = None,
) -> SensitivityReport:
    """Measures what each part of a network does to the flow if it alone is in 8 bits; writes nothing.

    Args:
        model: of ``gocor export``.
        pairs: to calibrate with; flows are compared on those held out.
        config: everything else.
        progress: called as ``progress(done, total, what)``.

    Raises:
        GocorError: as ``calibrate``.
    """
    config = dataclasses.replace(config or CalibrationConfig(), sensitivity=True)
    config.check(pairs)
    prepared = _prepare(Path(model), pairs, config, progress)
    assert prepared.pairs is not None  # checked with the settings
    meter = DriftMeter(prepared.source.path, prepared.pairs, config.threads, progress)
    _, found, _ = _study(prepared, meter, config, progress)
    assert found is not None
    source = prepared.source
    return SensitivityReport(source.path, source.metadata, prepared.table, found, prepared.notes)


def _prepare(
    path: Path, pairs: PairSource | None, config: CalibrationConfig, progress: Progress | None
) -> _Prepared:
    source = _read(path)
    if config.target == "cpu" and source.metadata.precision != "fp32":
        got = f"is in {source.metadata.precision}, which CPUs compute in fp32"
        raise ModelError(path, got, "give the model of gocor export without --precision for --target cpu")
    model = prepare(source.model, config.target)
    convolutions = select(model, source.metadata.spec.family, config.keep, path)
    tensors = place(model, convolutions, config.target).tensors
    used, checks = _pairs(source.metadata, pairs, config), PairChecks()
    if config.ranges:
        table = _reused(config, source, tensors)
        model = equalize(model, find_sources(model), table.channel_scales)
    else:
        assert used is not None  # checked with the settings
        measured = Measurement(source.metadata, path, config.threads, used, progress)
        model, scales = measured.equalized(model, convolutions) if config.equalize else (model, {})
        ranges = measured.ranges(model, tensors, checks, method := config.method or DEFAULT_METHOD)
        table = RangeTable(
            method, len(checks.names), checks.sha256, source.path.name, source.sha256, ranges, scales
        )
    notes = (*(checks.notes() if checks.names else ()), *_clipping(table, tensors))
    return _Prepared(source, model, convolutions, used, table, notes)


def _study(
    prepared: _Prepared, meter: DriftMeter | None, config: CalibrationConfig, progress: Progress | None
) -> tuple[tuple[Convolution, ...], Sensitivities | None, Repaired | None]:
    """What is to be quantised after the repair, if one was asked for, and what was found out for it."""
    convolutions = prepared.convolutions
    if meter is None or not (config.sensitivity or config.budget):
        return convolutions, None, None
    form = partial(quantize, prepared.model, table=prepared.table, target=config.target)
    trials = trials_of(prepared.source.model, convolutions, form, meter, progress)
    repaired = repair(trials, config.budget) if config.budget else None
    kept = repaired.kept if repaired else ()
    found = sensitivities(trials) if config.sensitivity or kept else None
    return without(convolutions, kept), found, repaired


def _check_output(output: Path, model: Path) -> None:
    if output.suffix != ".onnx":
        raise ConfigError(output, f"has suffix {output.suffix!r}", "a name that ends in .onnx")
    if output.resolve() == model.resolve():
        raise ConfigError(output, "is the model itself", "another name, such as model.int8.onnx")
    check_writable(output)


def _read(path: Path) -> Source:
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
    if read.metadata.dynamic:
        got = f"has sizes that vary ({read.metadata.varying}), and ranges are measured at one"
        raise ModelError(path, got, "give a model exported without --dynamic")
    if read.metadata.precision == "bf16":
        got = "computes in bfloat16, which ONNX Runtime does not run on the CPU"
        raise ModelError(path, got, "give the model of gocor export --precision fp16 or fp32")
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
    if table.channel_scales and not config.equalize:
        got = f"was given, and the ranges of {config.ranges} are of evened channels"
        raise ConfigError("--no-equalize", got, "leave one of both out")
    return table


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
