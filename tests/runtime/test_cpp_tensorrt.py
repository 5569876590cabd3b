"""libgocor.so with TensorRT: linked to stand-ins for its library and CUDA's, driven as programs drive it."""

import ctypes
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpp_gpu import FakeGpu, build_with_gpu, save_engine
from cpp_library import (
    BAD_IMAGE,
    BAD_MODEL,
    FAILED,
    INVALID_ARGUMENT,
    UNAVAILABLE,
    Estimator,
    Library,
    Options,
    image,
    images,
    refusal,
    run,
)
from toy_models import METADATA, metadata

import gocor
from gocor.runtime.manifest import manifest_path
from gocor.runtime.metadata import ModelMetadata, Range

pytest.importorskip("onnxruntime")

BATCH = metadata(batch=2, height=48, width=80)
TENSORS = metadata(io="tensors", batch=2, height=64, width=128)
GLU_IMAGES = metadata(network="GLUNet_GOCor", height=264, width=272)
GLU_TENSORS = metadata(network="GLUNet_GOCor", io="tensors", height=264, width=272)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_with_gpu(tmp_path_factory.mktemp("gpu"))


@pytest.fixture(scope="module")
def library(built: Path) -> Library:
    return Library(built / "cpp/libgocor.so")


@pytest.fixture(scope="module")
def fake(built: Path) -> FakeGpu:
    return FakeGpu(built.parent)


@pytest.fixture
def gpu(fake: FakeGpu) -> Iterator[FakeGpu]:
    """A GPU, on which after the test nothing was wrong and nothing is left."""
    with fake.fresh():
        yield fake


@pytest.fixture
def load(library: Library, gpu: FakeGpu) -> Iterator[Callable[..., Estimator]]:
    loaded: list[Estimator] = []

    def load(path: Path, **options: Any) -> Estimator:
        given = Options(ctypes.sizeof(Options), **options) if options else None
        loaded.append(library.load(path, given))
        return loaded[-1]

    yield load
    for estimator in loaded:
        estimator.release()


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return save_engine(tmp_path / "model.engine", METADATA)


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def pythons(engine: Path, references: np.ndarray, queries: np.ndarray) -> Any:
    """What the model beside the engine gives in ONNX Runtime."""
    with gocor.load(engine.with_suffix(".onnx")) as estimator:
        estimator.note_no_size()
        return estimator.estimate(references, queries)


# ── the flow


@pytest.mark.parametrize("described", [METADATA, BATCH, TENSORS, GLU_IMAGES, GLU_TENSORS])
def test_the_flow_of_images_of_any_size(
    described: ModelMetadata, tmp_path: Path, load: Callable[..., Estimator]
) -> None:
    engine = save_engine(tmp_path / "model.engine", described)
    estimator = load(engine)
    for size in (described.size, (100, 37), (301, 80)):
        references, queries = pictures(3, size), pictures(3, size, 1)
        scores = np.full(3, np.nan, np.float32)
        flow = estimator(images(references), images(queries), 3, scores)
        expected = pythons(engine, references, queries)
        np.testing.assert_array_equal(flow, expected.flow)
        if expected.orientation_score is not None:
            np.testing.assert_allclose(scores, expected.orientation_score, rtol=1e-5)


ANY = {"batch": Range(1), "height": Range(64), "width": Range(64)}
DYNAMIC = metadata(io="tensors", height=64, width=128, dynamic=ANY)
BATCHES = metadata(batch=2, dynamic={"batch": Range(1)})


def save_dynamic(path: Path, described: ModelMetadata, *lines: str) -> Path:
    """An engine that takes up to three pairs, and with tensors sides of up to 384."""
    engine = save_engine(path, described, ("most 3 384", *lines))
    sides = [(64, 64), (64, 128), (384, 384)] if described.io == "tensors" else [described.size] * 3
    return changed(engine, shapes=[[1 + n, *size] for n, size in enumerate(sides)])


@pytest.mark.parametrize("described", [DYNAMIC, BATCHES])
def test_engines_whose_sizes_vary(
    described: ModelMetadata, tmp_path: Path, load: Callable[..., Estimator]
) -> None:
    engine = save_dynamic(tmp_path / "model.engine", described)
    estimator = load(engine)
    assert (estimator.info.batch, estimator.info.height, estimator.info.width) == (2, *described.size)
    for count, size in ((1, described.size), (5, (300, 200)), (2, (65, 30)), (5, (300, 200))):
        references, queries = pictures(count, size), pictures(count, size, 1)
        flow = estimator(images(references), images(queries), count)  # of five pairs three at once, then two
        np.testing.assert_array_equal(flow, pythons(engine, references, queries).flow)


