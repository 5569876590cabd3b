"""Models in ONNX Runtime."""

import contextlib
import functools
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gocor.core.errors import DependencyError, ModelError, ProviderError
from gocor.runtime.metadata import ModelMetadata, TensorSpec
from gocor.runtime.session import FlowEstimator

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger("gocor")

# TF32 keeps 10 bits of the mantissa and is CUDA's default here; the official results are in full float32.
_CUDA: tuple[str, dict[str, str]] = ("CUDAExecutionProvider", {"use_tf32": "0"})
_CPU: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
# What each provider leaves to the next one is part of asking for it: shapes are computed on the CPU.
EXECUTION_PROVIDERS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "cpu": [_CPU],
    "cuda": [_CUDA, _CPU],
    "tensorrt": [("TensorrtExecutionProvider", {}), _CUDA, _CPU],
}
TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
_LOG_ERRORS, _LOG_FATAL = 3, 4


class OnnxRuntimeEstimator(FlowEstimator):
    """A model in an ONNX Runtime session."""

    def __init__(self, path: Path, provider: str, threads: int | None) -> None:
        session = open_session(path, provider, threads)
        with decoding_names(path):
            metadata = ModelMetadata.from_properties(session.get_modelmeta().custom_metadata_map, path)
            _check_interface(path, session, metadata)
        placement = _placement(session)
        if elsewhere := {n: c for n, c in placement.items() if n != session.get_providers()[0]}:
            logger.info("%s: operators outside %s: %s", path.name, session.get_providers()[0], elsewhere)
        if provider == "tensorrt" and os.environ.get(TF32_VARIABLE) != "0":
            _note_tf32()
        super().__init__(path, metadata, provider, placement)
        self._session: onnxruntime.InferenceSession | None = session

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        session = self._session  # held here, so that close() in another thread cannot take it away
        if session is None:
            raise self._was_closed()
        names = [output.name for output in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ModelError(
                self.path, f"failed in ONNX Runtime ({_reason(error)})", "see gocor doctor"
            ) from error

    def _release(self) -> None:
        self._session = None


def open_session(path: Path, provider: str, threads: int | None = None) -> "onnxruntime.InferenceSession":
    """Opens any ONNX file in ONNX Runtime, on the provider asked for.

    Raises:
        DependencyError: ONNX Runtime is not installed.
        ProviderError: it lacks the provider, or the provider does not start on this machine.
        ModelError: it cannot load the file.
    """
    ort = import_onnxruntime()
    wanted = EXECUTION_PROVIDERS[provider]
    _check_available(ort, provider)
    if provider != "cpu" and hasattr(ort, "preload_dlls"):
        # Finds CUDA in pip's nvidia-* packages. It prints what it misses, and stdout belongs to results.
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    try:
        session = ort.InferenceSession(
            str(path), session_options(provider, threads), providers=wanted, enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        if "bfloat16" in str(error):
            hint = f"build an engine: gocor build {path}; or export with --precision fp16"
            raise ModelError(path, "computes in bf16, which ONNX Runtime does not", hint) from error
        raise ModelError(
            path, f"cannot be loaded by ONNX Runtime ({_reason(error)})", "give a model made by gocor export"
        ) from error
    if (came := session.get_providers()[0]) != wanted[0][0]:
        got = f"{provider!r} did not start on this machine (ONNX Runtime would have used {came})"
        raise ProviderError("provider", got, "see gocor doctor for what is missing")
    return session


@contextlib.contextmanager
def decoding_names(path: Path) -> Iterator[None]:
    """Turns names or properties of a model file that are no text into a ``ModelError``."""
    try:
        yield
    except UnicodeDecodeError as error:
        got = f"has names or properties that are no text ({error})"
        raise ModelError(path, got, "give a model made by gocor export") from error


@functools.cache  # once
def _note_tf32() -> None:
    # That provider has no option for it (github.com/microsoft/onnxruntime/issues/26029). The variable is of
    # the whole process, and the libraries read it when they start: not ours to set.
    logger.warning(
        "ONNX Runtime lets TensorRT compute float32 in TF32, which keeps 10 bits of the mantissa; "
        "for full float32 set %s=0 in the environment, or build an engine: gocor build",
        TF32_VARIABLE,
    )


def import_onnxruntime() -> Any:
    """The module ``onnxruntime``, which tells Microsoft nothing unless ``ORT_DISABLE_TELEMETRY`` is set to 0.

    Raises:
        DependencyError: it is not installed, or its installation is broken.
    """
    # From 1.29 on Linux it uploads models' names and hashes and leaves an identifier in the home folder, and
    # only this, before it is imported, keeps it from that (github.com/microsoft/onnxruntime/pull/27379).
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        hint = 'pip install "gocor-deploy[cpu]" (or [gpu])'
        raise DependencyError("onnxruntime", f"cannot be imported ({error})", hint) from error
    return onnxruntime


def check_provider(provider: str) -> None:
    """Finds out whether the installed ONNX Runtime has a provider, without opening a model.

    Raises:
        DependencyError: ONNX Runtime is not installed.
        ProviderError: it lacks the provider.
    """
    _check_available(import_onnxruntime(), provider)


def _check_available(ort: Any, provider: str) -> None:
    available = ort.get_available_providers()
    if EXECUTION_PROVIDERS[provider][0][0] not in available:
        has = ", ".join(n for n, wanted in EXECUTION_PROVIDERS.items() if wanted[0][0] in available)
        got = f"{provider!r} is not in this build of onnxruntime {ort.__version__} (it has {has})"
        hint = 'pip uninstall onnxruntime, then pip install "gocor-deploy[gpu]"'
        raise ProviderError("provider", got, hint)


def session_options(provider: str, threads: int | None) -> "onnxruntime.SessionOptions":
    """How the package's sessions are opened; what each option is worth: ``docs/performance.md``."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or 0
    # A fifth of the memory for no time; with sizes that vary it would keep a pattern for each of them.
    options.enable_mem_pattern = False
    # Failures come as exceptions; only why a GPU provider does not start is nowhere but in the log.
    options.log_severity_level = _LOG_FATAL if provider == "cpu" else _LOG_ERRORS
    # Idle threads would otherwise spin on after a call, and take cores from whatever the caller does next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _check_interface(path: Path, session: "onnxruntime.InferenceSession", metadata: ModelMetadata) -> None:
    inputs = tuple(tensor_spec(node) for node in session.get_inputs())
    if set(inputs) != set(metadata.inputs):
        raise ModelError(
            path,
            f"has inputs {'; '.join(map(str, inputs))}",
            f"its metadata says {'; '.join(map(str, metadata.inputs))}; export again",
        )
    outputs = {node.name: tensor_spec(node) for node in session.get_outputs()}
    if outputs.keys() != set(metadata.output_names) or outputs[metadata.flow.name] != metadata.flow:
        raise ModelError(
            path,
            f"has outputs {'; '.join(map(str, outputs.values()))}",
            f"its metadata says {', '.join(metadata.output_names)} with {metadata.flow}; export again",
        )


def tensor_spec(node: Any) -> TensorSpec:
    """Name, dtype and shape of a session's input or output; ``node.shape`` has names where sizes vary."""
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), tuple(node.shape))


def _placement(session: "onnxruntime.InferenceSession") -> dict[str, int]:
    """Operators on each execution provider; empty where an older ONNX Runtime cannot say."""
    counts: Counter[str] = Counter()
    if hasattr(session, "get_provider_graph_assignment_info"):
        for subgraph in session.get_provider_graph_assignment_info():
            counts[subgraph.ep_name] += len(subgraph.get_nodes())
    return dict(counts)


def _reason(error: Exception) -> str:
    """ONNX Runtime's message without its prefixes and without the file name that the caller gives already."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", str(error).splitlines()[0])
    return re.sub(r"^Load model from .* failed:", "", text)[:300].rstrip(". ")
