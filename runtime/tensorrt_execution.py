"""What runs an engine: execution contexts with their buffers, streams and CUDA graphs, and a pool of them.

Of everything here one call at a time may use a piece; ``Lanes`` sees to that.
"""

import contextlib
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from gocor.runtime import cuda
from gocor.runtime.cuda import CudaError
from gocor.runtime.metadata import TensorSpec
from gocor.runtime.tensorrt_library import library_log

GRAPHS = 8  # kept by a lane for callers' own tensors; each holds a few MB of the GPU's memory

Addresses = Mapping[str, int]  # of every input and output, by name


class _Closable(Protocol):
    def close(self) -> None: ...


_Part = TypeVar("_Part", bound=_Closable)

logger = logging.getLogger("gocor")


class Buffers:
    """Memory for some inputs or outputs at their largest, on the GPU and pinned, allocated once."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self._host, self._device, self._used = {}, {}, {}
        for spec in specs:
            self._host[spec.name] = cuda.PinnedArray(_shape(spec), spec.dtype)
            self._used[spec.name] = self._host[spec.name].array
            self._device[spec.name] = cuda.DeviceMemory(self._used[spec.name].nbytes)

    def resize(self, specs: Sequence[TensorSpec]) -> None:
        """Uses so much of the memory as these need."""
        for spec in specs:
            array, shape = self._host[spec.name].array, _shape(spec)
            self._used[spec.name] = array.reshape(-1)[: math.prod(shape)].reshape(shape)

    @property
    def addresses(self) -> Addresses:
        """On the GPU."""
        return {name: memory.pointer for name, memory in self._device.items()}

    def fill(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Puts arrays into the pinned memory."""
        for name, array in self._used.items():
            np.copyto(array, arrays[name])

    def copies(self) -> dict[str, np.ndarray]:
        """What is in the pinned memory."""
        return {name: array.copy() for name, array in self._used.items()}

    def upload(self, stream: Any) -> None:
        """Enqueues copies to the GPU."""
        for name, pinned in self._host.items():
            cuda.copy(self._device[name].pointer, pinned.pointer, self._used[name].nbytes, stream)

    def download(self, stream: Any) -> None:
        """Enqueues copies from the GPU."""
        for name, pinned in self._host.items():
            cuda.copy(pinned.pointer, self._device[name].pointer, self._used[name].nbytes, stream)

    def close(self) -> None:
        """Frees everything."""
        self._used.clear()
        for memory in (*self._host.values(), *self._device.values()):
            memory.close()


class Context:
    """An execution context of an engine.

    Raises:
        CudaError: TensorRT cannot make one; most often memory is short.
    """

    def __init__(self, library: Any, engine: Any) -> None:
        self._log = library_log(library)
        self._log.take_error()
        self._context = engine.create_execution_context()
        if self._context is None:
            raise self._failure("gave no execution context")

    def resize(self, inputs: Sequence[TensorSpec]) -> None:
        """Sets the sizes of inputs that vary.

        Raises:
            CudaError: TensorRT refuses.
        """
        self._log.take_error()  # of somebody else
        for spec in inputs:
            if not self._context.set_input_shape(spec.name, _shape(spec)):
                raise self._failure(f"took no shape {spec.shape} for {spec.name}")

    def enqueue(self, addresses: Addresses, stream: Any) -> None:
        """Enqueues the network on a stream.

        Raises:
            CudaError: TensorRT refuses.
        """
        self._log.take_error()  # of somebody else
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._failure(f"took no address for {name}")
        if not self._context.execute_async_v3(int(stream)):
            raise self._failure("did not start the network")

    def why_not_capturable(self, stream: Any) -> str:
        """Why the network cannot be captured in a CUDA graph, as far as the library knows before."""
        capturable = getattr(self._context, "is_stream_capturable", None)  # TensorRT-RTX has it
        if capturable is None or capturable(int(stream)):
            return ""
        return "TensorRT-RTX says that this engine cannot be captured"

    def close(self) -> None:
        """Drops the context, and with it the memory of the network's intermediate results."""
        self._context = None

    def _failure(self, text: str) -> CudaError:
        reason = self._log.take_error()
        return CudaError("TensorRT", f"{text} ({reason})" if reason else text, "see gocor doctor")