def test_sizes_that_an_engine_was_not_built_for(
    tmp_path: Path, load: Callable[..., Estimator], gpu: FakeGpu
) -> None:
    estimator = load(save_dynamic(tmp_path / "model.engine", DYNAMIC))
    estimator(*map(image, pictures(2, (64, 300))))
    before = gpu.cuda.fake_alive()
    text = refusal(lambda: estimator(*map(image, pictures(2, (64, 400)))), BAD_IMAGE)
    assert text == (
        "width: is 448 at the network's input; this model takes from 64 to 384 in steps of 64; "
        "gocor export --size 64x448 makes one for this"
    )
    assert gpu.cuda.fake_alive() == before  # what the next call uses


def test_flows_of_another_size(tmp_path: Path, load: Callable[..., Estimator]) -> None:
    """Whose memory ends before the flow of the right size would."""
    engine = save_dynamic(tmp_path / "model.engine", DYNAMIC, "small")
    text = refusal(lambda: load(engine)(*map(image, pictures(2, (64, 128)))), FAILED)
    says = "its metadata says flow2 float32 (1, 2, 16, 32); export again"
    assert text == f"{engine}: gave flow2 float32 (1, 2, 8, 16); {says}"


def test_enqueueing_takes_the_usual_batch(
    tmp_path: Path, load: Callable[..., Estimator], gpu: FakeGpu
) -> None:
    engine = save_dynamic(tmp_path / "model.engine", BATCHES)
    pair = OnGpu(gpu, load(engine), 0)
    pair.enqueue()
    np.testing.assert_array_equal(pair.wait(), pythons(engine, pair.references, pair.queries).flow)
    pair.free()


@pytest.mark.parametrize(
    "shapes",
    [None, [], [[1, 64, 64]] * 2, [[1, 64]] * 3, [[2, 64, 64], [1, 64, 64], [3, 64, 64]], [[0, 64, 64]] * 3,
     [[1, 64, 1 << 17]] * 3, [["1", 64, 64]] * 3, "shapes", [[1, 64, 64.5]] * 3],
)  # fmt: skip
def test_shapes_that_are_none(shapes: Any, tmp_path: Path, library: Library, gpu: FakeGpu) -> None:
    engine = changed(save_dynamic(tmp_path / "model.engine", DYNAMIC), shapes=shapes)
    reason = "shapes are not the least, usual and most of each axis"
    text = f"{manifest_path(engine)}: is a damaged engine manifest ({reason}); build the engine again"
    assert refusal(lambda: library.load(engine), BAD_MODEL) == text


def test_shapes_of_a_model_whose_sizes_are_fixed(engine: Path, library: Library, gpu: FakeGpu) -> None:
    for shapes in ([], "", [[1, 32, 64]] * 3):
        changed(engine, shapes=shapes)
        text = refusal(lambda: library.load(engine), BAD_MODEL)
        assert "(shapes are not the least, usual and most of each axis)" in text


def test_the_command_that_builds_it_again_has_its_shapes(
    tmp_path: Path, library: Library, gpu: FakeGpu
) -> None:
    engine = changed(save_dynamic(tmp_path / "model.engine", DYNAMIC), targets=["sm_80"])
    text = refusal(lambda: library.load(engine), BAD_MODEL)
    assert text.endswith(f": {again(engine)} --shapes 1x64x64/2x64x128/3x384x384")


def test_what_an_engine_says_of_itself(
    tmp_path: Path, library: Library, load: Callable[..., Estimator]
) -> None:
    info = load(save_engine(tmp_path / "model.plan", metadata(batch=3, precision="fp16"))).info
    assert (info.backend, info.precision, info.batch) == (b"tensorrt", b"fp16", 3)
    assert (info.network, info.height, info.width) == (b"PWCNet_GOCor", 32, 64)
    assert library.version.split()[1:] == ["tensorrt"]


