"""libgocor.so: built with CMake, called through its C interface, compared with Python, sanitized."""

import ctypes
import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpp_library import (
    BAD_IMAGE,
    BAD_MODEL,
    BGR,
    FAILED,
    INVALID_ARGUMENT,
    NATIVE,
    RGB,
    ROOT,
    UNAVAILABLE,
    Estimator,
    Image,
    Info,
    Library,
    Options,
    build,
    cmake,
    image,
    images,
    refusal,
    run,
)
from openvino_models import save_xml
from sampler_models import save_sampler
from toy_models import METADATA, metadata, save_toy

import gocor
from gocor.core.errors import GocorError, ModelError, ShapeError
from gocor.core.version import __version__
from gocor.runtime.flow import read_flow
from gocor.runtime.images import save_image
from gocor.runtime.manifest import manifest_path
from gocor.runtime.metadata import ModelMetadata, Range
from gocor.runtime.onnx_file import check_self_contained
from gocor.runtime.preprocess import resize_flow, resize_images
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.spec import SPECS

openvino = pytest.importorskip("openvino")
onnxruntime = pytest.importorskip("onnxruntime")
OPENVINO = f"-DOpenVINO_DIR={Path(openvino.__file__).parent / 'cmake'}"
USUAL_PLACES = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/usr/local/include")


# ── building and loading


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options for what can be linked here: OpenVINO, and ONNX Runtime if its header is there."""
    places = map(Path, filter(None, (os.environ.get("ONNXRUNTIME_INCLUDE_DIR"), *USUAL_PLACES)))
    include = next((place for place in places if (place / "onnxruntime_c_api.h").exists()), None)
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"), None)
    if not (include and library):
        return [OPENVINO]
    link = tmp_path_factory.mktemp("onnxruntime") / "libonnxruntime.so.1"  # which the wheel leaves out
    link.symlink_to(library)
    paths = (f"-DONNXRUNTIME_INCLUDE_DIR={include}", f"-DONNXRUNTIME_LIBRARY={link}")
    return [OPENVINO, "-DGOCOR_BACKENDS=openvino;onnxruntime", *paths]


@pytest.fixture(scope="module")
def built(backends: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the library as users build it, and of the harness."""
    return build(NATIVE, tmp_path_factory.mktemp("cpp"), *backends)


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library was installed to."""
    prefix = tmp_path_factory.mktemp("prefix")
    done = cmake("--install", built / "cpp", "--prefix", prefix)
    assert done.returncode == 0, done.stderr
    return prefix


@pytest.fixture(scope="module")
def library(built: Path) -> Library:
    return Library(built / "cpp/libgocor.so")


@pytest.fixture
def load(library: Library) -> Iterator[Callable[..., Estimator]]:
    """Loads models, which are released after the test."""
    loaded: list[Estimator] = []

    def load(path: Path, **options: Any) -> Estimator:
        given = Options(ctypes.sizeof(Options), **options) if options else None
        loaded.append(library.load(path, given))
        return loaded[-1]

    yield load
    for estimator in loaded:
        estimator.release()


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    return save_xml(tmp_path / "toy.xml")


def noise(count: int, described: ModelMetadata = METADATA, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, described.height, described.width, 3), np.uint8)


def photos() -> list[np.ndarray]:
    return [np.ascontiguousarray(picture) for picture in sample_pair(64, 64)[:2]]


# ── the flow


@pytest.fixture(scope="module")
def network_xml(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PWC-Net-GOCor for OpenVINO."""
    from gocor.export.openvino import build_openvino

    return build_openvino(exported.model, tmp_path_factory.mktemp("network") / "model.xml").path


def test_the_flow_is_pythons(network_xml: Path, load: Callable[..., Estimator]) -> None:
    reference, query = photos()
    flow = load(network_xml)(image(reference), image(query))[0]
    with gocor.load(network_xml) as estimator:
        expected = estimator(reference, query)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(flow, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_what_a_model_says_of_itself(xml: Path, library: Library, load: Callable[..., Estimator]) -> None:
    info = load(xml, threads=1).info
    assert {name: getattr(info, name) for name, _ in Info._fields_} == {
        "height": 32, "width": 64, "batch": 1, "orientation_score": 0, "int8": 0, "network": b"PWCNet_GOCor",
        "backend": b"openvino", "precision": b"fp32", "gocor_version": METADATA.gocor_version.encode(),
    }  # fmt: skip
    assert library.version.split()[:2] == [__version__, "openvino"]
    assert not library._library.gocor_get_info(None)


def test_bgr_and_strides(xml: Path, load: Callable[..., Estimator]) -> None:
    estimator = load(xml)
    reference, query = noise(2)
    expected = estimator(image(reference), image(query))
    wide = np.zeros((32, 80, 3), np.uint8)
    wide[:, 7:71] = reference[:, :, ::-1]
    flow = estimator(image(wide[:, 7:71], BGR), image(query))
    np.testing.assert_array_equal(flow, expected)
    upside_down = np.ascontiguousarray(query[::-1])[::-1]
    np.testing.assert_array_equal(estimator(image(reference), image(upside_down)), expected)
    packed = Image(reference.ctypes.data, 32, 64, 0, RGB)
    np.testing.assert_array_equal(estimator(packed, image(query)), expected)


def test_bgr_is_not_rgb(network_xml: Path, load: Callable[..., Estimator]) -> None:
    """The toy model's flow is a mean, which knows no colours."""
    estimator, rgb = load(network_xml), photos()
    bgr = [np.ascontiguousarray(picture[..., ::-1]) for picture in rgb]
    expected = estimator(*map(image, rgb))
    np.testing.assert_array_equal(estimator(*(image(picture, BGR) for picture in bgr)), expected)
    assert (estimator(*map(image, bgr)) != expected).any()


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_batches(count: int, tmp_path: Path, load: Callable[..., Estimator]) -> None:
    described = metadata(batch=2, network="GLUNet_GOCor", height=256, width=256)
    estimator = load(save_xml(tmp_path / "toy.xml", described))
    references, queries = noise(count, described, 1), noise(count, described, 2)
    scores = np.full(count + 1, -1, np.float32)
    flow = estimator(images(references), images(queries), count, scores)
    for index in range(count):
        np.testing.assert_allclose(flow[index, 0], references[index].mean(), rtol=1e-6)
        np.testing.assert_allclose(flow[index, 1], queries[index].mean(), rtol=1e-6)
        np.testing.assert_allclose(scores[index], references[index, :, :128].mean(), rtol=1e-6)
    assert scores[count] == -1
    assert estimator.info.orientation_score == 1


@pytest.mark.parametrize("parallel", [0, 2])
def test_threads(parallel: int, network_xml: Path, load: Callable[..., Estimator]) -> None:
    estimator = load(network_xml, parallel=parallel)
    work = list(itertools.product(noise(3, metadata(height=64, width=64)), repeat=2)) * 3
    alone = [estimator(image(first), image(second)) for first, second in work]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pair: estimator(image(pair[0]), image(pair[1])), work))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


# ── images of any size


def sampler_xml(path: Path, described: ModelMetadata) -> Path:
    from gocor.export.openvino import build_openvino

    return build_openvino(save_sampler(path.with_suffix(".onnx"), described), path).path


