"""Engines in TensorRT or TensorRT-RTX, on NVIDIA's GPUs, with cuda-python and without PyTorch."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gocor.core.errors import ConfigError, ModelError, ProviderError, ShapeError
from gocor.core.files import sha256
from gocor.runtime import cuda
from gocor.runtime.cuda import CudaError
from gocor.runtime.device_array import BorrowedTensor, DeviceArray, borrow
from gocor.runtime.manifest import LIBRARY_NAMES, PLUGIN_LIBRARY, EngineManifest
from gocor.runtime.metadata import AXES, TensorSpec
from gocor.runtime.session import FlowEstimator
from gocor.runtime.tensorrt_execution import ClosedError, Lane, Lanes
from gocor.runtime.tensorrt_library import import_library, library_log

CONTEXTS = 4  # calls at a time, by default
PLUGIN_VARIABLE = "GOCOR_PLUGIN_LIBRARY"

logger = logging.getLogger("gocor")


class TensorRTEstimator(FlowEstimator):
    """An engine on the GPU that is current in the thread that loads it.

    Arrays go through pinned memory, and a whole call is one CUDA graph. Tensors that are on the GPU already
    stay there: ``on_device`` and ``run_on_device``.

    Attributes:
        manifest: what stands beside the engine.
        device: index of the GPU.
    """

    def __init__(
        self, path: Path, provider: str | None = None, *, contexts: int = CONTEXTS, cuda_graph: bool = True
    ) -> None:
        """Loads an engine.

        Args:
            path: of the engine; its manifest lies beside it.
            provider: where to run, if that matters: ``tensorrt`` or ``tensorrt-rtx``.
            contexts: calls that may run at a time; each takes memory when it is first needed.
            cuda_graph: replay CUDA graphs, which takes much less of the CPU's time. Where an engine cannot be
                captured that is said once, and it runs without.

        Raises:
            ModelError: the file is not the engine that was built, or does not run with this library or GPU.
            ProviderError: the engine is made for another library, or there is no GPU.
            DependencyError: TensorRT or cuda-python is not installed.
            ConfigError: ``contexts`` is less than 1.
        """
        if contexts < 1:
            raise ConfigError("contexts", f"is {contexts}", "at least 1")
        manifest = EngineManifest.of(path)
        if provider not in (None, manifest.backend):
            got = f"{provider!r} does not run {path}, which is an engine for {manifest.backend}"
            raise ProviderError("provider", got, f"{manifest.backend}, or none")
        library, self.device, plan = _check_before_loading(manifest)
        self.manifest = manifest
        super().__init__(path, manifest.narrowed, manifest.backend, {})
        with self._on_gpu():
            self._engine = _Engine(library, manifest, plan, cuda_graph)
            del plan  # as large as the engine, which has copied it
            self._lanes = Lanes(self._engine.lane, contexts, path.name)

    def on_device(self, reference: Any, query: Any, stream: Any = None, out: Any = None) -> Any:
        """Estimates the flow of images that are on the GPU, without a copy.

        Args:
            reference: uint8 RGB of the model's own batch and size ``(B, H, W, 3)``, contiguous, with
                ``__dlpack__``: PyTorch's tensors, CuPy's and JAX's arrays.
            query: likewise.
            stream: as for ``run_on_device``.
            out: float32 ``(B, 2, H, W)`` on the GPU for the flow; allocated when None.

        Returns:
            The flow in pixels, ``(B, 2, H, W)``: ``out``, or a ``DeviceArray``.

        Raises:
            ConfigError: the model takes preprocessed tensors.
            ShapeError: a tensor has the wrong dtype, shape, device or strides.
            ModelError: the estimator was closed, or the engine failed.
        """
        if self.metadata.io != "images":
            raise ConfigError(
                self.path,
                "takes preprocessed tensors",
                "run_on_device, or a model of gocor export --io images",
            )
        given = {} if out is None else {"flow": out}
        return self.run_on_device({"reference": reference, "query": query}, stream, given)["flow"]

    def run_on_device(
        self, inputs: Mapping[str, Any], stream: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Runs the engine on tensors that are on the GPU, without a copy of inputs or outputs.

        Without a stream the call has one of its own, waits for what computes the inputs, and returns when the
        results are there. With one it returns at once: everything happens in the order of that stream, also
        the freeing of results, and the inputs must stay until it got there.

        Tensors that come again at the same addresses, as from a ring of buffers with ``outputs`` given, run
        as a CUDA graph.

        Args:
            inputs: by name, of dtype and shape of ``metadata.inputs``, contiguous, with ``__dlpack__``; where
                sizes vary, also with ``shape``.
            stream: handle of a CUDA stream, or a stream of PyTorch, CuPy or cuda.core (``__cuda_stream__``).
            outputs: by name, where to put results; those that are not given are allocated.

        Returns:
            Every output by name: the tensor that was given for it, or a ``DeviceArray``.

        Raises:
            ConfigError: the stream is none, or a graph is being captured on it.
            ShapeError: a tensor is missing, unknown, or of the wrong dtype, shape, device or strides.
            ModelError: the estimator was closed, or the engine failed.
        """
        self._check_names(inputs)
        taken, results = self._sized(inputs)
        given, specs = dict(outputs or {}), {spec.name: spec for spec in results}
        if unknown := given.keys() - specs.keys():
            raise ShapeError(
                self.path,
                f"was given outputs {', '.join(sorted(unknown))}",
                f"its outputs are {', '.join(specs)}",
            )
        borrowed = _borrowed_stream(stream)
        with self._on_gpu(), self._lanes.lane() as lane:
            handle = lane.stream.handle if borrowed is None else borrowed.handle
            tensors = self._borrow(inputs, taken, handle)
            tensors |= self._borrow(given, [specs[name] for name in given], handle, write=True)
            for name in specs.keys() - given.keys():
                given[name] = DeviceArray(_sizes(specs[name]), self.device, borrowed)
            if self.metadata.dynamic:
                lane.resize(taken, results)
            addresses = {name: tensor.pointer for name, tensor in sorted({**given, **tensors}.items())}
            lane.enqueue(addresses, handle)
            if borrowed is None:
                lane.stream.synchronize()
        return {name: given[name] for name in specs}

    def _sized(self, inputs: Mapping[str, Any]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of a call, at the sizes of its inputs."""
        shapes = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in inputs.items()}
        sizes = self.metadata.for_inputs(shapes).sizes
        taken, results = (
            tuple(s.sized(sizes) for s in specs) for specs in (self.manifest.inputs, self.manifest.outputs)
        )
        return taken, results

    def _borrow(
        self, tensors: Mapping[str, Any], specs: Iterable[TensorSpec], stream: Any, *, write: bool = False
    ) -> dict[str, BorrowedTensor]:
        return {
            s.name: borrow(s.name, tensors[s.name], s, self.device, int(stream), write=write) for s in specs
        }

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._on_gpu(), self._lanes.lane() as lane:
            if self.metadata.dynamic:
                lane.resize(*self._sized(inputs))
            return lane.run(inputs)

    def _release(self) -> None:
        with self._on_gpu():
            self._lanes.close()
            self._engine.close()

    @contextlib.contextmanager
    def _on_gpu(self) -> Iterator[None]:
        """Makes the GPU current, and errors of it and of TensorRT those of this engine."""
        try:
            with cuda.on_device(self.device):
                yield
        except ClosedError as error:
            raise self._was_closed() from error
        except CudaError as error:
            if error.out_of_memory:
                free = "end other programs on the GPU, or load fewer engines or contexts"
                raise ModelError(
                    self.path, f"found too little memory on the GPU ({error.got})", free
                ) from error
            raise ModelError(self.path, f"failed on the GPU ({error.got})", "see gocor doctor") from error


class _Engine:
    """A deserialised engine, and what its execution contexts are made with."""

    def __init__(self, library: Any, manifest: EngineManifest, plan: bytes, cuda_graph: bool) -> None:
        self._library, self._manifest, self._cuda_graph = library, manifest, cuda_graph
        self._engine = _deserialize(library, manifest, plan)
        self._noted = False
        _check_interface(library, self._engine, manifest)

    def lane(self) -> Lane:
        """A new execution context with everything that it needs."""
        if (engine := self._engine) is None:
            raise ClosedError
        varies = self._manifest.shapes is not None
        largest: dict[str, int] = {}
        if self._manifest.shapes is not None:
            largest.update(zip(AXES, self._manifest.shapes.most, strict=True))
        inputs, outputs = (
            [s.sized(largest) for s in specs] for specs in (self._manifest.inputs, self._manifest.outputs)
        )
        lane = Lane(self._library, engine, inputs, outputs, self._cuda_graph, varies)
        if self._cuda_graph and not varies and lane.no_graph and not self._noted:
            self._noted = True
            logger.warning("%s runs without CUDA graphs: %s", self._manifest.path.name, lane.no_graph)
        return lane

    def close(self) -> None:
        """Drops the engine; execution contexts that still run keep it as long as they do."""
        self._engine = None


def _check_before_loading(manifest: EngineManifest) -> tuple[Any, int, bytes]:
    """Library, GPU and bytes of an engine; nothing of the engine has run when these do not fit together."""
    plan = manifest.read_checked()
    return *_check_machine(manifest), plan


def check_machine(path: str | Path) -> None:
    """Finds out whether an engine is for this library and GPU, by its manifest alone.

    Raises:
        ModelError: it has no manifest, or a damaged one.
        MachineError: it is for another version of the library, or another GPU.
        ProviderError: there is no GPU.
        DependencyError: the library or cuda-python is not installed.
    """
    _check_machine(EngineManifest.of(path))


def _check_machine(manifest: EngineManifest) -> tuple[Any, int]:
    library = import_library(manifest.backend)
    device = cuda.current_device()
    manifest.check_runs_on(library.__version__, cuda.compute_capability(device))
    return library, device


def _deserialize(library: Any, manifest: EngineManifest, plan: bytes) -> Any:
    """The engine of bytes that were checked."""
    log = library_log(library)
    runtime = library.Runtime(log)
    # A version-compatible engine brings code that runs on the host; its hash says that gocor build wrote it.
    runtime.engine_host_code_allowed = manifest.version_compatible
    if manifest.plugins == "library" and not manifest.version_compatible:  # those bring their plugins along
        _load_plugins(runtime, manifest, log)
    log.take_error()  # of somebody else
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        name, reason = LIBRARY_NAMES[manifest.backend], log.take_error() or "it does not say why"
        error = CudaError(name, f"{name} cannot load it: {reason}")
        if error.out_of_memory:
            raise error
        raise ModelError(manifest.path, error.got, f"rebuild it: {manifest.rebuild}")
    return engine


def _load_plugins(runtime: Any, manifest: EngineManifest, log: Any) -> None:
    """Loads the plugin library that an engine was built with."""
    path = Path(os.environ.get(PLUGIN_VARIABLE) or manifest.path.parent / PLUGIN_LIBRARY)
    where = f"put {PLUGIN_LIBRARY} beside it, or its path into {PLUGIN_VARIABLE}"
    if not path.is_file():
        raise ModelError(
            manifest.path, f"needs the plugin library that it was built with, not found at {path}", where
        )
    path, registry = path.resolve(), runtime.get_plugin_registry()
    log.take_error()  # of somebody else
    # Between these two somebody may still put another file there: TensorRT loads libraries by path alone. Who
    # may write to that folder can do anything to this program; the hash is against mistakes.
    if (came := sha256(path)) != manifest.plugin_sha256:
        built = manifest.plugin_sha256[:12]
        got = f"is not the plugin library of {manifest.path} (SHA-256 {came[:12]}…, not {built}…)"
        raise ModelError(path, got, f"{where}, or rebuild the engine")
    try:
        loaded, reason = registry.load_library(str(path)), ""
    except Exception as error:  # what pybind11 makes of C++ exceptions
        loaded, reason = None, " ".join(str(error).split())
    if loaded is None:
        reason = reason or log.take_error() or f"is it built for {manifest.library}?"
        raise ModelError(
            path, f"cannot be loaded ({reason})", f"build the plugin library for {manifest.library}"
        )


def _check_interface(library: Any, engine: Any, manifest: EngineManifest) -> None:
    """Compares what an engine says of its inputs and outputs with what its manifest does."""
    for mode, kind in ((library.TensorIOMode.INPUT, "inputs"), (library.TensorIOMode.OUTPUT, "outputs")):
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        found = {_tensor_spec(library, engine, n) for n in names if engine.get_tensor_mode(n) == mode}
        if found != {spec.unnamed for spec in getattr(manifest, kind)}:
            expected = "; ".join(map(str, getattr(manifest, kind)))
            raise ModelError(
                manifest.path,
                f"has {kind} {'; '.join(sorted(map(str, found)))}",
                f"its manifest says {expected}; rebuild it: {manifest.rebuild}",
            )


def _tensor_spec(library: Any, engine: Any, name: str) -> TensorSpec:
    dtype = engine.get_tensor_dtype(name)
    with contextlib.suppress(TypeError):  # of what NumPy has not
        dtype = np.dtype(library.nptype(dtype)).name
    return TensorSpec(name, str(dtype), tuple(engine.get_tensor_shape(name)))


def _borrowed_stream(stream: Any) -> cuda.BorrowedStream | None:
    if stream is None:
        return None
    try:
        borrowed = cuda.BorrowedStream(stream)
    except TypeError as error:
        expected = "a handle, or a stream of PyTorch, CuPy or cuda.core"
        raise ConfigError("stream", str(error), expected) from error
    if cuda.is_capturing(borrowed.handle):
        expected = "call it outside of the capture; it replays graphs of its own"
        raise ConfigError("stream", "is being captured into a CUDA graph", expected)
    return borrowed


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(int(size) for size in spec.shape)
