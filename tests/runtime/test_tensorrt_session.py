"""Engines on the fake GPU of ``fake_gpu``: whole calls are compared with what the model itself gives."""

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_gpu
import numpy as np
import pytest
from fake_gpu import CudaTensor, Gpu, save_engine
from toy_models import METADATA, metadata

from gocor.core.errors import ConfigError, GocorError, ModelError, ShapeError
from gocor.core.files import sha256
from gocor.runtime import dlpack, tensorrt_session
from gocor.runtime.device_array import DeviceArray
from gocor.runtime.manifest import EngineManifest, Shapes, manifest_path
from gocor.runtime.metadata import Range
from gocor.runtime.session import load
from gocor.runtime.tensorrt_execution import GRAPHS
from gocor.runtime.tensorrt_library import library_log
from gocor.runtime.tensorrt_session import TensorRTEstimator

pytest.importorskip("onnxruntime")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    gpu = Gpu(devices=2)
    fake_gpu.install(monkeypatch, gpu)
    yield gpu
    assert gpu.violations == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_engine(tmp_path / "toy.engine")


def images(count: int = 1, seed: int = 0, height: int = 32, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (count, height, width, 3)
    return random.integers(0, 256, shape, np.uint8), random.integers(0, 256, shape, np.uint8)


def expected(reference: np.ndarray, query: np.ndarray) -> np.ndarray:
    """What a toy model gives."""
    means = np.stack([i.mean((1, 2, 3), np.float64) for i in (reference, query)], 1).astype(np.float32)
    return np.broadcast_to(means[:, :, None, None], (*means.shape, *reference.shape[1:3]))


# -- arrays in main memory


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_gives_what_its_model_gives(
    gpu: Gpu, tmp_path: Path, backend: str, cuda_graph: bool
) -> None:
    version = {"tensorrt": "11.4.0.106", "tensorrt-rtx": "1.7.1.116"}[backend]
    path = save_engine(tmp_path / "toy.engine", backend=backend, library_version=version)
    with TensorRTEstimator(path, cuda_graph=cuda_graph) as estimator:
        for seed in range(4):
            pair = images(seed=seed)
            np.testing.assert_allclose(estimator(*pair), expected(*pair), rtol=1e-6)
            np.testing.assert_allclose(estimator(pair[0][0], pair[1][0]), expected(*pair)[0], rtol=1e-6)
    assert estimator.provider == backend
    assert estimator.metadata == METADATA
    assert ("cudaGraphLaunch" in gpu.log) is cuda_graph
    assert gpu.log.count("enqueue") == (2 if cuda_graph else 9)  # to warm up and capture, or for every call


@pytest.mark.parametrize("count", [1, 3])
def test_batches_are_filled_and_other_sizes_resized(gpu: Gpu, tmp_path: Path, count: int) -> None:
    described = metadata(network="GLUNet", batch=2, height=256, width=320)
    estimator = load(save_engine(tmp_path / "toy.plan", described))
    onnx = load(tmp_path / "toy.onnx")
    pair = images(count, height=100, width=90)
    ours, theirs = (e.estimate(*pair) for e in (estimator, onnx))
    np.testing.assert_array_equal(ours.flow, theirs.flow)
    np.testing.assert_array_equal(ours.orientation_score, theirs.orientation_score)
    assert ours.flow.shape == (count, 2, 100, 90)


def test_preprocessed_tensors(gpu: Gpu, tmp_path: Path) -> None:
    described = metadata(io="tensors", height=64)
    estimator = load(save_engine(tmp_path / "toy.engine", described))
    pair = images(height=64)
    np.testing.assert_array_equal(estimator(*pair), load(tmp_path / "toy.onnx")(*pair))
    outputs = estimator.run({i.name: np.ones(i.shape, np.float32) for i in described.inputs})
    assert list(outputs) == ["flow6", "flow5", "flow4", "flow3", "flow2"]


VARYING = metadata(
    network="GLUNet", io="tensors", height=256, width=320,
    dynamic={"batch": Range(1), "height": Range(256), "width": Range(256, 1080)},
)  # fmt: skip
SHAPES = Shapes((1, 256, 256), (1, 256, 320), (3, 304, 400))


def test_sizes_that_vary(gpu: Gpu, tmp_path: Path) -> None:
    estimator = load(save_engine(tmp_path / "toy.engine", VARYING, shapes=SHAPES))
    onnx = load(tmp_path / "toy.onnx")
    assert estimator.metadata.dynamic == {
        "batch": Range(1, 3), "height": Range(256, 304), "width": Range(256, 400)
    }  # fmt: skip
    live = len(gpu.live())
    for count, height, width in ((1, 256, 256), (3, 300, 400), (5, 260, 320), (1, 256, 256)):
        pair = images(count, height=height, width=width)
        ours, theirs = (e.estimate(*pair) for e in (estimator, onnx))
        np.testing.assert_array_equal(ours.flow, theirs.flow)
        np.testing.assert_array_equal(ours.orientation_score, theirs.orientation_score)
    assert len(gpu.live()) == live
    assert "cudaGraphLaunch" not in gpu.log


@pytest.mark.parametrize(
    ("count", "height", "width", "text"),
    [
        (
            1,
            300,
            408,
            "width: is 408 at the network's input; this model takes from 256 to 400 in steps of 8; ",
        ),
        (
            1,
            312,
            256,
            "height: is 312 at the network's input; this model takes from 256 to 304 in steps of 8; ",
        ),
    ],
)
def test_sizes_beyond_those_of_the_build_are_refused(
    gpu: Gpu, tmp_path: Path, count: int, height: int, width: int, text: str
) -> None:
    estimator = load(save_engine(tmp_path / "toy.engine", VARYING, shapes=SHAPES))
    with pytest.raises(ShapeError) as caught:
        estimator(*images(count, height=height, width=width))
    assert str(caught.value).startswith(text)


def test_sizes_that_vary_on_the_device(gpu: Gpu, tmp_path: Path) -> None:
    estimator = load(save_engine(tmp_path / "toy.engine", VARYING, shapes=SHAPES))
    assert isinstance(estimator, TensorRTEstimator)
    onnx = load(tmp_path / "toy.onnx")
    for sizes in ((2, 264, 328), (3, 256, 256)):
        inputs = {
            spec.name: np.random.default_rng(7).random([int(n) for n in spec.shape], np.float32)
            for spec in VARYING.at(*sizes).inputs
        }
        tensors = {name: CudaTensor(gpu, array) for name, array in inputs.items()}
        for tensor in tensors.values():
            tensor.shape = tensor.array.shape  # type: ignore[attr-defined]
        outputs = estimator.run_on_device(tensors)
        for name, array in onnx.run(inputs).items():
            np.testing.assert_array_equal(outputs[name].numpy(), array)


def test_shapes_that_tensorrt_refuses(gpu: Gpu, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = load(save_engine(path, VARYING, shapes=SHAPES))
    monkeypatch.setattr(fake_gpu.IExecutionContext, "set_input_shape", lambda *_: False)
    with pytest.raises(ModelError) as caught:
        estimator(*images(height=256, width=256))
    got = "TensorRT: took no shape (1, 3, 256, 256) for reference"
    assert got.removeprefix("TensorRT: ") in str(caught.value)


def test_results_do_not_change_with_the_next_call(gpu: Gpu, path: Path) -> None:
    estimator = load(path)
    first = estimator(*images(seed=1))
    copy = first.copy()
    estimator(*images(seed=2))
    np.testing.assert_array_equal(first, copy)


def test_memory_is_allocated_when_loading_only(gpu: Gpu, path: Path) -> None:
    estimator = load(path)
    before = len(gpu.memory)
    for seed in range(5):
        estimator(*images(seed=seed))
    assert len(gpu.memory) == before
    assert {memory.pinned for memory in gpu.memory} == {True, False}


def test_inputs_are_checked(gpu: Gpu, path: Path) -> None:
    estimator = load(path)
    image = np.zeros((1, 32, 64, 3), np.uint8)
    with pytest.raises(ShapeError, match=r"was given inputs reference; its inputs are reference, query$"):
        estimator.run({"reference": image})
    with pytest.raises(ShapeError, match=r"^query: is float32 "):
        estimator.run({"reference": image, "query": image.astype(np.float32)})


def test_everything_is_given_back(gpu: Gpu, path: Path) -> None:
    with TensorRTEstimator(path) as estimator:
        estimator(*images())
        assert gpu.live()
    del estimator
    gc.collect()
    assert gpu.live() == []
    assert gpu.graphs == {}
    assert gpu.events == {}
    assert all(s.destroyed for h, s in gpu.streams.items() if h not in fake_gpu.DEFAULT_STREAMS)


def test_what_nobody_closed_is_given_back_at_once_too(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path)
    estimator(*images())
    gc.disable()
    try:
        del estimator
        assert gpu.live() == []
        assert gpu.graphs == {}
    finally:
        gc.enable()


# -- threads


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def slow_down(monkeypatch: pytest.MonkeyPatch, callers: int) -> threading.Barrier:
    """Lets that many calls be inside of a lane at the same time."""
    from gocor.runtime.tensorrt_execution import Lane

    barrier, run = threading.Barrier(callers, timeout=30), Lane.run

    def meet(lane: Lane, arrays: Any) -> Any:
        barrier.wait()
        return run(lane, arrays)

    monkeypatch.setattr(Lane, "run", meet)
    return barrier


def test_threads_have_a_context_each(gpu: Gpu, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = TensorRTEstimator(path, contexts=3)
    slow_down(monkeypatch, 3)
    pairs = [images(seed=seed) for seed in range(12)]
    with ThreadPoolExecutor(3) as pool:
        flows = list(pool.map(lambda pair: estimator(*pair), pairs))
    for pair, flow in zip(pairs, flows, strict=True):
        np.testing.assert_allclose(flow, expected(*pair), rtol=1e-6)
    assert estimator._lanes._count == 3


def test_more_threads_than_contexts_take_turns(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path, contexts=2)
    pairs = [images(seed=seed) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        flows = list(pool.map(lambda pair: estimator(*pair), pairs))
    for pair, flow in zip(pairs, flows, strict=True):
        np.testing.assert_allclose(flow, expected(*pair), rtol=1e-6)
    assert estimator._lanes._count <= 2


def test_where_memory_is_short_calls_wait_and_that_is_said(
    gpu: Gpu, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    estimator = TensorRTEstimator(path, contexts=4)
    gpu.free = 1 << 19  # enough for buffers, not for another context
    pairs = [images(seed=seed) for seed in range(6)]
    with ThreadPoolExecutor(2) as pool, estimator._lanes.lane():
        waiting = [pool.submit(estimator, *pair) for pair in pairs]
        wait_until(lambda: bool(caplog.records))
    for pair, future in zip(pairs, waiting, strict=True):
        np.testing.assert_allclose(future.result(), expected(*pair), rtol=1e-6)
    assert [record.getMessage() for record in caplog.records] == [
        "toy.engine: the GPU's memory is enough for 1 calls at a time; others wait"
    ]


def test_closing_lets_running_calls_finish(gpu: Gpu, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = TensorRTEstimator(path)
    barrier = slow_down(monkeypatch, 2)
    pair = images()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(estimator, *pair)
        wait_until(lambda: barrier.n_waiting == 1)
        estimator.close()
        barrier.wait()
        np.testing.assert_allclose(running.result(), expected(*pair), rtol=1e-6)
    with pytest.raises(ModelError, match=r"toy\.engine: was closed; load it again to go on$"):
        estimator(*pair)
    assert gpu.live() == []
    estimator.close()


def test_waiting_calls_learn_that_it_was_closed(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path, contexts=1)
    with ThreadPoolExecutor(1) as pool:
        with estimator._lanes.lane():
            waiting = pool.submit(estimator, *images())
            wait_until(lambda: bool(estimator._lanes._changed._waiters))  # type: ignore[attr-defined]
            estimator.close()
        with pytest.raises(ModelError, match="was closed"):
            waiting.result()


def test_every_thread_works_on_the_gpu_that_it_was_loaded_on(gpu: Gpu, path: Path) -> None:
    gpu.current = 1
    estimator = TensorRTEstimator(path, cuda_graph=False)
    gpu.current = 0
    with ThreadPoolExecutor(1) as pool:  # where GPU 0 is current
        pool.submit(estimator, *images()).result()
    assert estimator.device == 1
    with estimator._lanes.lane():
        estimator(*images())  # in a context that is made now
    assert gpu.current == 0
    assert {memory.device for memory in gpu.memory} == {1}


# -- tensors on the GPU


def on_gpu(gpu: Gpu, pair: tuple[np.ndarray, ...], **options: Any) -> list[CudaTensor]:
    return [CudaTensor(gpu, image, **options) for image in pair]


def values(gpu: Gpu, array: DeviceArray, stream: int) -> np.ndarray:
    """What a consumer on a stream sees, if that stream does only what it must."""
    capsule = array.__dlpack__(stream=stream or 1, max_version=(1, 0))
    view = dlpack.read_capsule(capsule)
    assert (view.device, view.dtype, view.contiguous) == ((dlpack.CUDA, array.device), "float32", True)
    gpu.run(gpu.streams[stream])
    return fake_gpu.array_at(view.pointer, np.empty(view.shape, np.float32)).copy()


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_without_a_stream_the_result_is_there(gpu: Gpu, path: Path, cuda_graph: bool) -> None:
    estimator = TensorRTEstimator(path, cuda_graph=cuda_graph)
    for seed in range(3):
        pair = images(seed=seed)
        flow = estimator.on_device(*on_gpu(gpu, pair))
        seen = fake_gpu.array_at(flow.pointer, np.empty(flow.shape, np.float32))
        np.testing.assert_allclose(seen, expected(*pair), rtol=1e-6)
        np.testing.assert_allclose(flow.numpy(), expected(*pair), rtol=1e-6)


@pytest.mark.parametrize("consumer", [0, 2, 7, 8])
@pytest.mark.parametrize("producer", [0, 7, 8])
def test_on_a_callers_stream_everything_is_in_order(
    gpu: Gpu, path: Path, producer: int, consumer: int
) -> None:
    gpu.streams |= {7: fake_gpu.FakeStream(), 8: fake_gpu.FakeStream()}
    estimator = TensorRTEstimator(path)
    for seed in range(3):
        pair = images(seed=seed)
        flow = estimator.on_device(*on_gpu(gpu, pair, stream=producer), stream=7)
        np.testing.assert_allclose(values(gpu, flow, consumer), expected(*pair), rtol=1e-6)


def test_a_copy_in_main_memory_waits_for_the_values(gpu: Gpu, path: Path) -> None:
    gpu.streams[7] = fake_gpu.FakeStream()
    pair = images()
    flow = TensorRTEstimator(path).on_device(*on_gpu(gpu, pair), stream=7)
    np.testing.assert_allclose(flow.numpy(), expected(*pair), rtol=1e-6)


def test_closing_waits_for_what_callers_enqueued(gpu: Gpu, path: Path) -> None:
    gpu.streams[7] = fake_gpu.FakeStream()
    pair = images()
    with TensorRTEstimator(path) as estimator:
        flow = estimator.on_device(*on_gpu(gpu, pair), stream=7)
    np.testing.assert_allclose(flow.numpy(), expected(*pair), rtol=1e-6)


def test_an_estimator_that_nobody_closed_waits_too(gpu: Gpu, path: Path) -> None:
    gpu.streams[7] = fake_gpu.FakeStream()
    pair = images()
    estimator = TensorRTEstimator(path)
    flow = estimator.on_device(*on_gpu(gpu, pair), stream=7)
    del estimator
    np.testing.assert_allclose(flow.numpy(), expected(*pair), rtol=1e-6)


def test_an_estimator_in_a_ring_of_garbage_waits_too(gpu: Gpu, path: Path) -> None:
    gpu.streams[7] = fake_gpu.FakeStream()
    pair = images()
    ring: list[object] = [TensorRTEstimator(path)]
    ring.append(ring)
    flow = ring[0].on_device(*on_gpu(gpu, pair), stream=7)  # type: ignore[attr-defined]
    del ring
    gc.collect()
    np.testing.assert_allclose(flow.numpy(), expected(*pair), rtol=1e-6)


def test_a_call_on_a_stream_does_not_wait_for_the_gpu(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path)
    gpu.streams[7] = fake_gpu.FakeStream()
    tensors = on_gpu(gpu, images())
    gpu.log.clear()
    estimator.on_device(*tensors, stream=7)
    assert not {"cudaStreamSynchronize", "cudaEventSynchronize", "cudaMalloc"} & set(gpu.log)
    assert gpu.streams[7].done == 0


def test_calls_on_several_streams_do_not_share_a_context_at_once(gpu: Gpu, path: Path) -> None:
    gpu.streams |= {7: fake_gpu.FakeStream(), 8: fake_gpu.FakeStream()}
    estimator = TensorRTEstimator(path, contexts=1)
    pairs = [images(seed=seed) for seed in range(4)]
    flows = [
        estimator.on_device(*on_gpu(gpu, pair), stream=stream)
        for pair, stream in zip(pairs, (7, 8, 7, 8), strict=True)
    ]
    host = estimator(*images(seed=9))  # and on the estimator's own stream
    np.testing.assert_allclose(host, expected(*images(seed=9)), rtol=1e-6)
    for pair, flow, stream in zip(pairs[::-1], flows[::-1], (8, 7, 8, 7), strict=True):
        np.testing.assert_allclose(values(gpu, flow, stream), expected(*pair), rtol=1e-6)


def test_nothing_is_copied_on_the_gpu(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path)
    tensors = on_gpu(gpu, images())
    out = CudaTensor(gpu, np.zeros((1, 2, 32, 64), np.float32))
    gpu.log.clear()
    for _ in range(3):
        estimator.on_device(*tensors, out=out)
    assert "cudaMemcpyAsync" not in gpu.log
    assert "cudaMalloc" not in gpu.log


def test_a_result_can_be_put_into_a_tensor(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path)
    pair = images()
    out = CudaTensor(gpu, np.zeros((1, 2, 32, 64), np.float32))
    assert estimator.on_device(*on_gpu(gpu, pair), out=out) is out
    np.testing.assert_allclose(out.array, expected(*pair), rtol=1e-6)


def test_tensors_that_come_again_run_as_a_graph(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path)
    gpu.streams[7] = fake_gpu.FakeStream()
    ring = [on_gpu(gpu, images(seed=seed)) for seed in range(2)]
    out = [CudaTensor(gpu, np.zeros((1, 2, 32, 64), np.float32)) for _ in ring]
    gpu.run_all()
    gpu.log.clear()
    for turn in range(6):
        pair = images(seed=100 + turn)
        tensors = ring[turn % 2]
        for tensor, image in zip(tensors, pair, strict=True):
            tensor.array[:] = image  # as a decoder writes the next frame
        estimator.on_device(*tensors, stream=7, out=out[turn % 2])
        gpu.run(gpu.streams[7])
        np.testing.assert_allclose(out[turn % 2].array, expected(*pair), rtol=1e-6)
    assert gpu.log.count("cudaGraphLaunch") == 4
    assert gpu.log.count("cudaStreamBeginCapture") == 2
    assert gpu.log.count("enqueue") == 4


def test_a_few_graphs_are_kept(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path)
    out = CudaTensor(gpu, np.zeros((1, 2, 32, 64), np.float32))
    before = len(gpu.graphs)
    for seed in range(GRAPHS + 4):
        pair = images(seed=seed)
        tensors = on_gpu(gpu, pair)
        for _ in range(3):
            estimator.on_device(*tensors, out=out)
            np.testing.assert_allclose(out.array, expected(*pair), rtol=1e-6)
    assert len(gpu.graphs) == before + GRAPHS


def test_results_own_their_memory(gpu: Gpu, path: Path) -> None:
    gpu.streams[7] = fake_gpu.FakeStream()
    estimator = TensorRTEstimator(path)
    pairs = [images(seed=seed) for seed in range(3)]
    flows = [estimator.on_device(*on_gpu(gpu, pair), stream=7) for pair in pairs]
    estimator.close()
    for pair, flow in zip(pairs, flows, strict=True):
        np.testing.assert_allclose(flow.numpy(), expected(*pair), rtol=1e-6)
    before = len(gpu.live())
    del flows, flow
    gc.collect()
    assert len(gpu.live()) == before  # in the order of the stream
    gpu.run(gpu.streams[7])
    assert len(gpu.live()) == before - 3


def test_a_result_without_a_stream_is_freed_when_it_goes(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path)
    flow = estimator.on_device(*on_gpu(gpu, images()))
    capsule = flow.__dlpack__()
    before = len(gpu.live())
    del flow
    gc.collect()
    assert len(gpu.live()) == before  # the capsule keeps it
    del capsule
    gc.collect()
    assert len(gpu.live()) == before - 1


def test_what_a_result_says_of_itself(gpu: Gpu, path: Path) -> None:
    gpu.streams[7] = fake_gpu.FakeStream()
    estimator = TensorRTEstimator(path)
    flow = estimator.on_device(*on_gpu(gpu, images()))
    assert repr(flow) == "<DeviceArray float32 (1, 2, 32, 64) on cuda:0>"
    assert (flow.shape, flow.dtype, flow.nbytes) == ((1, 2, 32, 64), np.float32, 4 * 2 * 32 * 64)
    interface = flow.__cuda_array_interface__
    assert interface["data"] == (flow.pointer, False)
    assert (interface["typestr"], interface["stream"], interface["version"]) == ("<f4", None, 3)
    for stream, name in ((7, 7), (0, 1), (1, 1)):
        other = estimator.on_device(*on_gpu(gpu, images()), stream=stream)
        assert other.__cuda_array_interface__["stream"] == name  # 0 has no meaning there
    with pytest.raises(BufferError, match="gives its own memory only"):
        flow.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="gives its own memory only"):
        flow.__dlpack__(dl_device=(dlpack.CPU, 0))


def test_pytorch_takes_a_result_without_a_copy(gpu: Gpu, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    pair = images()
    flow = TensorRTEstimator(path).on_device(*on_gpu(gpu, pair))
    monkeypatch.setattr(dlpack, "CUDA", dlpack.CPU)  # where the fake memory really is
    tensor = torch.from_dlpack(flow)
    assert tensor.data_ptr() == flow.pointer
    del flow
    gc.collect()
    np.testing.assert_allclose(tensor.numpy(), expected(*pair), rtol=1e-6)
    assert gpu.live()


def test_streams_of_other_libraries(gpu: Gpu, path: Path) -> None:
    class TheirStream:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 7

    gpu.streams[7] = fake_gpu.FakeStream()
    pair = images()
    flow = TensorRTEstimator(path).on_device(*on_gpu(gpu, pair), stream=TheirStream())
    np.testing.assert_allclose(values(gpu, flow, 7), expected(*pair), rtol=1e-6)


def test_every_output_on_the_device(gpu: Gpu, tmp_path: Path) -> None:
    described = metadata(io="tensors", height=64)
    estimator = TensorRTEstimator(save_engine(tmp_path / "toy.engine", described))
    tensors = {
        i.name: CudaTensor(gpu, np.full(i.shape, 1 + n, np.float32)) for n, i in enumerate(described.inputs)
    }
    out = CudaTensor(gpu, np.zeros(described.flow.shape, np.float32))
    outputs = estimator.run_on_device(tensors, outputs={"flow2": out})
    assert list(outputs) == ["flow6", "flow5", "flow4", "flow3", "flow2"]
    assert outputs["flow2"] is out
    assert (out.array[0, 0] == 1).all()
    assert (out.array[0, 1] == 2).all()
    assert (outputs["flow6"].numpy() == 0).all()
    with pytest.raises(ConfigError) as caught:
        estimator.on_device(*tensors.values())
    assert str(caught.value).endswith(
        "toy.engine: takes preprocessed tensors; run_on_device, or a model of gocor export --io images"
    )


def test_wrong_tensors_are_refused(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path)
    reference, query = images()
    good = CudaTensor(gpu, query)
    wide = CudaTensor(gpu, np.repeat(query, 2, axis=2))
    behind = CudaTensor(gpu, np.concatenate([query, query], axis=0)[:, :, :, :])
    padded = CudaTensor(gpu, np.zeros(query.size + 64, np.uint8))
    wanted = "a contiguous uint8 tensor (1, 32, 64, 3) on cuda:0"
    cases: list[tuple[Any, str]] = [
        (query, f"query: is in main memory; {wanted}"),
        ([1, 2], f"query: is a list without __dlpack__; {wanted}"),
        (CudaTensor(gpu, query, device=1), f"query: is on cuda:1; {wanted}"),
        (CudaTensor(gpu, query.astype(np.float32)), f"query: is float32 (1, 32, 64, 3); {wanted}"),
        (CudaTensor(gpu, query[0]), f"query: is uint8 (32, 64, 3); {wanted}"),
        (
            wide.view(wide.array[:, :, ::2]),
            f"query: is not contiguous; {wanted}, as .contiguous() gives",
        ),
        (
            padded.view(padded.array[64:].reshape(query.shape)),
            "query: starts at an address that is no multiple of 256; a tensor of its own, as .clone() gives",
        ),
    ]
    for wrong, text in cases:
        with pytest.raises(ShapeError) as caught:
            estimator.on_device(CudaTensor(gpu, reference), wrong)
        assert str(caught.value) == text
    second = behind.view(behind.array[1:])  # of 6144 bytes, so it starts at a multiple of 256
    estimator.on_device(CudaTensor(gpu, reference), second)
    with pytest.raises(ShapeError, match="query: is on another kind of device"):
        estimator.on_device(
            good, type("Vulkan", (CudaTensor,), {"__dlpack_device__": lambda _: (7, 0)})(gpu, query)
        )


def test_wrong_outputs_are_refused(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path)
    tensors = dict(zip(("reference", "query"), on_gpu(gpu, images()), strict=True))
    with pytest.raises(ShapeError, match=r"toy\.engine: was given outputs flow2; its outputs are flow$"):
        estimator.run_on_device(tensors, outputs={"flow2": tensors["query"]})
    with pytest.raises(ShapeError, match=r"^flow: is uint8 .*; a contiguous float32 tensor \(1, 2, 32, 64\)"):
        estimator.on_device(*tensors.values(), out=tensors["query"])
    with pytest.raises(ShapeError, match="was given inputs reference; its inputs are reference, query"):
        estimator.run_on_device({"reference": tensors["reference"]})
    good = CudaTensor(gpu, np.zeros((1, 2, 32, 64), np.float32))
    read_only = good.view(good.array.view())
    read_only.array.flags.writeable = False
    with pytest.raises(ShapeError, match=r"^flow: is read-only; a tensor to write to$"):
        estimator.on_device(*tensors.values(), out=read_only)


def test_a_tensor_that_refuses_says_why(gpu: Gpu, path: Path) -> None:
    class Parameter(CudaTensor):
        def __dlpack__(self, **_: object) -> Any:
            raise BufferError("Can't export tensors that require gradient")

    reference, query = images()
    with pytest.raises(ShapeError) as caught:
        TensorRTEstimator(path).on_device(CudaTensor(gpu, reference), Parameter(gpu, query))
    assert str(caught.value) == (
        "query: cannot be taken (Can't export tensors that require gradient); "
        "a plain tensor, as .detach() gives"
    )


def test_tensors_from_before_dlpack_1(gpu: Gpu, path: Path) -> None:
    class Old(CudaTensor):
        def __dlpack__(self, stream: int) -> Any:  # type: ignore[override]
            return super().__dlpack__(stream=stream)

    pair = images()
    flow = TensorRTEstimator(path).on_device(*(Old(gpu, image) for image in pair))
    np.testing.assert_allclose(flow.numpy(), expected(*pair), rtol=1e-6)


def test_wrong_streams_are_refused(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path)
    tensors = on_gpu(gpu, images())
    with pytest.raises(ConfigError) as caught:
        estimator.on_device(*tensors, stream="fast")
    assert str(caught.value) == (
        "stream: str has no __cuda_stream__; a handle, or a stream of PyTorch, CuPy or cuda.core"
    )
    gpu.streams[7] = fake_gpu.FakeStream(captured=[])
    with pytest.raises(ConfigError) as captured:
        estimator.on_device(*tensors, stream=7)
    assert str(captured.value) == (
        "stream: is being captured into a CUDA graph; "
        "call it outside of the capture; it replays graphs of its own"
    )
    estimator.close()
    with pytest.raises(ModelError, match="was closed"):
        estimator.on_device(*tensors)


# -- what goes wrong


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("tensorrt-rtx", "TensorRT-RTX says that this engine cannot be captured"),
        ("tensorrt", "did not start the network (API Usage Error (operation not permitted when capturing))"),
    ],
)
def test_an_engine_that_cannot_be_captured_runs_and_says_so_once(
    gpu: Gpu, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    backend: str, reason: str,
) -> None:  # fmt: skip
    if backend == "tensorrt":
        monkeypatch.delattr(fake_gpu.IExecutionContext, "is_stream_capturable")  # TensorRT does not have it
    gpu.capturable = False
    version = {"tensorrt": "11.4.0.106", "tensorrt-rtx": "1.7.1.116"}[backend]
    path = save_engine(tmp_path / "toy.engine", backend=backend, library_version=version)
    with caplog.at_level(logging.INFO, "gocor"):
        estimator = TensorRTEstimator(path)
        for seed in range(3):
            pair = images(seed=seed)
            np.testing.assert_allclose(estimator(*pair), expected(*pair), rtol=1e-6)
            flow = estimator.on_device(*on_gpu(gpu, pair))
            np.testing.assert_allclose(flow.numpy(), expected(*pair), rtol=1e-6)
        with estimator._lanes.lane():
            estimator(*images())  # in another context
    assert [r.getMessage() for r in caplog.records] == [f"toy.engine runs without CUDA graphs: {reason}"]
    assert "cudaGraphLaunch" not in gpu.log


def test_a_capture_that_fails_later_is_said_and_done_without(
    gpu: Gpu, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    estimator = TensorRTEstimator(path)
    gpu.capturable = False
    pair = images()
    tensors, out = on_gpu(gpu, pair), CudaTensor(gpu, np.zeros((1, 2, 32, 64), np.float32))
    for _ in range(3):
        out.array[:] = 0
        estimator.on_device(*tensors, out=out)
        np.testing.assert_allclose(out.array, expected(*pair), rtol=1e-6)
    assert [r.getMessage() for r in caplog.records] == [
        "tensors on the GPU run without CUDA graphs: did not start the network "
        "(API Usage Error (operation not permitted when capturing))"
    ]


def test_a_failing_network_is_one_line(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path, cuda_graph=False)
    gpu.enqueues = False
    with pytest.raises(ModelError) as caught:
        estimator(*images())
    assert str(caught.value) == (
        f"{path}: failed on the GPU (did not start the network (Cuda Runtime (an illegal memory access))); "
        "see gocor doctor"
    )
    gpu.enqueues = True
    estimator(*images())


def test_a_failing_network_is_not_blamed_on_an_older_error(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path, cuda_graph=False)
    tensorrt = sys.modules["tensorrt"]
    library_log(tensorrt).log(tensorrt.ILogger.ERROR, "Error Code 2: of another engine")  # type: ignore[attr-defined]
    gpu.enqueues = False
    with pytest.raises(ModelError, match=r"did not start the network \(Cuda Runtime \(an illegal memory"):
        estimator(*images())


def test_too_little_memory_when_loading(gpu: Gpu, path: Path) -> None:
    hint = "end other programs on the GPU, or load fewer engines or contexts"
    for free, reason in (
        (1000, "cudaErrorMemoryAllocation (out of memory)"),
        (1 << 19, "gave no execution context (OutOfMemory (Requested size was 1048576 bytes.))"),
    ):
        gpu.free = free
        with pytest.raises(ModelError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: found too little memory on the GPU ({reason}); {hint}"
        del caught
        gc.collect()
        assert gpu.live() == []


def test_too_little_memory_for_a_result(gpu: Gpu, path: Path) -> None:
    estimator = TensorRTEstimator(path)
    tensors = on_gpu(gpu, images())
    gpu.free = 100
    with pytest.raises(ModelError, match="found too little memory on the GPU"):
        estimator.on_device(*tensors)
    gpu.free = 1 << 20
    estimator.on_device(*tensors)


# -- engines that are refused before they are deserialised


def refusal(gpu: Gpu, path: Path, provider: str | None = None) -> str:
    with pytest.raises(GocorError) as caught:
        load(path, provider)
    assert "deserialize" not in gpu.log
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_manifest(gpu: Gpu, path: Path) -> None:
    manifest_path(path).unlink()
    assert refusal(gpu, path) == (
        f"{path}: has no manifest toy.engine.json beside it; copy both files, or build the engine again: "
        "gocor build"
    )


def test_a_text_file_with_the_name_of_an_engine(gpu: Gpu, tmp_path: Path) -> None:
    path = tmp_path / "notes.engine"
    path.write_text("hello")
    assert "has no manifest notes.engine.json beside it" in refusal(gpu, path)


@pytest.mark.parametrize(
    "change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:9] + b"?" + b[10:], str]
)
def test_truncated_and_tampered_engines(gpu: Gpu, path: Path, change: Any) -> None:
    changed = change(path.read_bytes())
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    text = refusal(gpu, path)
    assert text.startswith(f"{path}: is not the file that was built (SHA-256 ")
    assert text.endswith(f"copy it again or rebuild it: gocor build {path.parent}/toy.onnx -o {path}")


def test_what_is_run_is_what_was_checked(gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_engine(tmp_path / "toy.engine")
    check_runs_on = EngineManifest.check_runs_on

    def swap(manifest: EngineManifest, *facts: str) -> None:
        check_runs_on(manifest, *facts)
        path.write_bytes(b"another file, after the check")

    monkeypatch.setattr(EngineManifest, "check_runs_on", swap)
    pair = images()
    np.testing.assert_allclose(load(path)(*pair), expected(*pair), rtol=1e-6)


def test_another_version(gpu: Gpu, tmp_path: Path) -> None:
    path = save_engine(tmp_path / "toy.engine", library_version="10.13.3.9")
    assert refusal(gpu, path) == (
        f"{path}: was built with TensorRT 10.13.3.9; 11.4.0.106 is installed; "
        f"rebuild it with that: gocor build {path.parent}/toy.onnx -o {path}"
    )


def test_another_gpu(gpu: Gpu, tmp_path: Path) -> None:
    path = save_engine(tmp_path / "toy.engine", targets=("sm_89",), gpu="NVIDIA L4")
    assert refusal(gpu, path) == (
        f"{path}: was built for sm_89 (NVIDIA L4); this GPU is sm_90; "
        f"rebuild it for this GPU: gocor build {path.parent}/toy.onnx -o {path}"
    )


def test_an_old_library(gpu: Gpu, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.install(monkeypatch, gpu, "10.3.0")
    assert "TensorRT: 10.3.0 is too old; 10.9 or later is needed" in refusal(gpu, path)


def test_missing_libraries(gpu: Gpu, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    text = refusal(gpu, path)
    assert text.startswith("cuda-python: cannot be imported (")
    assert text.endswith('; pip install "gocor-deploy[tensorrt]" (or [rtx])')
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    text = refusal(gpu, path)
    assert text.startswith("TensorRT: cannot be imported (")
    assert text.endswith('; pip install "gocor-deploy[tensorrt]"')


def test_machines_without_a_gpu(gpu: Gpu, path: Path) -> None:
    gpu.devices = 0
    assert refusal(gpu, path) == (
        "GPU: none can be used (no CUDA-capable device is detected); nvidia-smi shows what the driver sees"
    )
    gpu.driver = 12040
    assert refusal(gpu, path) == (
        "GPU: the driver is made for CUDA 12.4 and cuda-python for CUDA 13.4; update the driver, or "
        'pip install "cuda-python==12.*"; nvidia-smi shows what the driver sees'
    )
    gpu.driver = 0
    assert (
        refusal(gpu, path)
        == "GPU: no NVIDIA driver is installed on this machine; nvidia-smi shows what the driver sees"
    )


def test_no_driver_in_the_words_of_cuda_python_12(
    gpu: Gpu, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    monkeypatch.setattr(sys.modules["cuda.bindings.runtime"], "cudaGetDeviceCount", missing)
    assert (
        refusal(gpu, path)
        == "GPU: no NVIDIA driver is installed on this machine; nvidia-smi shows what the driver sees"
    )


def test_another_provider(gpu: Gpu, path: Path) -> None:
    assert load(path, "tensorrt").provider == "tensorrt"
    gpu.log.clear()
    for provider in ("cpu", "cuda", "tensorrt-rtx"):
        assert refusal(gpu, path, provider) == (
            f"provider: {provider!r} does not run {path}, which is an engine for tensorrt; tensorrt, or none"
        )
    assert refusal(gpu, path, "abacus") == "provider: unknown name 'abacus'; one of tensorrt, tensorrt-rtx"
    model = path.parent / "toy.onnx"
    assert refusal(gpu, model, "tensorrt-rtx") == (
        f"provider: 'tensorrt-rtx' runs engines, and {model} is a model; "
        f"gocor build {model} -o model.engine --backend tensorrt-rtx"
    )


def test_no_contexts(gpu: Gpu, path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        TensorRTEstimator(path, contexts=0)
    assert str(caught.value) == "contexts: is 0; at least 1"


# -- engines that the library itself refuses, or that are not what was promised


def test_what_the_library_does_not_load(gpu: Gpu, tmp_path: Path) -> None:
    path = save_engine(tmp_path / "toy.engine", engine_sha256=sha256(save_engine(tmp_path / "x.engine")))
    path.write_bytes(b"no plan")
    save = manifest_path(path).read_text().replace(sha256(tmp_path / "x.engine"), sha256(path))
    manifest_path(path).write_text(save)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: TensorRT cannot load it: Serialization (magicTag differs); "
        f"rebuild it: gocor build {path.parent}/toy.onnx -o {path}"
    )


def test_an_engine_that_brings_no_memory_for_its_contexts(gpu: Gpu, path: Path) -> None:
    plan = fake_gpu.PLAN_WITHOUT_MEMORY + path.read_bytes().removeprefix(fake_gpu.PLAN)
    before = sha256(path)
    path.write_bytes(plan)
    manifest_path(path).write_text(manifest_path(path).read_text().replace(before, sha256(path)))
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: failed on the GPU (gave no execution context (API Usage Error (Engine was built with "
        "BuilderFlag::kREQUIRE_USER_ALLOCATION))); see gocor doctor"
    )


def test_an_engine_that_is_not_what_its_manifest_says(gpu: Gpu, tmp_path: Path) -> None:
    taller = metadata(height=48)
    path = save_engine(tmp_path / "toy.engine", metadata=taller, inputs=taller.inputs)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: has inputs query uint8 (1, 32, 64, 3); reference uint8 (1, 32, 64, 3); its manifest says "
        "reference uint8 (1, 48, 64, 3); query uint8 (1, 48, 64, 3); "
        f"rebuild it: gocor build {path.parent}/toy.onnx -o {path}"
    )
    path = save_engine(tmp_path / "toy.engine", outputs=(taller.flow,))
    with pytest.raises(
        ModelError, match=r"has outputs flow float32 \(1, 2, 32, 64\); its manifest says flow "
    ):
        load(path)


@pytest.mark.parametrize("version_compatible", [False, True])
def test_only_version_compatible_engines_may_run_code_on_the_host(
    gpu: Gpu, tmp_path: Path, version_compatible: bool
) -> None:
    load(save_engine(tmp_path / "toy.engine", version_compatible=version_compatible))
    assert gpu.runtimes[-1].engine_host_code_allowed is version_compatible  # type: ignore[attr-defined]


def test_plugin_libraries(gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libgocor_plugins.so"
    library.write_bytes(b"\x7fELF and so on")
    options = {"plugins": "library", "plugin_sha256": sha256(library)}
    path = save_engine(tmp_path / "toy.engine", **options)
    where = "put libgocor_plugins.so beside it, or its path into GOCOR_PLUGIN_LIBRARY"

    pair = images()
    np.testing.assert_allclose(load(path)(*pair), expected(*pair), rtol=1e-6)
    assert gpu.runtimes[-1].plugins == [str(library)]  # type: ignore[attr-defined]

    gpu.log.clear()
    elsewhere = library.rename(tmp_path / "elsewhere.so")
    assert refusal(gpu, path) == (
        f"{path}: needs the plugin library that it was built with, not found at {library}; {where}"
    )
    monkeypatch.setenv("GOCOR_PLUGIN_LIBRARY", str(elsewhere))
    load(path)
    assert gpu.runtimes[-1].plugins == [str(elsewhere)]  # type: ignore[attr-defined]

    gpu.log.clear()
    elsewhere.write_bytes(b"\x7fELF of another version")
    text = refusal(gpu, path)
    assert text.startswith(f"{elsewhere}: is not the plugin library of {path} (SHA-256 ")
    assert text.endswith(f"; {where}, or rebuild the engine")

    elsewhere.write_bytes(b"of another machine")
    save_engine(path, plugins="library", plugin_sha256=sha256(elsewhere))
    assert refusal(gpu, path) == (
        f"{elsewhere}: cannot be loaded (is it built for TensorRT 11.4.0.106?); "
        "build the plugin library for TensorRT 11.4.0.106"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\x7fELF and so on", "file too short"), (None, "getCreators could not be loaded")],
    ids=["damaged", "of something else"],
)
def test_the_real_registry_refuses_other_libraries(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    library = tmp_path / "libgocor_plugins.so"
    other = next(iter(Path(np.__file__).parent.parent.glob("numpy.libs/*.so*")), None)
    if content is None and other is None:
        pytest.skip("numpy has no shared library of its own here")
    library.write_bytes(content or other.read_bytes())  # type: ignore[union-attr]
    path = save_engine(tmp_path / "toy.engine", plugins="library", plugin_sha256=sha256(library))
    log = library_log(rtx)
    with pytest.raises(ModelError) as caught:
        tensorrt_session._load_plugins(rtx.Runtime(log), EngineManifest.of(path), log)
    assert str(caught.value).startswith(f"{library}: cannot be loaded (API Usage Error (")
    assert reason in str(caught.value)