IMAGES = metadata(height=48, width=80, batch=2)
TENSORS = metadata(io="tensors", height=64, width=128, batch=2)
GLU_IMAGES = metadata(network="GLUNet_GOCor", height=264, width=272)
GLU_TENSORS = metadata(network="GLUNet_GOCor", io="tensors", height=264, width=272)


def check_like_python(
    model: Path, load: Callable[..., Estimator], size: tuple[int, int], onnx: Path | None = None
) -> None:
    """The same as Python, with the same model or the ONNX model that it was built from."""
    random = np.random.default_rng(sum(size))
    references, queries = random.integers(0, 256, (2, 3, *size, 3), np.uint8)
    estimator, scores = load(model), np.full(3, np.nan, np.float32)
    flow = estimator(images(references), images(queries), 3, scores)
    with gocor.load(onnx or model) as python:
        python.note_no_size()
        expected = python.estimate(references, queries)
    np.testing.assert_allclose(flow, expected.flow, rtol=1e-6, atol=1e-6 * np.abs(expected.flow).max())
    if expected.orientation_score is not None:
        np.testing.assert_allclose(scores, expected.orientation_score, rtol=1e-5 if onnx else 1e-6)
    bgr = np.ascontiguousarray(references[:, ::-1, :, ::-1])[:, ::-1]  # upside down, too
    again = estimator((Image * 3)(*(image(each, BGR) for each in bgr)), images(queries), 3)
    np.testing.assert_array_equal(again, flow)


@pytest.mark.parametrize("described", [IMAGES, TENSORS, GLU_IMAGES, GLU_TENSORS])
def test_images_of_any_size(described: ModelMetadata, tmp_path: Path, load: Callable[..., Estimator]) -> None:
    model = sampler_xml(tmp_path / "sampler.xml", described)
    for size in (described.size, (16, 32), (100, 37), (300, 280), (301, 80), (1, 1)):
        check_like_python(model, load, size)


def test_outputs_that_openvino_makes_one(tmp_path: Path, load: Callable[..., Estimator]) -> None:
    """The toy's coarse flows are equal."""
    check_like_python(save_xml(tmp_path / "toy.xml", TENSORS), load, TENSORS.size)


def test_a_real_network_and_an_image_of_another_size(
    network_xml: Path, load: Callable[..., Estimator]
) -> None:
    reference, query = (np.ascontiguousarray(picture) for picture in sample_pair(90, 120)[:2])
    flow = load(network_xml)(image(reference), image(query))[0]
    with gocor.load(network_xml) as estimator:
        expected = estimator(reference, query)
    np.testing.assert_allclose(flow, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


ANY = {"batch": Range(1), "height": Range(64), "width": Range(64)}
DYNAMIC = metadata(io="tensors", height=64, width=128, dynamic=ANY)
GLU_DYNAMIC = metadata(
    network="GLUNet_GOCor", io="tensors", height=256, width=256, batch=2,
    dynamic={"batch": Range(2, 2), "height": Range(256), "width": Range(256, 320)},
)  # fmt: skip
BATCHES = metadata(batch=4, dynamic={"batch": Range(1, 4)})


def rebuilt_xml(xml: Path, described: ModelMetadata) -> Path:
    """Another ONNX model, which lies beside it, for OpenVINO, whether gocor build would take it or not."""
    openvino.save_model(openvino.convert_model(xml.with_suffix(".onnx")), xml, compress_to_fp16=False)
    values = json.loads(manifest_path(xml).read_text()) | {"metadata": described.to_properties()}
    for name, file in (("xml_sha256", xml), ("bin_sha256", xml.with_suffix(".bin"))):
        values[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    tensor = {"dtype": "float32", "shape": described.flow.shape}
    score = {"dtype": "float32", "shape": described.flow.shape[:1], "name": "orientation_score"}
    values["inputs"] = [dataclasses.asdict(spec) for spec in described.inputs]
    values["outputs"] = [
        score if name == "orientation_score" else tensor | {"name": name} for name in described.output_names
    ]
    manifest_path(xml).write_text(json.dumps(values))
    return xml


def check_dynamic(
    model: Path, described: ModelMetadata, load: Callable[..., Estimator], onnx: Path | None = None
) -> None:
    """Any size and batch, small after large and the other way round, as in Python."""
    for size in (described.size, (300, 270), (64, 65), (301, 317)):
        check_like_python(model, load, size, onnx)


@pytest.mark.parametrize("described", [DYNAMIC, GLU_DYNAMIC, BATCHES])
def test_models_whose_sizes_vary(described: ModelMetadata, xml: Path, load: Callable[..., Estimator]) -> None:
    onnx = save_sampler(xml.with_suffix(".onnx"), described)
    rebuilt_xml(xml, described)
    check_dynamic(xml, described, load, onnx)
    info = load(xml).info
    assert (info.height, info.width, info.batch) == (*described.size, described.batch)


def test_sizes_out_of_range(xml: Path, load: Callable[..., Estimator]) -> None:
    """With Python's words."""
    onnx = save_sampler(xml.with_suffix(".onnx"), GLU_DYNAMIC)
    wide = noise(2, metadata(height=256, width=400))
    text = refusal(lambda: load(rebuilt_xml(xml, GLU_DYNAMIC))(*map(image, wide)), BAD_IMAGE)
    with gocor.load(onnx) as python, pytest.raises(ShapeError) as caught:
        python(*wide)
    assert text == str(caught.value)
    assert text == (
        "width: is 400 at the network's input; this model takes from 256 to 320 in steps of 8; "
        "gocor export --size 256x400 makes one for this"
    )


@pytest.mark.parametrize(
    "damage",
    ["{}", "null", '{"depth": [1, 2]}', '{"batch": [5, 9]}', '{"batch": 3}', '{"batch": ["1", null]}', "[3]",
     '{"batch": [true, 2]}', '{"height": [1, null]}', '{"batch": [1]}', '{"batch": [0, null]}',
     '{"batch": [1, 0]}'],
)  # fmt: skip
def test_damaged_ranges(damage: str, xml: Path, library: Library) -> None:
    values = json.loads(manifest_path(xml).read_text())
    values["metadata"]["gocor.dynamic"] = damage
    manifest_path(xml).write_text(json.dumps(values))
    text = f"{manifest_path(xml)}: " + PROPERTIES.format(f"dynamic '{damage}'")
    assert refusal(lambda: library.load(xml), BAD_MODEL) == text


def save_small_flows(path: Path) -> Path:
    """A model whose sizes vary and whose flows are half as large as it says."""
    import onnx

    model = onnx.load(save_sampler(path, DYNAMIC))
    (steps,) = (node for node in model.graph.node if node.output[0] == "steps")
    steps.attribute[0].ints[1:] = [8, 8]
    onnx.save(model, path)
    return path


def test_flows_of_another_size(xml: Path, load: Callable[..., Estimator]) -> None:
    """Whose memory ends before the flow of the right size would."""
    save_small_flows(xml.with_suffix(".onnx"))
    estimator = load(rebuilt_xml(xml, DYNAMIC))
    text = refusal(lambda: estimator(*map(image, noise(2, DYNAMIC))), FAILED)
    says = "its metadata says flow2 float32 (1, 2, 16, 32); export again"
    assert text == f"{xml}: gave flow2 float32 (1, 2, 8, 16); {says}"


def sizes(count: int, seed: int = 0) -> list[tuple[int, int, int, int]]:
    """Small and large ones, which are enlarged, shrunk, and left alone."""
    random = np.random.default_rng(seed)
    found = [tuple(map(int, np.exp(random.uniform(0, 6, 4)))) for _ in range(count)]
    return [(1, 1, 1, 1), (1, 1, 64, 64), (70, 96, 64, 96), (70, 96, 70, 64), *found]  # type: ignore[list-item]


def check_resizing(readers: Path, size: tuple[int, int, int, int]) -> None:
    height, width, *new = size
    from_to = [f"{height}x{width}", f"{new[0]}x{new[1]}"]
    random = np.random.default_rng(sum(size))
    picture = random.integers(0, 256, (height, width, 3), np.uint8)
    for name, family in (("pillow", "pwcnet"), ("area", "glunet")):
        done = run([readers, name, *from_to], input=picture.tobytes(), text=False, encoding=None)
        expected = resize_images(picture[None], *new, family)  # type: ignore[arg-type]
        assert done.stdout == expected.tobytes(), (name, size)  # type: ignore[comparison-overlap]
    flow = random.normal(size=(2, height, width)).astype(np.float32)
    image_size = f"{4 * height}x{3 * width}"
    done = run(
        [readers, "flow", from_to[0], "20", image_size, from_to[1]],
        input=flow.tobytes(),
        text=False,
        encoding=None,
    )
    expected = resize_flow(flow * np.float32(20), *new, (4 * height, 3 * width))
    assert done.stdout == expected.tobytes(), size  # type: ignore[comparison-overlap]


def test_resizing_is_pythons_to_the_bit(built: Path) -> None:
    for size in sizes(20):
        check_resizing(built / "readers", size)


@pytest.mark.slow
def test_resizing_under_sanitizers(sanitized: Path) -> None:
    for size in sizes(200, seed=1):
        check_resizing(sanitized / "readers", size)


def test_what_it_knows_of_the_networks(built: Path) -> None:
    found = json.loads(run([built / "readers", "specs"]).stdout)
    assert found == [
        {
            "name": spec.name, "flow_unit": spec.flow_unit, "flow_stride": spec.flow_stride,
            "outputs": list(spec.outputs), "tensor_inputs": len(spec.tensor_inputs),
            "working_sides": [spec.working_size(side, 1)[0] for side in range(1, 601)],
        }
        for spec in SPECS.values()
    ]  # fmt: skip


def test_memory_of_a_gpu_for_a_model_of_tensors(tmp_path: Path, load: Callable[..., Estimator]) -> None:
    estimator = load(sampler_xml(tmp_path / "sampler.xml", TENSORS))
    text = refusal(lambda: estimator.library.call("enqueue", estimator.handle, 64, 64, 64, None), UNAVAILABLE)
    instead = "gocor_estimate, which takes images in host memory; or gocor export --io images"
    assert text == f"gocor_enqueue: is for models that take images, not tensors; {instead}"


# ── what is refused


def test_null_pointers(xml: Path, library: Library, load: Callable[..., Estimator]) -> None:
    handle, path = load(xml).handle, str(xml).encode()
    picture, flow = image(noise(1)[0]), np.zeros(2 * 32 * 64, np.float32)
    address, out = ctypes.addressof(picture), flow.ctypes.data
    none = ctypes.c_void_p()
    estimators, addresses = "estimator: is null; one of gocor_create", "is null; addresses of images"
    for arguments, text in (
        (("create", path, None, None), "estimator: is null; where to put it"),
        (("create", None, None, ctypes.byref(none)), "path: is null; that of a model"),
        (("estimate", None, address, address, 1, out, flow.size, None), estimators),
        (("estimate", handle, None, address, 1, out, flow.size, None), f"references: {addresses}"),
        (("estimate", handle, address, None, 1, out, flow.size, None), f"queries: {addresses}"),
        (("estimate", handle, address, address, 1, None, flow.size, None), "flow: is null; where to put it"),
    ):  # fmt: skip
        assert refusal(lambda arguments=arguments: library.call(*arguments), INVALID_ARGUMENT) == text  # type: ignore[misc]
    library._library.gocor_release(None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            (8, 0, 0),
            f"options: have struct_size 8; start with GOCOR_OPTIONS_DEFAULT: {ctypes.sizeof(Options)}",
        ),
        ((ctypes.sizeof(Options), -1, 0), "threads: is -1; 0 or more"),
        ((ctypes.sizeof(Options), 0, -2), "parallel: is -2; 0 or more"),
    ],
)
def test_options(options: tuple[int, int, int], text: str, xml: Path, library: Library) -> None:
    assert refusal(lambda: library.load(xml, Options(*options)), INVALID_ARGUMENT) == text


