import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from packages import INT8, add_model, make_package, replace_models
from toy_models import metadata, save_toy

from gocor.core.errors import ConfigError, DependencyError, ModelError, ProviderError, ShapeError
from gocor.runtime import package_choice, package_session
from gocor.runtime.metadata import Range
from gocor.runtime.package import Package, seal
from gocor.runtime.package_choice import choose, find_candidates
from gocor.runtime.package_session import PackageEstimator
from gocor.runtime.session import FlowEstimator, load

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "package", precisions=("fp32", "fp16"))


def images(height: int, width: int, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    shape = (height, width, 3) if count is None else (count, height, width, 3)
    return random.integers(0, 256, shape, np.uint8), random.integers(0, 256, shape, np.uint8)


def chosen(package: Package, height: int, width: int) -> tuple[str, bool, str]:
    choice = choose(find_candidates(package).models, height, width)
    return choice.model.path.removeprefix("models/"), choice.exact, choice.why


def test_images_run_in_the_model_of_their_size(package: Package) -> None:
    with load(package.folder) as estimator:
        assert isinstance(estimator, PackageEstimator)
        assert estimator.provider == "cpu"
        assert estimator.metadata.network == "PWCNet_GOCor"
        assert estimator.chosen is None
        for size in ((32, 64), (64, 64)):
            reference, query = images(*size)
            flow = estimator(reference, query)
            assert flow.shape == (2, *size)
            np.testing.assert_allclose(flow[0], reference.mean(), rtol=1e-5)
            assert estimator.chosen.model.metadata.size == size
            assert estimator.chosen.exact
        assert estimator(*images(32, 64, count=3)).shape == (3, 2, 32, 64)


def test_which_model_runs_is_logged_once_for_each_size(
    package: Package, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(package.folder)
    with caplog.at_level(logging.INFO, "gocor"), load(".") as estimator:
        for size in ((64, 64), (66, 60), (64, 64), (66, 60), (30, 66)):
            estimator(*images(*size))
    resized = "(nearest of 2 sizes; images are resized to it)"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "INFO",
            ".: images of 64x64 run in models/64x64.fp32.onnx on cpu (made for images of this size)",
        ),
        ("WARNING", f".: images of 66x60 run in models/64x64.fp32.onnx on cpu {resized}"),
        ("WARNING", f".: images of 30x66 run in models/32x64.fp32.onnx on cpu {resized}"),
    ]


