import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from toy_models import METADATA, metadata, save_toy

from gocor.core.errors import ConfigError, GocorError, ModelError, ProviderError, ShapeError
from gocor.runtime import preprocess
from gocor.runtime.session import FlowEstimator, load

pytest.importorskip("onnxruntime")


def pair(height: int = 32, width: int = 64, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    shape = (height, width, 3) if count is None else (count, height, width, 3)
    return random.integers(0, 256, shape, np.uint8), random.integers(0, 256, shape, np.uint8)


@pytest.fixture
def toy(tmp_path: Path) -> FlowEstimator:
    return load(save_toy(tmp_path / "toy.onnx"))


def test_images_model_gives_its_flow(toy: FlowEstimator) -> None:
    reference, query = pair()
    flow = toy(reference, query)
    assert flow.shape == (2, 32, 64)
    assert flow.dtype == np.float32
    np.testing.assert_allclose(flow[0], reference.mean(), rtol=1e-6)
    np.testing.assert_allclose(flow[1], query.mean(), rtol=1e-6)
    assert toy.metadata == METADATA
    assert toy.provider == "cpu"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_any_number_of_pairs_runs_in_batches_of_the_model(tmp_path: Path, count: int) -> None:
    reference, query = pair(count=count)
    flow = load(save_toy(tmp_path / "toy.onnx", metadata(batch=2)))(reference, query)
    assert flow.shape == (count, 2, 32, 64)
    for i in range(count):
        np.testing.assert_allclose(flow[i, 0], reference[i].mean(), rtol=1e-6)
        np.testing.assert_allclose(flow[i, 1], query[i].mean(), rtol=1e-6)


@pytest.mark.parametrize("network", ["PWCNet", "GLUNet_GOCor"])
def test_another_size_is_resized_by_the_networks_rule_and_noted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, network: str
) -> None:
    estimator = load(save_toy(tmp_path / "toy.onnx", metadata(network=network, height=256, width=320)))
    reference, query = pair(100, 80)
    with caplog.at_level(logging.INFO, "gocor"):
        flow = estimator(reference, query)
        estimator(reference, query)
    family = estimator.metadata.spec.family
    resized = preprocess.resize_images(reference[None], 256, 320, family)
    assert flow.shape == (2, 100, 80)
    np.testing.assert_allclose(flow[0], resized.mean() * 80 / 320, rtol=1e-5)
    [record] = caplog.records
    assert record.getMessage() == (
        "toy.onnx is made for 256x320; images of 100x80 are resized to that, and only a model exported with "
        "--size 100x80 gives the official result"
    )


@pytest.mark.parametrize(
    ("network", "size", "official"), [("PWCNet", (100, 60), (128, 64)), ("GLUNet", (260, 300), (256, 296))]
)
def test_tensors_model_is_fed_and_read_on_the_host(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    network: str,
    size: tuple[int, int],
    official: tuple[int, int],
) -> None:
    described = metadata(network=network, io="tensors", height=official[0], width=official[1])
    reference, query = pair(*size)
    flow = load(save_toy(tmp_path / "toy.onnx", described))(reference, query)
    tensors = preprocess.preprocess(described.spec, reference, query)
    expected = tensors["query"].mean() * described.spec.flow_unit * size[0] / official[0]
    assert flow.shape == (2, *size)
    np.testing.assert_allclose(flow[1], expected, rtol=1e-4)
    assert not caplog.records  # this is the size the network itself would choose


def test_glunet_tells_how_well_the_orientation_fits(tmp_path: Path) -> None:
    described = metadata(network="GLUNet", height=256, width=320, batch=2)
    reference, query = pair(256, 320, count=3)
    estimate = load(save_toy(tmp_path / "toy.onnx", described)).estimate(reference, query)
    assert estimate.orientation_score is not None
    np.testing.assert_allclose(estimate.orientation_score, reference[:, :, :160].mean((1, 2, 3)), rtol=1e-5)


def test_pwcnet_has_no_orientation_score(toy: FlowEstimator) -> None:
    assert toy.estimate(*pair()).orientation_score is None