def test_images_that_do_not_fit(xml: Path, load: Callable[..., Estimator]) -> None:
    estimator, good = load(xml), image(noise(1)[0])
    other = image(np.zeros((32, 63, 3), np.uint8))
    fit = "that of the first reference, 32x64"
    for wrong, status, text in (
        (other, BAD_IMAGE, f"query: has size 32x63; {fit}"),
        (Image(good.pixels, -1, 64, 0, RGB), BAD_IMAGE, "query: has size -1x64; at least 1x1"),
        (Image(good.pixels, 32, 0, 0, RGB), BAD_IMAGE, "query: has size 32x0; at least 1x1"),
        (Image(None, 32, 64, 0, RGB), INVALID_ARGUMENT, "query: has no pixels; an address of them"),
        (Image(good.pixels, 32, 64, 191, RGB), INVALID_ARGUMENT,
         "query: has a row stride of 191 bytes; 0, or at least its row of 192 bytes"),
        (Image(good.pixels, 32, 64, 0, 7), INVALID_ARGUMENT, "query: has order 7; GOCOR_RGB or GOCOR_BGR"),
    ):  # fmt: skip
        assert refusal(lambda wrong=wrong: estimator(good, wrong), status) == text  # type: ignore[misc]
    pairs = (Image * 2)(good, other)
    assert refusal(lambda: estimator(pairs, pairs, 2), BAD_IMAGE) == f"reference 1: has size 32x63; {fit}"


def test_memory_of_a_gpu_without_one(xml: Path, library: Library, load: Callable[..., Estimator]) -> None:
    handle = load(xml).handle
    text = refusal(lambda: library.call("enqueue", handle, 64, 64, 64, None), UNAVAILABLE)
    expected = "is for engines, not for openvino; gocor_estimate, which takes images in host memory"
    assert text == f"gocor_enqueue: {expected}"
    for index, name in enumerate(("references", "queries", "flow")):
        addresses = [None if index == position else 64 for position in range(3)]
        text = refusal(
            lambda given=addresses: library.call("enqueue", handle, *given, None), INVALID_ARGUMENT
        )  # type: ignore[misc]
        assert text == f"{name}: is null; an address on the GPU"


def test_too_little_room(xml: Path, library: Library, load: Callable[..., Estimator]) -> None:
    handle, picture = load(xml).handle, ctypes.addressof(good := image(noise(1)[0]))
    assert good.height == 32
    flow = np.zeros(4095, np.float32)
    text = refusal(
        lambda: library.call("estimate", handle, picture, picture, 1, flow.ctypes.data, 4095, None),
        INVALID_ARGUMENT,
    )
    assert text == "flow: has room for 4095 floats; 1 pairs of 4096"
    many = (handle, picture, picture, 1 << 60, flow.ctypes.data, flow.size, None)  # and there is one image
    text = refusal(lambda: library.call("estimate", *many), INVALID_ARGUMENT)
    assert text == f"flow: has room for 4095 floats; {1 << 60} pairs of 4096"


