"""What a package holds, what of it runs on this machine, and which model runs for which images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gocor.core.errors import ProviderError
from gocor.core.files import sha256
from gocor.runtime.package import Package, PackagedPrecision
from gocor.runtime.package_choice import (
    DEFAULT_PRECISION,
    Choice,
    choose,
    find_candidates,
    why_not,
)


@dataclass(frozen=True)
class PackageInspection:
    """A package, seen from this machine.

    Attributes:
        package: as its index says; files are not looked at, which is what ``gocor verify`` does.
        index_sha256: hash of the index.
        obstacles: what keeps each model from running here, by its path; empty text if nothing is known to.
        precision: that ``choices`` are for.
        provider: that models of that precision run on here; empty if none does.
        choices: which of them runs for images of the sizes that were asked for.
        why_none: there are no choices; empty otherwise.
    """

    package: Package
    index_sha256: str
    obstacles: Mapping[str, str]
    precision: PackagedPrecision
    provider: str
    choices: tuple[Choice, ...]
    why_none: str


def inspect_package(
    folder: str | Path,
    sizes: Sequence[tuple[int, int]] = (),
    precision: PackagedPrecision | None = None,
    provider: str | None = None,
) -> PackageInspection:
    """Finds out which models would run here, without opening one.

    Args:
        folder: of the package.
        sizes: height and width of images; those of the package's own pairs if none.
        precision: as for ``gocor.load``.
        provider: likewise.

    Raises:
        ModelError: the folder is no package, or a damaged one.
        ConfigError: it has nothing in that precision.
        GocorError: why the provider that was asked for does not run here, see ``find_candidates``.
        ShapeError: no model takes images of a size.
    """
    package = Package.read(folder)
    wanted = sizes or tuple(dict.fromkeys((pair.height, pair.width) for pair in package.pairs))
    obstacles = {
        model.path: why_not(package, model, "cpu" if model.backend == "onnxruntime" else model.backend)
        for model in package.models
    }
    runs_on, choices, why_none = "", tuple[Choice, ...](), ""
    try:
        found = find_candidates(package, precision, provider)
        runs_on = found.provider
        choices = tuple(choose(found.models, *size) for size in wanted)
    except ProviderError as error:
        if provider is not None:
            raise
        why_none = str(error)
    return PackageInspection(
        package, sha256(package.index), obstacles, precision or DEFAULT_PRECISION, runs_on, choices, why_none
    )
