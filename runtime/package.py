"""What a folder of ``gocor package`` holds, as its index says, and whether the files are still those.

The index, ``package.json``, is read as something that anybody may have written: it names files inside of its
folder alone, by plain names, and nothing in it is ever run. It seals itself, so that a changed byte of it is
found like one of every other file. Who writes it anew can seal it anew: against that there is only to know
the index's hash from somewhere else.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from gocor.core.errors import GocorError, ModelError, ShapeError
from gocor.core.files import sha256, write_text
from gocor.core.version import __version__
from gocor.runtime.compare import Tolerance
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.report import to_json

INDEX = "package.json"
FORMAT = 1  # raised when an older reader would misread an index
LARGEST_INDEX = 4 << 20  # bytes
MOST_FILES = 10_000
PackagedBackend = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
PackagedPrecision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[PackagedPrecision, ...] = get_args(PackagedPrecision)
BACKENDS: tuple[PackagedBackend, ...] = get_args(PackagedBackend)
SUFFIXES: dict[PackagedBackend, str] = {
    "onnxruntime": ".onnx", "openvino": ".xml", "tensorrt": ".engine", "tensorrt-rtx": ".engine",
}  # fmt: skip
# No name begins with a dot: neither "..", nor what a shell or a file manager would hide.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_LONGEST_PATH, _LONGEST_TEXT = 400, 2000
_SEAL = re.compile(r',\n  "sha256": "[0-9a-f]{64}"\n}\n\Z')
_AGAIN = "copy the package again, or make it again: gocor package"


@dataclass(frozen=True)
class PackagedFile:
    """A file of a package, by its path in the folder."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class PackagedModel:
    """A model of a package.

    Attributes:
        path: of the file that is loaded, in the folder.
        files: everything that it consists of, ``path`` first: graph, weights, manifest.
        backend: what runs it.
        library: that built it, with its version; empty for ``.onnx`` files.
        source: path of the ``.onnx`` file that it was built from; empty for such a file itself.
        metadata: what the model says about itself.
        tolerance: how far its flow may be from the flows in the package.
        ran: it was run and compared where the package was made; an engine for another GPU was not.
    """

    path: str
    files: tuple[str, ...]
    backend: PackagedBackend
    library: str
    source: str
    metadata: ModelMetadata
    tolerance: Tolerance
    ran: bool

    @property
    def precision(self) -> PackagedPrecision:
        """``int8`` of a model that has convolutions in 8 bits, else that of the model."""
        return "int8" if self.metadata.int8 else self.metadata.precision

    @property
    def size(self) -> str:
        """Sizes of images that it is for, as ``384x512``."""
        size = f"{self.metadata.height}x{self.metadata.width}"
        sides = [side for side in ("height", "width") if side in (self.metadata.dynamic or {})]
        return f"any {' and '.join(sides)} (best {size})" if sides else size

    def takes(self, height: int, width: int) -> bool:
        """Images of that size run in it as they would in the official pipeline."""
        described = self.metadata
        wanted = (height, width) if described.io == "images" else described.spec.working_size(height, width)
        return self.size_for(height, width) == wanted

    def size_for(self, height: int, width: int) -> tuple[int, int] | None:
        """Size that images of a size are resized to in it; None if its range has none for them."""
        try:
            return self.metadata.for_images(1, height, width).size
        except ShapeError:
            return None


@dataclass(frozen=True)
class PackagedPair:
    """Two images of a package, and what PyTorch says about them.

    Attributes:
        name: of the pair.
        height: of the images.
        width: likewise.
        reference: path of the image in the folder.
        query: likewise.
        flow: path of PyTorch's flow, ``.npy``.
        orientation_score: PyTorch's, of the GLU-Net family; None otherwise.
    """

    name: str
    height: int
    width: int
    reference: str
    query: str
    flow: str
    orientation_score: float | None

    @property
    def files(self) -> tuple[str, str, str]:
        """Everything that it consists of."""
        return self.reference, self.query, self.flow


