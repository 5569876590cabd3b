"""A network to one ONNX file, for ONNX Runtime as it is and for TensorRT with our plugin or without."""

import contextlib
import dataclasses
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from gocor.core.errors import ConfigError
from gocor.core.files import atomic_path, check_writable
from gocor.core.version import __version__
from gocor.export.checkpoint import weights_sha256
from gocor.export.dynamic_shapes import example_inputs, name_sizes, ranges
from gocor.export.folding import fold
from gocor.export.graph import attach_functions, check_portable, name_nodes, set_properties
from gocor.export.image_pipeline import ImagePipeline, TensorPipeline
from gocor.export.networks import GLUNet, Network
from gocor.export.networks.info import CheckpointInfo
from gocor.export.precision import POLICIES, Casts, check_policy, count_casts, lower
from gocor.plugins.onnx_tiles import OPSET
from gocor.runtime.metadata import (
    AXES,
    GOCOR_FORMS,
    PRECISIONS,
    Axis,
    GocorForm,
    Io,
    ModelMetadata,
    Precision,
    Repair,
)
from gocor.runtime.spec import NetworkSpec, extra_levels

Progress = Callable[[int, int, str], None]
STAGES = ("fold constants", "trace the network", "attach operators", "check", "write")


@dataclass(frozen=True)
class ExportConfig:
    """What a model is exported for.

    Attributes:
        height: of the images, or of the network's input with ``io="tensors"``.
        width: likewise.
        batch: image pairs in a call.
        io: ``images`` puts the whole pipeline into the model, uint8 images to flow in pixels; ``tensors``
            takes preprocessed tensors and gives every level's flow as the network returns it.
        precision: of convolutions and correlations, as the network's policy in ``gocor.export.precision``
            says; inputs and outputs are the same for all.
        gocor: ``fused`` makes every local GOCor one operator, ``unrolled`` a correlation and its transpose
            for each step, and what is between them. Networks without have neither.
        dynamic: axes whose sizes vary from call to call; ``height``, ``width`` and ``batch`` then are what
            the model is meant for most. Heights and widths vary with ``io="tensors"`` only: with ``images``
            their resizing is part of the graph, as matrices for one size.
    """

    height: int
    width: int
    batch: int = 1
    io: Io = "images"
    precision: Precision = "fp32"
    gocor: GocorForm = "fused"
    dynamic: tuple[Axis, ...] = ()

    def check(self, spec: NetworkSpec) -> None:
        """Raises ConfigError unless the network can be exported like this."""
        size = f"{self.height}x{self.width}"
        if self.height < 1 or self.width < 1:
            raise ConfigError("--size", f"is {size}", "height and width from 1, as 384x512")
        if self.batch < 1:
            raise ConfigError("--batch", f"is {self.batch}", "at least 1")
        if self.io not in ("images", "tensors"):
            raise ConfigError("--io", f"is {self.io!r}", "images or tensors")
        if self.precision not in PRECISIONS:
            raise ConfigError("--precision", f"is {self.precision!r}", f"one of {', '.join(PRECISIONS)}")
        if self.gocor not in GOCOR_FORMS:
            raise ConfigError("--gocor", f"is {self.gocor!r}", " or ".join(GOCOR_FORMS))
        if unknown := [axis for axis in self.dynamic if axis not in AXES]:
            raise ConfigError("--dynamic", f"has {unknown[0]!r}", f"some of {','.join(AXES)}")
        if self.io == "images":
            if sides := [axis for axis in AXES if axis in self.dynamic and axis != "batch"]:
                expected = "--io tensors, or --dynamic batch: an images model resizes from one size"
                raise ConfigError("--dynamic", f"has {' and '.join(sides)} with --io images", expected)
            return
        if self.height % spec.side_multiple or self.width % spec.side_multiple:
            expected = f"with --io tensors {spec.name} needs sides that are multiples of {spec.side_multiple}"
            raise ConfigError("--size", f"is {size}", expected)
        if min(self.height, self.width) < spec.minimum_side:
            expected = f"with --io tensors {spec.name} needs sides of at least {spec.minimum_side}"
            raise ConfigError("--size", f"is {size}", expected)


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: of the model.
        metadata: as stored in it.
        bytes: size of the file.
        nodes: of the graph, each call of an operator of ours counted as one.
        seconds: that the export took.
        casts: into low precision and out of it.
    """

    path: Path
    metadata: ModelMetadata
    bytes: int
    nodes: int
    seconds: float
    casts: Casts


def export_onnx(
    network: Network,
    path: str | Path,
    *,
    height: int,
    width: int,
    batch: int = 1,
    io: Io = "images",
    precision: Precision = "fp32",
    gocor: GocorForm = "fused",
    dynamic: Sequence[Axis] = (),
    progress: Progress | None = None,
) -> ExportReport:
    """Exports a network with its iterations unrolled, and all shapes static but for those that are to vary.

    Equal weights, options and versions give equal bytes. An earlier file is replaced only by a whole new one.

    Args:
        network: from ``load_network``, or one of your own; it stays as it is.
        path: of the model, ``.onnx``.
        height: see ``ExportConfig``.
        width: see ``ExportConfig``.
        batch: see ``ExportConfig``.
        io: see ``ExportConfig``.
        precision: see ``ExportConfig``.
        gocor: see ``ExportConfig``.
        dynamic: see ``ExportConfig``.
        progress: called as ``progress(done, total, stage)``.

    Raises:
        ConfigError: the network cannot be exported like this, or the file's name does not end in ``.onnx``.
        ModelError: the precision cannot hold a weight.
        OutputError: the file cannot be written.
    """
    start = time.perf_counter()
    config = ExportConfig(height, width, batch, io, precision, gocor, tuple(dynamic))
    model, metadata = trace_export(network, path, config, progress)
    return write_export(model, metadata, path, precision, start=start, progress=progress)


def trace_export(
    network: Network, path: str | Path, config: ExportConfig, progress: Progress | None = None
) -> tuple[onnx.ModelProto, ModelMetadata]:
    """The first half of ``export_onnx``, up to a whole model in FP32, with what it says about itself.

    Raises:
        ConfigError: as ``export_onnx``.
        OutputError: the file could not be written.
    """
    config.check(network.spec)
    if Path(path).suffix != ".onnx":
        raise ConfigError(path, f"has suffix {Path(path).suffix!r}", "a name that ends in .onnx")
    check_writable(path)
    begin = _stages(progress)
    begin("fold constants")
    folded = fold(network, fused=config.gocor == "fused").cpu().float()
    if isinstance(folded, GLUNet) and "width" in config.dynamic:
        folded.levels = extra_levels(config.width)
    begin("trace the network")
    metadata = _metadata(network, config)
    model = _trace(folded, config, metadata)
    if metadata.dynamic:
        name_sizes(model, metadata)
    begin("attach operators")
    name_nodes(model, prefix="network")
    metadata = dataclasses.replace(metadata, operators=attach_functions(model))
    set_properties(model, metadata.to_properties())
    model.producer_name, model.producer_version = "gocor", __version__
    model.graph.name = network.spec.name
    return model, metadata


def write_export(
    model: onnx.ModelProto,
    metadata: ModelMetadata,
    path: str | Path,
    precision: Precision,
    *,
    start: float,
    repair: Repair | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """The second half of ``export_onnx``: puts the model into its precision, in place, checks and writes it.

    Args:
        model: of ``trace_export``.
        metadata: likewise.
        path: of the file.
        precision: of the file.
        start: of the export, of ``time.perf_counter``.
        repair: what stays in FP32 beyond the network's policy, and why.
        progress: see ``export_onnx``.
    """
    begin = _stages(progress)
    begin("check")
    metadata = dataclasses.replace(metadata, precision=precision, repair=repair)
    policy = dataclasses.replace(POLICIES[metadata.network], returned=repair.kept if repair else ())
    lower(model, policy, precision)
    set_properties(model, metadata.to_properties())
    check_portable(model, path)
    check_policy(model, policy, precision)
    begin("write")
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    size, seconds = Path(path).stat().st_size, time.perf_counter() - start
    return ExportReport(Path(path), metadata, size, len(model.graph.node), seconds, count_casts(model))


def _stages(progress: Progress | None) -> Callable[[str], None]:
    def begin(stage: str) -> None:
        if progress:
            progress(STAGES.index(stage), len(STAGES), stage)

    return begin


def _trace(network: Network, config: ExportConfig, metadata: ModelMetadata) -> onnx.ModelProto:
    if config.io == "images":
        pipeline: torch.nn.Module = ImagePipeline(network, config.height, config.width)
    else:
        pipeline = TensorPipeline(network)
    inputs, shapes = example_inputs(metadata)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            pipeline.eval(),
            inputs,
            dynamic_shapes=shapes,
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in metadata.inputs],
            output_names=list(metadata.output_names),
            external_data=False,
            verbose=False,
        )
    return program.model_proto  # type: ignore[union-attr]


def _metadata(network: Network, config: ExportConfig) -> ModelMetadata:
    weights = weights_sha256(network)
    info = network.info
    if info is None or info.weights_sha256 != weights:  # trained on since it was loaded
        info = CheckpointInfo(None, "", weights)
    return ModelMetadata(
        network=network.spec.name,
        weights_sha256=weights,
        checkpoint=info.path.name if info.path else "",
        checkpoint_sha256=info.sha256,
        global_iterations=network.global_iterations,
        local_iterations=network.local_iterations,
        height=config.height,
        width=config.width,
        batch=config.batch,
        io=config.io,
        operators={},
        gocor_version=__version__,
        dynamic=ranges(network.spec, config.dynamic, config.width) if config.dynamic else None,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's notes about optional packages and its own deprecations from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
