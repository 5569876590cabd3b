"""A model repository for NVIDIA's Triton Inference Server, from models, engines and files of OpenVINO.

    DIR/gocor-triton.json       index: what every version was made of; without it a folder is none of ours
    DIR/README.md, client.py    how to serve it, and somebody to ask it
    DIR/<model>/config.pbtxt
    DIR/<model>/<version>/model.onnx | model.plan | model.xml and model.bin, with their manifests

The server takes only subfolders for models.
"""

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gocor.core.errors import ConfigError, ModelError, OutputError
from gocor.core.files import atomic_folder, write_text, writing
from gocor.core.reading import DOCUMENT, read_json
from gocor.core.version import __version__
from gocor.export.triton_config import NAME, ServedModel, TritonConfig, read_served
from gocor.export.triton_guide import CLIENT, Entry, guide
from gocor.runtime.model_hash import model_sha256
from gocor.runtime.openvino_manifest import OPENVINO_SUFFIX, OpenVINOManifest
from gocor.runtime.report import to_json

INDEX = "gocor-triton.json"
CONFIG = "config.pbtxt"  # of each model
FORMAT = 1  # raised when an older reader would misread an index


@dataclass(frozen=True)
class TritonReport:
    """What was written.

    Attributes:
        path: of the repository.
        added: versions that are new, in the order of the models.
        notes: what the server will do otherwise than gocor.
    """

    path: Path
    added: tuple[Entry, ...]
    notes: tuple[str, ...]


def triton_repository(
    models: Sequence[str | Path], path: str | Path, config: TritonConfig | None = None, update: bool = False
) -> TritonReport:
    """Writes a model repository, or with ``update`` adds a version of each model to one.

    A new repository appears whole or not at all. In an existing one each version appears whole, so that
    a server that watches the folder never sees half of one; the index comes last.

    Args:
        models: files of ``gocor export`` and ``gocor build``.
        path: folder of the repository.
        config: how the server shall run them.
        update: take a folder that is such a repository already.

    Raises:
        ModelError: a model is none of ours, is not as it was built, or Triton cannot run it.
        ConfigError: two models have one name, or an option makes no sense.
        OutputError: the folder is there already, is none of ours, or cannot be written.
    """
    path, config = Path(path), config or TritonConfig()
    if config.name is not None and len(models) > 1:
        raise ConfigError("--name", f"is for one model, and there are {len(models)}", "leave it out")
    served = [read_served(model, config) for model in models]
    _check_names(served)
    known = _existing(path, update)
    added = tuple(_entry(model, known, path) for model in served)
    index = (*known, *added)
    with _update_of(path, added) if known else atomic_folder(path) as built:
        for model, entry in zip(served, added, strict=True):
            _write_version(built, model, entry)
        _write_rest(built, index)
    notes = tuple(dict.fromkeys(note for model in served for note in model.notes))
    return TritonReport(path, added, notes)


def _check_names(served: Sequence[ServedModel]) -> None:
    if not served:
        raise ConfigError("models", "none given", "at least one .onnx, .engine, .plan or .xml file")
    for name, count in Counter(model.name for model in served).items():
        if count > 1:
            files = ", ".join(str(model.path) for model in served if model.name == name)
            raise ConfigError("models", f"{count} are named {name!r} ({files})", "rename the files")


def _existing(path: Path, update: bool) -> tuple[Entry, ...]:
    """Index of the repository that is there; empty for a new one."""
    if path.is_file():
        raise OutputError(path, "is a file", "the path of a folder")
    if not path.is_dir() or not any(path.iterdir()):
        return ()
    if not (path / INDEX).is_file():
        raise OutputError(path, f"holds other files (no {INDEX})", "a new or empty folder")
    if not update:
        raise OutputError(path, "is a model repository already", "--update adds a version to it")
    return _read_index(path / INDEX)


def _read_index(path: Path) -> tuple[Entry, ...]:
    try:
        values = read_json(path, DOCUMENT, OutputError)
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}, this gocor reads {FORMAT}")
        if not (entries := tuple(_read_entry(value) for value in values["models"])):
            raise ValueError("no models")
        return entries
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise OutputError(path, f"is damaged ({error})", "write the repository anew, elsewhere") from error


