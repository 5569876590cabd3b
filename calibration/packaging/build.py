"""A checkpoint becomes a package: one folder, whole or not at all."""

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gocor.calibration.collect import Progress
from gocor.calibration.packaging.config import PackageConfig, check_libraries
from gocor.calibration.packaging.guide import Guide, readme, remark, requirements
from gocor.calibration.packaging.models import Made, make_model, plan_models
from gocor.calibration.packaging.reports import (
    LowerPrecision,
    Verified,
    reraise_relative,
    verify_models,
    write_reports,
)
from gocor.calibration.packaging.script import script
from gocor.calibration.packaging.truth import Truth, write_truth
from gocor.core.errors import ConfigError, GocorError, ModelError, OutputError
from gocor.core.files import atomic_folder, sha256, write_text
from gocor.export.checkpoint import weights_sha256
from gocor.export.networks import Network
from gocor.export.onnx_export import ExportConfig
from gocor.runtime.package import INDEX, Package, seal
from gocor.runtime.package_check import PackageReport, check_package
from gocor.runtime.pairs import PairSource

# Where libgocor and its example lie, in a source tree as in an installed package, from the same folder.
CPP = ("runtime/cpp", "examples/cpp", "core/version.py")
_CPP_SUFFIXES = (".h", ".hpp", ".cpp", ".map", ".in", ".txt")


@dataclass(frozen=True)
class BuildReport:
    """What was packaged.

    Attributes:
        path: of the folder.
        index_sha256: hash of its index, for those who get it to compare.
        package: as its index says.
        verified: every model against PyTorch.
        precisions: what lower precision costs and saves.
        check: of the finished folder, as ``gocor verify`` does it.
        bytes: of all files.
    """

    path: Path
    index_sha256: str
    package: Package
    verified: Sequence[Verified]
    precisions: Sequence[LowerPrecision]
    check: PackageReport
    bytes: int


def build_package(
    network: Network, path: str | Path, config: PackageConfig,
    pairs: PairSource | None = None, progress: Progress | None = None,
) -> BuildReport:  # fmt: skip
    """Makes a package of a network.

    Args:
        network: from ``load_network``.
        path: of the folder; it appears when it is finished and was checked.
        config: what is to be in it.
        pairs: to verify and to calibrate with; the built-in ones, and generated ones, when None.
        progress: called as ``progress(done, total, what)``.

    Raises:
        ConfigError: the settings make no sense.
        DependencyError: a package is missing.
        ProviderError: what was asked for cannot be built here.
        ModelError: a model is farther from PyTorch than is allowed.
        OutputError: the folder is there already, is none of ours, or cannot be written.
        GocorError: what exporting, calibrating and building say.
    """
    path = Path(path)
    config.check(pairs)
    for height, width in config.sizes:
        ExportConfig(height, width, config.batch).check(network.spec)
    if config.dynamic:
        height, width = network.spec.working_size(*config.sizes[0])
        ExportConfig(height, width, config.batch, "tensors", dynamic=config.dynamic).check(network.spec)
    info = network.info
    if info is None or info.path is None or info.weights_sha256 != weights_sha256(network):
        raise ConfigError("network", "has no checkpoint file to be made again from", "load_network(path)")
    _check_place(path, config.overwrite)
    check_libraries(config)
    with atomic_folder(path, config.overwrite) as root:
        making = _Build(root, network, config, pairs, progress or (lambda *_: None))
        try:
            report = making.run(path.absolute().name)
        except GocorError as error:
            raise reraise_relative(root, error) from error
    package = dataclasses.replace(report.package, folder=path)
    check = dataclasses.replace(report.check, folder=path)
    return dataclasses.replace(report, path=path, package=package, check=check)


def _check_place(path: Path, overwrite: bool) -> None:
    """Refuses to write over what is none of ours, before anything long."""
    if path.is_file():
        raise OutputError(path, "is a file", "the path of a folder")
    if not path.is_dir() or not any(path.iterdir()):
        return
    try:
        earlier = Package.read(path)
    except ModelError as error:  # many a folder has a package.json
        got = f"holds other files (no whole {INDEX} of gocor package)"
        raise OutputError(path, got, "a new or empty folder") from error
    if not overwrite:
        raise OutputError(path, "is a package already", "another folder, or --overwrite")
    if stranger := next(earlier.strangers(), None):
        got = "would be lost with the package that it is in, and is none of its files"
        raise OutputError(path / stranger[0], got, "move it away, or package into another folder")


