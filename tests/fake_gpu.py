"""A GPU for tests on machines without one: the CUDA runtime and TensorRT, on main memory.

Streams are as late as CUDA allows: what is enqueued runs only when something waits for it. A missing wait
thus gives wrong numbers, or one of the ``violations``, and not by chance. An "engine" is an ONNX model that
ONNX Runtime computes. ``test_fake_gpu.py`` holds all names, parameters and values against the real modules.
"""

import contextlib
import ctypes
import dataclasses
import enum
import hashlib
import importlib
import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_models import METADATA, save_toy

from gocor.core.files import write_text
from gocor.runtime import dlpack
from gocor.runtime.manifest import EngineManifest, manifest_path
from gocor.runtime.metadata import ORIENTATION_SCORE, ModelMetadata, TensorSpec

PLAN, PLAN_WITHOUT_MEMORY = b"PLAN", b"PLEA"  # the latter is built with REQUIRE_USER_ALLOCATION
POISON = 0xCD
ALIGNMENT = 256
DEFAULT_STREAMS = (0, 1, 2)

Op = Callable[[], None]
Functions = dict[str, Callable[..., tuple]]  # of the CUDA runtime, by name


class cudaError_t(enum.IntEnum):  # noqa: N801
    cudaSuccess = 0  # noqa: N815
    cudaErrorInvalidValue = 1  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInsufficientDriver = 35  # noqa: N815
    cudaErrorNoDevice = 100  # noqa: N815
    cudaErrorInvalidResourceHandle = 400  # noqa: N815
    cudaErrorStreamCaptureUnsupported = 900  # noqa: N815
    cudaErrorStreamCaptureInvalidated = 901  # noqa: N815


class cudaMemcpyKind(enum.IntEnum):  # noqa: N801
    cudaMemcpyDefault = 4  # noqa: N815


class cudaStreamCaptureMode(enum.IntEnum):  # noqa: N801
    cudaStreamCaptureModeThreadLocal = 1  # noqa: N815


class cudaStreamCaptureStatus(enum.IntEnum):  # noqa: N801
    cudaStreamCaptureStatusNone = 0  # noqa: N815
    cudaStreamCaptureStatusActive = 1  # noqa: N815


class cudaDeviceAttr(enum.IntEnum):  # noqa: N801
    cudaDevAttrComputeCapabilityMajor = 75  # noqa: N815
    cudaDevAttrComputeCapabilityMinor = 76  # noqa: N815


OK = cudaError_t.cudaSuccess
CAPTURE_UNSUPPORTED = cudaError_t.cudaErrorStreamCaptureUnsupported


@dataclasses.dataclass
class Memory:
    """An allocation; after it was freed it stays, poisoned, to notice who still uses it."""

    owner: Any
    pointer: int
    size: int
    device: int
    pinned: bool
    freed: bool = False

    def poison(self) -> None:
        ctypes.memset(self.pointer, POISON, self.size)


@dataclasses.dataclass
class FakeStream:
    ops: list[Op] = dataclasses.field(default_factory=list)
    done: int = 0
    captured: list[Op] | None = None
    capture_thread: int = 0
    invalidated: bool = False
    destroyed: bool = False


@dataclasses.dataclass
class FakeEvent:
    stream: FakeStream | None = None
    position: int = 0


def _nothing() -> None:
    """What is left of work that was done."""