@pytest.mark.parametrize("parallel", [0, 2])
def test_threads(parallel: int, engine: Path, load: Callable[..., Estimator], gpu: FakeGpu) -> None:
    estimator = load(engine, parallel=parallel)
    before = gpu.cuda.fake_alive()
    pairs = [pictures(2, (32, 64), seed) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        flows = list(pool.map(lambda pair: estimator(*map(image, pair))[0], pairs))
    for (reference, query), flow in zip(pairs, flows, strict=True):
        np.testing.assert_array_equal(flow, pythons(engine, reference, query).flow)
    each = 3 * 2 + 3  # inputs and output, pinned and on the GPU; context, stream, event
    contexts, rest = divmod(gpu.cuda.fake_alive() - before, each)
    assert rest == 0
    assert 1 <= contexts <= (parallel or 8)


# ── images on the GPU, and a caller's stream


class OnGpu:
    """A batch of a pair on the GPU, and room for its flow."""

    def __init__(self, gpu: FakeGpu, estimator: Estimator, seed: int) -> None:
        info = estimator.info
        self.gpu, self.estimator, self.stream = gpu, estimator, gpu.stream()
        self.references, self.queries = (
            pictures(info.batch, (info.height, info.width), 2 * seed + i) for i in range(2)
        )
        self.flow = np.full((info.batch, 2, info.height, info.width), np.nan, np.float32)
        self.addresses = [gpu.allocate(a.tobytes()) for a in (self.references, self.queries, self.flow)]

    def enqueue(self) -> None:
        self.estimator.library.call(
            "enqueue",
            self.estimator.handle,
            *map(ctypes.c_void_p, self.addresses),
            ctypes.c_void_p(self.stream),
        )

    def read(self) -> np.ndarray:
        ctypes.memmove(self.flow.ctypes.data, self.addresses[2], self.flow.nbytes)
        return self.flow

    def wait(self) -> np.ndarray:
        assert self.gpu.cuda.cudaStreamSynchronize(self.stream) == 0
        return self.read()

    def free(self) -> None:
        for address in self.addresses:
            assert self.gpu.cuda.cudaFree(address) == 0
        assert self.gpu.cuda.cudaStreamDestroy(self.stream) == 0


@pytest.mark.parametrize("described", [METADATA, BATCH, GLU_IMAGES])
def test_images_on_the_gpu(
    described: ModelMetadata, tmp_path: Path, load: Callable[..., Estimator], gpu: FakeGpu
) -> None:
    engine = save_engine(tmp_path / "model.engine", described)
    estimator = load(engine)
    pair = OnGpu(gpu, estimator, 0)
    pair.enqueue()
    assert np.isnan(pair.read()).all()  # it came back before the GPU did anything
    np.testing.assert_array_equal(pair.wait(), pythons(engine, pair.references, pair.queries).flow)
    pair.free()


def test_streams_that_share_a_context(engine: Path, load: Callable[..., Estimator], gpu: FakeGpu) -> None:
    """One context at a time: each run waits on the GPU for the one before, on whichever stream that was."""
    estimator = load(engine, parallel=1)
    pairs = [OnGpu(gpu, estimator, seed) for seed in range(3)]
    for pair in pairs:
        pair.enqueue()
    first, second = pairs[0].references[0], pairs[0].queries[0]
    on_host = estimator(image(first), image(second))  # the same context, on its own stream
    for pair in reversed(pairs):
        np.testing.assert_array_equal(pair.wait(), pythons(engine, pair.references, pair.queries).flow)
        pair.free()
    np.testing.assert_array_equal(on_host[0], pythons(engine, first, second).flow)


def test_releasing_waits_for_what_runs(engine: Path, library: Library, gpu: FakeGpu) -> None:
    estimator = library.load(engine)
    pair = OnGpu(gpu, estimator, 0)
    pair.enqueue()
    estimator.release()
    np.testing.assert_array_equal(pair.read(), pythons(engine, pair.references, pair.queries).flow)
    pair.free()


def test_tensors_are_not_enqueued(tmp_path: Path, load: Callable[..., Estimator]) -> None:
    estimator = load(save_engine(tmp_path / "model.engine", TENSORS))
    call = ("enqueue", estimator.handle, 256, 256, 256, None)
    instead = "gocor_estimate, which takes images in host memory; or gocor export --io images"
    text = f"gocor_enqueue: is for models that take images, not tensors; {instead}"
    assert refusal(lambda: estimator.library.call(*call), UNAVAILABLE) == text


def test_addresses_that_are_not_taken(engine: Path, load: Callable[..., Estimator], gpu: FakeGpu) -> None:
    pair = OnGpu(gpu, load(engine), 0)
    for index, name in enumerate(("references", "queries", "flow")):
        pair.addresses[index] += 4
        text = f"{name}: starts at an address that is no multiple of 256; one as cudaMalloc gives it"
        assert refusal(pair.enqueue, INVALID_ARGUMENT) == text
        pair.addresses[index] -= 4
    gpu.fail("setTensorAddress")
    reason = "setTensorAddress: Error Code 3: API Usage Error (wrong address)"
    assert refusal(pair.enqueue, FAILED) == f"{engine}: failed in TensorRT ({reason}); see gocor doctor"
    pair.free()


def test_streams_that_are_being_captured(engine: Path, load: Callable[..., Estimator], gpu: FakeGpu) -> None:
    """A replay of the graph could meet another run of the same context."""
    pair = OnGpu(gpu, load(engine), 0)
    gpu.cuda.fake_capture(ctypes.c_void_p(pair.stream), 1)
    text = "stream: is being captured into a CUDA graph; call it outside of the capture"
    assert refusal(pair.enqueue, INVALID_ARGUMENT) == text
    gpu.cuda.fake_capture(ctypes.c_void_p(pair.stream), 0)
    pair.enqueue()
    np.testing.assert_array_equal(pair.wait(), pythons(engine, pair.references, pair.queries).flow)
    pair.free()


def test_an_estimator_stays_on_its_gpu(fake: FakeGpu, engine: Path, library: Library) -> None:
    with fake.fresh(devices=2):
        assert fake.cuda.cudaSetDevice(1) == 0
        estimator = library.load(engine)
        assert fake.cuda.cudaSetDevice(0) == 0
        reference, query = pictures(2, (32, 64))
        flow = estimator(image(reference), image(query))[0]
        np.testing.assert_array_equal(flow, pythons(engine, reference, query).flow)
        device = ctypes.c_int(-1)
        assert fake.cuda.cudaGetDevice(ctypes.byref(device)) == 0
        assert device.value == 0
        estimator.release()


# ── what is refused


def changed(engine: Path, **changes: Any) -> Path:
    """With another manifest."""
    values = json.loads(manifest_path(engine).read_text()) | changes
    manifest_path(engine).write_text(json.dumps(values))
    return engine


def again(engine: Path, options: str = "") -> str:
    return f"gocor build {engine.with_suffix('.onnx')} -o {engine}{options}"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"library_version": "11.3.0.1"},
         "was built with TensorRT 11.3.0.1; 11.4.0.106 is installed; rebuild it with that: {again}"),
        ({"library_version": "11.5.0.1", "version_compatible": True},
         "was built with TensorRT 11.5.0.1; 11.4.0.106 is installed; rebuild it with that: {again} "
         "--version-compatible"),
        ({"library_version": "10.9.0.1", "version_compatible": True},
         "was built with TensorRT 10.9.0.1; 11.4.0.106 is installed; rebuild it with that: {again} "
         "--version-compatible"),
        ({"targets": ["sm_80", "sm_86"], "tf32": True},
         "was built for sm_80, sm_86; this GPU is sm_90; rebuild it for this GPU: {again} --tf32"),
        ({"targets": ["sm_80"], "plugins": "none"},
         "was built for sm_80; this GPU is sm_90; rebuild it for this GPU: {again} --plugins none"),
        ({"targets": ["sm_80"], "plugins": "library"},
         "was built for sm_80; this GPU is sm_90; rebuild it for this GPU: {again} "
         "--plugin-library {plugins}"),
        ({"plugins": "some"},
         "{json}: is a damaged engine manifest (plugins 'some'); build the engine again"),
        ({"tf32": "yes"}, "{json}: is a damaged engine manifest (tf32 is neither true nor false)"),
        ({"targets": [90]}, "{json}: is a damaged engine manifest (targets are no strings)"),
        ({"backend": "onnxruntime"}, "{json}: is a damaged engine manifest (backend 'onnxruntime')"),
    ],
)  # fmt: skip
def test_engines_that_do_not_fit(
    changes: dict[str, Any], text: str, engine: Path, library: Library, gpu: FakeGpu
) -> None:
    said = refusal(lambda: library.load(changed(engine, **changes)), BAD_MODEL)
    plugins = engine.with_name("libgocor_plugins.so")
    expected = text.format(again=again(engine), json=manifest_path(engine), plugins=plugins)
    assert said.removeprefix(f"{engine}: ").startswith(expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"library_version": "11.2.0.1", "version_compatible": True},
        {"library_version": "11.4.0.106", "version_compatible": True},
        {"targets": ["sm_80"], "hardware_compatible": True},
    ],
)
def test_engines_that_fit_by_promise(
    changes: dict[str, Any], engine: Path, load: Callable[..., Estimator]
) -> None:
    reference, query = pictures(2, (32, 64))
    flow = load(changed(engine, **changes))(image(reference), image(query))[0]
    np.testing.assert_array_equal(flow, pythons(engine, reference, query).flow)


