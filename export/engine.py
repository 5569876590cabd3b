"""A model to an engine of TensorRT or TensorRT-RTX, with its manifest and the build log beside it."""

import contextlib
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gocor.core.errors import ConfigError, ModelError, OutputError
from gocor.core.files import check_writable, write_text, write_together
from gocor.core.version import __version__
from gocor.export.engine_build import Built, EngineBuild
from gocor.export.engine_config import EngineConfig
from gocor.export.engine_layers import EngineLayers
from gocor.export.engine_monitor import Progress
from gocor.export.engine_shapes import check_shapes
from gocor.export.engine_source import SourceModel, read_source
from gocor.runtime.manifest import EngineManifest, manifest_path
from gocor.runtime.tensorrt_library import import_library

logger = logging.getLogger("gocor")


@dataclass(frozen=True)
class EngineReport:
    """What was built.

    Attributes:
        path: of the engine.
        manifest: as it stands beside the engine.
        bytes: size of the engine.
        parse_seconds: that the library's parser took.
        build_seconds: that its builder took.
        operators: nodes of each of our operators; ``manifest.plugins`` says what computes them.
        network: number of layers of each type and dtype in the parsed network, function bodies included.
        layers: those of the finished engine; None where it cannot be opened, that is without its GPU.
        warnings: of the parser and the builder.
        log: everything that they said.
    """

    path: Path
    manifest: EngineManifest
    bytes: int
    parse_seconds: float
    build_seconds: float
    operators: Mapping[str, int]
    network: Mapping[str, int]
    layers: EngineLayers | None
    warnings: tuple[str, ...]
    log: Path


def build_engine(
    model: str | Path,
    path: str | Path,
    config: EngineConfig | None = None,
    progress: Progress | None = None,
) -> EngineReport:
    """Builds an engine of a model that ``gocor export`` made. Needs neither torch nor ONNX Runtime.

    Writes the engine, ``<path>.json`` (its manifest) and ``<path>.log``. If anything fails, an earlier engine
    and its manifest stay as they were; the log is always that of the last build, and says what went wrong.

    Args:
        model: the ONNX file.
        path: of the engine, ``.engine``.
        config: what it is built for; by default for TensorRT and the GPU of this machine.
        progress: called as ``progress(done, total, phase)``; the phases are TensorRT's.

    Raises:
        ModelError: the model is none of ours, or the library refuses it.
        ConfigError: the library cannot do what is asked for, or one file would be written over another.
        DependencyError: the library or ``onnx`` is not installed, or too old.
        ProviderError: TensorRT finds no GPU.
        OutputError: a file cannot be written.
    """
    path, config = Path(path), config or EngineConfig()
    config.check()
    if path.suffix != ".engine":
        raise ConfigError(path, f"has suffix {path.suffix!r}", "a name that ends in .engine")
    _check_distinct(Path(model), path, config)
    source = read_source(model)
    if source.metadata.int8 and source.metadata.int8.target == "cpu":
        got = "has the 8-bit form for CPUs, whose numbers TensorRT does not take"
        raise ModelError(model, got, "gocor calibrate --target tensorrt makes TensorRT's")
    check_shapes(source.metadata, config.shapes, source.path)
    library = import_library(config.backend)
    for file in (path, config.inspect, config.timing_cache):
        if file is not None:
            check_writable(file)
    build = EngineBuild(library, config, source)
    try:
        built = build.run(progress)
        manifest = _manifest(path, config, source, built, library.__version__)
        _write(manifest, config, built)
    finally:
        with contextlib.suppress(OutputError):  # the log of a failure must not hide it
            write_text(log_path(path), build.log_text())
    for warning in build.log.warnings:
        logger.warning("%s: %s", path.name, warning)
    return EngineReport(
        path, manifest, built.plan.nbytes, built.parse_seconds, built.build_seconds,
        Counter(call.operator for call in source.calls), built.network, built.layers,
        build.log.warnings, log_path(path),
    )  # fmt: skip


def log_path(engine: str | Path) -> Path:
    """Path of an engine's build log, ``<engine>.log``."""
    return Path(f"{engine}.log")


def _check_distinct(model: Path, path: Path, config: EngineConfig) -> None:
    """Refuses two files of a build that are one; devices such as /dev/null may serve for several."""
    files = {
        "the model": model,
        "the plugin library": config.plugin_library,
        "the engine": path,
        "its manifest": manifest_path(path),
        "its log": log_path(path),
        "--timing-cache": config.timing_cache,
        "--inspect": config.inspect,
    }
    roles: dict[str, str] = {}
    for role, file in files.items():
        if file is None or (os.path.exists(file) and not os.path.isfile(file)):
            continue
        if (other := roles.setdefault(os.path.realpath(file), role)) != role:
            raise ConfigError(file, f"cannot be both {other} and {role}", "a path of its own for each")


def _manifest(
    path: Path, config: EngineConfig, source: SourceModel, built: Built, library_version: str
) -> EngineManifest:
    return EngineManifest(
        path=path,
        model=source.path.name,
        model_sha256=source.sha256,
        engine_sha256=hashlib.sha256(built.plan).hexdigest(),
        backend=config.backend,
        library_version=library_version,
        targets=built.targets,
        gpu=built.gpu,
        hardware_compatible=config.hardware_compatible,
        version_compatible=config.version_compatible,
        tf32=config.tf32,
        plugins=built.plugins,
        plugin_sha256=built.plugin_sha256,
        inputs=built.inputs,
        outputs=built.outputs,
        metadata=source.metadata,
        gocor_version=__version__,
        shapes=config.shapes,
    )


def _write(manifest: EngineManifest, config: EngineConfig, built: Built) -> None:
    """Writes all files whole before any gets its name; the manifest gets it last.

    Between the two renames an engine has the manifest of the one before, and is refused by its hash.
    """
    contents = {manifest_path(manifest.path): manifest.to_json().encode(), manifest.path: built.plan}
    if config.inspect:
        contents[config.inspect] = built.inspection.encode()
    if config.timing_cache:
        contents[config.timing_cache] = built.timing_cache
    write_together(contents)