class Gpu:
    """State of the machine's GPUs.

    Attributes:
        free: bytes that are left.
        violations: what real hardware would have punished with wrong numbers or worse.
        log: names of the calls, in order.
        driver: CUDA version that the driver knows; 0 without a driver.
    """

    def __init__(self, devices: int = 1, capability: tuple[int, int] = (9, 0)) -> None:
        self.devices, self.capability, self.driver, self.free = devices, capability, 13040, 1 << 30
        self.memory: list[Memory] = []
        self.streams: dict[int, FakeStream] = {handle: FakeStream() for handle in DEFAULT_STREAMS}
        self.streams[1] = self.streams[0]
        self.events: dict[int, FakeEvent] = {}
        self.graphs: dict[int, list[Op]] = {}
        self.violations: list[str] = []
        self.log: list[str] = []
        self.capturable, self.enqueues = True, True
        self.lock = threading.RLock()
        self._handles = iter(range(1000, 10**9))
        self._thread = threading.local()

    @property
    def current(self) -> int:
        return getattr(self._thread, "device", 0)

    @current.setter
    def current(self, device: int) -> None:
        self._thread.device = device

    def handle(self) -> int:
        return next(self._handles)

    def allocate(self, size: int, pinned: bool = False) -> int:
        """Address of new memory; 0 if there is not enough."""
        if not pinned:
            if size > self.free:
                return 0
            self.free -= size
        owner = ctypes.create_string_buffer(size + ALIGNMENT)
        pointer = -(-ctypes.addressof(owner) // ALIGNMENT) * ALIGNMENT
        self.memory.append(Memory(owner, pointer, size, self.current, pinned))
        self.memory[-1].poison()
        return pointer

    def release(self, pointer: int) -> None:
        found = [m for m in self.memory if m.pointer == pointer and not m.freed]
        if not found:
            self.violations.append("memory freed twice, or never allocated")
            return
        found[0].freed = True
        found[0].poison()
        self.free += 0 if found[0].pinned else found[0].size

    def use(self, pointer: int, size: int) -> None:
        """Notes the use of freed memory, or beyond its end; the host's own memory is not known here."""
        inside = [m for m in self.memory if m.pointer <= pointer < m.pointer + max(m.size, 1)]
        if inside and all(m.freed for m in inside):
            self.violations.append("freed memory was used")
        if any(not m.freed and pointer + size > m.pointer + m.size for m in inside):
            self.violations.append("more was copied than the memory holds")

    def enqueue(self, handle: Any, op: Op) -> None:
        stream = self.stream(handle)
        (stream.ops if stream.captured is None else stream.captured).append(op)

    def stream(self, handle: Any) -> FakeStream:
        stream = self.streams[int(handle)]
        if stream.destroyed:
            self.violations.append("a destroyed stream was used")
        return stream

    def run(self, stream: FakeStream, position: int | None = None) -> None:
        """Does a stream's work up to a position."""
        while stream.done < (len(stream.ops) if position is None else position):
            op, stream.ops[stream.done] = stream.ops[stream.done], _nothing  # which frees what it holds
            stream.done += 1
            op()

    def run_all(self) -> None:
        for stream in list(self.streams.values()):
            self.run(stream)

    def live(self) -> list[Memory]:
        return [memory for memory in self.memory if not memory.freed]

    def capturing_here(self) -> list[FakeStream]:
        me = threading.get_ident()
        return [s for s in self.streams.values() if s.captured is not None and s.capture_thread == me]

    def unsafe(self) -> bool:
        """A call that must not happen in a thread that is capturing; it spoils the capture."""
        for stream in self.capturing_here():
            stream.invalidated = True
        return bool(self.capturing_here())


def _devices(gpu: Gpu) -> Functions:
    """What there is, and which is current."""

    def cudaGetDeviceCount() -> tuple:  # noqa: N802
        if gpu.driver < 13000:  # or 0, without one
            return cudaError_t.cudaErrorInsufficientDriver, None
        return (OK, gpu.devices) if gpu.devices else (cudaError_t.cudaErrorNoDevice, None)

    def cudaDriverGetVersion() -> tuple:  # noqa: N802
        return OK, gpu.driver

    def cudaRuntimeGetVersion() -> tuple:  # noqa: N802
        return OK, 13040

    def cudaGetErrorString(error: Any) -> tuple:  # noqa: N802
        words = {2: "out of memory", 100: "no CUDA-capable device is detected"}
        return OK, words.get(int(error), error.name.removeprefix("cudaError")).encode()

    def cudaGetDevice() -> tuple:  # noqa: N802
        return OK, gpu.current

    def cudaSetDevice(device: int) -> tuple:  # noqa: N802
        gpu.current = device
        return (OK,)

    def cudaDeviceGetAttribute(attr: Any, device: int) -> tuple:  # noqa: N802
        major = attr == cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor
        return OK, gpu.capability[0 if major else 1]

    return {n: f for n, f in locals().items() if n.startswith("cuda")}


def _memory(gpu: Gpu) -> Functions:
    """Allocating, freeing, copying."""

    def cudaMalloc(size: int) -> tuple:  # noqa: N802
        if gpu.unsafe():
            return CAPTURE_UNSUPPORTED, None
        pointer = gpu.allocate(size)
        return (OK, pointer) if pointer else (cudaError_t.cudaErrorMemoryAllocation, None)

    def cudaFree(devPtr: Any) -> tuple:  # noqa: N802
        if gpu.unsafe():
            return (CAPTURE_UNSUPPORTED,)
        gpu.run_all()
        gpu.release(devPtr)
        return (OK,)

    def cudaMallocAsync(size: int, hStream: Any) -> tuple:  # noqa: N802
        gpu.stream(hStream)
        pointer = gpu.allocate(size)
        return (OK, pointer) if pointer else (cudaError_t.cudaErrorMemoryAllocation, None)

    def cudaFreeAsync(devPtr: Any, hStream: Any) -> tuple:  # noqa: N802
        gpu.enqueue(hStream, lambda: gpu.release(devPtr))
        return (OK,)

    def cudaHostAlloc(size: int, flags: int) -> tuple:  # noqa: N802
        if gpu.unsafe():
            return CAPTURE_UNSUPPORTED, None
        return OK, gpu.allocate(size, pinned=True)

    def cudaFreeHost(ptr: Any) -> tuple:  # noqa: N802
        gpu.run_all()
        gpu.release(ptr)
        return (OK,)

    def cudaMemcpyAsync(dst: int, src: int, count: int, kind: Any, stream: Any) -> tuple:  # noqa: N802
        def op() -> None:
            gpu.use(dst, count)
            gpu.use(src, count)
            ctypes.memmove(dst, src, count)

        gpu.enqueue(stream, op)
        return (OK,)

    return {n: f for n, f in locals().items() if n.startswith("cuda")}


def _streams(gpu: Gpu) -> Functions:
    """Streams, which do their work when they are waited for."""

    def cudaStreamCreateWithFlags(flags: int) -> tuple:  # noqa: N802
        handle = gpu.handle()
        gpu.streams[handle] = FakeStream()
        return OK, handle

    def cudaStreamDestroy(stream: Any) -> tuple:  # noqa: N802
        gpu.stream(stream).destroyed = True
        return (OK,)

    def cudaStreamSynchronize(stream: Any) -> tuple:  # noqa: N802
        found = gpu.stream(stream)
        if found.captured is not None:
            found.invalidated = True
            return (CAPTURE_UNSUPPORTED,)
        gpu.run(found)
        return (OK,)

    def cudaStreamWaitEvent(stream: Any, event: Any, flags: int) -> tuple:  # noqa: N802
        found = gpu.events[event]
        before, position = found.stream, found.position
        if before is not None:
            gpu.enqueue(stream, lambda: gpu.run(before, position))
        return (OK,)

    return {n: f for n, f in locals().items() if n.startswith("cuda")}


def _graphs(gpu: Gpu) -> Functions:
    """Capturing streams, and launching what was captured."""

    def cudaStreamIsCapturing(stream: Any) -> tuple:  # noqa: N802
        active = gpu.stream(stream).captured is not None
        return OK, cudaStreamCaptureStatus(int(active))

    def cudaStreamBeginCapture(stream: Any, mode: Any) -> tuple:  # noqa: N802
        found = gpu.stream(stream)
        if int(stream) in DEFAULT_STREAMS:
            return (CAPTURE_UNSUPPORTED,)
        found.captured, found.invalidated = [], False
        found.capture_thread = threading.get_ident()
        return (OK,)

    def cudaStreamEndCapture(stream: Any) -> tuple:  # noqa: N802
        found = gpu.stream(stream)
        ops, found.captured = found.captured, None
        if found.invalidated or ops is None:
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        handle = gpu.handle()
        gpu.graphs[handle] = ops
        return OK, handle

    def cudaGraphInstantiate(graph: Any, flags: int) -> tuple:  # noqa: N802
        handle = gpu.handle()
        gpu.graphs[handle] = gpu.graphs[graph]
        return OK, handle

    def cudaGraphLaunch(graphExec: Any, stream: Any) -> tuple:  # noqa: N802
        if graphExec not in gpu.graphs:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        for op in gpu.graphs[graphExec]:
            gpu.enqueue(stream, op.launched() if isinstance(op, NetworkRun) else op)
        return (OK,)

    def cudaGraphDestroy(graph: Any) -> tuple:  # noqa: N802
        del gpu.graphs[graph]
        return (OK,)

    def cudaGraphExecDestroy(graphExec: Any) -> tuple:  # noqa: N802
        del gpu.graphs[graphExec]
        return (OK,)

    return {n: f for n, f in locals().items() if n.startswith("cuda")}


def _events(gpu: Gpu) -> Functions:
    """Events, which stand for a place in a stream."""

    def cudaEventCreateWithFlags(flags: int) -> tuple:  # noqa: N802
        handle = gpu.handle()
        gpu.events[handle] = FakeEvent()
        return OK, handle

    def cudaEventRecord(event: Any, stream: Any) -> tuple:  # noqa: N802
        found = gpu.events[event]
        found.stream = gpu.stream(stream)
        found.position = len(found.stream.ops)
        return (OK,)

    def cudaEventSynchronize(event: Any) -> tuple:  # noqa: N802
        if event not in gpu.events:
            gpu.violations.append("a destroyed event was used")
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        found = gpu.events[event]
        if found.stream is not None:
            gpu.run(found.stream, found.position)
        return (OK,)

    def cudaEventDestroy(event: Any) -> tuple:  # noqa: N802
        del gpu.events[event]
        return (OK,)

    return {n: f for n, f in locals().items() if n.startswith("cuda")}


def runtime_module(gpu: Gpu) -> ModuleType:
    """Stands for ``cuda.bindings.runtime``: every function returns an error code and its results."""
    module = ModuleType("cuda.bindings.runtime")
    for part in (_devices, _memory, _streams, _graphs, _events):
        vars(module).update({name: _logged(gpu, function) for name, function in part(gpu).items()})
    for kind in (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode, cudaStreamCaptureStatus, cudaDeviceAttr):
        setattr(module, kind.__name__, kind)
    vars(module).update(cudaStreamNonBlocking=1, cudaEventDisableTiming=2, cudaHostAllocDefault=0)
    return module


def _logged(gpu: Gpu, function: Callable[..., tuple]) -> Callable[..., tuple]:
    def call(*arguments: Any) -> tuple:
        with gpu.lock:
            gpu.log.append(function.__name__)
            return function(*arguments)

    call.__wrapped__ = function  # type: ignore[attr-defined]  # for inspect.signature
    return call


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    UINT8 = 5


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    USER_MANAGED = 2


ENUMS = (DataType, TensorIOMode, ExecutionContextAllocationStrategy)


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING
    INFO, VERBOSE = Severity.INFO, Severity.VERBOSE

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


@dataclasses.dataclass
class ContextState:
    """What a context has on the GPU."""

    gpu: Gpu
    engine: "ICudaEngine"
    enqueued: int = 0
    computed: int = 0
    dropped: bool = False


@dataclasses.dataclass(frozen=True)
class NetworkRun:
    """A network on a stream. Runs of one context share its memory: each must wait for the one before."""

    context: ContextState
    addresses: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    turn: int = -1

    def launched(self) -> "NetworkRun":
        """One of many times."""
        if self.context.dropped:
            self.context.gpu.violations.append("a graph of a dropped context was launched")
        self.context.enqueued += 1
        return dataclasses.replace(self, turn=self.context.enqueued)

    def __call__(self) -> None:
        """What the GPU does, when it comes to it."""
        context, engine = self.context, self.context.engine
        if self.turn != context.computed + 1:
            context.gpu.violations.append("runs of one context overlap")
        context.computed += 1
        feed = {}
        for name, spec in engine.specs.items():
            if spec.mode == TensorIOMode.INPUT:
                like = np.empty(self.shapes.get(name, spec.array.shape), spec.array.dtype)
                context.gpu.use(self.addresses[name], like.nbytes)
                feed[name] = array_at(self.addresses[name], like).copy()
        for name, values in engine.infer(feed).items():
            context.gpu.use(self.addresses[name], values.nbytes)
            array_at(self.addresses[name], values)[...] = values


class IExecutionContext:
    def __init__(self, engine: "ICudaEngine") -> None:
        self.engine, self.gpu = engine, engine.gpu
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.state = ContextState(self.gpu, engine)
        self.activations = self.gpu.allocate(engine.activations)
        self.busy = threading.Lock()

    def __del__(self) -> None:
        with self.gpu.lock:
            self.state.dropped = True
            if self.state.computed != self.state.enqueued:
                self.gpu.violations.append("a context was dropped while it ran")
            self.gpu.release(self.activations)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        with self.alone():
            self.addresses[name] = memory
        return name in self.engine.specs and memory % ALIGNMENT == 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        wanted = self.engine.get_tensor_shape(name)
        with self.alone():
            self.shapes[name] = tuple(shape)
        return len(shape) == len(wanted) and all(w in (-1, n) for n, w in zip(shape, wanted, strict=True))

    def execute_async_v3(self, stream_handle: int) -> bool:
        with self.alone(), self.gpu.lock:
            gpu, specs = self.gpu, self.engine.specs
            if gpu.current != self.engine.device:
                gpu.violations.append("enqueued while another device was current")
            gpu.log.append("enqueue")
            capturing = gpu.stream(stream_handle).captured is not None
            if self.addresses.keys() != specs.keys() or (capturing and not gpu.capturable):
                self.engine.say("Error Code 3: API Usage Error (operation not permitted when capturing)")
                return False
            if not gpu.enqueues:
                self.engine.say("[x.cpp::run::7] Error Code 1: Cuda Runtime (an illegal memory access)")
                return False
            varying = {name for name, spec in specs.items() if "INPUT" in spec.mode.name and -1 in spec.shape}
            if not varying <= self.shapes.keys():
                self.engine.say("Error Code 3: API Usage Error (an input has no shape)")
                return False
            run = NetworkRun(self.state, dict(self.addresses), dict(self.shapes))
            gpu.enqueue(stream_handle, run if capturing else run.launched())
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self.gpu.capturable

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        if not self.busy.acquire(blocking=False):
            self.gpu.violations.append("two threads used one context")
        try:
            yield
        finally:
            self.busy.release()


class ICudaEngine:
    def __init__(self, gpu: Gpu, runtime: "Runtime", plan: bytes) -> None:
        import onnxruntime

        self.gpu, self.runtime, self.device, self.activations = gpu, runtime, gpu.current, 1 << 20
        self.without_memory, model = plan.startswith(PLAN_WITHOUT_MEMORY), plan[len(PLAN) :]
        session = self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.specs: dict[str, Any] = {}
        for mode, nodes in (("INPUT", session.get_inputs()), ("OUTPUT", session.get_outputs())):
            for node in nodes:
                dtype = {"tensor(float)": "FLOAT", "tensor(uint8)": "UINT8"}[node.type]
                shape = [-1 if isinstance(size, str) else size for size in node.shape]
                array = np.empty([max(size, 0) for size in shape], nptype(DataType[dtype]))
                self.specs[node.name] = SimpleNamespace(
                    mode=TensorIOMode[mode], dtype=DataType[dtype], array=array, shape=shape
                )

    def infer(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feed), strict=True))

    def say(self, message: str) -> None:
        self.runtime.logger.log(Severity.ERROR, message)

    @property
    def num_io_tensors(self) -> int:
        return len(self.specs)

    def get_tensor_name(self, index: int) -> str:
        return list(self.specs)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self.specs[name].mode

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.specs[name].dtype

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self.specs[name].shape)

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> IExecutionContext | None:
        if self.without_memory and strategy is not ExecutionContextAllocationStrategy.USER_MANAGED:
            self.say(
                "Error Code 3: API Usage Error (Engine was built with BuilderFlag::kREQUIRE_USER_ALLOCATION)"
            )
            return None
        with self.gpu.lock:
            if self.gpu.current != self.device:
                self.gpu.violations.append("context made while another device was current")
            if self.gpu.free < self.activations:
                self.say("[a.cpp::allocate::9] Error Code 2: OutOfMemory (Requested size was 1048576 bytes.)")
                return None
            return IExecutionContext(self)