def test_files_that_are_no_models(tmp_path: Path, library: Library, xml: Path) -> None:
    (tmp_path / "model.txt").touch()
    (tmp_path / "model.engine").touch()
    (tmp_path / "v1.0").mkdir()
    (tmp_path / "v1.0/model").touch()
    os.mkfifo(tmp_path / "pipe.xml")
    give = "give a model made by gocor export or gocor build"
    for name, status, text in (
        ("none.xml", BAD_MODEL, f"no such file; {give}"),
        ("v1.0", BAD_MODEL, f"is a folder; {give}"),
        ("pipe.xml", BAD_MODEL, f"is no regular file; {give}"),
        (f"{'a' * 300}.xml", BAD_MODEL, f"cannot be read (File name too long); {give}"),
        ("v1.0/model", BAD_MODEL, "has the unknown suffix ''; models are .xml, .onnx or .engine files"),
        ("model.txt", BAD_MODEL, "has the unknown suffix '.txt'; models are .xml, .onnx or .engine files"),
        ("model.engine", UNAVAILABLE, "is a model for TensorRT, which is not in this build of the library; "
         f"it has {library.version}; build it with -DGOCOR_BACKENDS=…"),
    ):  # fmt: skip
        path = tmp_path / name
        assert refusal(lambda path=path: library.load(path), status) == f"{path}: {text}"  # type: ignore[misc]


def again(xml: Path, options: str = "") -> str:
    return f"gocor build {xml.with_suffix('.onnx')} -o {xml} --backend openvino{options}"


def test_files_that_were_changed_or_are_missing(xml: Path, library: Library) -> None:
    weights = xml.with_suffix(".bin")
    for path in (xml, weights):
        good = path.read_bytes()
        path.write_bytes(good + b" ")
        came, built = (hashlib.sha256(content).hexdigest()[:12] for content in (good + b" ", good))
        text = f"{path}: is not the file that was built (SHA-256 {came}…, not {built}…); "
        assert (
            refusal(lambda: library.load(xml), BAD_MODEL)
            == f"{text}copy it again or rebuild it: {again(xml)}"
        )
        path.write_bytes(good)
    weights.unlink()
    text = f"{weights}: no such file; the weights of {xml}: copy them, too, or rebuild it: {again(xml)}"
    assert refusal(lambda: library.load(xml), BAD_MODEL) == text
    weights.mkdir()
    assert refusal(lambda: library.load(xml), BAD_MODEL).startswith(f"{weights}: is a folder; the weights of")
    manifest_path(xml).unlink()
    os.mkfifo(manifest_path(xml))  # which nobody ever writes to
    text = f"{manifest_path(xml)}: is no regular file; copy it again"
    assert refusal(lambda: library.load(xml), BAD_MODEL) == text
    manifest_path(xml).unlink()
    text = "has no manifest toy.xml.json beside it; copy both files, or build the OpenVINO model again"
    assert refusal(lambda: library.load(xml), BAD_MODEL) == f"{xml}: {text}: gocor build"


AGAIN = "build the OpenVINO model again"
DAMAGED = "is a damaged OpenVINO model manifest ({}); " + AGAIN
INPUTS = "inputs reference uint8 (1, 32, 64, 3); query uint8 (1, 32, 64, 3)"
PROPERTIES = "has damaged gocor metadata ({}); export again"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, f"is no OpenVINO model manifest of format 1; this gocor reads no other; {AGAIN}"),
        ({"model": None}, DAMAGED.format("model is no string")),
        ({"backend": "tensorrt"}, DAMAGED.format("backend 'tensorrt'")),
        ({"inference_precision": "f16"}, DAMAGED.format("inference_precision 'f16'")),
        ({"outputs": {}}, DAMAGED.format("outputs is no list")),
        ({"outputs": []}, DAMAGED.format("outputs none are not those of its metadata")),
        ({"inputs": [{"name": "a", "dtype": "uint8", "shape": [0]}]}, DAMAGED.format("tensor 'a'")),
        ({"gocor.network": None}, "was not made by gocor (no gocor.network property); run gocor export"),
        ({"gocor.format": "2"}, "has metadata of format 2; this gocor reads format 1; export again"),
        ({"gocor.network": "RAFT"}, PROPERTIES.format("network 'RAFT'")),
        ({"gocor.height": "1.5"}, PROPERTIES.format("height '1.5'")),
        ({"gocor.batch": "0"}, PROPERTIES.format("batch '0'")),
        ({"gocor.width": "9999999"}, PROPERTIES.format("width '9999999'")),
        ({"model": "../x"}, DAMAGED.format("model '../x', which is no name of a file")),
        ({"gocor.io": None}, PROPERTIES.format("no gocor.io")),
        ({"gocor.operators": "[]"}, PROPERTIES.format("operators '[]'")),
        ({"gocor.io": "raw"}, PROPERTIES.format("io 'raw'")),
        ({"gocor.io": "tensors"}, DAMAGED.format(f"{INPUTS} are not those of its metadata")),
        ({"gocor.height": "64"}, DAMAGED.format(f"{INPUTS} are not those of its metadata")),
    ],
)  # fmt: skip
def test_damaged_manifests(changes: dict[str, Any], text: str, xml: Path, library: Library) -> None:
    values = json.loads(manifest_path(xml).read_text())
    for name, value in changes.items():
        place = values["metadata"] if name.startswith("gocor.") else values
        place[name] = value
        if name.startswith("gocor.") and value is None:
            del place[name]
    manifest_path(xml).write_text(json.dumps(values))
    assert refusal(lambda: library.load(xml), BAD_MODEL) == f"{manifest_path(xml)}: {text}"


def test_a_manifest_that_is_no_json(xml: Path, library: Library) -> None:
    manifest_path(xml).write_text('{"format": 1,}')
    where = manifest_path(xml)
    assert refusal(lambda: library.load(xml), BAD_MODEL) == f"{where}: " + DAMAGED.format(
        'no " at character 13'
    )
    where.write_text(" " * (1 << 20) + "{}")
    text = f"{where}: is too large for a manifest (2 MiB, and 1 are read); where you trust it: "
    assert refusal(lambda: library.load(xml), BAD_MODEL) == f"{text}GOCOR_MAX_MANIFEST_MIB=2"


def test_a_model_of_a_newer_openvino(xml: Path, library: Library) -> None:
    values = json.loads(manifest_path(xml).read_text()) | {"library_version": "2999.1.0"}
    manifest_path(xml).write_text(json.dumps(values))
    text = refusal(lambda: library.load(xml), BAD_MODEL)
    assert re.fullmatch(
        re.escape(f"{xml}: was built with OpenVINO 2999.1.0; ") + r"[\d.]+ is installed, which is older; "
        + re.escape(f"update OpenVINO, or rebuild the model: {again(xml)}"), text
    )  # fmt: skip


