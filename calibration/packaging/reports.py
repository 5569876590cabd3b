"""The reports of a package: every model against PyTorch, and what lower precision costs and saves."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gocor.calibration.collect import Progress
from gocor.calibration.drift import Drift
from gocor.calibration.packaging.config import ENGINES
from gocor.calibration.packaging.models import Made
from gocor.core.errors import GocorError, ModelError
from gocor.core.files import write_text
from gocor.export.networks import Network
from gocor.export.verify import VerifyReport, verify
from gocor.runtime.compare import Comparison
from gocor.runtime.package import PackagedPair, PackagedPrecision
from gocor.runtime.package_choice import CANNOT_RUN
from gocor.runtime.pairs import find_pairs
from gocor.runtime.report import write_json

REPORTS = "reports"


@dataclass(frozen=True)
class Verified:
    """A model and its verification.

    Attributes:
        path: in the package.
        size: of its images.
        precision: of it.
        report: as of ``gocor verify``; None if it could not be run.
        reason: why it could not; empty otherwise.
        oracle: of a float16 model, the same with every rounding of a GPU; None of others.
    """

    path: str
    size: str
    precision: PackagedPrecision
    report: VerifyReport | None
    reason: str = ""
    oracle: VerifyReport | None = None

    @property
    def flow(self) -> Comparison | None:
        """The worst flow of all pairs; None if it could not be run."""
        return _flow(self.report)

    @property
    def failures(self) -> list[str]:
        """What is not within the tolerance, a line each."""
        return [
            f"{self.path}: {kind}{worst.output.name}, {worst.pair}: {worst.output.explain()}"
            for kind, report in (("", self.report), ("its oracle, ", self.oracle))
            if report is not None
            for stage in (report.worst, *(stage.worst for stage in report.stages))
            for worst in stage
            if not worst.output.passed
        ]


@dataclass(frozen=True)
class LowerPrecision:
    """What lower precision costs and saves.

    Attributes:
        path: of the model.
        precision: of it.
        bytes: of all its files.
        fp32_bytes: of the float32 model's for the same backend and size.
        flow: the worst of all pairs against PyTorch, as it runs here; None if it does not.
        oracle: of float16, likewise with every rounding of a GPU; None of others.
        drift: of 8 bits, against the float32 model on pairs that were not calibrated with; None of others.
        ranges: of 8 bits, how they were chosen; empty of others.
        convolutions: of 8 bits, how many there are of all; empty of others.
    """

    path: str
    precision: PackagedPrecision
    bytes: int
    fp32_bytes: int
    flow: Comparison | None
    oracle: Comparison | None
    drift: Drift | None
    ranges: str
    convolutions: str


def verify_models(
    root: Path, made: Sequence[Made], network: Network, threads: int | None, progress: Progress
) -> list[Verified]:
    """Compares every model with PyTorch, as ``gocor verify`` does.

    Raises:
        ModelError: one is not within its tolerance; the text names all that are not.
    """
    found = []
    for number, one in enumerate(made):
        progress(number, len(made), one.model.path)
        found.append(_verify(root, one, network, threads))
    if failures := [line for one in found for line in one.failures]:
        hint = (
            "look at the pairs; in lower precision --tolerance allows more, and more pairs calibrate better"
        )
        raise ModelError("package", "; ".join(failures[:3]), hint)
    return found


def _verify(root: Path, made: Made, network: Network, threads: int | None) -> Verified:
    model, pairs = made.model, find_pairs(table=root / made.plan.pairs)
    facts = (model.path, model.size, model.precision)
    options = {"threads": threads, "tolerance": model.tolerance.aepe}
    try:
        report = verify(root / model.path, network, pairs, **options)  # type: ignore[arg-type]
    except CANNOT_RUN as error:
        if model.backend not in ENGINES:
            raise
        return Verified(*facts, None, _without(root, str(error)))
    oracle = None
    if model.precision == "fp16" and model.backend == "onnxruntime":
        oracle = verify(root / model.path, network, pairs, oracle=True, **options)  # type: ignore[arg-type]
        oracle = _relative(root, oracle)
    return Verified(*facts, _relative(root, report), "", oracle)


def _relative(root: Path, report: VerifyReport) -> VerifyReport:
    """The report with paths in the package, and of the checkpoint its name alone."""
    return dataclasses.replace(
        report,
        model=report.model.relative_to(root),
        checkpoint=Path(report.checkpoint).name,
        onnx=report.onnx.relative_to(root) if report.onnx else None,
    )


def _without(root: Path, text: str) -> str:
    return text.replace(f"{root}/", "")


def lower_precision(root: Path, made: Sequence[Made], verified: Sequence[Verified]) -> list[LowerPrecision]:
    """What every model in lower precision costs and saves."""
    sizes = {
        (one.plan.size, one.model.backend): _bytes(root, one)
        for one in made
        if one.model.precision == "fp32" and not one.plan.dynamic
    }
    found = []
    for one, check in zip(made, verified, strict=True):
        if one.model.precision == "fp32":
            continue
        report = one.calibration
        found.append(LowerPrecision(
            path=one.model.path, precision=one.model.precision,
            bytes=_bytes(root, one), fp32_bytes=sizes[one.plan.size, one.model.backend],
            flow=check.flow, oracle=_flow(check.oracle), drift=report.drift if report else None,
            ranges=f"{report.ranges.method} of {report.ranges.samples} pairs" if report else "",
            convolutions=_convolutions(one),
        ))  # fmt: skip
    return found


def _bytes(root: Path, made: Made) -> int:
    """Of the model itself, and not of tables and logs beside it."""
    files = [root / path for path in made.model.files if not path.endswith((".json", ".log"))]
    return sum(path.stat().st_size for path in files)


def _convolutions(made: Made) -> str:
    if (report := made.calibration) is None:
        return ""
    done = sum(not convolution.kept for convolution in report.convolutions)
    return f"{done} of {len(report.convolutions)}"


def _flow(report: VerifyReport | None) -> Comparison | None:
    if report is None:
        return None
    return next(worst.output for worst in report.worst if worst.output.name == report.metadata.flow.name)


def write_reports(
    root: Path, made: Sequence[Made], verified: Sequence[Verified],
    pairs: Sequence[PackagedPair], left_out: Sequence[str],
) -> list[LowerPrecision]:  # fmt: skip
    """Writes ``verification.json``, ``precision.json`` and a page to read, ``report.md``."""
    precisions = lower_precision(root, made, verified)
    write_json(root / REPORTS / "verification.json", verified)
    write_json(root / REPORTS / "precision.json", precisions)
    write_text(root / REPORTS / "report.md", _page(made, verified, precisions, pairs, left_out))
    return precisions


def _page(
    made: Sequence[Made], verified: Sequence[Verified],
    precisions: Sequence[LowerPrecision], pairs: Sequence[PackagedPair], left_out: Sequence[str],
) -> str:  # fmt: skip
    first = next(check.report for check in verified if check.report)
    described, here = first.metadata, first.machine
    counts = (("global", described.global_iterations), ("local", described.local_iterations))
    iterations = ", ".join(f"{count} {kind}" for kind, count in counts if count is not None)
    versions = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    lines = [
        f"# {described.network}: how near its models are to PyTorch", "",
        f"Checkpoint `{described.checkpoint}`, SHA-256 `{described.checkpoint_sha256}`"
        + (f"; GOCor iterations: {iterations}" if iterations else "") + ".",
        f"Run on {here.cpu} ({here.platform}) with {versions}.", "",
        f"Every model ran on {_counted(pairs)}; the worst of them is shown, in pixels of the final flow.", "",
        "| model | on | precision | AEPE | 99 % | max | relative L2 | allowed AEPE | |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(one, check) for one, check in zip(made, verified, strict=True)),
    ]  # fmt: skip
    if not_run := [check for check in verified if check.report is None]:
        lines += ["", "Not run where the package was made, and so not verified by it:", ""]
        for reason in dict.fromkeys(check.reason for check in not_run):
            paths = ", ".join(f"`{check.path}`" for check in not_run if check.reason == reason)
            lines.append(f"- {paths}: {reason}")
    if left_out:
        lines += [
            "",
            "Pairs that were left out, since PyTorch's own flow of them depends on its rounding (with",
        ]
        lines += ["and without oneDNN):", "", *(f"- {line}" for line in left_out)]
    return "\n".join([*lines, *_precision_page(precisions)]) + "\n"


def _counted(pairs: Sequence[PackagedPair]) -> str:
    sizes = dict.fromkeys((pair.height, pair.width) for pair in pairs)
    each = [f"{sum((p.height, p.width) == size for p in pairs)} of {size[0]}x{size[1]}" for size in sizes]
    return f"the pairs of its size ({', '.join(each)})"


def _row(made: Made, check: Verified) -> str:
    precision = check.precision
    if check.report is None or (flow := check.flow) is None:
        return f"| `{check.path}` | {made.model.backend} | {precision} | | | | | | not run |"
    if check.precision == "fp16" and check.report.provider in ("cpu", "openvino"):
        precision += ", computed in fp32"  # type: ignore[assignment]
    pixels = " | ".join(figure(value) for value in (flow.aepe, flow.p99, flow.maximum, flow.relative_l2))
    verdict = "passed" if check.report.passed else "failed"
    allowed = check.report.tolerance.aepe
    return f"| `{check.path}` | {check.report.provider} | {precision} | {pixels} | {allowed:g} | {verdict} |"


def _precision_page(precisions: Sequence[LowerPrecision]) -> list[str]:
    if not precisions:
        return ["", "All models are in float32."]
    lines = [
        "", "## What lower precision costs and saves", "",
        "From PyTorch: as above. As a GPU rounds: of float16, on a CPU, with the rounding of every operator",
        "written out. From fp32: of 8 bits, on pairs that were not calibrated with.", "",
        "| model | size | AEPE from PyTorch | as a GPU rounds | from fp32 (99 %) | 8-bit convolutions |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for one in precisions:
        drift = f"{figure(one.drift.aepe)} ({figure(one.drift.p99)})" if one.drift else ""
        if one.drift and not one.drift.apart:
            drift += ", on pairs calibrated with"
        kept = f"{one.convolutions}; {one.ranges}" if one.convolutions else ""
        size = f"{one.bytes / 1e6:.1f} MB, {100 * one.bytes / one.fp32_bytes:.0f} % of fp32"
        flows = (figure(flow.aepe) if flow else "" for flow in (one.flow, one.oracle))
        lines.append(f"| `{one.path}` | {size} | {' | '.join(flows)} | {drift} | {kept} |")
    return lines


def figure(value: float | None) -> str:
    """Two digits of a number; a dash for none."""
    return "-" if value is None else f"{value:.2g}"


def reraise_relative(root: Path, error: GocorError) -> GocorError:
    """An error about a file in a folder that will be gone, with its path in the package."""
    texts = (_without(root, text) for text in (error.where, error.got, error.expected))
    return type(error)(*texts)
