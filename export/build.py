"""What ``gocor build`` makes of a model: an engine, or files for OpenVINO."""

from pathlib import Path

from gocor.core.errors import ConfigError
from gocor.export import engine
from gocor.export.engine import EngineReport
from gocor.export.engine_config import EngineConfig
from gocor.export.engine_monitor import Progress
from gocor.export.openvino import OpenVINOReport, build_openvino, check_options
from gocor.runtime.manifest import LIBRARY_NAMES
from gocor.runtime.openvino_manifest import OPENVINO

BACKENDS = (*LIBRARY_NAMES, OPENVINO)


def build(
    model: str | Path,
    path: str | Path,
    options: EngineConfig,
    inference_precision: str | None = None,
    progress: Progress | None = None,
) -> EngineReport | OpenVINOReport:
    """Builds what the backend reads.

    Args:
        model: the ONNX file.
        path: of the result.
        options: their ``backend`` may also be ``openvino``, to which no other of them means anything.
        inference_precision: that OpenVINO computes in, ``f32`` if None; engines compute in their model's.
        progress: as for ``build_engine``.

    Raises:
        ConfigError: an option is for another backend.
        GocorError: what ``build_engine`` and ``build_openvino`` say.
    """
    backend: str = options.backend
    if backend not in BACKENDS:
        raise ConfigError("--backend", f"is {backend!r}", f"one of {', '.join(BACKENDS)}")
    if backend == OPENVINO:
        check_options(options)
        return build_openvino(model, path, inference_precision or "f32")  # type: ignore[arg-type]
    if inference_precision is not None:
        got = "is for OpenVINO, and an engine computes in the precision of its model"
        raise ConfigError("--inference-precision", got, "gocor export --precision")
    return engine.build_engine(model, path, options, progress)
