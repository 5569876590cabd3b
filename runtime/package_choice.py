"""Which model of a package runs, for which images, on this machine: one rule, and it says what it did.

1. **Precision**: the one that was asked for, float32 by default; no other.
2. **Provider**: the one that was asked for; else the first of ``tensorrt``, ``tensorrt-rtx``, ``openvino``
   and ONNX Runtime on the CPU that the package has models for and that works here. This is decided once.
3. **Size**: a model that was made for the images' size; else one that takes all sizes of a range with this in
   it; else the one whose sides are nearest, to which the images are resized.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gocor.core.errors import ConfigError, DependencyError, MachineError, ProviderError, ShapeError
from gocor.runtime.openvino_manifest import OPENVINO, OpenVINOManifest
from gocor.runtime.package import (
    PRECISIONS,
    Package,
    PackagedBackend,
    PackagedModel,
    PackagedPrecision,
)
from gocor.runtime.session import ENGINE_PROVIDERS, PROVIDERS

PREFERRED: tuple[PackagedBackend, ...] = ("tensorrt", "tensorrt-rtx", "openvino", "onnxruntime")
DEFAULT_PRECISION: PackagedPrecision = "fp32"
CANNOT_RUN = (DependencyError, MachineError, ProviderError)  # of a model that is as it should be


@dataclass(frozen=True)
class Candidates:
    """The models of a package that one provider runs in one precision.

    Attributes:
        provider: as ``gocor.load`` takes it.
        models: of every size, at least one.
        passed_over: why providers that would have come first do not work here, by their names.
    """

    provider: str
    models: tuple[PackagedModel, ...]
    passed_over: dict[str, str]


@dataclass(frozen=True)
class Choice:
    """The model for images of a size.

    Attributes:
        height: of the images.
        width: likewise.
        model: that runs.
        exact: the images are not resized to it, other than the official pipeline does.
        why: it was this one.
    """

    height: int
    width: int
    model: PackagedModel
    exact: bool
    why: str

    def __str__(self) -> str:
        return f"{self.height}x{self.width} in {self.model.path} ({self.why})"


def find_candidates(
    package: Package, precision: PackagedPrecision | None = None, provider: str | None = None
) -> Candidates:
    """The first two steps of the rule.

    Args:
        package: that was read.
        precision: of the models; float32 when None.
        provider: ``tensorrt``, ``tensorrt-rtx``, ``openvino``, ``cpu`` or ``cuda``; the first that works here
            when None. ``tensorrt`` is an engine where there is one, else ONNX Runtime's provider.

    Raises:
        ConfigError: the package has nothing in that precision.
        ProviderError: no model of it runs on that provider, or on any here.
        GocorError: what ``check_runs_here`` says of a provider that was asked for.
    """
    wanted = precision or DEFAULT_PRECISION
    if wanted not in PRECISIONS:
        raise ConfigError("precision", f"unknown {wanted!r}", f"one of {', '.join(package.precisions)}")
    models = [model for model in package.models if model.precision == wanted]
    if not models:
        has = ", ".join(package.precisions)
        raise ConfigError("precision", f"{wanted!r} is not in {package.folder}", f"it has {has}")
    if provider is not None:
        asked = Candidates(provider, _on(package, models, provider), {})
        check_runs_here(package, asked.models[0], provider)
        return asked
    passed_over: dict[str, str] = {}
    for backend in PREFERRED:
        name = "cpu" if backend == "onnxruntime" else backend
        if made_for := [model for model in models if model.backend == backend]:
            if not (reason := why_not(package, made_for[0], name)):
                return Candidates(name, _fit(made_for, name), passed_over)
            passed_over[name] = reason
    reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
    raise ProviderError(
        package.folder, f"has no {wanted} model that runs here ({reasons})", "see gocor doctor"
    )


def choose(candidates: Sequence[PackagedModel], height: int, width: int) -> Choice:
    """The last step of the rule.

    Args:
        candidates: of which one runs.
        height: of the images.
        width: likewise.

    Raises:
        ShapeError: the images have no size, or all candidates take ranges of sizes, and this one is in none.
    """
    if height < 1 or width < 1:
        raise ShapeError("images", f"are {height}x{width}", "sides from 1")
    fitting = [model for model in candidates if model.takes(height, width)]
    if fitting:
        model = min(fitting, key=lambda model: (_varies(model), model.path))
        why = "takes images of any such size" if _varies(model) else "made for images of this size"
        return Choice(height, width, model, True, why)
    sizes = {model.path: size for model in candidates if (size := model.size_for(height, width))}
    if not sizes:
        candidates[0].metadata.for_images(1, height, width)  # says what is wrong with them

    # Nearest in area and in aspect: the larger of |log(area ratio)| and |log(aspect ratio)| is just this sum.
    def distance(model: PackagedModel) -> tuple[float, int, str]:
        tall, wide = (math.log(a / b) for a, b in zip((height, width), sizes[model.path], strict=True))
        return round(abs(tall) + abs(wide), 9), -math.prod(sizes[model.path]), model.path

    model = min((model for model in candidates if model.path in sizes), key=distance)
    count = len(set(sizes.values()))
    why = f"nearest of {count} sizes" if count > 1 else "the only size"
    return Choice(height, width, model, False, f"{why}; images are resized to it")


def check_runs_here(package: Package, model: PackagedModel, provider: str) -> None:
    """Raises what is known to keep a model from running here. The model itself is not opened.

    Raises:
        DependencyError: the library that runs such models is not installed.
        ProviderError: the library or the machine lacks the provider.
        MachineError: the model was built for another GPU or another version of its library.
        ModelError: its manifest is missing or damaged.
    """
    path = package.folder / model.path
    if model.backend == "onnxruntime":
        from gocor.runtime.onnxruntime_session import check_provider

        check_provider(provider)
    elif model.backend == OPENVINO:
        from gocor.runtime.openvino_session import import_openvino, release_of

        OpenVINOManifest.of(path).check_runs_on(release_of(import_openvino()))
    else:
        from gocor.runtime.tensorrt_session import check_machine

        check_machine(path)


def why_not(package: Package, model: PackagedModel, provider: str) -> str:
    """What keeps a model from running here, in a line; empty if nothing is known to."""
    try:
        check_runs_here(package, model, provider)
    except CANNOT_RUN as error:
        return "; ".join(filter(None, (error.got, error.expected)))
    return ""


def _varies(model: PackagedModel) -> bool:
    return model.metadata.varies("height", "width")


def _on(package: Package, models: Sequence[PackagedModel], provider: str) -> tuple[PackagedModel, ...]:
    """Models that a provider runs."""
    onnx = [model for model in models if model.backend == "onnxruntime"]
    built = [model for model in models if model not in onnx]
    if found := tuple(model for model in built if model.backend == provider):
        return found
    if provider in PROVIDERS and onnx:
        return _fit(onnx, provider)
    known = dict.fromkeys([*(model.backend for model in built), *(PROVIDERS if onnx else ())])
    unknown = provider not in (*PROVIDERS, *ENGINE_PROVIDERS, OPENVINO)
    what = "is unknown" if unknown else f"runs no {models[0].precision} model of {package.folder}"
    raise ProviderError("provider", f"{provider!r} {what}", f"one of {', '.join(known)}")


def _fit(models: Sequence[PackagedModel], provider: str) -> tuple[PackagedModel, ...]:
    """Of 8-bit models in two forms the one that is made for the provider."""
    target = "tensorrt" if provider in ("cuda", *ENGINE_PROVIDERS) else "cpu"
    made_for_it = [model for model in models if model.metadata.int8 and model.metadata.int8.target == target]
    return tuple(made_for_it or models)