def test_a_gpu_too_old_for_hardware_compatibility(fake: FakeGpu, engine: Path, library: Library) -> None:
    with fake.fresh(capability=(7, 5)):
        changed(engine, targets=["sm_80"], hardware_compatible=True)
        text = f"{engine}: was built for sm_80; this GPU is sm_75; rebuild it for this GPU: {again(engine)}"
        assert refusal(lambda: library.load(engine), BAD_MODEL).startswith(text)


def test_files_that_were_changed(engine: Path, library: Library, gpu: FakeGpu) -> None:
    good = engine.read_bytes()
    engine.write_bytes(good + b" ")
    came, built = (hashlib.sha256(content).hexdigest()[:12] for content in (good + b" ", good))
    text = f"{engine}: is not the file that was built (SHA-256 {came}…, not {built}…); "
    assert refusal(lambda: library.load(engine), BAD_MODEL).startswith(text)
    manifest_path(engine).unlink()
    text = (
        f"{engine}: has no manifest model.engine.json beside it; copy both files, or build the engine again"
    )
    assert refusal(lambda: library.load(engine), BAD_MODEL).startswith(text)


def test_engines_of_another_library_and_threads(engine: Path, library: Library, gpu: FakeGpu) -> None:
    options = Options(ctypes.sizeof(Options), 2, 0, None)
    text = f"threads: are those of the CPU, and {engine} is an engine; 0"
    assert refusal(lambda: library.load(engine, options), INVALID_ARGUMENT) == text
    changed(engine, backend="tensorrt-rtx")
    text = f"{engine}: is an engine for TensorRT-RTX; this library runs TensorRT's"
    assert refusal(lambda: library.load(engine), UNAVAILABLE) == text