def _read_entry(value: Mapping[str, Any]) -> Entry:
    entry = Entry(**{**value, "interface": tuple(value["interface"])})
    for field in dataclasses.fields(Entry):
        if field.name != "interface" and type(getattr(entry, field.name)) is not field.type:
            raise ValueError(f"{field.name} {getattr(entry, field.name)!r}")
    if not all(isinstance(text, str) for text in entry.interface):
        raise ValueError(f"interface {entry.interface!r}")
    if entry.version < 1 or not NAME.fullmatch(entry.model):
        raise ValueError(f"model {entry.model!r} version {entry.version!r}")
    return entry


def _entry(model: ServedModel, known: Sequence[Entry], path: Path) -> Entry:
    """The next version of a model, once it fits those that are there."""
    before = [entry for entry in known if entry.model == model.name]
    interface = tuple(f"{kind} {spec}" for kind, specs in model.interface for spec in specs)
    # By the folders, too: an update that was killed may have left one that is not in the index.
    folders = (int(folder.name) for folder in (path / model.name).glob("[1-9]*") if folder.name.isdecimal())
    version = max((*folders, *(entry.version for entry in before)), default=0) + 1
    if before and (before[-1].backend, before[-1].interface) != (model.backend.name, interface):
        was = f"{before[-1].backend} with {'; '.join(before[-1].interface)}"
        got = f"has not the backend, inputs and outputs of version {before[-1].version} of {model.name}"
        raise ModelError(model.path, got, f"that is {was}; give it another --name")
    hashed = model_sha256(model.path)
    if before and before[-1].sha256 == hashed:
        hint = f"nothing to do; other options go into {path / model.name / CONFIG}"
        raise ModelError(model.path, f"is version {before[-1].version} of {model.name} already", hint)
    return Entry(
        model=model.name,
        version=version,
        backend=model.backend.name,
        kind=model.kind,
        file=f"{model.name}/{version}/{model.backend.file}",
        source=model.path.name,
        sha256=hashed,
        network=model.metadata.network,
        library=model.manifest.library if model.manifest else "",
        version_compatible=getattr(model.manifest, "version_compatible", False),
        interface=interface,
    )


@contextlib.contextmanager
def _update_of(path: Path, added: Sequence[Entry]) -> Iterator[Path]:
    """A folder beside a repository, whose content goes into that when the block succeeds."""
    parent = os.path.dirname(os.path.realpath(path))
    with writing(path), tempfile.TemporaryDirectory(dir=parent, prefix=f".{path.name}.") as built:
        yield Path(built)
        _move(Path(built), path, added)


def _write_version(root: Path, model: ServedModel, entry: Entry) -> None:
    folder = root / entry.model / str(entry.version)
    folder.mkdir(parents=True)
    for source, name in model.files:
        shutil.copyfile(source, folder / name)
    if not _is_whole(root / entry.file, entry):
        raise ModelError(model.path, "was changed while it was copied", "try again")
    write_text(root / entry.model / CONFIG, model.config)


def _is_whole(copy: Path, entry: Entry) -> bool:
    try:
        if copy.suffix == OPENVINO_SUFFIX:  # of which only the manifest is hashed below
            OpenVINOManifest.of(copy).check_file()
        return model_sha256(copy) == entry.sha256
    except ModelError:
        return False


def _write_rest(root: Path, index: Sequence[Entry]) -> None:
    """What belongs to the repository as a whole."""
    latest = {entry.model: entry for entry in index}
    write_text(root / "README.md", guide(list(latest.values())))
    write_text(root / "client.py", CLIENT)
    contents = {
        "format": FORMAT,
        "gocor_version": __version__,
        "models": [dataclasses.asdict(e) for e in index],
    }
    write_text(root / INDEX, to_json(contents) + "\n")


def _move(built: Path, path: Path, added: Sequence[Entry]) -> None:
    """Into a repository that is there. A version is there before the configuration that mentions it."""
    for entry in added:
        new, model = built / entry.model, path / entry.model
        if not model.exists():
            new.rename(model)
            continue
        (new / str(entry.version)).rename(model / str(entry.version))
        os.replace(new / CONFIG, model / CONFIG)
    for name in ("README.md", "client.py", INDEX):
        os.replace(built / name, path / name)