def test_a_model_of_another_interface(tmp_path: Path, library: Library) -> None:
    """Right hashes, wrong sizes: somebody wrote the manifest by hand."""
    xml, other = save_xml(tmp_path / "toy.xml"), save_xml(tmp_path / "other.xml", metadata(height=64))
    values, wrong = (json.loads(manifest_path(path).read_text()) for path in (xml, other))
    hashes = {name: values[name] for name in ("xml_sha256", "bin_sha256")}
    manifest_path(xml).write_text(json.dumps(wrong | hashes))
    text = f"{xml}: has {INPUTS}; its manifest says reference"
    assert refusal(lambda: library.load(xml), BAD_MODEL).startswith(text)


def test_what_openvino_cannot_read(xml: Path, library: Library) -> None:
    xml.write_text("<net/>")
    values = json.loads(manifest_path(xml).read_text())
    values["xml_sha256"] = hashlib.sha256(xml.read_bytes()).hexdigest()
    manifest_path(xml).write_text(json.dumps(values))
    text = refusal(lambda: library.load(xml), BAD_MODEL)
    assert text.startswith(f"{xml}: cannot be loaded by OpenVINO (")
    assert text.endswith(f"); rebuild it: {again(xml)}")


FAILING = """
<ir_version: 9, opset_import: ["" : 19]>
failing (uint8[1, 32, 64, 3] reference, uint8[1, 32, 64, 3] query) => (float[1, 2, 32, 64] flow) {
    axes = Constant<value_ints=[1, 2, 3]>()
    grid = Constant<value_ints=[1, 2, 32, 64]>()
    flat = Constant<value_ints=[-1]>()
    rest = Constant<value_ints=[2, 32, 64]>()
    r = Cast<to=1>(reference)
    q = Cast<to=1>(query)
    mean_r = ReduceMean(r, axes)
    mean_q = ReduceMean(q, axes)
    means = Concat<axis=1>(mean_r, mean_q)
    wide = Expand(means, grid)
    one = Reshape(mean_r, flat)
    count = Cast<to=7>(one)
    shape = Concat<axis=0>(count, rest)
    odd = Reshape(wide, shape)
    even = Reshape(odd, grid)
    unit = Constant<value_ints=[1]>()
    index = Sub(count, unit)
    flow = Gather<axis=0>(even, index)
}
"""  # works if the reference's mean is 1; else OpenVINO fails at "odd" while it runs, ONNX Runtime at "flow"


def save_failing(path: Path) -> Path:
    import onnx
    from onnx import helper, parser

    model = parser.parse_model(FAILING)
    helper.set_model_props(model, METADATA.to_properties())
    onnx.save(model, path)
    return path


def check_failing(estimator: Estimator, path: Path, library: str) -> None:
    one, many = (np.full((32, 64, 3), value, np.uint8) for value in (1, 100))
    for _ in range(2):
        text = refusal(lambda: estimator(image(many), image(one)), FAILED)
        assert text.startswith(f"{path}: failed in {library} (")
        assert text.endswith("); see gocor doctor")
        np.testing.assert_array_equal(estimator(image(one), image(many))[0, :, 5, 5], [1, 100])


def test_a_model_that_fails_while_it_runs(xml: Path, load: Callable[..., Estimator]) -> None:
    save_failing(xml.with_suffix(".onnx"))
    check_failing(load(rebuilt_xml(xml, METADATA)), xml, "OpenVINO")