def test_threads_share_an_estimator(toy: FlowEstimator) -> None:
    pairs = [pair(32, 64, count=1 + i % 3) for i in range(24)]
    alone = [toy(*p) for p in pairs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda p: toy(*p), pairs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_raw_run_gives_every_output(tmp_path: Path) -> None:
    described = metadata(io="tensors", height=64)
    inputs = {i.name: np.ones(i.shape, np.float32) for i in described.inputs}
    outputs = load(save_toy(tmp_path / "toy.onnx", described)).run(inputs)
    assert list(outputs) == ["flow6", "flow5", "flow4", "flow3", "flow2"]
    assert (outputs["flow2"] == 1).all()


def test_raw_run_checks_its_inputs(toy: FlowEstimator) -> None:
    image = np.zeros((1, 32, 64, 3), np.uint8)
    wrong = {
        "was given inputs reference; its inputs are reference, query": {"reference": image},
        "query: is float32 (1, 32, 64, 3); ": {"reference": image, "query": image.astype(np.float32)},
        "query: is uint8 (32, 64, 3); ": {"reference": image, "query": image[0]},
    }
    for message, inputs in wrong.items():
        with pytest.raises(ShapeError) as caught:
            toy.run(inputs)
        assert message in str(caught.value)
    assert f"{toy.path} takes uint8 (1, 32, 64, 3)" in str(caught.value)


def test_wrong_images_do_not_reach_the_model(toy: FlowEstimator) -> None:
    reference, query = pair()
    with pytest.raises(ShapeError, match="query: has dtype float32; uint8, values 0 to 255"):
        toy(reference, query.astype(np.float32))


def test_a_closed_estimator_says_so(tmp_path: Path) -> None:
    with load(save_toy(tmp_path / "toy.onnx")) as estimator:
        estimator(*pair())
    with pytest.raises(ModelError, match=r"toy.onnx: was closed; load it again to go on$"):
        estimator(*pair())
    estimator.close()


def test_repr_says_what_it_is(toy: FlowEstimator) -> None:
    assert repr(toy) == f"<OnnxRuntimeEstimator PWCNet_GOCor 32x64 batch 1 on cpu, {toy.path}>"


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(GocorError) as caught:
        load(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    made_by = "give a model made by gocor export"
    assert refusal(tmp_path / "absent.onnx") == f"no such file; {made_by}"
    assert refusal(tmp_path) == "holds no package.json; a model file, or a folder of gocor package"
    path = tmp_path / "model.onnx"
    path.touch()
    assert refusal(path) == f"is empty; {made_by}"
    path.write_bytes(b"\x89PNG" * 100)
    assert refusal(path) == f"cannot be loaded by ONNX Runtime (Protobuf parsing failed); {made_by}"
    checkpoint = tmp_path / "their.pth"
    checkpoint.write_bytes(b"PK")
    assert refusal(checkpoint).startswith("is a checkpoint; make a model of it: gocor export ")
    text = tmp_path / "model.txt"
    text.write_text("hello")
    assert refusal(text) == "has the unknown suffix '.txt'; models are .onnx, .engine or .xml files"


def test_a_truncated_model(tmp_path: Path) -> None:
    path = save_toy(tmp_path / "toy.onnx")
    path.write_bytes(path.read_bytes()[:-200])
    assert "cannot be loaded by ONNX Runtime (" in refusal(path)


def test_a_model_of_someone_else(tmp_path: Path) -> None:
    path = save_toy(tmp_path / "toy.onnx", properties={"author": "someone"})
    assert refusal(path) == "was not made by gocor (no gocor.network property); run gocor export"


def test_a_model_that_is_not_what_its_metadata_says(tmp_path: Path) -> None:
    taller = metadata(height=48).to_properties()
    path = save_toy(tmp_path / "toy.onnx", METADATA, taller)
    assert refusal(path) == (
        "has inputs reference uint8 (1, 32, 64, 3); query uint8 (1, 32, 64, 3); its metadata says "
        "reference uint8 (1, 48, 64, 3); query uint8 (1, 48, 64, 3); export again"
    )
    glunet = metadata(network="GLUNet").to_properties()
    path = save_toy(tmp_path / "toy.onnx", METADATA, glunet)
    assert "has outputs flow float32 (1, 2, 32, 64); its metadata says flow, orientation_score" in refusal(
        path
    )


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_toy(tmp_path / "toy.onnx")

    def denied(*_: object) -> None:  # the tests may run as root, whom no permission stops
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refusal(path) == "cannot be read (Permission denied); check its permissions"


def test_wrong_options(tmp_path: Path) -> None:
    path = save_toy(tmp_path / "toy.onnx")
    with pytest.raises(ProviderError) as caught:
        load(path, "gpu")
    assert str(caught.value) == "provider: unknown name 'gpu'; one of cpu, cuda, tensorrt"
    with pytest.raises(ConfigError) as wrong_threads:
        load(path, threads=0)
    assert str(wrong_threads.value) == "threads: is 0; at least 1"
    engine = path.rename(tmp_path / "toy.engine")
    with pytest.raises(ConfigError) as no_threads:
        load(engine, threads=2)
    text = f"threads: are those of the CPU, and {engine} is an engine; leave them out"
    assert str(no_threads.value) == text