class IPluginRegistry:
    def __init__(self, runtime: "Runtime") -> None:
        self.runtime = runtime

    def load_library(self, plugin_path: str) -> object | None:
        self.runtime.plugins.append(plugin_path)
        return object() if Path(plugin_path).read_bytes().startswith(b"\x7fELF") else None


class Runtime:
    gpu: Gpu

    def __init__(self, logger: ILogger) -> None:
        self.logger, self.engine_host_code_allowed = logger, False
        self.plugins: list[str] = []
        self.gpu.runtimes = [*getattr(self.gpu, "runtimes", []), self]  # type: ignore[attr-defined]

    def get_plugin_registry(self) -> IPluginRegistry:
        return IPluginRegistry(self)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        self.gpu.log.append("deserialize")
        if not serialized_engine.startswith((PLAN, PLAN_WITHOUT_MEMORY)):
            self.logger.log(Severity.ERROR, "IRuntime::x: Error Code 1: Serialization (magicTag differs)")
            return None
        return ICudaEngine(self.gpu, self, serialized_engine)


def nptype(trt_type: DataType) -> type:
    return {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.UINT8: np.uint8}[trt_type]


def tensorrt_module(gpu: Gpu, name: str, version: str) -> ModuleType:
    """Stands for ``tensorrt`` or ``tensorrt_rtx``."""
    module = ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    things = (*ENUMS, ILogger, IExecutionContext, ICudaEngine, nptype)
    for thing in things:
        setattr(module, thing.__name__, thing)
    module.Runtime = type("Runtime", (Runtime,), {"gpu": gpu})  # type: ignore[attr-defined]
    return module