def test_an_engine_of_another_interface(tmp_path: Path, library: Library, gpu: FakeGpu) -> None:
    """Right hash, wrong sizes: somebody wrote the manifest by hand."""
    engine = save_engine(tmp_path / "model.engine", METADATA)
    other = save_engine(tmp_path / "other.engine", metadata(height=64))
    values = json.loads(manifest_path(other).read_text())
    changed(engine, **{name: values[name] for name in ("inputs", "outputs", "metadata")})
    text = refusal(lambda: library.load(engine), BAD_MODEL)
    found = "reference uint8 (1, 32, 64, 3); query uint8 (1, 32, 64, 3)"
    assert text.startswith(f"{engine}: has inputs {found}; its manifest says reference uint8 (1, 64, 64, 3)")
    content = other.read_bytes().replace(b"\noutput", b"\nquiet")
    changed(other, engine_sha256=hashlib.sha256(content).hexdigest())
    other.write_bytes(content)
    text = refusal(lambda: library.load(other), BAD_MODEL)
    assert text.startswith(f"{other}: has outputs none; its manifest says flow float32 (1, 2, 64, 64)")


# ── plugins


@pytest.fixture
def with_plugin(tmp_path: Path) -> tuple[Path, Path]:
    """An engine, and the plugin library beside it that it needs."""
    plugins = tmp_path / "libgocor_plugins.so"
    plugins.write_bytes(b"\x7fELF of a kind")
    sha256 = hashlib.sha256(plugins.read_bytes()).hexdigest()
    engine = save_engine(
        tmp_path / "model.engine", METADATA, ("plugin",), plugins="library", plugin_sha256=sha256
    )
    return engine, plugins


def works(estimator: Estimator) -> bool:
    reference, query = pictures(2, (32, 64))
    return bool(np.isfinite(estimator(image(reference), image(query))).all())


