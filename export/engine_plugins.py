"""Our operators in an engine: offering their plugins to a library, and seeing that it took them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gocor.core.errors import ConfigError, ModelError
from gocor.core.files import sha256
from gocor.plugins.plugin_library import describe
from gocor.plugins.registry import OPERATORS
from gocor.plugins.schema import DOMAIN
from gocor.runtime.manifest import PluginForm

if TYPE_CHECKING:
    import onnx

WITHOUT = "without a plugin: --plugins none"


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
    """All nodes of our domain in a model's graph."""
    calls = []
    for node in model.graph.node:
        if node.domain == DOMAIN:
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            default = OPERATORS[node.op_type].attribute("radius").default
            calls.append(OperatorCall(node.name, node.op_type, attributes.get("radius", int(default))))
    return calls


def offer_plugins(library: Any, calls: Iterable[OperatorCall], file: Path | None) -> tuple[PluginForm, str]:
    """Makes the parser find our plugins: those of a C++ library, or else those of this package.

    Returns:
        Form of the plugins, and the SHA-256 that says which they are.

    Raises:
        ConfigError: there is no kernel for a radius, or the C++ library does not fit.
        DependencyError: TensorRT has no Python plugins.
    """
    operators = set()
    for call in calls:
        OPERATORS[call.operator].check_kernel_radius(call.radius)
        operators.add(call.operator)
    if not operators:
        return "none", ""
    if file is not None:
        _load(library, file, sorted(operators))
        return "library", sha256(file)
    from gocor.plugins.ptx import INDEX
    from gocor.plugins.tensorrt_quick import register

    register()
    return "quick", sha256(INDEX)


def _load(library: Any, file: Path, operators: Sequence[str]) -> None:
    """Loads a plugin library for the life of the process, unless its plugins are there already."""
    describe(file).check_fits(library.__version__)
    registry = library.get_plugin_registry()
    if not all(_has_creator(registry, operator) for operator in operators):
        try:
            loaded = registry.load_library(str(file))
        except Exception as error:
            raise _unfit(file, f"cannot be loaded ({error})", library) from error
        if loaded is None:
            raise _unfit(file, "cannot be loaded", library)
    if missing := [operator for operator in operators if not _has_creator(registry, operator)]:
        raise _unfit(file, f"has no plugin {', '.join(missing)} of the version asked for", library)


def _has_creator(registry: Any, operator: str) -> bool:
    version = str(OPERATORS[operator].version)
    return registry.get_creator(operator, version, DOMAIN) is not None


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