def test_the_nearest_size_is_that_of_area_and_aspect(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package", sizes=((64, 128), (128, 64), (128, 128), (256, 256)))
    resized = "nearest of 4 sizes; images are resized to it"
    for size, expected in (
        ((60, 130), "64x128"), ((130, 60), "128x64"), ((120, 120), "128x128"), ((1000, 1000), "256x256"),
        ((80, 160), "64x128"),
        ((100, 200), "128x128"),  # the other has its aspect, and 2.4 times less area
        ((8, 8), "128x64"),
        ((181, 181), "128x128"), ((182, 182), "256x256"),  # the middle is at 181.02
    ):  # fmt: skip
        assert chosen(package, *size) == (f"{expected}.fp32.onnx", False, resized)
    assert chosen(package, 128, 64)[1:] == (True, "made for images of this size")
    choice = choose(find_candidates(package).models, 128, 64)
    assert str(choice) == "128x64 in models/128x64.fp32.onnx (made for images of this size)"


def test_of_two_equally_near_the_larger_runs(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package", sizes=((64, 64), (256, 256), (64, 256), (256, 64)))
    assert chosen(package, 128, 128)[0] == "256x256.fp32.onnx"
    square = make_package(tmp_path / "other", sizes=((256, 64), (64, 256)))
    assert chosen(square, 128, 128)[0] == "256x64.fp32.onnx"  # then the first by name


def test_a_model_for_all_sizes_of_a_range_comes_before_resizing(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package", sizes=((64, 64), (128, 128)))
    described = metadata(height=64, width=64, io="tensors", dynamic={"height": (64, 256), "width": (64, 256)})
    described = type(described).from_properties(described.to_properties(), "a model")
    dynamic = package.models[0].__class__(
        **{**vars(package.models[0]), "metadata": described, "path": "models/any.onnx"}
    )
    models = (*package.models, dynamic)
    for size, expected, exact in (
        ((64, 64), "models/64x64.fp32.onnx", True), ((100, 90), "models/any.onnx", True),
        ((300, 300), "models/128x128.fp32.onnx", False),
    ):  # fmt: skip
        choice = choose(models, *size)
        assert (choice.model.path, choice.exact) == (expected, exact)
    assert choose(models, 100, 90).why == "takes images of any such size"
    assert dynamic.size == "any height and width (best 64x64)"
    with pytest.raises(ShapeError, match="320"):
        choose([dynamic], 300, 300)


def test_a_side_that_does_not_vary_is_resized_to(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package", sizes=[(64, 64)])
    described = metadata(height=128, width=128, io="tensors", dynamic={"height": Range(64)})
    tall = add_model(package.folder, "tall.onnx", described)
    for size, expected, why in (
        ((100, 128), "tall.onnx", "takes images of any such size"),
        ((250, 140), "tall.onnx", "nearest of 2 sizes; images are resized to it"),
        ((60, 50), "64x64.fp32.onnx", "nearest of 2 sizes; images are resized to it"),
    ):
        choice = choose([*package.models, tall], *size)
        assert (choice.model.path, choice.why) == (f"models/{expected}", why)
    alone = choose([tall], 60, 50)
    assert (alone.exact, alone.why) == (False, "the only size; images are resized to it")
    with pytest.raises(ShapeError, match="images: are 0x64; sides from 1"):
        choose([tall], 0, 64)


def test_inputs_decide_which_model_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = make_package(tmp_path / "package", sizes=[(256, 256), (256, 264)], network="GLUNet")
    dynamic = {"batch": Range(1), "width": Range(256, 1080)}
    described = metadata(network="GLUNet", height=256, width=256, io="tensors", dynamic=dynamic)
    model = add_model(package.folder, "any.onnx", described)
    package.index.unlink()
    seal(package.folder, (*package.models, model), package.pairs, "")
    opened, _ = _watch(monkeypatch)
    small = np.zeros((2, 3, 256, 256), np.float32)
    tensors = {"reference": np.zeros((2, 3, 256, 272), np.float32), "reference_256": small}
    tensors |= {name.replace("reference", "query"): array for name, array in tensors.items()}
    with load(package.folder) as estimator:
        assert estimator.run(tensors)["flow1"].shape == (2, 2, 64, 68)
        with pytest.raises(ShapeError, match="has no model that takes reference float32"):
            estimator.run(tensors | {"query_256": small[:1]})
    assert opened == ["any.onnx"]


def test_preprocessed_tensors_have_the_official_size(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package", sizes=((64, 64), (64, 128)), io="tensors")
    assert chosen(package, 50, 60)[:2] == ("64x64.fp32.onnx", True)
    assert chosen(package, 50, 70)[:2] == ("64x128.fp32.onnx", True)
    assert chosen(package, 200, 70)[:2] == ("64x64.fp32.onnx", False)


def test_precision_is_asked_for(package: Package) -> None:
    with load(package.folder, precision="fp16") as estimator:
        estimator(*images(32, 64))
        assert estimator.chosen.model.path == "models/32x64.fp16.onnx"
        assert estimator.precision == "fp16"
    with pytest.raises(ConfigError) as caught:
        load(package.folder, precision="int8")
    assert str(caught.value) == f"precision: 'int8' is not in {package.folder}; it has fp32, fp16"
    with pytest.raises(ConfigError, match="precision: unknown 'fp64'; one of fp32, fp16"):
        load(package.folder, precision="fp64")


def test_a_model_has_its_own_precision(tmp_path: Path) -> None:
    path = save_toy(tmp_path / "toy.onnx")
    with pytest.raises(
        ConfigError, match=r"precision: chooses among a package's models, and .*toy\.onnx is one"
    ):
        load(path, precision="fp32")


def test_8_bits_in_the_form_that_is_made_for_the_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_choice, "check_runs_here", lambda *_: None)  # here is no GPU
    package = make_package(tmp_path / "package", sizes=[(32, 64)], precisions=["int8"])
    other = type(INT8)("tensorrt", "minmax", 9, 43)
    model = add_model(package.folder, "32x64.int8-tensorrt.onnx", metadata(int8=other))
    models = (model, *package.models)
    package = Package(package.folder, "", "", models, package.pairs, package.files)
    for provider, name in (("cpu", "32x64.int8"), ("cuda", "32x64.int8-tensorrt"), (None, "32x64.int8")):
        found = find_candidates(package, "int8", provider)
        assert [model.path for model in found.models] == [f"models/{name}.onnx"]


def test_the_provider_is_the_first_that_works_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    package = make_package(tmp_path / "package", sizes=[(32, 64)])
    engine = _engine(package)
    with caplog.at_level(logging.INFO, "gocor"), load(package.folder) as estimator:
        assert estimator.provider == "cpu"
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{package.folder}: tensorrt does not run here: ")
    with pytest.raises((DependencyError, ProviderError)):  # asked for by name there is no other
        load(package.folder, provider="tensorrt")
    package = Package(package.folder, "", "", (engine,), package.pairs, package.files)
    with pytest.raises(ProviderError) as caught:
        find_candidates(package)
    assert str(caught.value).startswith(f"{package.folder}: has no fp32 model that runs here (tensorrt: ")


def _engine(package: Package) -> package_session.PackagedModel:
    """Adds an engine, which no machine without a GPU runs, to a package."""
    from gocor.core.files import write_text
    from gocor.runtime.manifest import EngineManifest, manifest_path

    path = package.folder / "models/32x64.fp32.engine"
    path.write_bytes(b"a plan")
    described = package.models[0].metadata
    manifest = EngineManifest(
        path=path, model="32x64.fp32.onnx", model_sha256="ab" * 32, engine_sha256="cd" * 32,
        backend="tensorrt", library_version="11.4.0.106", targets=("sm_90",), gpu="NVIDIA H100",
        hardware_compatible=False, version_compatible=False, tf32=False, plugins="quick",
        plugin_sha256="ef" * 32, inputs=described.inputs, outputs=(described.flow,), metadata=described,
        gocor_version="0.1.0",
    )  # fmt: skip
    write_text(manifest_path(path), manifest.to_json())
    names = (path, manifest_path(path))
    model = package.models[0].__class__(**{
        **vars(package.models[0]), "path": f"models/{path.name}", "backend": "tensorrt",
        "files": tuple(f"models/{name.name}" for name in names), "ran": False,
    })  # fmt: skip
    package.index.unlink()
    seal(package.folder, (*package.models, model), package.pairs, package.licence)
    return model


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"provider": "abacus"}, "provider: 'abacus' is unknown; one of cpu, cuda, tensorrt"),
        ({"provider": "onnxruntime"}, "provider: 'onnxruntime' is unknown; one of cpu, cuda, tensorrt"),
        ({"provider": "openvino"}, "provider: 'openvino' runs no fp32 model of FOLDER; one of cpu, cuda, "),
        ({"threads": 0}, "threads: is 0; at least 1"),
    ],
)  # fmt: skip
def test_bad_options(package: Package, options: dict[str, object], text: str) -> None:
    with pytest.raises((ProviderError, ConfigError)) as caught:
        load(package.folder, **options)  # type: ignore[arg-type]
    assert str(caught.value).replace(str(package.folder), "FOLDER").startswith(text)


