"""What a built file is, kept beside it as JSON: an engine itself cannot be asked before it has run code.

``model.engine`` has the manifest ``model.engine.json``. ``gocor build`` writes it after the engine, and it is
checked before an engine is deserialised, since a plan is executable code. OpenVINO's models have theirs in
``openvino_manifest``.
"""

import dataclasses
import hashlib
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from gocor.core.errors import GocorError, MachineError, ModelError
from gocor.core.reading import MANIFEST, MODEL, read_bytes, read_json
from gocor.runtime.metadata import AXES, ModelMetadata, Range, TensorSpec
from gocor.runtime.report import to_json

Backend = Literal["tensorrt", "tensorrt-rtx"]
PluginForm = Literal["quick", "library", "none"]
LIBRARY_NAMES: dict[Backend, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
FORMAT = 1  # raised when an older reader would misread a manifest
OLDEST_COMPATIBLE_SM = 80  # engines built for hardware compatibility run from Ampere on, as do our plugins
RTX_TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")  # of TensorRT-RTX 1.7
PLUGIN_LIBRARY = "libgocor_plugins.so"  # beside the engines that need it

Sizes = tuple[int, int, int]  # batch, height and width


class Shapes(NamedTuple):
    """Sizes that an engine takes: from the least to the most of each axis, and the usual ones are fastest."""

    least: Sizes
    usual: Sizes
    most: Sizes


_VARYING = re.compile(rf"(?:{'|'.join(AXES)})(?:/[1-9][0-9]{{0,3}})?")  # as height/4

SomeManifest = TypeVar("SomeManifest", bound="Manifest")


@dataclass(frozen=True)
class Manifest:
    """Facts about any file that ``gocor build`` made.

    Attributes:
        path: of the file; not stored, so that it may be moved and renamed together with its manifest.
        model: file name of the ONNX model that it was built from.
        model_sha256: SHA-256 of that model.
        library_version: of the library that built it, as ``11.4.0.106``.
        inputs: in order.
        outputs: in order.
        metadata: of the model.
        gocor_version: version of this package that built it.
    """

    KIND: ClassVar[str] = "file"  # what it is, in messages

    path: Path = field(compare=False)
    model: str
    model_sha256: str
    library_version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: ModelMetadata
    gocor_version: str

    @classmethod
    def of(cls: type[SomeManifest], built: str | Path) -> SomeManifest:
        """Reads the manifest beside a built file.

        Raises:
            ModelError: there is none, or it is damaged or of a newer format.
        """
        path, again = manifest_path(built), f"build the {cls.KIND} again"
        try:
            values = read_json(path, MANIFEST, ModelError)
        except FileNotFoundError as error:
            got = f"has no manifest {path.name} beside it"
            raise ModelError(built, got, f"copy both files, or {again}: gocor build") from error
        except OSError as error:
            raise ModelError(path, f"cannot be read ({error.strerror})", "check its permissions") from error
        except ValueError as error:
            raise cls._damaged(path, error) from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            came = values.get("format", "none") if isinstance(values, dict) else "none"
            expected = f"this gocor reads format {FORMAT}; {again}"
            raise ModelError(path, f"is an {cls.KIND} manifest of format {came}", expected)
        try:
            return cls(path=Path(built), **cls._fields(values, path))
        except (KeyError, TypeError, ValueError, AttributeError, GocorError) as error:
            raise cls._damaged(path, error) from error

    def to_json(self) -> str:
        """The manifest as JSON text."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "path"}
        return to_json({"format": FORMAT} | values | {"metadata": self.metadata.to_properties()}) + "\n"

    def check_file(self) -> None:
        """Raises ModelError unless the file is, byte for byte, the one that was built."""
        raise NotImplementedError

    @property
    def library(self) -> str:
        """Name and version of the library that built the file."""
        raise NotImplementedError

    @property
    def rebuild(self) -> str:
        """The command that builds the file again, of the model beside it."""
        raise NotImplementedError

    @classmethod
    def _fields(cls, values: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """Constructor arguments from JSON values, each checked for its type."""
        fields = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name != "path"}
        fields |= {name: tuple(_tensor(value) for value in fields[name]) for name in ("inputs", "outputs")}
        fields["metadata"] = ModelMetadata.from_properties(fields["metadata"], path)
        for f in dataclasses.fields(cls):
            if f.type in (str, bool) and not isinstance(fields[f.name], f.type):
                raise ValueError(f"{f.name} {fields[f.name]!r}")
        for name, known in cls._known().items():
            if fields[name] not in known:
                raise ValueError(f"{name} {fields[name]!r}")
        # It is looked for beside the built file: nothing that a manifest says leads out of its folder.
        if fields["model"] in ("", "..") or re.search(r"[/\\\0]", fields["model"]):
            raise ValueError(f"model {fields['model']!r}, which is no name of a file")
        if fields["inputs"] != fields["metadata"].inputs:
            raise ValueError(f"inputs {'; '.join(map(str, fields['inputs']))} are not those of its metadata")
        return fields

    @classmethod
    def _known(cls) -> Mapping[str, Collection[str]]:
        """What fields of few values may have."""
        return {}

    @classmethod
    def _damaged(cls, path: Path, error: Exception) -> ModelError:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        return ModelError(path, f"is a damaged {cls.KIND} manifest ({reason})", f"build the {cls.KIND} again")

    def _changed(self, path: Path, came: str, expected: str) -> ModelError:
        got = f"is not the file that was built (SHA-256 {came[:12]}…, not {expected[:12]}…)"
        return ModelError(path, got, f"copy it again or rebuild it: {self.rebuild}")


@dataclass(frozen=True)
class EngineManifest(Manifest):
    """Facts about an engine.

    Attributes:
        engine_sha256: SHA-256 of the engine.
        backend: the library that built it and runs it.
        targets: compute capabilities that it was built for, as ``("sm_90",)``.
        gpu: name of the GPU that it was tuned on; empty if it was not tuned on any.
        hardware_compatible: it runs on every GPU from Ampere on, whatever ``targets`` says.
        version_compatible: it also runs with later versions of the same major version; the runtime must then
            allow host code (``engine_host_code_allowed``).
        tf32: its float32 convolutions and products may be computed in TF32.
        plugins: what computes the operators of the domain ``gocor``: ``quick`` is a plugin whose PTX is in
            the engine, ``library`` one of a plugin library that must be loaded first, ``none`` layers of
            TensorRT's own.
        plugin_sha256: SHA-256 of the list of all our PTX, with its hashes, or of the library file; empty
            without a plugin.
        shapes: sizes that it was built for, of a model whose sizes vary; None of others.
    """

    KIND: ClassVar[str] = "engine"

    engine_sha256: str
    backend: Backend
    targets: tuple[str, ...]
    gpu: str
    hardware_compatible: bool
    version_compatible: bool
    tf32: bool
    plugins: PluginForm
    plugin_sha256: str
    shapes: Shapes | None = None

    @property
    def narrowed(self) -> ModelMetadata:
        """The model's metadata, with the sizes that the engine takes of those that the model does."""
        described = self.metadata
        if self.shapes is None or not described.dynamic:
            return described
        least, usual, most = (dict(zip(AXES, sizes, strict=True)) for sizes in self.shapes)
        changes: dict[str, Any] = {str(axis): size for axis, size in usual.items()}
        ranges = {axis: Range(least[axis], most[axis]) for axis in described.dynamic}
        return dataclasses.replace(described, **changes, dynamic=ranges)

    @property
    def library(self) -> str:
        """Name and version of the library that built the engine."""
        return f"{LIBRARY_NAMES[self.backend]} {self.library_version}"

    def check_file(self) -> None:
        """Raises ModelError unless the engine is, byte for byte, the file that was built."""
        self.read_checked()

    def read_checked(self) -> bytes:
        """The engine, read once: the bytes that are run are the bytes that were checked.

        Raises:
            ModelError: it is not, byte for byte, the file that was built.
        """
        engine = read_bytes(self.path, MODEL, ModelError)
        if (came := hashlib.sha256(engine).hexdigest()) != self.engine_sha256:
            raise self._changed(self.path, came, self.engine_sha256)
        return engine

    def check_runs_on(self, library_version: str, sm: str) -> None:
        """Finds out whether an installed library and a GPU take this engine.

        Args:
            library_version: of the installed library, as ``11.4.0.106``.
            sm: the GPU's compute capability, as ``sm_90``.

        Raises:
            MachineError: the engine needs another version or another GPU; the text says what to rebuild.
        """
        if not self._takes_version(library_version):
            got = f"was built with {self.library}; {library_version} is installed"
            raise MachineError(self.path, got, f"rebuild it with that: {self.rebuild_for(sm)}")
        if sm not in self.targets and not (self.hardware_compatible and _number(sm) >= OLDEST_COMPATIBLE_SM):
            got, what = f"was built for {self.target}; this GPU is {sm}", "rebuild it for this GPU"
            if self._backend_for(sm) != self.backend:
                got, what = f"{got}, for which {LIBRARY_NAMES[self.backend]} does not build", "use TensorRT"
            raise MachineError(self.path, got, f"{what}: {self.rebuild_for(sm)}")

    @property
    def target(self) -> str:
        """What the engine was built for, in words."""
        if self.hardware_compatible:
            return f"sm_{OLDEST_COMPATIBLE_SM} and later"
        return ", ".join(self.targets) + (f" ({self.gpu})" if self.gpu else "")

    @property
    def rebuild(self) -> str:
        """The command that builds the engine again, of the model beside it."""
        return self.rebuild_for(self.targets[0])

    def rebuild_for(self, sm: str) -> str:
        """The command that builds the engine again for a GPU, with all options that the manifest tells of."""
        command = ["gocor", "build", str(self.path.parent / self.model), "-o", str(self.path)]
        backend = self._backend_for(sm)
        if self.backend == "tensorrt-rtx":
            command += ["--backend", backend]
        options = self._rtx_options(sm) if backend == "tensorrt-rtx" else self._tensorrt_options(sm)
        if self.shapes is not None:
            options += ["--shapes", "/".join("x".join(map(str, sizes)) for sizes in self.shapes)]
        return shlex.join(command + options + (["--tf32"] if self.tf32 else []))

    def _backend_for(self, sm: str) -> Backend:
        """The engine's own, or the one that builds for every GPU."""
        return self.backend if sm in (*self.targets, *RTX_TARGETS) else "tensorrt"

    def _rtx_options(self, sm: str) -> list[str]:
        targets = self.targets if sm in self.targets else (sm,)
        if set(targets) == {known for known in RTX_TARGETS if _number(known) >= OLDEST_COMPATIBLE_SM}:
            return []  # its own default
        return [word for target in targets for word in ("--compute-capability", target)]

    def _tensorrt_options(self, sm: str) -> list[str]:
        old = _number(sm) < OLDEST_COMPATIBLE_SM
        without = self.backend == "tensorrt" and self.plugins == "none"
        options = []
        if self.metadata.operators and (old or without):
            options += ["--plugins", "none"]
        elif self.plugins == "library":
            options += ["--plugin-library", str(self.path.with_name(PLUGIN_LIBRARY))]
        if self.hardware_compatible and not old:
            options.append("--hardware-compatible")
        return options + (["--version-compatible"] if self.version_compatible else [])

    def _takes_version(self, installed: str) -> bool:
        if not self.version_compatible:
            return installed == self.library_version
        built, have = release(self.library_version), release(installed)
        return have[0] == built[0] and have >= built

    @classmethod
    def _fields(cls, values: Mapping[str, Any], path: Path) -> dict[str, Any]:
        fields = super()._fields({"shapes": None} | dict(values), path)
        fields |= {"targets": _targets(fields["targets"]), "shapes": _shapes(fields["shapes"])}
        if (fields["shapes"] is None) != (fields["metadata"].dynamic is None):
            raise ValueError(f"shapes {fields['shapes']!r}")
        return fields

    @classmethod
    def _known(cls) -> Mapping[str, Collection[str]]:
        return {"backend": LIBRARY_NAMES, "plugins": ("quick", "library", "none")}


def manifest_path(built: str | Path) -> Path:
    """Path of the manifest of a built file, ``<file>.json``."""
    return Path(f"{built}.json")


def _targets(values: Any) -> tuple[str, ...]:
    words = isinstance(values, list) and all(isinstance(value, str) for value in values)
    if not words or not values or not all(re.fullmatch(r"sm_[0-9]{2,4}", value) for value in values):
        raise ValueError(f"targets {values!r}")
    return tuple(values)


def _shapes(values: Any) -> Shapes | None:
    if values is None:
        return None
    least, usual, most = (tuple(sizes) for sizes in values)
    numbers = (*least, *usual, *most)
    grows = len(numbers) == 9 and all(type(number) is int for number in numbers)
    if not grows or not all(1 <= a <= b <= c for a, b, c in zip(least, usual, most, strict=True)):
        raise ValueError(f"shapes {values!r}")
    return Shapes(least, usual, most)


def _tensor(values: Mapping[str, Any]) -> TensorSpec:
    name, dtype, shape = values["name"], values["dtype"], values["shape"]
    sizes = isinstance(shape, list) and all(
        _VARYING.fullmatch(size) if isinstance(size, str) else type(size) is int and size > 0
        for size in shape
    )
    if not sizes or not isinstance(name, str) or not isinstance(dtype, str):
        raise ValueError(f"tensor {name!r} {dtype!r} {shape!r}")
    return TensorSpec(name, dtype, tuple(shape))


def _number(sm: str) -> int:
    return int(sm.removeprefix("sm_"))


def release(version: str) -> tuple[int, ...]:
    """Comparable numbers of ``11.4.0.106``."""
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", version)) or (0,)