def differences(module: str) -> list[str]:
    """What the fakes promise and a real library, ``tensorrt`` or ``tensorrt_rtx``, does not have."""
    real = importlib.import_module(module)
    found = [name for name in vars(tensorrt_module(Gpu(), module, "")) if not hasattr(real, name)]
    for kind in (*ENUMS, Severity):
        members = (real.ILogger if kind is Severity else real).__dict__[kind.__name__].__members__
        found += [f"{kind.__name__}.{m.name}" for m in kind if int(members.get(m.name, -1)) != m.value]
    found += [
        f"nptype({dtype})" for dtype in DataType if real.nptype(real.DataType(dtype.value)) != nptype(dtype)
    ]
    own = {"compute", "alone", "infer", "say", "gpu", "log"}  # log is the logger's, of its own
    for fake in (Runtime, ICudaEngine, IExecutionContext, IPluginRegistry):
        for name, value in vars(fake).items():
            if not name.startswith("_") and name not in own:
                method = getattr(getattr(real, fake.__name__), name, None)
                if method is None or not (inspect.isfunction(value) <= _takes(method, value)):
                    found.append(f"{fake.__name__}.{name}")
    return found


def _takes(real: Any, fake: Any) -> bool:
    """A method has the fake's parameters, and perhaps others with defaults behind them."""
    if not inspect.isfunction(fake):
        return False
    parameters = list(inspect.signature(fake).parameters)[1:]
    # pybind11 writes every overload into the docstring.
    lines = re.findall(rf"^(?:\d+\. )?{fake.__name__}\(self: [^)]*\) -> .*$", real.__doc__, re.MULTILINE)
    overloads = [re.findall(r"[(,] ?(\w+): ", line)[1:] for line in lines]
    return any(parameters == names[: len(parameters)] for names in overloads)


