"""The models of a package: which there are, how each is made, and the command that makes it again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gocor.calibration.calibrate import CalibrationConfig, CalibrationReport, calibrate
from gocor.calibration.collect import Progress
from gocor.calibration.packaging.config import Lowered, PackageConfig
from gocor.calibration.ranges import SUFFIX as RANGES_SUFFIX
from gocor.export.build import build
from gocor.export.engine import log_path
from gocor.export.engine_config import EngineConfig
from gocor.export.onnx_export import export_onnx
from gocor.runtime.compare import Tolerance, tolerance_for
from gocor.runtime.manifest import manifest_path
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.openvino_manifest import OPENVINO, read_manifest, weights_path
from gocor.runtime.package import SUFFIXES, PackagedBackend, PackagedModel

if TYPE_CHECKING:
    from gocor.export.networks import Network
    from gocor.runtime.pairs import PairSource

MODELS = "models"
# What stands in commands for what they are run on.
CHECKPOINT, PACKAGE = "$CHECKPOINT", "$PACKAGE"


@dataclass(frozen=True)
class Planned:
    """A model that is to be made.

    Attributes:
        path: in the package.
        size: height and width of the images, which are those of the pairs that it is verified with.
        precision: of it.
        backend: that runs it.
        source: path of the model that it is made from; empty if that is the checkpoint.
        target: of an 8-bit ``.onnx`` model, see ``CalibrationConfig``; empty for others.
        dynamic: the one whose sizes vary.
        command: words of the command line that makes it, in a copy of the package.
    """

    path: str
    size: tuple[int, int]
    precision: Lowered
    backend: PackagedBackend
    source: str
    target: str
    dynamic: bool
    command: tuple[str, ...]

    @property
    def pairs(self) -> str:
        """Path of the table of those pairs."""
        return f"pairs/{self.size[0]}x{self.size[1]}/pairs.csv"


@dataclass(frozen=True)
class Made:
    """A model that was made.

    Attributes:
        plan: of it.
        model: as the index has it, apart from ``ran``.
        calibration: of an 8-bit ``.onnx`` model; None of others.
    """

    plan: Planned
    model: PackagedModel
    calibration: CalibrationReport | None


def plan_models(config: PackageConfig, network: "Network") -> list[Planned]:
    """All models of a package, each after the one that it is made from."""
    planned = [plan for size in config.sizes for plan in _of_size(config, network, size)]
    if config.dynamic:
        path = f"{MODELS}/any.fp32.onnx"
        options = ("--io", "tensors", "--dynamic", ",".join(config.dynamic))
        size = config.sizes[0]
        command = _export(network, path, config, network.spec.working_size(*size), options)
        planned.append(Planned(path, size, "fp32", "onnxruntime", "", "", True, command))
    return planned


def _of_size(config: PackageConfig, network: "Network", size: tuple[int, int]) -> Iterator[Planned]:
    stem = f"{MODELS}/{size[0]}x{size[1]}"
    exported = f"{stem}.fp32.onnx"
    for precision in config.all_precisions:
        # CPUs and TensorRT want 8-bit models in forms of their own.
        targets = ("cpu", *(("tensorrt",) if config.engines else ())) if precision == "int8" else ("",)
        for target in targets:
            name = f"{stem}.{precision}" + ("-tensorrt" if target == "tensorrt" else "")
            path, source = f"{name}.onnx", exported if target else ""
            options = () if precision == "fp32" else ("--precision", precision)
            command = (
                _calibrate(path, exported, target)
                if target
                else _export(network, path, config, size, options)
            )
            yield Planned(path, size, precision, "onnxruntime", source, target, False, command)
            for backend in config.builds:
                if not target or (target == "tensorrt") == (backend in config.engines):
                    yield _built(name, size, precision, backend)


def _built(name: str, size: tuple[int, int], precision: Lowered, backend: PackagedBackend) -> Planned:
    tag = ".rtx" if backend == "tensorrt-rtx" else ""
    path, source = f"{name.removesuffix('-tensorrt')}{tag}{SUFFIXES[backend]}", f"{name}.onnx"
    command = ("gocor", "build", source, "-o", path, "--backend", backend)
    return Planned(path, size, precision, backend, source, "", False, command)


def _export(
    network: "Network", path: str, config: PackageConfig, size: tuple[int, int], options: Sequence[str]
) -> tuple[str, ...]:
    counts = {
        "--global-iterations": network.global_iterations,
        "--local-iterations": network.local_iterations,
        "--batch": config.batch if config.batch > 1 else None,
    }
    given = [word for name, count in counts.items() if count is not None for word in (name, str(count))]
    return ("gocor", "export", CHECKPOINT, "-o", path, "--size", f"{size[0]}x{size[1]}", *given, *options)


def _calibrate(path: str, source: str, target: str) -> tuple[str, ...]:
    ranges = f"{PACKAGE}/{path}{RANGES_SUFFIX}"
    return ("gocor", "calibrate", source, "-o", path, "--target", target, "--ranges", ranges)


def make_model(
    root: Path, plan: Planned, network: "Network", config: PackageConfig,
    pairs: "PairSource | None", progress: Progress,
) -> Made:  # fmt: skip
    """Makes a model in a package.

    Args:
        root: folder of the package.
        plan: of the model; what it is made from is there.
        network: from ``load_network``.
        config: of the package.
        pairs: to calibrate with; generated ones when None.
        progress: called as ``progress(done, total, what)``.

    Raises:
        GocorError: what ``export_onnx``, ``calibrate`` and ``build`` say.
    """
    path, library, calibration = root / plan.path, "", None
    files = [path]
    if plan.backend != "onnxruntime":
        build(root / plan.source, path, EngineConfig(backend=plan.backend), progress=progress)  # type: ignore[arg-type]
        manifest = read_manifest(path)
        metadata, library = manifest.metadata, manifest.library
        files += [weights_path(path)] if plan.backend == OPENVINO else [log_path(path)]
        files.append(manifest_path(path))
    elif plan.target:
        calibration = calibrate(root / plan.source, path, pairs, _calibration(plan, config), progress)
        metadata = _metadata_of(path)
        files.append(calibration.table)
    else:
        metadata = _exported(path, plan, network, config, progress)
    names = tuple(file.relative_to(root).as_posix() for file in files)
    allowed = _tolerance(metadata, config)
    model = PackagedModel(
        plan.path, names, plan.backend, library, plan.source if library else "", metadata, allowed, ran=False
    )
    return Made(plan, model, calibration)


def _exported(
    path: Path, plan: Planned, network: "Network", config: PackageConfig, progress: Progress
) -> ModelMetadata:
    height, width = network.spec.working_size(*plan.size) if plan.dynamic else plan.size
    report = export_onnx(
        network, path, height=height, width=width, batch=config.batch, progress=progress,
        io="tensors" if plan.dynamic else "images", dynamic=config.dynamic if plan.dynamic else (),
        precision=plan.precision,  # type: ignore[arg-type]
    )  # fmt: skip
    return report.metadata


def _calibration(plan: Planned, config: PackageConfig) -> CalibrationConfig:
    return CalibrationConfig(
        target=plan.target, samples=config.samples, synthetic=config.synthetic, threads=config.threads,  # type: ignore[arg-type]
    )  # fmt: skip


def _metadata_of(path: Path) -> ModelMetadata:
    from gocor.export.engine_source import read_source

    return read_source(path).metadata


def _tolerance(metadata: ModelMetadata, config: PackageConfig) -> Tolerance:
    lower = metadata.int8 is not None or metadata.precision != "fp32"
    allowed = tolerance_for(metadata.spec.family, metadata.precision, metadata.int8 is not None)
    return allowed.scaled_to(config.tolerance) if lower and config.tolerance is not None else allowed