@pytest.mark.parametrize(
    ("kind", "value", "status", "text"),
    [
        ("MODEL", "0", BAD_MODEL,
         "{xml}: is too large for a model (1 MiB, and 0 are read); "
         "where you trust it: GOCOR_MAX_MODEL_MIB=1"),
        ("MANIFEST", "0", BAD_MODEL,
         "{xml}.json: is too large for a manifest (1 MiB, and 0 are read); where you trust it: "
         "GOCOR_MAX_MANIFEST_MIB=1"),
        ("MODEL", "1 GiB", INVALID_ARGUMENT, "GOCOR_MAX_MODEL_MIB: is '1 GiB'; a number of MiB"),
        ("MODEL", "", INVALID_ARGUMENT, "GOCOR_MAX_MODEL_MIB: is ''; a number of MiB"),
    ],
)  # fmt: skip
def test_limits(
    kind: str,
    value: str,
    status: int,
    text: str,
    xml: Path,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of Python, raised by the same variables."""
    variable = f"GOCOR_MAX_{kind}_MIB"
    monkeypatch.setenv(variable, value)
    assert refusal(lambda: library.load(xml), status) == text.format(xml=xml)
    with pytest.raises(GocorError) as caught:
        gocor.load(xml)
    assert str(caught.value) == text.format(xml=xml)
    monkeypatch.setenv(variable, "20")
    library.load(xml).release()


def test_text_that_a_terminal_would_obey(tmp_path: Path, library: Library) -> None:
    path = tmp_path / "ä.\x1b[2J\x7f\x9b\udcff😀"  # the one before the last is no UTF-8
    path.touch()
    shown = r"\x1b[2J\x7f\xc2\x9b\xff😀"
    text = f"{tmp_path}/ä.{shown}: has the unknown suffix '.{shown}'; "
    assert refusal(lambda: library.load(path), BAD_MODEL).startswith(text)


def test_text_that_nobody_would_read(xml: Path, library: Library) -> None:
    name = "/" + "ä" * 100_000
    values = json.loads(manifest_path(xml).read_text()) | {"model": name}
    manifest_path(xml).write_text(json.dumps(values))
    text = refusal(lambda: library.load(xml), BAD_MODEL)
    assert text.startswith(f"{manifest_path(xml)}: is a damaged OpenVINO model manifest (model '/ää")
    assert text.endswith(f"ää', which is no name of a file); {AGAIN}")
    assert " … " in text
    assert len(text.encode()) < 4100


def test_bf16_runs_in_bf16_or_not_at_all(
    tmp_path: Path, library: Library, load: Callable[..., Estimator]
) -> None:
    xml = save_xml(tmp_path / "toy.xml")
    values = json.loads(manifest_path(xml).read_text()) | {"inference_precision": "bf16"}
    manifest_path(xml).write_text(json.dumps(values))
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert load(xml).info.precision == b"bf16"
    else:
        text = "runs in bf16, which is not there on this CPU; build it without --inference-precision bf16"
        assert refusal(lambda: library.load(xml), UNAVAILABLE) == f"{xml}: {text}"


# ── ONNX Runtime


@pytest.fixture
def with_onnxruntime(library: Library) -> None:
    if "onnxruntime" not in library.version:
        pytest.skip(
            "no onnxruntime_c_api.h (include/ of ONNX Runtime's archive, or of "
            "github.com/microsoft/onnxruntime): make test-native ONNXRUNTIME_INCLUDE_DIR=…"
        )


ONNXRUNTIME = pytest.mark.usefixtures("with_onnxruntime")


@ONNXRUNTIME
def test_onnxruntimes_flow_is_pythons(exported: Any, load: Callable[..., Estimator]) -> None:
    estimator, pair = load(exported.model), photos()
    with gocor.load(exported.model) as python:
        expected = python(*pair)
    flow = estimator(*map(image, pair))[0]
    np.testing.assert_allclose(flow, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    assert (estimator.info.backend, estimator.info.precision) == (b"onnxruntime", b"fp32")
    assert (estimator.info.height, estimator.info.width, estimator.info.batch) == (64, 64, 1)


@ONNXRUNTIME
@pytest.mark.parametrize("described", [IMAGES, TENSORS, GLU_IMAGES, GLU_TENSORS])
def test_images_of_any_size_in_onnxruntime(
    described: ModelMetadata, tmp_path: Path, load: Callable[..., Estimator]
) -> None:
    model = save_sampler(tmp_path / "sampler.onnx", described)
    for size in (described.size, (100, 37), (301, 80)):
        check_like_python(model, load, size)


@ONNXRUNTIME
@pytest.mark.parametrize("described", [DYNAMIC, GLU_DYNAMIC, BATCHES])
def test_models_whose_sizes_vary_in_onnxruntime(
    described: ModelMetadata, tmp_path: Path, load: Callable[..., Estimator]
) -> None:
    check_dynamic(save_sampler(tmp_path / "sampler.onnx", described), described, load)


@ONNXRUNTIME
def test_batches_in_onnxruntime(tmp_path: Path, load: Callable[..., Estimator]) -> None:
    described = metadata(batch=2, network="GLUNet_GOCor", height=256, width=256)
    estimator = load(save_toy(tmp_path / "toy.onnx", described), threads=1)
    references, queries = noise(3, described, 1), noise(3, described, 2)
    scores = np.zeros(3, np.float32)
    flow = estimator(images(references), images(queries), 3, scores)
    np.testing.assert_allclose(flow[:, 0, 9, 9], references.mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(flow[:, 1, 9, 9], queries.mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(scores, references[:, :, :128].mean((1, 2, 3)), rtol=1e-6)


@ONNXRUNTIME
def test_threads_in_onnxruntime(exported: Any, load: Callable[..., Estimator]) -> None:
    estimator, pair = load(exported.model), photos()
    alone = estimator(*map(image, pair))
    with ThreadPoolExecutor(8) as pool:
        for flow in pool.map(lambda _: estimator(*map(image, pair)), range(24)):
            np.testing.assert_array_equal(flow, alone)


@ONNXRUNTIME
def test_onnx_files_that_are_refused(tmp_path: Path, library: Library) -> None:
    path = tmp_path / "toy.onnx"
    save_toy(path, properties={})
    text = f"{path}: was not made by gocor (no gocor.network property); run gocor export"
    assert refusal(lambda: library.load(path), BAD_MODEL) == text
    save_toy(path, METADATA, METADATA.to_properties() | {"gocor.batch": "x"})
    text = f"{path}: {PROPERTIES.format('no value at character 0')}"
    assert refusal(lambda: library.load(path), BAD_MODEL) == text
    save_toy(path, METADATA, metadata(height=64).to_properties())
    says = INPUTS.removeprefix("inputs ").replace("32, 64", "64, 64")
    text = f"{path}: has {INPUTS}; its metadata says {says}; export again"
    assert refusal(lambda: library.load(path), BAD_MODEL) == text
    path.write_bytes(b"text")
    text = refusal(lambda: library.load(path), BAD_MODEL)
    assert text.startswith(f"{path}: cannot be loaded by ONNX Runtime (")
    assert text.endswith("); give a model made by gocor export")


@ONNXRUNTIME
def test_an_onnx_file_that_fails_while_it_runs(tmp_path: Path, load: Callable[..., Estimator]) -> None:
    path = save_failing(tmp_path / "failing.onnx")
    check_failing(load(path), path, "ONNX Runtime")


@ONNXRUNTIME
def test_flows_of_another_size_in_onnxruntime(tmp_path: Path, load: Callable[..., Estimator]) -> None:
    estimator = load(save_small_flows(tmp_path / "model.onnx"))
    text = refusal(lambda: estimator(*map(image, noise(2, DYNAMIC))), FAILED)
    assert text.startswith(f"{tmp_path / 'model.onnx'}: failed in ONNX Runtime (")


@ONNXRUNTIME
def test_memory_that_runs_out(built: Path, tmp_path: Path) -> None:
    """At every single allocation of an estimate; the next one works."""
    done = run([built / "harness", "memory", save_toy(tmp_path / "toy.onnx")])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.removesuffix(" failures\n")) > 20


@ONNXRUNTIME
def test_bf16_is_not_for_onnxruntime(tmp_path: Path, library: Library) -> None:
    import onnx
    from onnx import helper, parser

    text = FAILING.replace("wide = Expand(means, grid)", WIDE_IN_BF16)
    model = parser.parse_model(text)
    helper.set_model_props(model, metadata(precision="bf16").to_properties())
    onnx.save(model, path := tmp_path / "bf16.onnx")
    said = refusal(lambda: library.load(path), BAD_MODEL)
    assert said == (
        f"{path}: computes in bf16, which ONNX Runtime does not; build it for another backend: gocor build; "
        "or export with --precision fp16"
    )


WIDE_IN_BF16 = """
    small = Cast<to=16>(means)
    smaller = Sin(small)
    back = Cast<to=1>(smaller)
    wide = Expand(back, grid)
"""


@ONNXRUNTIME
def test_outputs_that_are_not_those_of_the_metadata(tmp_path: Path, library: Library) -> None:
    path = save_sampler(tmp_path / "sampler.onnx", TENSORS)
    import onnx

    model = onnx.load(path)
    model.graph.output.pop(0)
    onnx.save(model, path)
    text = refusal(lambda: library.load(path), BAD_MODEL)
    assert text.startswith(f"{path}: has outputs flow5 float32 (2, 2, 16, 32); flow4")
    says = "flow6, flow5, flow4, flow3, flow2 with flow2 float32 (2, 2, 16, 32)"
    assert text.endswith(f"; its metadata says {says}; export again")


@ONNXRUNTIME
def test_onnx_files_that_name_others(tmp_path: Path, library: Library) -> None:
    path = save_toy(tmp_path / "toy.onnx")
    path.write_bytes(path.read_bytes() + nested_weights())
    expected = "a model in one file, as gocor export writes it"
    text = f"{path}: takes weights from another file ('../secret'); {expected}"
    assert refusal(lambda: library.load(path), BAD_MODEL) == text
    with pytest.raises(ModelError) as caught:
        gocor.load(path)
    assert str(caught.value) == text


def nested_weights() -> bytes:
    """More of a model's graph, in protobuf: weights in another file, in the branch of an If."""
    onnx = pytest.importorskip("onnx")
    tensor = onnx.TensorProto(name="weights", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value="../secret")
    inner = onnx.NodeProto(op_type="Constant", attribute=[onnx.AttributeProto(name="t", type=4, t=tensor)])
    graph = onnx.GraphProto(node=[inner])
    node = onnx.NodeProto(op_type="If", attribute=[onnx.AttributeProto(name="g", type=5, g=graph)])
    content: bytes = onnx.ModelProto(graph=onnx.GraphProto(node=[node])).SerializeToString()
    return content


def test_what_onnx_files_may_name_is_what_python_says(built: Path, tmp_path: Path) -> None:
    """Damage of all kinds: both refuse, for one reason, or neither does."""
    good = save_toy(tmp_path / "toy.onnx").read_bytes()
    random = np.random.default_rng(0)
    verdicts: set[str] = set()
    for number in range(150):
        content = bytearray(good + nested_weights() * (number % 3 != 0) + b"\x12\x09EPContext")
        for place in len(content) - 1 - random.integers(0, 90, number % 4):
            content[place] = random.integers(0, 256)
        path = tmp_path / "damaged.onnx"
        path.write_bytes(content)
        try:
            check_self_contained(path)
            expected = "ok"
        except ModelError as error:
            expected = str(error).removeprefix(f"{path}: ")
        said = run([built / "readers", "onnx"], input=bytes(content), text=False, encoding=None).stdout
        found = said.decode("utf-8", "replace").removeprefix("stdin: ")
        assert re.sub(r"\(.*?\)", "", found) == re.sub(r"\(.*?\)", "", expected), number
        verdicts.add(found[:20])
    assert len(verdicts) >= 3


@ONNXRUNTIME
def test_onnxruntime_leaves_nothing_in_the_home_folder(built: Path, tmp_path: Path) -> None:
    model, home = save_toy(tmp_path / "toy.onnx"), tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = run([built / "harness", "estimate", model], env=environment | {"HOME": str(home)})
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
    assert not list(home.iterdir())


@ONNXRUNTIME
@pytest.mark.slow
def test_onnxruntime_under_sanitizers(sanitized: Path, tmp_path: Path) -> None:
    done = run([sanitized / "harness", "estimate", save_toy(tmp_path / "toy.onnx")])
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


# ── its readers


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2, 0, 3.5, -1e3, 2E-2, true, false, null], "b": {}, "c": [], "": ""}', " \t\r\n1 ",
        '"ä…😀"', r'"\"\\\/\b\f\n\r\t\u0041\u00e4\u2026\ud83d\ude00\u0000"',
        "9223372036854775807", "-9223372036854775808",
        "1e308", "0.1", "[[[[[[[[[[[[]]]]]]]]]]]]",
    ],
)  # fmt: skip
def test_json_as_python_reads_it(text: str, built: Path) -> None:
    done = run([built / "readers", "json"], input=text)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[1,]", '{"a":1,}', "{a:1}", "01", "-", "1.", ".5", "1e", "+1", "0x1", "NaN", "nul", "'a'",
        '"', '"\\x"', '"\\u12g4"', '"\\ud800"', '"\\ude00"', '"a\nb"', "1 2", '{"a":1,"a":2}', "1e999",
        "9223372036854775808",
        "[" * 100_000, "[1 2]", '{"a" 1}', "\ufeff1",
    ],
)  # fmt: skip
def test_what_is_no_json(text: str, built: Path) -> None:
    done = run([built / "readers", "json"], input=text)
    assert done.returncode == 1
    assert re.search(r" at character \d+$", done.stdout)


