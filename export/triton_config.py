"""What Triton is told of one model: its ``config.pbtxt``."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gocor.core.errors import ConfigError, ModelError
from gocor.export.inspection import inspect_model
from gocor.runtime.manifest import LIBRARY_NAMES, PLUGIN_LIBRARY, EngineManifest, manifest_path
from gocor.runtime.metadata import ModelMetadata, Range, TensorSpec
from gocor.runtime.openvino_manifest import OPENVINO_SUFFIX, OpenVINOManifest, read_manifest
from gocor.runtime.session import BUILT_SUFFIXES, CHECKPOINT_SUFFIXES, check_model_file

TritonProvider = Literal["cpu", "cuda"]
PROVIDERS: tuple[TritonProvider, ...] = ("cpu", "cuda")
MOST_INSTANCES = 1024
DEFAULT_MAX_BATCH = 8  # of a model for any batch, unless it is meant for larger ones
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
DTYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
F32_ON_OPENVINO = (
    "Triton's OpenVINO backend has no option for float32; on a processor with bfloat16 it computes in that"
)
# CUDA computes float32 in TF32, with 10 bits of the mantissa, unless it is told so; gocor.load tells it, too.
# Read by ONNX Runtime from 1.18 on; an older one refuses to load the model.
NO_TF32 = """\
optimization { execution_accelerators {
  gpu_execution_accelerator [ { name: "cuda" parameters { key: "use_tf32" value: "0" } } ]
} }"""


@dataclass(frozen=True)
class TritonConfig:
    """How the server shall run the models.

    Attributes:
        name: of the only model; the stem of its file if None.
        instances: copies of each model that run side by side.
        provider: of ``.onnx`` files: ``cpu`` or ``cuda``; ``cpu`` if None. Others run where they
            were built for.
        threads: of one instance, for the operators on the CPU; the backend's own choice if None.
    """

    name: str | None = None
    instances: int = 1
    provider: TritonProvider | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.name is not None and not NAME.fullmatch(self.name):
            raise ConfigError("--name", f"is {self.name!r}", "letters, digits, _ . and -, no . or - first")
        if not 1 <= self.instances <= MOST_INSTANCES:
            raise ConfigError("--instances", f"is {self.instances}", f"1 to {MOST_INSTANCES}")
        if self.provider not in (None, *PROVIDERS):
            raise ConfigError("--provider", f"is {self.provider!r}", " or ".join(PROVIDERS))
        if self.threads is not None and self.threads < 1:
            raise ConfigError("--threads", f"is {self.threads}", "at least 1")


@dataclass(frozen=True)
class Backend:
    """One of the server's.

    Attributes:
        name: as the server knows it.
        platform: its older name, of the backends that have one.
        file: that it looks for in the folder of a version.
        threads: parameter for the number of threads; None where the CPU has nothing to do.
    """

    name: str
    platform: str | None
    file: str
    threads: str | None


ONNXRUNTIME = Backend("onnxruntime", "onnxruntime_onnx", "model.onnx", "intra_op_thread_count")
TENSORRT = Backend("tensorrt", "tensorrt_plan", "model.plan", None)
OPENVINO = Backend("openvino", None, "model.xml", "INFERENCE_NUM_THREADS")


@dataclass(frozen=True)
class ServedModel:
    """A model and what the server is told of it.

    Attributes:
        path: of the file that was given.
        name: that the server shall know it by.
        backend: that runs it.
        metadata: what it says about itself.
        inputs: in order.
        outputs: in order.
        manifest: of a file that ``gocor build`` made.
        options: how the server shall run it.
    """

    path: Path
    name: str
    backend: Backend
    metadata: ModelMetadata
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    manifest: EngineManifest | OpenVINOManifest | None
    options: TritonConfig

    @property
    def interface(self) -> tuple[tuple[str, tuple[TensorSpec, ...]], ...]:
        """Inputs and outputs, by kind."""
        return ("input", self.inputs), ("output", self.outputs)

    @property
    def kind(self) -> str:
        """Where instances run. The server refuses KIND_GPU on a machine without a GPU."""
        gpu = self.backend is TENSORRT or self.options.provider == "cuda"
        return "KIND_GPU" if gpu else "KIND_CPU"

    @property
    def files(self) -> tuple[tuple[Path, str], ...]:
        """What a version consists of: files, and their names there."""
        name = self.backend.file
        copies = [(self.path, name)]
        if isinstance(self.manifest, OpenVINOManifest):
            copies.append((self.manifest.weights, "model.bin"))
        if self.manifest:
            copies.append((manifest_path(self.path), manifest_path(name).name))
        return tuple(copies)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the server will do otherwise than gocor."""
        f32 = isinstance(self.manifest, OpenVINOManifest) and self.manifest.inference_precision == "f32"
        return (F32_ON_OPENVINO,) if f32 else ()

    @property
    def parameters(self) -> Mapping[str, str]:
        """For the backend, and, with ``gocor.`` before them, for who asks the server what it runs."""
        values = {
            "gocor.network": self.metadata.network,
            "gocor.precision": self.metadata.precision,
            "gocor.io": self.metadata.io,
            "gocor.weights_sha256": self.metadata.weights_sha256,
        }
        if self.options.threads and self.backend.threads:
            values[self.backend.threads] = str(self.options.threads)
        if isinstance(self.manifest, OpenVINOManifest):
            values["gocor.inference_precision"] = self.manifest.inference_precision
            if self.manifest.inference_precision == "bf16":
                values["HINT_BF16"] = "YES"  # the only precision that the backend takes
        return values

    @property
    def max_batch(self) -> int:
        """Largest batch that the server may make of requests; 0 where the model's batch is fixed."""
        if not self.metadata.varies("batch"):
            return 0
        return (self.metadata.dynamic or {})["batch"].maximum or max(self.metadata.batch, DEFAULT_MAX_BATCH)

    @property
    def config(self) -> str:
        """The model's ``config.pbtxt``, text of the protobuf message ``inference.ModelConfig``.

        Of a fixed batch the dimension is part of the shapes, so ``max_batch_size`` is 0: with another number
        the backends of ONNX Runtime and TensorRT refuse a first dimension that is not -1. Without it there is
        no dynamic batching; a request brings the model's whole batch. A batch that varies is the server's:
        it puts requests together that come at the same time, up to ``max_batch``.
        """
        lines = [f"name: {_text(self.name)}"]
        if self.backend.platform:
            lines.append(f"platform: {_text(self.backend.platform)}")
        lines += [f"backend: {_text(self.backend.name)}", f"max_batch_size: {self.max_batch}"]
        if self.max_batch:
            lines.append("dynamic_batching { }")
        for kind, specs in self.interface:
            lines += [_tensor(kind, spec, batched=bool(self.max_batch)) for spec in specs]
        lines.append(f"instance_group [ {{ count: {self.options.instances} kind: {self.kind} }} ]")
        if self.backend is ONNXRUNTIME and self.kind == "KIND_GPU":
            lines.append(NO_TF32)
        lines += self._warmup()
        for key, value in self.parameters.items():
            lines.append(f"parameters {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}")
        return "\n".join(lines) + "\n"

    def _warmup(self) -> Iterator[str]:
        """The first run chooses kernels and allocates; without it somebody's request would wait for that."""
        yield "model_warmup [ {"
        yield '  name: "zeros"'
        yield "  batch_size: 1"  # as the server wants it of models without batching
        for spec in self.inputs:
            shape = spec.sized(self.metadata.sizes).shape[1 if self.max_batch else 0 :]
            value = f"data_type: {DTYPES[spec.dtype]} dims: {list(shape)} zero_data: true"
            yield f"  inputs {{ key: {_text(spec.name)} value {{ {value} }} }}"
        yield "} ]"


