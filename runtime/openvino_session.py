"""Models in OpenVINO, on the CPU, in a precision that is always said."""

import functools
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gocor.core.errors import ConfigError, DependencyError, ModelError, ProviderError
from gocor.runtime.environment import instruction_sets
from gocor.runtime.manifest import release
from gocor.runtime.metadata import Precision, TensorSpec
from gocor.runtime.openvino_manifest import (
    INFERENCE_PRECISIONS,
    OPENVINO,
    InferencePrecision,
    OpenVINOManifest,
)
from gocor.runtime.session import FlowEstimator

DEVICE = "CPU"
OLDEST = (2025, 4)  # the tests passed with
# Operators whose precision is worth knowing: nearly all of the time goes there.
_ARITHMETIC = ("Convolution", "Deconvolution", "MatMul", "FullyConnected")

logger = logging.getLogger("gocor")


@dataclass(frozen=True)
class Execution:
    """How a compiled model runs, as OpenVINO says itself.

    Attributes:
        inference_precision: of what is not in 8 bits.
        threads: of all streams together.
        streams: batches that are computed side by side.
        convolutions: how many convolutions and matrix products run in each precision, as
            ``{"f32": 12, "u8": 48}``; 8 bits are called ``u8`` or ``i8``.
    """

    inference_precision: str
    threads: int
    streams: int
    convolutions: Mapping[str, int]


class OpenVINOEstimator(FlowEstimator):
    """A model in OpenVINO, on the CPU.

    By default it answers as fast as it can, all cores for one batch. With ``throughput`` several batches are
    computed side by side, each on few cores, which takes longer for each and is done with all of them sooner:
    give a call many pairs, or call from ``streams`` threads.

    Attributes:
        manifest: what stands beside the model.
        execution: how it runs.
    """

    def __init__(
        self,
        path: str | Path,
        provider: str | None = None,
        threads: int | None = None,
        *,
        inference_precision: InferencePrecision | None = None,
        throughput: bool = False,
    ) -> None:
        """Loads a model.

        Args:
            path: of the ``.xml`` file; ``.bin`` and manifest lie beside it.
            provider: where to run, if that matters: ``openvino``.
            threads: of the CPU; one for each physical core when None.
            inference_precision: ``f32`` or ``bf16``; what the manifest says when None.
            throughput: compute several batches side by side.

        Raises:
            ModelError: the files are not those that were built, or are too new for this OpenVINO.
            ProviderError: another provider was asked for, or a precision that this CPU does not have.
            DependencyError: OpenVINO is not installed, or too old.
            ConfigError: the precision is none.
        """
        path = Path(path)
        if provider not in (None, OPENVINO):
            got = f"{provider!r} does not run {path}, which is a model for OpenVINO"
            raise ProviderError("provider", got, f"{OPENVINO}, or none")
        manifest = OpenVINOManifest.of(path)
        precision = inference_precision or manifest.inference_precision
        if precision not in INFERENCE_PRECISIONS:
            raise ConfigError("--inference-precision", f"is {precision!r}", " or ".join(INFERENCE_PRECISIONS))
        library = import_openvino()
        manifest.check_runs_on(release_of(library))
        compiled = _compile(library, manifest, precision, threads, throughput)
        operators = compiled.get_runtime_model().get_ops()
        self.manifest, self.execution = manifest, _execution(compiled, operators)
        _check_execution(compiled, manifest, self.execution, precision)
        _check_interface(compiled, manifest)
        if precision == "bf16":
            _note_slow_bf16(path)
        super().__init__(path, manifest.metadata, OPENVINO, {DEVICE: len(operators)})
        self.streams = self.execution.streams
        self._compiled: Any = compiled
        self._idle: list[Any] = []  # infer requests; append and pop are atomic

    @property
    def precision(self) -> Precision:
        """The lowest that it computes in, 8 bits apart. OpenVINO computes float16 models in float32."""
        return "bf16" if self.execution.inference_precision == "bf16" else self.metadata.precision

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        compiled = self._compiled  # held here, so that close() in another thread cannot take it away
        if compiled is None:
            raise self._was_closed()
        try:
            request = self._idle.pop() if self._idle else compiled.create_infer_request()
        except IndexError:  # another thread took the last one in between
            request = compiled.create_infer_request()
        try:
            # Inputs are read where they are; outputs are copied, since the request is used again.
            results = request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        except Exception as error:  # what pybind11 makes of C++ exceptions
            raise ModelError(
                self.path, f"failed in OpenVINO ({_reason(error)})", "see gocor doctor"
            ) from error
        self._idle.append(request)
        if self._compiled is None:  # closed in between; a request would keep the model's memory
            self._idle.clear()
        return {name: results[name] for name in self.metadata.output_names}

    def _each(self, run: Callable[[int], None], starts: Iterable[int]) -> None:
        if self.streams == 1:
            super()._each(run, starts)
            return
        with ThreadPoolExecutor(self.streams) as pool:
            list(pool.map(run, starts))  # a list, so that errors come out

    def _release(self) -> None:
        self._compiled = None
        self._idle.clear()