@pytest.mark.parametrize("size", [0, 3, 55, 56, 63, 64, 65, 119, 120, 128, 100_000])
def test_sha256(size: int, built: Path) -> None:
    content = (b"gocor " * size)[:size].decode()
    done = run([built / "readers", "sha256"], input=content)
    assert done.stdout == hashlib.sha256(content.encode()).hexdigest()


# ── for programs


C_PROGRAM = r"""
#include <gocor.h>
#include <stdio.h>

int main(int count, char** arguments) {
    static const uint8_t pixels[32 * 64 * 3] = {255};
    static float flow[2 * 32 * 64];
    gocor_options options = GOCOR_OPTIONS_DEFAULT;
    gocor_image image = {NULL, 32, 64, 0, GOCOR_RGB};
    gocor_estimator* estimator = NULL;
    image.pixels = pixels;
    options.threads = 1;
    if (count != 2 || gocor_create(arguments[1], &options, &estimator) != GOCOR_OK ||
        gocor_estimate(estimator, &image, &image, 1, flow, 2 * 32 * 64, NULL) != GOCOR_OK) {
        puts(gocor_last_error());
        return 1;
    }
    printf("%s %.4f\n", gocor_get_info(estimator)->network, flow[0]);
    gocor_release(estimator);
    return 0;
}
"""


def test_a_program_in_c(installed: Path, xml: Path, tmp_path: Path) -> None:
    """Neither it nor its CMake knows C++."""
    if not shutil.which("cc"):
        pytest.skip("a C compiler (cc) is missing")
    blocks = dict(re.findall(r"```(cpp|cmake)\n(.*?)```", (ROOT / "docs/cpp.md").read_text(), re.DOTALL))
    (tmp_path / "program.c").write_text(C_PROGRAM)
    (tmp_path / "CMakeLists.txt").write_text(
        blocks["cmake"].replace("LANGUAGES CXX", "LANGUAGES C").replace("program.cpp", "program.c")
    )
    flags = "-DCMAKE_C_FLAGS=-std=c99 -pedantic -Wall -Wextra -Werror"
    folder = build(tmp_path, tmp_path / "build", f"-Dgocor_ROOT={installed}", flags)
    done = run([folder / "program", xml])
    assert (done.returncode, done.stdout) == (0, f"PWCNet_GOCor {255 / (32 * 64 * 3):.4f}\n"), done.stderr
    done = run([folder / "program", "none.xml"])
    assert (done.returncode, done.stdout.partition(";")[0]) == (1, "none.xml: no such file")


def test_it_shows_nothing_but_its_functions(built: Path) -> None:
    header = (ROOT / "runtime/cpp/include/gocor.h").read_text()
    promised = set(re.findall(r"^GOCOR_API .*?(gocor_\w+)\(", header, re.MULTILINE))
    lines = run(["nm", "--dynamic", "--defined-only", built / "cpp/libgocor.so"]).stdout.splitlines()
    assert {line.split()[-1] for line in lines} == promised
    assert len(promised) == 7


