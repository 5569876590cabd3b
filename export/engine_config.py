"""How an engine is built, and what each library cannot do of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gocor.core.errors import ConfigError
from gocor.runtime.manifest import LIBRARY_NAMES, OLDEST_COMPATIBLE_SM, Backend, Shapes

MAX_OPTIMIZATION_LEVEL = 5
_SM = re.compile(r"(?:sm_?)?(\d{1,2})\.?(\d)", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?)?B?")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
# Measured with TensorRT-RTX 1.7: engines of all levels are equal, byte for byte. The rest its documentation
# and its warnings say.
_RTX_LACKS = {
    "optimization_level": "its builder ignores levels; kernels are chosen on the GPU that runs the engine",
    "timing_cache": "its builder ignores timing caches; it measures nothing",
    "hardware_compatible": "leave it out: its engines run on every RTX GPU from Ampere on anyway",
    "version_compatible": "build an engine for each version of it",
    "plugin_library": "it takes no plugins; the function bodies in the model are built",
}


@dataclass(frozen=True)
class EngineConfig:
    """What an engine is built for. Precision is no part of it: that is in the model.

    Attributes:
        backend: ``tensorrt`` builds on the GPU that it builds for; ``tensorrt-rtx`` needs none.
        workspace: bytes of GPU memory that layers may use for scratch; None for all there is.
        optimization_level: 0, built fastest, to 5, runs fastest; None for TensorRT's own, 3.
        timing_cache: file in which TensorRT keeps what it measured, read if it is there and written again.
        compute_capabilities: targets of TensorRT-RTX, as ``("sm_89", "sm_120")``; none for every GPU that it
            supports from Ampere on.
        plugins: ``auto`` computes the operators of the domain ``gocor`` in our plugins where the library
            takes plugins, ``none`` in the library's own layers everywhere.
        plugin_library: C++ library whose plugins are used rather than those of the package.
        inspect: JSON file for what the engine inspector says of every layer.
        hardware_compatible: the engine shall run on every GPU from Ampere on.
        version_compatible: it shall run with later versions of the same major version, too.
        shapes: sizes to build for, of a model whose sizes vary.
        tf32: float32 convolutions and products may be computed in TF32, with 10 bits of mantissa. Faster, but
            no longer within the tolerances of ``gocor verify``.
    """

    backend: Backend = "tensorrt"
    workspace: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    compute_capabilities: tuple[str, ...] = ()
    plugins: Literal["auto", "none"] = "auto"
    plugin_library: Path | None = None
    inspect: Path | None = None
    hardware_compatible: bool = False
    version_compatible: bool = False
    tf32: bool = False
    shapes: Shapes | None = None

    @property
    def with_plugins(self) -> bool:
        """Our operators are to become plugin layers."""
        return self.plugins == "auto" and self.backend == "tensorrt"

    def check(self) -> None:
        """Raises ConfigError if a value makes no sense, or the library cannot do what is asked for."""
        for option, value, known in (
            ("--backend", self.backend, tuple(LIBRARY_NAMES)),
            ("--plugins", self.plugins, ("auto", "none")),
        ):
            if value not in known:
                raise ConfigError(option, f"is {value!r}", " or ".join(known))
        level = self.optimization_level
        if level is not None and not 0 <= level <= MAX_OPTIMIZATION_LEVEL:
            raise ConfigError("--optimization-level", f"is {level}", f"0 to {MAX_OPTIMIZATION_LEVEL}")
        if self.workspace is not None and self.workspace < 1:
            raise ConfigError("--workspace", f"is {self.workspace}", "a size, as 4GiB")
        if self.plugin_library and self.plugins == "none":
            raise ConfigError("--plugin-library", "was given with --plugins none", "one of them")
        if self.plugin_library and not self.plugin_library.is_file():
            raise ConfigError("--plugin-library", f"{self.plugin_library} is no file", "libgocor_plugins.so")
        if self.backend == "tensorrt-rtx":
            self._check_rtx()

    def _check_rtx(self) -> None:
        for name, expected in _RTX_LACKS.items():
            value = getattr(self, name)
            if value is not None and value is not False:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(option, "is not there in TensorRT-RTX", expected)

    def targets(self, library: Any) -> dict[str, Any]:
        """Members of the library's ``ComputeCapability`` to build for, by name, as ``sm_89``.

        None are there for TensorRT, which builds for the GPU that it builds on.

        Raises:
            ConfigError: the library cannot build for a GPU that was asked for.
        """
        name = LIBRARY_NAMES[self.backend]
        known: dict[str, Any] = {}
        if enum := getattr(library, "ComputeCapability", None):
            members = enum.__members__.items()
            known = {f"sm_{key[2:]}": member for key, member in members if re.fullmatch(r"SM\d+", key)}
        if self.compute_capabilities and not known:
            got = f"is not there in {name} {library.__version__}"
            raise ConfigError("--compute-capability", got, "it builds for the GPU that it builds on")
        for asked in self.compute_capabilities:
            if asked not in known:
                raise ConfigError("--compute-capability", f"is {asked}", f"{name} knows {', '.join(known)}")
        if self.backend == "tensorrt":
            return {name: known[name] for name in self.compute_capabilities}
        return {n: m for n, m in known.items() if n in (self.compute_capabilities or _portable(known))}


def compute_capability(text: str) -> str:
    """``sm_89`` of ``sm_89``, ``SM89``, ``89`` or ``8.9``.

    Raises:
        ConfigError: the text is something else.
    """
    if not (match := _SM.fullmatch(text.strip())):
        raise ConfigError("--compute-capability", f"is {text!r}", "as sm_89 or 8.9")
    return f"sm_{match[1]}{match[2]}"


def parse_bytes(text: str, option: str = "--workspace") -> int:
    """Number of bytes in ``4GiB``, ``512M`` or ``1000000``; K, M, G and T are powers of 1024.

    Raises:
        ConfigError: the text is something else.
    """
    if not (match := _SIZE.fullmatch(text.strip())):
        raise ConfigError(option, f"is {text!r}", "a size, as 4GiB or 512MiB")
    return int(float(match[1]) * 1024 ** _POWERS[(match[2] or "")[:1]])


def _portable(known: dict[str, Any]) -> list[str]:
    """TensorRT-RTX's targets when it is told none: all but Turing."""
    return [name for name in known if int(name[3:]) >= OLDEST_COMPATIBLE_SM]