def test_the_plugin_library_is_found(
    with_plugin: tuple[Path, Path], load: Callable[..., Estimator], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, plugins = with_plugin
    assert works(load(engine))
    elsewhere = plugins.rename(plugins.with_name("ours.so"))
    assert works(load(engine, plugin_library=str(elsewhere).encode()))
    monkeypatch.setenv("GOCOR_PLUGIN_LIBRARY", str(elsewhere))
    assert works(load(engine))
    monkeypatch.setenv("GOCOR_PLUGIN_LIBRARY", "")
    plugins.symlink_to(elsewhere)
    monkeypatch.chdir(engine.parent)
    assert works(load(Path(engine.name)))
    assert works(load(engine, plugin_library=b"ours.so"))  # the one here, wherever else there are some
    monkeypatch.setenv("GOCOR_PLUGIN_LIBRARY", "ours.so")
    assert works(load(engine))


def test_plugin_libraries_that_are_refused(
    with_plugin: tuple[Path, Path], library: Library, gpu: FakeGpu
) -> None:
    engine, plugins = with_plugin
    where = "put libgocor_plugins.so beside the engine, or name it in the options"
    content = plugins.read_bytes()
    plugins.write_bytes(content + b"?")
    came, built = (hashlib.sha256(each).hexdigest()[:12] for each in (content + b"?", content))
    text = f"{plugins}: is not the plugin library of {engine} (SHA-256 {came}…, not {built}…); {where}, or"
    assert refusal(lambda: library.load(engine), BAD_MODEL).startswith(text)
    plugins.unlink()
    text = f"{plugins}: no such file; the plugin library of {engine}: {where}"
    assert refusal(lambda: library.load(engine), BAD_MODEL) == text
    plugins.write_bytes(b"no library")
    changed(engine, plugin_sha256=hashlib.sha256(b"no library").hexdigest())
    text = refusal(lambda: library.load(engine), BAD_MODEL)
    assert text == (
        f"{plugins}: cannot be loaded ([pluginRegistry.cpp::loadLibrary::5] Error: (file too short)); "
        "build the plugin library for TensorRT 11.4.0.106"
    )


def test_host_code_runs_only_in_version_compatible_engines(
    tmp_path: Path, library: Library, load: Callable[..., Estimator]
) -> None:
    engine = save_engine(tmp_path / "model.engine", METADATA, ("host-code",))
    text = refusal(lambda: library.load(engine), BAD_MODEL)
    assert text.startswith(
        f"{engine}: cannot be loaded by TensorRT (IRuntime::x: Error Code 9: API Usage Error"
    )
    assert works(load(changed(engine, version_compatible=True)))


# ── what goes wrong


@pytest.mark.parametrize(
    ("function", "status", "text"),
    [
        ("cudaGetDevice", FAILED, "{engine}: failed on the GPU (unknown error); see gocor doctor"),
        ("cudaDeviceGetAttribute", FAILED, "{engine}: failed on the GPU (unknown error); see gocor doctor"),
        ("createInferRuntime", UNAVAILABLE,
         "TensorRT: does not start (CUDA initialization failure with error: 35); see gocor doctor"),
    ],
)  # fmt: skip
def test_loading_fails(
    function: str, status: int, text: str, engine: Path, library: Library, gpu: FakeGpu
) -> None:
    gpu.fail(function)
    assert refusal(lambda: library.load(engine), status) == text.format(engine=engine)


def test_a_plan_that_is_none(engine: Path, library: Library, gpu: FakeGpu) -> None:
    engine.write_bytes(b"plan")
    changed(engine, engine_sha256=hashlib.sha256(b"plan").hexdigest())
    reason = "IRuntime::x: Error Code 1: Serialization (magicTag differs)"
    text = f"{engine}: cannot be loaded by TensorRT ({reason}); rebuild it: {again(engine)}"
    assert refusal(lambda: library.load(engine), BAD_MODEL) == text


GPU_FAILED = "failed on the GPU ({}); see gocor doctor"
TENSORRT_FAILED = "failed in TensorRT ({}); see gocor doctor"
RUNNING = (
    ("createExecutionContext", 0, "failed in TensorRT ([a.cpp::allocate::9] Error Code 2: OutOfMemory "
     "(Requested size was 1 MiB)); is there enough memory on the GPU? See Options::parallel"),
    ("setInputShape", 1,
     TENSORRT_FAILED.format("setInputShape: Error Code 3: API Usage Error (wrong value)")),
    ("enqueueV3", 0, TENSORRT_FAILED.format("[x.cpp::run::7] Error Code 1: Cuda Runtime (illegal access)")),
    *(("cudaMalloc", skip, GPU_FAILED.format("out of memory")) for skip in range(3)),
    *(("cudaHostAlloc", skip, GPU_FAILED.format("out of memory")) for skip in range(3)),
    *((function, skip, GPU_FAILED.format("unknown error"))
      for function, skip in (
        ("cudaGetDevice", 0), ("cudaSetDevice", 0), ("cudaStreamCreateWithFlags", 0),
        ("cudaEventCreateWithFlags", 0), ("cudaMemcpyAsync", 0), ("cudaMemcpyAsync", 2),
        ("cudaStreamWaitEvent", 0), ("cudaStreamSynchronize", 1),
    )),
)  # fmt: skip


@pytest.mark.parametrize(("function", "skip", "text"), RUNNING)
def test_running_fails(
    function: str, skip: int, text: str, engine: Path, load: Callable[..., Estimator], gpu: FakeGpu
) -> None:
    """The estimator loses nothing, and works the next time."""
    estimator, (reference, query) = load(engine), pictures(2, (32, 64))
    before = gpu.cuda.fake_alive()
    gpu.fail(function, skip)
    assert refusal(lambda: estimator(image(reference), image(query)), FAILED) == f"{engine}: {text}"
    assert gpu.cuda.fake_alive() == before
    np.testing.assert_array_equal(
        estimator(image(reference), image(query))[0], pythons(engine, reference, query).flow
    )


@pytest.mark.parametrize("function", ["cudaStreamWaitEvent", "enqueueV3", "cudaEventRecord"])
def test_enqueueing_fails(function: str, engine: Path, load: Callable[..., Estimator], gpu: FakeGpu) -> None:
    estimator = load(engine)
    pair = OnGpu(gpu, estimator, 0)
    gpu.fail(function)
    assert refusal(pair.enqueue, FAILED).startswith(f"{engine}: failed ")
    pair.enqueue()
    np.testing.assert_array_equal(pair.wait(), pythons(engine, pair.references, pair.queries).flow)
    pair.free()


def test_memory_that_runs_out(engine: Path, built: Path) -> None:
    """At every single allocation of an estimate; the next one works."""
    done = run([built / "harness", "memory", engine])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.removesuffix(" failures\n")) > 20