class _Build:
    """A package on its way, step by step."""

    def __init__(
        self, root: Path, network: Network, config: PackageConfig, pairs: PairSource | None, show: Progress
    ) -> None:
        self.root, self.network, self.config, self.pairs, self.show = root, network, config, pairs, show
        self.plans = plan_models(config, network)
        self.total = len(config.sizes) + 2 * len(self.plans) + 1
        self.done = 0

    def run(self, name: str) -> BuildReport:
        """Everything, in order."""
        truths = [self._truth(size) for size in self.config.sizes]
        pairs = [pair for truth in truths for pair in truth.pairs]
        made = [self._make(index) for index in range(len(self.plans))]
        verified = verify_models(self.root, made, self.network, self.config.threads, self._within("verify"))
        self.done += len(made)
        made = [_ran(one, check) for one, check in zip(made, verified, strict=True)]
        left_out = [line for truth in truths for line in truth.left_out]
        precisions = write_reports(self.root, made, verified, pairs, left_out)
        licence = self.config.licence or remark(made[0].model.metadata)
        self._texts(Guide(name, made, pairs, self._hashes(made), licence, self._ranges()))
        _copy_cpp(self.root / "cpp")
        package = seal(self.root, [one.model for one in made], pairs, licence)
        check = self._check(package)
        size = sum(file.bytes for file in package.files) + package.index.stat().st_size
        return BuildReport(self.root, check.index_sha256, package, verified, precisions, check, size)

    def _within(self, what: str) -> Progress:
        """Progress of a step, whose own parts are named and not counted."""

        def report(done: int, total: int | None, text: str) -> None:
            self.show(self.done, self.total, f"{what}: {text}")

        return report

    def _truth(self, size: tuple[int, int]) -> Truth:
        self.show(self.done, self.total, f"PyTorch's flows at {size[0]}x{size[1]}")
        samples = self.config.samples if "int8" in self.config.precisions else None
        truth = write_truth(self.root, self.network, size, self.pairs, samples)
        self.done += 1
        return truth

    def _make(self, index: int) -> Made:
        plan = self.plans[index]
        made = make_model(self.root, plan, self.network, self.config, self.pairs, self._within(plan.path))
        self.done += 1
        return made

    def _texts(self, guide: Guide) -> None:
        write_text(self.root / "README.md", readme(guide))
        write_text(self.root / "reproduce.sh", script(guide))
        write_text(self.root / "requirements.txt", requirements(guide.models))

    def _hashes(self, made: Sequence[Made]) -> dict[str, str]:
        return {path: sha256(self.root / path) for one in made for path in one.model.files}

    def _ranges(self) -> str:
        """The options that 8-bit models were calibrated with, for people."""
        if "int8" not in self.config.precisions:
            return ""
        source = f"--synthetic {self.config.synthetic}" if self.config.synthetic else "--pairs …"
        samples = f" --samples {self.config.samples}" if not self.config.synthetic else ""
        return f"gocor calibrate MODEL.fp32.onnx -o MODEL.int8.onnx --target cpu {source}{samples}"

    def _check(self, package: Package) -> PackageReport:
        """Looks at the folder as those will who get it."""
        self.show(self.done, self.total, "check all of it again")
        report = check_package(package.folder, threads=self.config.threads)
        if not report.passed:
            reasons = [f"{path} {reason}" for path, reason in report.differences.items()]
            reasons += [f"{one.path}: {one.reason}" for one in report.models if one.result == "failed"]
            got = f"does not pass its own check ({'; '.join(reasons)})"
            raise ModelError(package.folder.name, got, "make it again, and report it if it stays so")
        return report


def _ran(made: Made, verified: Verified) -> Made:
    return dataclasses.replace(made, model=dataclasses.replace(made.model, ran=verified.report is not None))


def _copy_cpp(target: Path) -> None:
    """Copies libgocor and its example, in the folders that their build expects."""
    home = Path(__file__).parent.parent.parent
    for source in _cpp_files(home):
        place = target / source.relative_to(home)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)


def _cpp_files(home: Path) -> Iterator[Path]:
    for name in CPP:
        if (home / name).is_file():
            yield home / name
            continue
        found = sorted(
            path for path in (home / name).rglob("*") if path.is_file() and path.suffix in _CPP_SUFFIXES
        )
        if not found:
            raise OutputError(home / name, "is missing from this installation", "install gocor-deploy again")
        yield from found