def import_openvino() -> Any:
    """The module ``openvino``. Nothing that is used of it here tells anything to anybody.

    Raises:
        DependencyError: it is not installed, its installation is broken, or it is too old.
    """
    hint = 'pip install "gocor-deploy[openvino]"'
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise DependencyError("openvino", f"cannot be imported ({_reason(error)})", hint) from error
    if release(version := release_of(openvino))[:2] < OLDEST:
        needed = f"{OLDEST[0]}.{OLDEST[1]} or later is needed: {hint}"
        raise DependencyError("openvino", f"{version or 'what is installed'} is too old", needed)
    return openvino


@functools.cache
def openvino_core() -> Any:
    """The one ``openvino.Core`` of the process, which is never given back.

    With each, OpenVINO gives the calling thread another stack for signal handlers, and frees it with the
    Core: two of them freed in the order of their making, or one in another thread, and Ctrl-C ends Python
    with a segmentation fault (seen with 2026.4).

    Raises:
        DependencyError: see ``import_openvino``.
    """
    return import_openvino().Core()


def release_of(library: Any) -> str:
    """``2026.4.1`` of ``2026.4.1-22000-abcdef``."""
    found = re.match(r"\d+(\.\d+)*", getattr(library, "__version__", ""))
    return found[0] if found else ""


def _compile(
    library: Any, manifest: OpenVINOManifest, precision: InferencePrecision, threads: int | None,
    throughput: bool,
) -> Any:  # fmt: skip
    graph, weights = manifest.read_checked()
    core = openvino_core()
    if precision == "bf16" and "BF16" not in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"):
        hint = f"f32: {manifest.rebuild}".replace(" --inference-precision bf16", "")
        raise ProviderError("--inference-precision", "bf16 is not there on this CPU", hint)
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    try:
        model = core.read_model(graph, library.Tensor(np.frombuffer(weights, np.uint8)))
        return core.compile_model(model, DEVICE, options)
    except Exception as error:  # what pybind11 makes of C++ exceptions
        got = f"cannot be loaded by OpenVINO ({_reason(error)})"
        raise ModelError(manifest.path, got, f"rebuild it: {manifest.rebuild}") from error


def _execution(compiled: Any, operators: Iterable[Any]) -> Execution:
    counts: Counter[str] = Counter()
    for operator in operators:
        about = operator.get_rt_info()
        if about["layerType"].astype(str) in _ARITHMETIC:
            counts[about["runtimePrecision"].astype(str)] += 1
    return Execution(
        inference_precision=compiled.get_property("INFERENCE_PRECISION_HINT").to_string(),
        threads=compiled.get_property("INFERENCE_NUM_THREADS"),
        streams=compiled.get_property("NUM_STREAMS"),
        convolutions=dict(counts.most_common()),
    )


def _check_execution(
    compiled: Any, manifest: OpenVINOManifest, execution: Execution, precision: InferencePrecision
) -> None:
    """Believes nothing: what was asked for is what runs."""
    devices = compiled.get_property("EXECUTION_DEVICES")
    if list(devices) != [DEVICE]:
        raise ProviderError("provider", f"OpenVINO runs {manifest.path} on {', '.join(devices)}", "the CPU")
    lower = set(execution.convolutions) - {"f32", "i8", "u8", precision}
    if execution.inference_precision != precision or lower:
        got = f"OpenVINO computes {manifest.path} in {', '.join(lower) or execution.inference_precision}"
        raise ProviderError("--inference-precision", got, f"{precision}, which was asked for")


def _check_interface(compiled: Any, manifest: OpenVINOManifest) -> None:
    for kind in ("inputs", "outputs"):
        ports, expected = getattr(compiled, kind), getattr(manifest, kind)
        if tensor_specs(ports, [spec.name for spec in expected]) != expected:
            raise ModelError(
                manifest.path,
                f"has other {kind} than its manifest says ({'; '.join(map(str, expected))})",
                f"rebuild it: {manifest.rebuild}",
            )


def tensor_specs(ports: Iterable[Any], names: Iterable[str]) -> tuple[TensorSpec, ...]:
    """Dtypes and shapes of inputs or outputs of OpenVINO, those that there are among ``names``.

    An output that is equal to another one may have become one with it, under both names.
    """
    found = {name: port for port in ports for name in port.get_names()}
    return tuple(_tensor_spec(found[name], name) for name in names if name in found)


def _tensor_spec(port: Any, name: str) -> TensorSpec:
    shape = tuple(size.get_length() if size.is_static else "?" for size in port.get_partial_shape())
    return TensorSpec(name, port.get_element_type().to_dtype().name, shape)


def _note_slow_bf16(path: Path) -> None:
    found = instruction_sets()
    if "avx512f" in found and "amx_bf16" not in found:
        text = "%s: this CPU has no AMX, without which bf16 was seen to take half as long again as f32"
        logger.warning(text, path.name)


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message that says something: before it stand its source files."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not re.match(r"(Exception from|Check .* failed at)", line)]
    return (said or lines or [type(error).__name__])[-1][:300].rstrip(". ")