class RepeatedGraphs:
    """CUDA graphs for sets of addresses that come again and again, such as those of a ring of frames.

    The first time that a set comes the network is enqueued as it is; the second time it is captured; from
    then on the graph is launched. If a capture fails, that is said, and nothing is captured any more.
    """

    def __init__(self, context: Context, stream: cuda.Stream) -> None:
        self._context, self._stream = context, stream
        self._graphs: OrderedDict[tuple[int, ...], cuda.Graph | None] = OrderedDict()
        self._failed = False

    def run(self, addresses: Addresses, stream: Any) -> None:
        """Enqueues the network, or its graph, on ``stream``."""
        key = tuple(addresses.values())
        known = key in self._graphs
        graph = self._graphs.get(key)
        if known and graph is None and not self._failed:
            graph = self._capture(addresses)
        self._remember(key, graph)
        if graph is None:
            self._context.enqueue(addresses, stream)
        else:
            graph.launch(stream)

    def _capture(self, addresses: Addresses) -> cuda.Graph | None:
        # Not on the caller's stream, which may be the default stream, and that cannot be captured.
        try:
            return cuda.Graph(self._stream, lambda: self._context.enqueue(addresses, self._stream.handle))
        except CudaError as error:
            self._failed = True
            logger.warning("tensors on the GPU run without CUDA graphs: %s", error.got)
            return None

    def _remember(self, key: tuple[int, ...], graph: cuda.Graph | None) -> None:
        self._graphs[key] = graph
        self._graphs.move_to_end(key)
        if len(self._graphs) > GRAPHS:
            _, oldest = self._graphs.popitem(last=False)
            if oldest is not None:
                oldest.close()  # CUDA keeps it until launches of it are done

    def close(self) -> None:
        """Drops all graphs."""
        for graph in self._graphs.values():
            if graph is not None:
                graph.close()
        self._graphs.clear()


