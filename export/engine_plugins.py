"""Our operators in an engine: offering their plugins to a library, and seeing that it took them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gocor.core.errors import ConfigError, ModelError
from gocor.core.files import sha256
from gocor.plugins.plugin_library import describe
from gocor.plugins.ptx import INDEX, OLDEST_CUDA, OLDEST_SM
from gocor.plugins.registry import KERNELS, OPERATORS
from gocor.plugins.schema import DOMAIN
from gocor.runtime.manifest import PluginForm

if TYPE_CHECKING:
    import onnx

WITHOUT = "without a plugin: --plugins none"

_registered: dict[Any, tuple[PluginForm, str]] = {}  # plugins in the registry, by library


@dataclass(frozen=True)
class OperatorCall:
    """A node of the domain ``gocor``.

    Attributes:
        name: of the node.
        operator: such as ``LocalCorrelation``.
        radius: its search radius.
    """

    name: str
    operator: str
    radius: int


def operator_calls(model: "onnx.ModelProto") -> list[OperatorCall]:
    """All nodes of our domain in a model's graph that are known here.

    Of an operator that a later gocor brought, TensorRT builds the function body in the model.
    """
    calls = []
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type in OPERATORS:
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            default = OPERATORS[node.op_type].attribute("radius").default
            calls.append(OperatorCall(node.name, node.op_type, attributes.get("radius", int(default))))
    return calls


def offer_plugins(library: Any, calls: Iterable[OperatorCall], file: Path | None) -> tuple[PluginForm, str]:
    """Makes the parser find our plugins: those of a C++ library, or else those of this package.

    Args:
        library: the module ``tensorrt``.
        calls: nodes of our operators.
        file: the C++ library, an absolute path: TensorRT looks for a bare name where the system's are.

    Returns:
        Form of the plugins, and the SHA-256 that says which they are.

    Raises:
        ConfigError: there is no kernel for an operator or a radius, the C++ library does not fit, or this
            process has other plugins of the same names.
        DependencyError: TensorRT has no Python plugins.
    """
    operators = set()
    for call in calls:
        if call.operator not in KERNELS:
            remedy = f"build {WITHOUT}, or a model of gocor export --gocor unrolled"
            raise ConfigError(call.name, f"is a {call.operator}, which has no plugin yet", remedy)
        KERNELS[call.operator].check_kernel_radius(call.radius)
        operators.add(call.operator)
    if not operators:
        return "none", ""
    plugins = _package_plugins() if file is None else _library_plugins(library, file)
    _check_unmixed(library, plugins)
    if library not in _registered:
        _register(library, file)
        _registered[library] = plugins
    if file is not None and (missing := operators - _creators(library)):
        names = ", ".join(sorted(missing))
        raise _unfit(file, f"has no plugin {names} of the version asked for", library)
    return plugins


def check_gpu(sm: str, driver: int) -> None:
    """Finds out before a build whether a GPU and its driver take our plugins' PTX.

    Args:
        sm: the GPU's compute capability, as ``sm_90``.
        driver: version of CUDA that the driver is for, as CUDA writes it: 12040 is 12.4.

    Raises:
        ConfigError: one of them is too old.
    """
    if int(sm.removeprefix("sm_")) < OLDEST_SM:
        raise ConfigError(
            "plugins", f"need a GPU from sm_{OLDEST_SM} on, and this one is {sm}", f"build {WITHOUT}"
        )
    if driver < OLDEST_CUDA:
        needed, found = (f"{number // 1000}.{number % 1000 // 10}" for number in (OLDEST_CUDA, driver))
        got = f"need a driver for CUDA {needed}, and this one is for CUDA {found}"
        raise ConfigError("plugins", got, f"update the driver, or build {WITHOUT}")


def _package_plugins() -> tuple[PluginForm, str]:
    return "quick", sha256(INDEX)


def _library_plugins(library: Any, file: Path) -> tuple[PluginForm, str]:
    described = describe(file)
    described.check_fits(library.__version__)
    return "library", described.sha256


def _check_unmixed(library: Any, plugins: tuple[PluginForm, str]) -> None:
    """Refuses what the manifest would be wrong about: the first plugin of a name stays that of the name."""
    there = _registered.get(library)
    if there == plugins or (there is None and not _creators(library)):
        return
    got = f"has the plugins of {_origin(there)} in this process, and was to take those of {_origin(plugins)}"
    raise ConfigError("TensorRT", got, "build in a process of its own")


def _origin(plugins: tuple[PluginForm, str] | None) -> str:
    if plugins is None:
        return "somebody else"
    return "this package" if plugins[0] == "quick" else f"the library of SHA-256 {plugins[1][:12]}…"


def _register(library: Any, file: Path | None) -> None:
    """Puts plugins into TensorRT's registry, which keeps them for the life of the process."""
    if file is None:
        from gocor.plugins.tensorrt_quick import register

        register()
        return
    try:
        loaded = library.get_plugin_registry().load_library(str(file))
    except Exception as error:
        raise _unfit(file, f"cannot be loaded ({error})", library) from error
    if loaded is None:
        raise _unfit(file, "cannot be loaded", library)


def _creators(library: Any) -> set[str]:
    """Our operators that TensorRT's registry has plugins for; to be asked for one that it lacks, it logs."""
    wanted = {(schema.name, str(schema.version), DOMAIN) for schema in KERNELS.values()}
    creators = library.get_plugin_registry().all_creators
    return {c.name for c in creators if (c.name, c.plugin_version, c.plugin_namespace) in wanted}


def _unfit(file: Path, got: str, library: Any) -> ConfigError:
    return ConfigError(
        file, got, f"build libgocor_plugins.so against TensorRT {library.__version__}, or {WITHOUT}"
    )


def check_parsed(
    calls: Sequence[OperatorCall], plugins: Sequence[str], form: PluginForm, where: Path
) -> None:
    """Sees what the parser made of our operators.

    Args:
        calls: nodes of our operators.
        plugins: names of the plugin layers of the parsed network.
        form: what was offered.
        where: the model.

    Raises:
        ModelError: it took a function body where there is a plugin, or a plugin where there should be none.
    """
    if form == "none" and plugins:
        got = f"became plugins in TensorRT's parser ({_few(plugins)}), though none were asked for"
        raise ModelError(where, got, "build in a process of its own, in which no plugins were registered")
    if form != "none" and (missing := [call.name for call in calls if call.name not in plugins]):
        got = f"has nodes that TensorRT's parser did not make plugins of ({_few(missing)})"
        raise ModelError(where, got, f"export it again, or build {WITHOUT}")


def check_built(calls: Sequence[OperatorCall], plugins: Mapping[str, int], where: Path) -> None:
    """Sees in the finished engine that every node of ours is a plugin layer.

    Args:
        calls: nodes of our operators.
        plugins: number of plugin layers of each operator in the engine.
        where: the engine.

    Raises:
        ModelError: there are fewer.
    """
    for operator, wanted in Counter(call.operator for call in calls).items():
        if (found := plugins.get(operator, 0)) < wanted:
            got = f"TensorRT put {found} of {wanted} {operator} into plugin layers"
            raise ModelError(where, got, f"see the log beside it, or build {WITHOUT}")


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