def array_at(pointer: int, like: np.ndarray) -> np.ndarray:
    """What lies at an address."""
    memory = (ctypes.c_uint8 * like.nbytes).from_address(pointer)
    return np.frombuffer(memory, like.dtype).reshape(like.shape)


class CudaTensor:
    """A tensor on the fake GPU, as PyTorch would give it: its values are there when its stream got there."""

    def __init__(self, gpu: Gpu, values: np.ndarray, device: int = 0, stream: int = 0) -> None:
        self.gpu, self.device, self.stream = gpu, device, stream
        memory = array_at(gpu.allocate(values.nbytes), np.ascontiguousarray(values))
        self.array = memory
        late = values.copy()
        gpu.enqueue(stream, lambda: np.copyto(memory, late))

    def view(self, array: np.ndarray) -> "CudaTensor":
        """Another view of the same memory."""
        other = object.__new__(CudaTensor)
        other.gpu, other.device, other.stream, other.array = self.gpu, self.device, self.stream, array
        return other

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.device

    def __dlpack__(self, *, stream: int, max_version: tuple[int, int] | None = None) -> Any:
        assert stream != 0, "0 is ambiguous in DLPack"
        if self.gpu.stream(stream) is not self.gpu.streams[self.stream]:
            before = self.gpu.streams[self.stream]
            position = len(before.ops)
            self.gpu.enqueue(stream, lambda: self.gpu.run(before, position))
        capsule = self.array.__dlpack__(max_version=max_version)
        versioned = dlpack._capsule_is(id(capsule), dlpack._NAME_WITH_VERSION)
        kind = dlpack._ManagedWithVersion if versioned else dlpack._Managed
        name = dlpack._NAME_WITH_VERSION if versioned else dlpack._NAME
        managed = kind.from_address(dlpack._pointer_in(id(capsule), name))
        managed.tensor.device = dlpack._Device(dlpack.CUDA, self.device)
        return capsule