@dataclass(frozen=True)
class Package:
    """A folder of ``gocor package``.

    Attributes:
        folder: where it is; not stored.
        gocor_version: that made it.
        licence: what is known about the licence of the checkpoint, and so of the models.
        models: all of one network and its weights.
        pairs: for every size of the models at least one.
        files: all there are, the index apart.
    """

    folder: Path = field(compare=False)
    gocor_version: str
    licence: str
    models: tuple[PackagedModel, ...]
    pairs: tuple[PackagedPair, ...]
    files: tuple[PackagedFile, ...]

    @classmethod
    def read(cls, folder: str | Path) -> "Package":
        """Reads the index of a folder, and nothing else of it.

        Raises:
            ModelError: there is none, or it is damaged, of a newer format, or names what it must not.
        """
        folder = Path(folder)
        values = _unsealed(folder / INDEX, _read_index(folder))
        try:
            package = cls(folder=folder, **_fields(cls, values, _PACKAGE))
            _check(package)
        except (KeyError, TypeError, ValueError, RecursionError, GocorError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ModelError(folder / INDEX, f"is a damaged index ({reason})"[:500], _AGAIN) from error
        return package

    @property
    def index(self) -> Path:
        """Path of the index."""
        return self.folder / INDEX

    @property
    def described(self) -> ModelMetadata:
        """Network, checkpoint and iterations, which are those of every model."""
        return self.models[0].metadata

    @property
    def sizes(self) -> list[str]:
        """Of the models, each once."""
        return list(dict.fromkeys(model.size for model in self.models))

    @property
    def precisions(self) -> list[PackagedPrecision]:
        """Of the models, each once."""
        return list(dict.fromkeys(model.precision for model in self.models))

    def to_json(self) -> str:
        """The index as JSON text, sealed."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "folder"}
        models = [_facts(model) | {"metadata": model.metadata.to_properties()} for model in self.models]
        return _sealed({"format": FORMAT} | values | {"models": models})

    def pairs_for(self, model: PackagedModel) -> list[PackagedPair]:
        """Those whose flow the model should give."""
        return [pair for pair in self.pairs if model.takes(pair.height, pair.width)]

    def check_files(self, paths: Sequence[str]) -> None:
        """Raises ModelError unless files are, byte for byte, those that were packaged."""
        known = {file.path: file for file in self.files}
        for path in paths:
            if reason := _difference(self.folder, known[path]):
                raise ModelError(self.folder / path, reason, _AGAIN)

    def differences(self) -> Iterator[tuple[str, str]]:
        """Path and reason for everything in the folder that is not as it was packaged; nothing if all is."""
        for file in self.files:
            if reason := _difference(self.folder, file):
                yield file.path, reason
        yield from self.strangers()

    def strangers(self) -> Iterator[tuple[str, str]]:
        """Path and reason for everything in the folder that is not in the index."""
        known = {INDEX, *(file.path for file in self.files)}
        for number, (path, kind) in enumerate(_found(self.folder)):
            if number > MOST_FILES:
                yield path, f"is one of more than {MOST_FILES:,} files; the others were not looked at"
                return
            if path not in known:
                yield path, f"is a {kind} that is not in {INDEX}"


def seal(
    folder: str | Path, models: Sequence[PackagedModel], pairs: Sequence[PackagedPair], licence: str
) -> Package:
    """Writes the index of a folder that is otherwise complete.

    Raises:
        ModelError: the folder holds what must not be in a package, such as links or hidden files.
        OutputError: the index cannot be written.
    """
    folder, files = Path(folder), []
    for path, kind in _found(folder):
        if kind != "file" or path == INDEX:
            raise ModelError(folder / path, f"is a {kind} and cannot be packaged", "a folder without it")
        files.append(PackagedFile(path, (folder / path).stat().st_size, sha256(folder / path)))
    files.sort(key=lambda file: file.path)
    package = Package(folder, __version__, licence, tuple(models), tuple(pairs), tuple(files))
    write_text(package.index, package.to_json())
    return Package.read(folder)


def _read_index(folder: Path) -> bytes:
    path = folder / INDEX
    try:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode):
            raise ModelError(path, "is no regular file", _AGAIN)
        if facts.st_size > LARGEST_INDEX:
            raise ModelError(path, f"has {facts.st_size:,} bytes", f"at most {LARGEST_INDEX:,}; {_AGAIN}")
        with path.open("rb") as file:
            return file.read(LARGEST_INDEX + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(folder, f"holds no {INDEX}", "a model file, or a folder of gocor package") from error
    except OSError as error:
        raise ModelError(path, f"cannot be read ({error.strerror})", "check its permissions") from error


def _unsealed(path: Path, content: bytes) -> dict[str, Any]:
    """The values of an index, once it is known to be what it says of itself."""
    try:
        text = content.decode()
        values = json.loads(text, parse_constant=_refuse, object_pairs_hook=_distinct)
        if not isinstance(values, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(path, f"is a damaged index ({reason})", _AGAIN) from error
    # The text itself: to write deeply nested values anew could take gigabytes.
    if text != _with_seal(_SEAL.sub("\n}", text)):
        raise ModelError(path, "was changed since it was written (its own hash is another)", _AGAIN)
    del values["sha256"]
    if (came := values.pop("format", None)) != FORMAT:
        number = str(came)[:40] if isinstance(came, int | str) else "none"
        raise ModelError(path, f"is of format {number}", f"this gocor reads format {FORMAT}")
    return values


def _sealed(values: Mapping[str, Any]) -> str:
    """JSON text that ends with the hash of the text that it would be without."""
    return _with_seal(to_json(values))


def _with_seal(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.removesuffix("\n}") + f',\n  "sha256": "{digest}"\n}}\n'


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands twice")
    return values


def _fields(kind: type[Any], values: Any, readers: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """Constructor arguments from JSON values: exactly the fields of a dataclass, each checked for its type.

    Args:
        kind: the dataclass.
        values: of the JSON text.
        readers: of fields that are no plain text, number or truth value; of lists, for each entry.
    """
    fields = {f.name: f.type for f in dataclasses.fields(kind) if f.name != "folder"}
    if not isinstance(values, dict):
        raise ValueError("no object")
    if unknown := sorted(values.keys() - fields.keys()):
        raise ValueError(f"unknown {unknown[0]!r:.40}")
    return {name: _value(name, type_, values[name], readers.get(name)) for name, type_ in fields.items()}


def _value(name: str, kind: Any, value: Any, reader: Callable[[Any], Any] | None) -> Any:
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or reader is None:
            raise ValueError(f"{name} is no list")
        return tuple(map(reader, value))
    if reader:
        return reader(value)
    if type(value) is not kind or (kind is str and len(value) > _LONGEST_TEXT):
        raise ValueError(f"{name} {value!r:.40}")
    return value


def _facts(facts: Any) -> dict[str, Any]:
    return {f.name: getattr(facts, f.name) for f in dataclasses.fields(facts)}


def _file(values: Any) -> PackagedFile:
    file = PackagedFile(**_fields(PackagedFile, values, {"path": _path}))
    if file.bytes < 0 or not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
        raise ValueError(f"file {file.path}")
    return file


def _model(values: Any) -> PackagedModel:
    return PackagedModel(**_fields(PackagedModel, values, {
        "path": _path, "files": _path, "backend": _backend, "metadata": _metadata, "tolerance": _tolerance,
    }))  # fmt: skip


def _pair(values: Any) -> PackagedPair:
    readers = {"reference": _path, "query": _path, "flow": _path, "orientation_score": _score}
    pair = PackagedPair(**_fields(PackagedPair, values, readers))
    if not (0 < pair.height < 1 << 20 and 0 < pair.width < 1 << 20):
        raise ValueError(f"pair {pair.name!r:.40} of {pair.height}x{pair.width}")
    return pair


def _path(value: Any) -> str:
    parts = value.split("/") if isinstance(value, str) and len(value) <= _LONGEST_PATH else []
    if not parts or not all(_PART.fullmatch(part) for part in parts):
        raise ValueError(f"path {value!r:.80}")
    return str(value)


def _backend(value: Any) -> str:
    if value not in BACKENDS:
        raise ValueError(f"backend {value!r:.40}")
    return str(value)


def _metadata(values: Any) -> ModelMetadata:
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ValueError("metadata")
    return ModelMetadata.from_properties(values, "a model")


def _tolerance(values: Any) -> Tolerance:
    names = {f.name for f in dataclasses.fields(Tolerance)}
    if not isinstance(values, dict) or values.keys() != names:
        raise ValueError("tolerance")
    for name, value in values.items():
        if value is None and name == "p99":
            continue
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"tolerance {name} {value!r:.40}")
    return Tolerance(**values)


def _score(value: Any) -> float | None:
    if value is not None and (type(value) is not float or not math.isfinite(value)):
        raise ValueError(f"orientation_score {value!r:.40}")
    return value


_PACKAGE: dict[str, Callable[[Any], Any]] = {"models": _model, "pairs": _pair, "files": _file}


def _check(package: Package) -> None:
    """Whether everything in an index goes together."""
    paths = [file.path for file in package.files]
    # Two names that differ in case alone are one file on some systems.
    if len({path.lower() for path in (*paths, INDEX)}) != len(paths) + 1:
        raise ValueError("a path stands twice")
    if not package.models or len(paths) > MOST_FILES:
        raise ValueError(f"{len(package.models)} models, {len(paths)} files")
    named = [one.files for one in package.models] + [one.files for one in package.pairs]
    if missing := {path for files in named for path in files} - set(paths):
        raise ValueError(f"no hash of {sorted(missing)[0]}")
    for model in package.models:
        if model.files[:1] != (model.path,) or Path(model.path).suffix != SUFFIXES[model.backend]:
            raise ValueError(f"model {model.path}")
        if _origin(model.metadata) != _origin(package.described):
            raise ValueError(f"{model.path} is of another network")
    if len({model.path for model in package.models}) != len(package.models):
        raise ValueError("a model stands twice")


def _origin(described: ModelMetadata) -> tuple[object, ...]:
    counts = described.global_iterations, described.local_iterations
    return described.network, described.weights_sha256, described.checkpoint_sha256, *counts


def _difference(folder: Path, file: PackagedFile) -> str:
    """What is wrong with a file; empty if it is as it was packaged."""
    path = folder
    try:
        for part in file.path.split("/"):
            path /= part
            if path.is_symlink():
                return "is, or lies behind, a link"
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode):
            return "is no regular file"
        if facts.st_size != file.bytes:
            return f"has {facts.st_size:,} bytes, not {file.bytes:,}"
        if (came := sha256(path)) != file.sha256:
            return f"is not the file that was packaged (SHA-256 {came[:12]}…, not {file.sha256[:12]}…)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def _found(folder: Path) -> Iterator[tuple[str, str]]:
    """Everything in a folder that is no folder: path and kind. Links are not followed."""
    todo = [(folder, "")]
    while todo:
        place, prefix = todo.pop()
        try:
            with os.scandir(place) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError:
            yield prefix or ".", "folder that cannot be listed, one"
            continue
        for entry in entries:
            if entry.is_symlink():
                yield prefix + entry.name, "link"
            elif entry.is_dir(follow_symlinks=False):
                todo.append((Path(entry.path), f"{prefix}{entry.name}/"))
            else:
                regular = entry.is_file(follow_symlinks=False)
                yield prefix + entry.name, "file" if regular else "device, pipe or socket"