def test_images_that_do_not_fit(engine: Path, load: Callable[..., Estimator]) -> None:
    estimator, (reference, query) = load(engine), pictures(2, (32, 64))
    text = "query: has size 31x64; that of the first reference, 32x64"
    assert refusal(lambda: estimator(image(reference), image(query[:31])), BAD_IMAGE) == text


# ── the example that does without the library


def test_the_example_in_plain_tensorrt(engine: Path, built: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("reference.rgb", "query.rgb", "flow.f32")]
    reference, query = pictures(2, (32, 64))
    files[0].write_bytes(reference.tobytes())
    files[1].write_bytes(query.tobytes())
    done = run([built / "run_engine", engine, *files])
    assert done.returncode == 0, done.stderr
    flow = np.fromfile(files[2], np.float32).reshape(2, 32, 64)
    np.testing.assert_array_equal(flow, pythons(engine, reference, query).flow)
    assert done.stdout == f"flow of the first pixel: ({flow[0, 0, 0]:.2f}, {flow[1, 0, 0]:.2f}) px\n"
    files[1].write_bytes(b"abc")
    done = run([built / "run_engine", engine, *files])
    assert (done.returncode, done.stderr) == (1, "height * width * 3 bytes in each image: failed\n")
    done = run([built / "run_engine"])
    assert (done.returncode, done.stderr) == (2, "usage: run_engine ENGINE REFERENCE QUERY FLOW\n")


# ── under sanitizers


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_engines_under_sanitizers(sanitizers: str, tmp_path: Path) -> None:
    options = (f"-DGOCOR_SANITIZE={sanitizers}", "-DCMAKE_BUILD_TYPE=Debug")
    built = build_with_gpu(tmp_path, *options)
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}
    for number, described in enumerate((BATCH, TENSORS, GLU_IMAGES)):
        engine = save_engine(tmp_path / f"{number}.engine", described)
        programs = ["harness estimate"] + ["gpu_harness"] * (described.io == "images")
        for program in programs:
            name, *arguments = program.split()
            done = run([built / name, *arguments, engine], env=environment)
            assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