def read_served(path: str | Path, config: TritonConfig) -> ServedModel:
    """Reads a model and refuses what Triton cannot run, or not as it was built.

    Raises:
        ModelError: there is no such file, it is none of ours, is not as it was built, or not for Triton.
        ConfigError: its name cannot be a model's name, or an option is not for such files.
    """
    path = check_model_file(path)
    name = path.stem if config.name is None else config.name
    if not NAME.fullmatch(name):
        got = f"would be the model {name!r}, which is no name for a folder or a URL"
        raise ConfigError(path, got, "give one: --name flow")
    if path.suffix == ".onnx":
        return _read_onnx(path, name, config)
    if path.suffix in CHECKPOINT_SUFFIXES:
        raise ModelError(path, "is a checkpoint", f"make a model of it: gocor export {path} -o model.onnx")
    if path.suffix not in BUILT_SUFFIXES:
        known = "models are .onnx, .engine, .plan or .xml files"
        raise ModelError(path, f"has the unknown suffix {path.suffix!r}", known)
    _check_options(path, config)
    manifest = read_manifest(path)
    manifest.check_file()
    if isinstance(manifest, EngineManifest):
        _check_engine(manifest)
    backend = OPENVINO if path.suffix == OPENVINO_SUFFIX else TENSORRT
    metadata = manifest.narrowed if isinstance(manifest, EngineManifest) else manifest.metadata
    return ServedModel(path, name, backend, metadata, manifest.inputs, manifest.outputs, manifest, config)