def test_a_model_that_is_not_as_it_was_packaged_does_not_run(package: Package) -> None:
    with load(package.folder) as estimator:
        save_toy(package.folder / "models/32x64.fp32.onnx", metadata(operators={}))
        with pytest.raises(ModelError, match=r"32x64\.fp32\.onnx: (has|is not the file that was packaged)"):
            estimator(*images(32, 64))
        estimator(*images(64, 64))  # the others do


def test_a_model_that_the_index_describes_wrongly_does_not_run(package: Package) -> None:
    model, *others = package.models
    described = metadata(height=32, width=64, batch=2)
    replace_models(package, type(model)(**{**vars(model), "metadata": described}), *others)
    with load(package.folder) as estimator, pytest.raises(ModelError) as caught:
        estimator(*images(32, 64))
    assert str(caught.value).endswith(
        "is not what package.json says of it; make the package again: gocor package"
    )


def test_a_call_with_the_models_own_inputs(package: Package) -> None:
    with load(package.folder) as estimator:
        reference, query = images(64, 64, count=1)
        assert estimator.run({"reference": reference, "query": query})["flow"].shape == (1, 2, 64, 64)
        reference, query = images(66, 64, count=1)
        with pytest.raises(ShapeError) as caught:
            estimator.run({"reference": reference, "query": query})
    assert str(caught.value) == (
        f"{package.folder}: has no model that takes reference uint8 (1, 66, 64, 3); query uint8 "
        "(1, 66, 64, 3); its sizes are 32x64, 64x64"
    )