class Lane:
    """One execution context with everything that a call needs.

    Args:
        library: TensorRT's or TensorRT-RTX's module.
        engine: deserialised.
        inputs: of the engine, at their largest.
        outputs: of the engine, likewise.
        graphs: use CUDA graphs, if the engine can be captured.
        varies: its sizes do. A graph would hold for one size, so there are none then.

    Attributes:
        stream: its own.
        no_graph: why it runs without CUDA graphs; empty if it uses them.

    Raises:
        CudaError: memory is short, or the engine does not run.
    """

    def __init__(
        self, library: Any, engine: Any,
        inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], graphs: bool, varies: bool = False,
    ) -> None:  # fmt: skip
        self._parts = contextlib.ExitStack()  # closed in reverse order
        self.stream, self._done = self._own(cuda.Stream()), self._own(cuda.Event())
        self._inputs, self._outputs = self._own(Buffers(inputs)), self._own(Buffers(outputs))
        self._context = self._own(Context(library, engine))
        self._parts.callback(_wait_for, self._done, self.stream)
        if varies:
            self._context.resize(inputs)
        # A first run compiles, loads and allocates what is left of that, which no graph can hold.
        self._whole_call()
        self.stream.synchronize()
        self._graph: cuda.Graph | None = None
        self._repeated: RepeatedGraphs | None = None
        self.no_graph = self._capture() if graphs and not varies else "not wanted"

    def _own(self, part: _Part) -> _Part:
        self._parts.callback(part.close)
        return part

    def _capture(self) -> str:
        """Makes the graph of a whole call; returns why there is none."""
        if reason := self._context.why_not_capturable(self.stream.handle):
            return reason
        try:
            self._graph = self._own(cuda.Graph(self.stream, self._whole_call))
        except CudaError as error:
            return error.got
        self._repeated = self._own(RepeatedGraphs(self._context, self.stream))
        return ""

    def _whole_call(self) -> None:
        self._inputs.upload(self.stream.handle)
        addresses = {**self._inputs.addresses, **self._outputs.addresses}
        self._context.enqueue(addresses, self.stream.handle)
        self._outputs.download(self.stream.handle)

    def resize(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        """Gives inputs and outputs that vary their sizes for the next call."""
        self._context.resize(inputs)
        self._inputs.resize(inputs)
        self._outputs.resize(outputs)

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the network from main memory to main memory."""
        self._inputs.fill(arrays)
        self._done.hold(self.stream.handle)  # of the call before, on another stream
        if self._graph is not None:
            self._graph.launch(self.stream.handle)
        else:
            self._whole_call()
        self.stream.synchronize()
        return self._outputs.copies()

    def enqueue(self, addresses: Addresses, stream: Any) -> None:
        """Enqueues the network on any stream, for inputs and outputs that are on the GPU."""
        self._done.hold(stream)
        if self._repeated is not None:
            self._repeated.run(addresses, stream)
        else:
            self._context.enqueue(addresses, stream)
        self._done.record(stream)

    def __del__(self) -> None:
        """A context must not go while it runs, and so an estimator that nobody closed waits, too."""
        with contextlib.suppress(Exception):  # when the interpreter ends, nobody would hear of it
            self.close()

    def close(self) -> None:
        """Frees everything, after what is still running."""
        self._parts.close()


def _wait_for(done: cuda.Event, stream: cuda.Stream) -> None:
    if done.closed or stream.closed:
        return  # garbage collection took them first, and the memory, whose freeing waited for the GPU
    with contextlib.suppress(CudaError):  # if the GPU is lost there is nothing to wait for
        done.synchronize()
        stream.synchronize()


def _shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(int(size) for size in spec.shape)


class ClosedError(Exception):
    """The lanes were closed."""


class Lanes:
    """Lanes for concurrent calls: made when there are more calls than lanes, up to a limit.

    Args:
        make: makes one.
        limit: at most so many; further calls wait for one.
        name: for a note where memory allows fewer.

    Raises:
        CudaError: the first lane cannot be made.
    """

    def __init__(self, make: Callable[[], Lane], limit: int, name: str) -> None:
        self._make, self._limit, self._name = make, limit, name
        self._idle, self._count = [make()], 1
        self._changed, self._making = threading.Condition(), threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def lane(self) -> Iterator[Lane]:
        """A lane for one call.

        Raises:
            ClosedError: ``close`` was called.
        """
        lane = self._take()
        try:
            yield lane
        finally:
            self._give_back(lane)

    def _take(self) -> Lane:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._idle or self._count < self._limit)
                if self._closed:
                    raise ClosedError
                if self._idle:
                    return self._idle.pop()
                self._count += 1
            if (lane := self._another()) is not None:
                return lane

    def _another(self) -> Lane | None:
        """A new lane; None if the memory is not enough for it, then there will be no more."""
        try:
            with self._making:  # TensorRT does not promise that two threads may make contexts at a time
                return self._make()
        except BaseException as error:
            with self._changed:
                self._count -= 1
                self._changed.notify()
                if not (isinstance(error, CudaError) and error.out_of_memory and self._count):
                    raise
                self._limit = self._count
            text = "%s: the GPU's memory is enough for %d calls at a time; others wait"
            logger.warning(text, self._name, self._count)
            return None

    def _give_back(self, lane: Lane) -> None:
        with self._changed:
            if not self._closed:
                self._idle.append(lane)
                self._changed.notify()
                return
        lane.close()

    def close(self) -> None:
        """Closes all lanes, those of running calls when these are done."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for lane in idle:
            lane.close()