def _read_onnx(path: Path, name: str, config: TritonConfig) -> ServedModel:
    found = inspect_model(path)
    if found.metadata is None:
        raise ModelError(path, "was not made by gocor (no gocor.network property)", "run gocor export")
    inputs, outputs = tuple(found.inputs), tuple(found.outputs)
    for spec in (*inputs, *outputs):
        varying = [size.partition("/")[0] for size in spec.shape if isinstance(size, str)]
        fixed = [size for size in spec.shape if not isinstance(size, str)]
        known = all(size in (found.metadata.dynamic or {}) for size in varying) and min(fixed, default=1) > 0
        if spec.dtype not in DTYPES or not known:
            raise ModelError(path, f"has {spec}", "static shapes of uint8 or float32; export it again")
    return ServedModel(path, name, ONNXRUNTIME, found.metadata, inputs, outputs, None, config)


def _check_options(path: Path, config: TritonConfig) -> None:
    if config.provider is not None:
        raise ConfigError(
            "--provider", f"is for .onnx files, and {path} runs where it was built for", "leave it out"
        )
    if config.threads is not None and path.suffix != OPENVINO_SUFFIX:
        raise ConfigError("--threads", f"are those of the CPU, and {path} is an engine", "leave them out")


def _check_engine(manifest: EngineManifest) -> None:
    model = str(manifest.path.with_name(manifest.model))
    again = shlex.join(["gocor", "build", model, "-o", str(manifest.path)])
    if manifest.backend != "tensorrt":
        got = f"is an engine of {LIBRARY_NAMES[manifest.backend]}, which Triton has no backend for"
        raise ModelError(manifest.path, got, f"build it for TensorRT: {again}")
    least, most = (manifest.narrowed.dynamic or {}).get("batch", Range(1))
    if least > 1:
        got = f"takes batches of {least} to {most}, and Triton would also bring smaller ones"
        raise ModelError(manifest.path, got, "build it with --shapes from a batch of 1")
    if manifest.plugins == "library":
        # Triton only opens the libraries that it is given, which is for those that register themselves at
        # that. Ours registers nothing before TensorRT's loadLibrary asks for its plugins.
        got = f"needs {PLUGIN_LIBRARY}, which Triton cannot load"
        raise ModelError(manifest.path, got, f"build it with the built-in plugin: {again}")


def _tensor(kind: str, spec: TensorSpec, batched: bool) -> str:
    """An input or output; the dimension of a batch that varies is not mentioned, others that do are -1."""
    dtype, dims = DTYPES[spec.dtype], list(spec.unnamed.shape[1 if batched else 0 :])
    if not dims:  # a number for each pair; the server wants a dimension
        return f"{kind} [ {{ name: {_text(spec.name)} data_type: {dtype} dims: [1] reshape {{ }} }} ]"
    return f"{kind} [ {{ name: {_text(spec.name)} data_type: {dtype} dims: {dims} }} ]"


def _text(value: str) -> str:
    """A string of protobuf's text format; its escapes are JSON's as far as ASCII goes."""
    return json.dumps(value)