def test_no_more_models_are_open_than_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, closed = _watch(monkeypatch)
    sizes = [(32, 64), (64, 64), (64, 128)]
    package = make_package(tmp_path / "package", sizes=sizes)
    with PackageEstimator(package.folder, open_models=2) as estimator:
        assert opened == []  # not before they are needed
        for size in (sizes[0], sizes[1], sizes[0], sizes[2], sizes[0]):
            estimator(*images(*size))
        assert opened == ["32x64.fp32.onnx", "64x64.fp32.onnx", "64x128.fp32.onnx"]
        assert closed == ["64x64.fp32.onnx"]  # the one that was not used for longest
    assert sorted(closed) == sorted(opened)
    with pytest.raises(ModelError, match=r"package\.json: was closed; load it again to go on"):
        estimator(*images(32, 64))
    with pytest.raises(ConfigError, match="open_models: is 0; at least 1"):
        PackageEstimator(package.folder, open_models=0)


def _watch(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """Names of models that packages open and close from now on."""
    opened: list[str] = []
    closed: list[str] = []

    def watched(path: Path, *options: object) -> FlowEstimator:
        opened.append(path.name)
        estimator = load(path, *options)  # type: ignore[arg-type]
        release = estimator._release
        monkeypatch.setattr(estimator, "_release", lambda: (closed.append(path.name), release()))
        return estimator

    monkeypatch.setattr(package_session, "load", watched)
    return opened, closed


def test_a_model_that_another_thread_is_in_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, closed = _watch(monkeypatch)
    package = make_package(tmp_path / "package")
    inside, go_on = threading.Event(), threading.Event()

    def wait(estimator: FlowEstimator, *pair: np.ndarray) -> object:
        if pair[0].shape[0] == 32:
            inside.set()
            assert go_on.wait(30)
        return original(estimator, *pair)

    original = FlowEstimator.estimate
    monkeypatch.setattr(FlowEstimator, "estimate", wait)
    with PackageEstimator(package.folder, open_models=1) as estimator, ThreadPoolExecutor(1) as pool:
        running = pool.submit(estimator, *images(32, 64))
        assert inside.wait(30)
        estimator(*images(64, 64))
        assert closed == ["64x64.fp32.onnx"]  # idle, and one too many
        go_on.set()
        assert running.result().shape == (2, 32, 64)
    assert opened == ["32x64.fp32.onnx", "64x64.fp32.onnx"]


def test_one_model_loads_while_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = make_package(tmp_path / "package")
    loading, go_on = threading.Event(), threading.Event()

    def slow(path: Path, *options: object) -> FlowEstimator:
        if path.name.startswith("32x64"):
            loading.set()
            assert go_on.wait(30)
        return load(path, *options)  # type: ignore[arg-type]

    monkeypatch.setattr(package_session, "load", slow)
    with PackageEstimator(package.folder) as estimator, ThreadPoolExecutor(2) as pool:
        running = [pool.submit(estimator, *images(32, 64)) for _ in range(2)]
        assert loading.wait(30)
        assert estimator(*images(64, 64)).shape == (2, 64, 64)
        go_on.set()
        np.testing.assert_array_equal(*(one.result() for one in running))


def test_a_model_that_could_not_be_opened_is_tried_again(package: Package) -> None:
    path = package.folder / "models/32x64.fp32.onnx"
    content = path.read_bytes()
    path.unlink()
    with load(package.folder) as estimator:
        with pytest.raises(ModelError, match="is missing"):
            estimator(*images(32, 64))
        path.write_bytes(content)
        assert estimator(*images(32, 64)).shape == (2, 32, 64)


def test_many_threads_and_sizes(tmp_path: Path) -> None:
    sizes = [(32, 64), (64, 64), (64, 128)]
    package = make_package(tmp_path / "package", sizes=sizes)
    with PackageEstimator(package.folder, open_models=1) as estimator, ThreadPoolExecutor(4) as pool:
        flows = list(pool.map(lambda n: estimator(*images(*sizes[n % 3])), range(24)))
    for number, flow in enumerate(flows):
        np.testing.assert_array_equal(flow, flows[number % 3])


def test_runs_know_a_package_by_its_index(package: Package, tmp_path: Path) -> None:
    from gocor.runtime.pairs import find_pairs
    from gocor.runtime.run import RunConfig, run_pairs

    pair = package.folder / "pairs/32x64/1"
    source = find_pairs(pair / "reference.png", pair / "query.png")
    with load(package.folder) as estimator:
        for skipped in (False, True):
            report = run_pairs(estimator, source, RunConfig(tmp_path / "out"))
            assert report.results[0].skipped is skipped
