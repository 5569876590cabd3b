"""What one machine measured, as a JSON file that can be read back; needs no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gocor.core.errors import ConfigError, ModelError
from gocor.runtime.report import write_json

FORMAT = 1


@dataclass(frozen=True)
class Timing:
    """Times of one call in microseconds.

    Attributes:
        median_us: over the samples.
        spread_us: distance between the quartiles.
        minimum_us: of the samples.
        calls: in each sample; a sample is their mean.
        samples_us: all of them, in order.
    """

    median_us: float
    spread_us: float
    minimum_us: float
    calls: int
    samples_us: tuple[float, ...]


@dataclass(frozen=True)
class CheckRow:
    """One case of the table.

    Attributes:
        operator: such as ``LocalCorrelation``.
        dtype: of all tensors.
        radius: of the search.
        shape: of the query.
        offset: elements that all three addresses lie behind a multiple of 128 bytes.
        relative_l2: error against float64; None stands for one that is no number.
        worst: largest error of an element over the largest magnitude of the result; None likewise.
        outside: something beside the output was written.
        passed: both errors within the schema's tolerance, nothing written outside.
    """

    operator: str
    dtype: str
    radius: int
    shape: tuple[int, ...]
    offset: int
    relative_l2: float | None
    worst: float | None
    outside: bool
    passed: bool


@dataclass(frozen=True)
class SanitizerRow:
    """One run under a tool of compute-sanitizer.

    Attributes:
        tool: such as ``racecheck``.
        planted: fault that it had to find; empty for the kernels as they are.
        passed: found nothing in the kernels, or the planted fault.
        summary: the tool's own last words.
        seconds: that it took.
    """

    tool: str
    planted: str
    passed: bool
    summary: str
    seconds: float


@dataclass(frozen=True)
class TimeRow:
    """An operator at one level of a network.

    Attributes:
        operator: such as ``LocalCorrelation``.
        network: family and size.
        level: of the network.
        shape: of the query.
        dtype: of all tensors.
        bytes: of inputs and output.
        flops: products and sums.
        memory_us: least time for the bytes at the bandwidth of a copy.
        arithmetic_us: least time for the arithmetic at the rate of a large matrix product.
        registers: of a thread.
        local_bytes: spilled registers of a thread.
        times: by candidate.
        errors: relative L2 of each candidate against float64.
        failed: why a candidate has no times.
    """

    operator: str
    network: str
    level: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    flops: int
    memory_us: float
    arithmetic_us: float
    registers: int
    local_bytes: int
    times: Mapping[str, Timing]
    errors: Mapping[str, float]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def floor_us(self) -> float:
        """The larger one of the two floors."""
        return max(self.memory_us, self.arithmetic_us)


@dataclass(frozen=True)
class NetworkRow:
    """A whole network in PyTorch.

    Attributes:
        network: such as ``PWCNet_GOCor``.
        size: of its input.
        dtype: of its weights.
        times: by how the correlations are computed.
        error: relative L2 of the last flow with our kernels against that without.
    """

    network: str
    size: tuple[int, int]
    dtype: str
    times: Mapping[str, Timing]
    error: float


@dataclass(frozen=True)
class EngineRow:
    """A network as an engine of TensorRT, from uint8 images to flow.

    Attributes:
        network: such as ``PWCNet_GOCor``.
        size: of the images.
        plugins: ``auto`` or ``none``, as of ``gocor build``.
        tensorrt: version.
        build_seconds: of the engine.
        times: ``gocor bench``: whole calls, images in main memory to flow in main memory.
    """

    network: str
    size: tuple[int, int]
    plugins: str
    tensorrt: str
    build_seconds: float
    times: Mapping[str, Timing]


ROWS: dict[str, type] = {
    "correctness": CheckRow,
    "sanitizer": SanitizerRow,
    "kernels": TimeRow,
    "networks": NetworkRow,
    "engines": EngineRow,
}
PARTS = tuple(ROWS)


@dataclass(frozen=True)
class Part:
    """One part of the benchmark.

    Attributes:
        status: ``done``, ``not run`` or ``failed``.
        reason: why it was not run or failed.
        date: when it was, UTC.
        commit: of the source tree, with ``+`` if files were changed; empty if nobody knows.
        quick: only a sample of the cases was taken.
        kernels: where they came from.
        seconds: that it took.
        facts: whatever else a reader wants to know.
        rows: results.
    """

    status: str
    reason: str = ""
    date: str = ""
    commit: str = ""
    quick: bool = False
    kernels: str = ""
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Any, ...] = ()

    @property
    def passed(self) -> bool:
        """Did not fail, and no row that can did."""
        return self.status != "failed" and all(getattr(row, "passed", True) for row in self.rows)


@dataclass(frozen=True)
class Results:
    """Everything from one GPU.

    Attributes:
        gpu: name, compute capability, driver and other facts of the GPU.
        machine: the computer and its libraries.
        parts: by name.
        format: of the file.
    """

    gpu: Mapping[str, Any]
    machine: Mapping[str, Any]
    parts: Mapping[str, Part]
    format: int = FORMAT

    def save(self, path: Path) -> None:
        """Writes the file.

        Raises:
            OutputError: it cannot be written.
        """
        write_json(path, self)

    def added_to(self, earlier: "Results", path: Path) -> "Results":
        """These parts in place of those of the same name that an earlier run left in a file.

        Raises:
            ConfigError: the earlier run was on another GPU or driver.
        """
        for fact in ("name", "driver"):
            if earlier.gpu.get(fact) != self.gpu.get(fact):
                got = f"has results of {earlier.gpu.get('name')}, driver {earlier.gpu.get('driver')}"
                raise ConfigError(path, got, "give another --out")
        return Results(self.gpu, self.machine, {**earlier.parts, **self.parts})


def load(path: Path) -> Results:
    """Reads a file of ``Results.save``.

    Raises:
        ModelError: there is no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {name: _part(ROWS[name], entry) for name, entry in content["parts"].items()}
        results = Results(content["gpu"], content["machine"], parts, content["format"])
    except OSError as error:
        raise ModelError(
            path, f"cannot be read ({error.strerror})", "a file that this benchmark wrote"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(path, "holds no results of this benchmark", "a file that it wrote") from error
    if results.format != FORMAT:
        raise ModelError(path, f"has format {results.format}", f"expected {FORMAT}")
    return results


def _part(kind: type, entry: dict[str, Any]) -> Part:
    return Part(**{**entry, "rows": tuple(_row(kind, row) for row in entry["rows"])})


def _row(kind: type, entry: dict[str, Any]) -> Any:
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in entry.items()}
    if "times" in values:
        values["times"] = {
            name: Timing(**{**timing, "samples_us": tuple(timing["samples_us"])})
            for name, timing in values["times"].items()
        }
    return kind(**values)