def test_the_program_in_the_docs(installed: Path, xml: Path, tmp_path: Path) -> None:
    blocks = dict(re.findall(r"```(cpp|cmake)\n(.*?)```", (ROOT / "docs/cpp.md").read_text(), re.DOTALL))
    (tmp_path / "program.cpp").write_text(blocks["cpp"])
    (tmp_path / "CMakeLists.txt").write_text(blocks["cmake"])
    folder = build(
        tmp_path, tmp_path / "build", f"-Dgocor_ROOT={installed}", "-DCMAKE_CXX_FLAGS=-Wall -Werror"
    )
    done = run([folder / "program"], cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("model.xml: no such file")
    for file in tmp_path.glob("toy.xml*"):
        file.rename(tmp_path / file.name.replace("toy", "model"))
    (tmp_path / "toy.bin").rename(tmp_path / "model.bin")
    done = run([folder / "program"], cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("the first pixel moves by (100.00, 100.00) px\n", "")


def example(installed: Path, folder: Path, *options: str) -> Path:
    """The program, built as a user would."""
    flags = "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"
    return build(ROOT / "examples/cpp", folder, f"-Dgocor_ROOT={installed}", flags, *options) / "estimate"


def test_the_example(installed: Path, xml: Path, tmp_path: Path) -> None:
    program = example(installed, tmp_path / "build", "-DCMAKE_DISABLE_FIND_PACKAGE_PNG=ON")
    reference, query = noise(2)
    for name, picture in (("reference", reference), ("query", query)):
        save_image(tmp_path / f"{name}.ppm", picture)
    files = [tmp_path / name for name in ("reference.ppm", "query.ppm", "flow.flo")]
    done = run([program, xml, *files])
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"PWCNet_GOCor, 32x64, fp32 in openvino\n[\d.]+ ms in the middle of 10 runs, [\d.]+ to [\d.]+\n",
        done.stdout,
    )
    flow, _ = read_flow(files[-1])
    np.testing.assert_allclose(flow[0], reference.mean(), rtol=1e-6)
    np.testing.assert_allclose(flow[1], query.mean(), rtol=1e-6)
    whole, full_disk = files[2].read_bytes(), "ulimit -f 8; trap '' XFSZ; exec \"$@\""
    done = run(["sh", "-c", full_disk, "sh", program, xml, *files])
    assert (done.returncode, done.stderr) == (2, f"{files[2]}: cannot be written\n")
    assert files[2].read_bytes() == whole
    assert not (tmp_path / "flow.flo.part").exists()
    assert run([program, xml, *files[:2], "/dev/full"]).stderr == "/dev/full: cannot be written\n"
    for wrong, text in (
        (b"P5 1 1 255 a", "is no PPM image"),
        (b"P6 64 32 255 a", "ends before its last pixel"),
    ):
        files[1].write_bytes(wrong)
        done = run([program, xml, *files])
        assert done.returncode == 2
        assert done.stderr.startswith(f"{files[1]}: {text}")
    done = run([program, xml, files[0], tmp_path / "query.png", files[2]])
    assert done.stderr.startswith(
        f"{tmp_path / 'query.png'}: PNG is not in this build, which did not find libpng"
    )


def test_the_example_reads_png(installed: Path, tmp_path: Path) -> None:
    program = example(installed, tmp_path / "build")
    if "WITH_PNG" not in (tmp_path / "build/CMakeFiles/estimate.dir/flags.make").read_text():
        pytest.skip("libpng's headers are missing (Debian: libpng-dev)")
    model, pictures = sampler_xml(tmp_path / "sampler.xml", IMAGES), noise(2, metadata(height=50, width=70))
    files = [tmp_path / name for name in ("reference.png", "query.png", "flow.flo")]
    for path, picture in zip(files, pictures, strict=False):
        save_image(path, picture)
    done = run([program, model, *files])
    assert done.returncode == 0, done.stderr
    with gocor.load(model) as python:
        python.note_no_size()
        expected = python(*pictures)
    np.testing.assert_allclose(read_flow(files[-1])[0], expected, rtol=1e-6, atol=1e-3)
    files[1].write_bytes(files[1].read_bytes()[:99])
    done = run([program, model, *files])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"{files[1]}: is no PNG image (")


def test_the_benchmark_beside_python(built: Path, xml: Path, tmp_path: Path) -> None:
    program, library = ROOT / "benchmarks/cpp_overhead.py", built / "cpp/libgocor.so"
    report = tmp_path / "report.json"
    options = ["--library", library, "--size", "40x50", "--rounds", "2", "--json", report]
    done = run([sys.executable, program, xml, *options])
    assert done.returncode == 0, done.stderr
    assert [line.split(" · ")[1].split()[0] for line in done.stdout.splitlines()] == [
        "Python",
        "libgocor",
        "empty",
    ]
    first = json.loads(report.read_text())["results"][0]
    assert (first["facts"]["size"], first["facts"]["model_size"], len(first["times_ms"])) == (
        "40x50",
        "32x64",
        2,
    )


def test_configuring_without_what_it_takes(tmp_path: Path) -> None:
    without = "-DGOCOR_BACKENDS=onnxruntime -DONNXRUNTIME_INCLUDE_DIR=/none"
    header = f"-DGOCOR_BACKENDS=onnxruntime -DONNXRUNTIME_INCLUDE_DIR={tmp_path} -DONNXRUNTIME_LIBRARY=/none"
    (tmp_path / "onnxruntime_c_api.h").touch()
    wrong = (
        ("-DGOCOR_BACKENDS=", "No backend was chosen"),
        ("-DGOCOR_BACKENDS=tflite", "There is no backend tflite. Known: openvino"),
        (f"-DOpenVINO_DIR={tmp_path}", "OpenVINO 2025.4 or later was not found. Give -DOpenVINO_DIR=…"),
        (without, "ONNX Runtime's header was not found. Give -DONNXRUNTIME_INCLUDE_DIR=…"),
        (f"-DGOCOR_BACKENDS=tensorrt -DTENSORRT_INCLUDE_DIR={tmp_path}", "TensorRT was not found. Give"),
        (header, "ONNX Runtime's library was not found. Give -DONNXRUNTIME_LIBRARY=…"),
    )
    for number, (options, text) in enumerate(wrong):
        done = cmake("-S", ROOT / "runtime/cpp", "-B", tmp_path / str(number), *options.split())
        assert done.returncode != 0
        assert text in " ".join(done.stderr.split())


# ── under sanitizers


@pytest.fixture(scope="module")
def sanitized(backends: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ("-DGOCOR_SANITIZE=address,undefined", "-DCMAKE_BUILD_TYPE=Debug")
    return build(NATIVE, tmp_path_factory.mktemp("sanitized"), *backends, *options)


@pytest.mark.slow
def test_estimating_under_sanitizers(sanitized: Path, xml: Path) -> None:
    # What OpenVINO itself keeps until the process ends is not ours to find.
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    done = run([sanitized / "harness", "estimate", xml], env=environment)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.slow
def test_a_hundred_thousand_damaged_manifests_under_sanitizers(sanitized: Path, xml: Path) -> None:
    done = run([sanitized / "readers", "fuzz", xml, "100000"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_damaged_manifests_by_the_thousand(built: Path, xml: Path) -> None:
    done = run([built / "readers", "fuzz", xml, "2000"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" of 2000 refused\n")


# ── worn down


def stress(folder: Path, command: str, model: Path, *numbers: int) -> str:
    """What a program says that calls the library with more than is good for it."""
    # OpenVINO is asked for terabytes by some graphs, and has to live with there being none.
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"}
    done = run([folder / "stress", command, model, *map(str, numbers)], env=environment, timeout=7200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_calls_and_files_by_the_thousand(built: Path, xml: Path) -> None:
    assert stress(built, "calls", xml, 3000) == "3000 calls\n"
    assert stress(built, "files", xml, 1000).endswith(" of 1000 refused\n")


@pytest.mark.slow
def test_a_hundred_thousand_calls_under_sanitizers(sanitized: Path, xml: Path) -> None:
    assert stress(sanitized, "calls", xml, 100_000) == "100000 calls\n"


@pytest.mark.slow
def test_damaged_files_under_sanitizers(sanitized: Path, xml: Path) -> None:
    assert stress(sanitized, "files", xml, 15_000).endswith(" of 15000 refused\n")


@pytest.mark.slow
def test_damaged_graphs_under_sanitizers(sanitized: Path, xml: Path) -> None:
    """With hashes that are right, as somebody makes them who means it."""
    assert stress(sanitized, "graphs", xml, 2000).endswith(" of 2000 refused\n")


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 8])
def test_many_estimates(threads: int, built: Path, network_xml: Path) -> None:
    """Ten thousand of PWC-Net-GOCor: all the same, in memory that stays within 2 %."""
    report = json.loads(stress(built, "load", network_xml, 10_000, threads))
    assert (report["different"], report["distinct"]) == (0, 4)
    warm = report["memory"][20:]
    assert max(warm) <= 1.02 * min(warm), warm