def install(monkeypatch: pytest.MonkeyPatch, gpu: Gpu, version: str = "11.4.0.106") -> None:
    """Puts the fakes where the real modules are imported from."""
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime_module(gpu))
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_module(gpu, "tensorrt", version))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", tensorrt_module(gpu, "tensorrt_rtx", "1.7.1.116"))


def save_engine(path: Path, described: ModelMetadata = METADATA, **changes: Any) -> Path:
    """Writes an engine that computes what a toy model does, the model, and the manifest."""
    model = save_toy(path.parent / "toy.onnx", described)
    return engine_of(model, path, described, **changes)


def engine_of(model: Path, path: Path, described: ModelMetadata, **changes: Any) -> Path:
    """Writes an engine that computes what an ONNX model does, and its manifest."""
    plan = PLAN + model.read_bytes()
    path.write_bytes(plan)
    manifest = EngineManifest(
        path=path,
        model=model.name,
        model_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        backend="tensorrt",
        library_version="11.4.0.106",
        targets=("sm_90",),
        gpu="NVIDIA H100",
        hardware_compatible=False,
        version_compatible=False,
        tf32=False,
        plugins="quick",
        plugin_sha256="ef" * 32,
        inputs=described.inputs,
        outputs=tuple(_output(described, name) for name in described.output_names),
        metadata=described,
        gocor_version="0.1.0",
    )
    write_text(manifest_path(path), dataclasses.replace(manifest, **changes).to_json())
    return path


def _output(described: ModelMetadata, name: str) -> TensorSpec:
    """Of a toy model, whose coarse flows are as large as the last."""
    if name == ORIENTATION_SCORE:
        return TensorSpec(name, "float32", described.flow.shape[:1])
    return TensorSpec(name, "float32", described.flow.shape)
