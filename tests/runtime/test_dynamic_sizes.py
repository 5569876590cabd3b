"""Models whose sizes vary: what they take, in how many calls, and what they refuse."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from toy_models import metadata, save_toy

from gocor.core.errors import ModelError, ShapeError
from gocor.runtime.metadata import ORIENTATION_SCORE, ModelMetadata, Range, TensorSpec
from gocor.runtime.preprocess import normalize
from gocor.runtime.session import FlowEstimator, load

BATCH, SIDE = Range(1), Range(64)
ALL = metadata(io="tensors", height=64, width=128, dynamic={"batch": BATCH, "height": SIDE, "width": SIDE})
NARROW = metadata(
    network="GLUNet", io="tensors", height=256, width=256, batch=2,
    dynamic={"batch": Range(2, 3), "width": Range(256, 1080)},
)  # fmt: skip


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[FlowEstimator]:
    with load(save_toy(tmp_path / "toy.onnx", ALL)) as estimator:
        yield estimator


@pytest.fixture
def calls(toy: FlowEstimator, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the reference in every call of the model."""
    return _spy(toy, monkeypatch)


def _spy(estimator: FlowEstimator, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    run = estimator._run

    def noting(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shapes.append(inputs["reference"].shape)
        return run(inputs)

    monkeypatch.setattr(estimator, "_run", noting)
    return shapes


def _images(count: int, height: int, width: int) -> np.ndarray:
    """Images of one grey each, another one for each."""
    greys = np.arange(10, 10 + count, dtype=np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (count, height, width, 3)).copy()


def test_inputs_and_outputs_have_names_for_what_varies() -> None:
    assert ALL.inputs[0] == TensorSpec("reference", "float32", ("batch", 3, "height", "width"))
    assert ALL.flow == TensorSpec("flow2", "float32", ("batch", 2, "height/4", "width/4"))
    assert NARROW.inputs[0].shape == ("batch", 3, 256, "width")
    assert NARROW.inputs[2].shape == ("batch", 3, 256, 256)
    assert metadata(dynamic={"batch": BATCH}).flow.shape == ("batch", 2, 32, 64)


def test_ranges_are_read_back_and_said() -> None:
    for described in (ALL, NARROW):
        assert ModelMetadata.from_properties(described.to_properties(), "m.onnx") == described
    assert "gocor.dynamic" not in metadata().to_properties()
    assert NARROW.to_properties()["gocor.dynamic"] == '{"batch": [2, 3], "width": [256, 1080]}'
    assert NARROW.varying == "batch from 2 to 3, width from 256 to 1080 in steps of 8"
    assert metadata().varying is None


@pytest.mark.parametrize(
    "damage",
    ['{"depth": [1, 2]}', '{"batch": [5, 9]}', '{"batch": 3}', '{"batch": ["1", null]}', "[3]",
     '{"batch": [true, 2]}', '{"batch": [1, 0]}', "{}", '{"height": [1, null]}'],
)  # fmt: skip
def test_damaged_ranges_are_refused(damage: str) -> None:
    properties = metadata().to_properties() | {"gocor.dynamic": damage}
    with pytest.raises(ModelError, match=r"has damaged gocor metadata \("):
        ModelMetadata.from_properties(properties, "m.onnx")


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 1), (200, 100)])
def test_images_go_in_at_the_official_size(
    toy: FlowEstimator, calls: list[tuple[int, ...]], height: int, width: int,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    image = _images(1, height, width)[0]
    flow = toy(image, 2 * image)
    taken = ALL.spec.working_size(height, width)
    assert calls == [(1, 3, *taken)]
    assert flow.shape == (2, height, width)
    unit, (tall, wide) = ALL.spec.flow_unit, taken
    grey = float(normalize(image[None, :1, :1], "pwcnet").mean())
    np.testing.assert_allclose(flow[0], grey * unit * width / wide, rtol=1e-4)
    np.testing.assert_allclose(flow[1], 2 * grey * unit * height / tall, rtol=1e-4)
    assert not caplog.records  # nothing is resized but as the official pipeline does


def test_a_batch_is_one_call(toy: FlowEstimator, calls: list[tuple[int, ...]]) -> None:
    images = _images(5, 64, 64)
    flows = toy(images, images)
    assert calls == [(5, 3, 64, 64)]
    for flow, image in zip(flows, images, strict=True):
        np.testing.assert_array_equal(flow, toy(image, image))
    assert toy(images[:0], images[:0]).shape == (0, 2, 64, 64)


def test_batches_stay_within_the_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(save_toy(tmp_path / "toy.onnx", NARROW)) as estimator:
        calls = _spy(estimator, monkeypatch)
        images = _images(4, 256, 264)
        estimate = estimator.estimate(images, images)
        assert calls == [(3, 3, 256, 264), (2, 3, 256, 264)]  # the last pair fills the second batch
        alone = estimator.estimate(images[3], images[3])
    np.testing.assert_allclose(estimate.flow[3], alone.flow, rtol=1e-6)
    assert estimate.orientation_score is not None
    assert estimate.orientation_score.shape == (4,)


def test_a_fixed_side_is_resized_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with load(save_toy(tmp_path / "toy.onnx", NARROW)) as estimator:
        image = _images(1, 300, 410)[0]
        assert estimator(image, image).shape == (2, 300, 410)
    assert [record.getMessage() for record in caplog.records] == [
        "toy.onnx is made for 256x408; images of 300x410 are resized to that, and only a model exported with "
        "--size 296x408 gives the official result"
    ]


def test_images_out_of_range_are_refused(tmp_path: Path) -> None:
    image = _images(1, 256, 1089)[0]
    with load(save_toy(tmp_path / "toy.onnx", NARROW)) as estimator, pytest.raises(ShapeError) as caught:
        estimator(image, image)
    assert str(caught.value) == (
        "width: is 1088 at the network's input; this model takes from 256 to 1080 in steps of 8; "
        "gocor export --size 256x1088 makes one for this"
    )


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (
            (1, 3, 64, 96),
            "width: is 96 at the network's input; this model takes from 64 in steps of 64; gocor",
        ),
        ((0, 3, 64, 64), "batch: is 0 at the network's input; this model takes from 1"),
        ((1, 4, 64, 64), "reference: is float32 (1, 4, 64, 64); "),
        ((3, 64, 64), "reference: is float32 (3, 64, 64); "),
    ],
)
def test_tensors_of_wrong_sizes_are_refused(toy: FlowEstimator, shape: tuple[int, ...], text: str) -> None:
    tensor = np.zeros(shape, np.float32)
    with pytest.raises(ShapeError) as caught:
        toy.run({"reference": tensor, "query": tensor})
    assert str(caught.value).startswith(text)


def test_tensors_have_one_size(toy: FlowEstimator) -> None:
    inputs = {
        "reference": np.zeros((2, 3, 64, 64), np.float32),
        "query": np.zeros((1, 3, 64, 64), np.float32),
    }
    with pytest.raises(ShapeError) as caught:
        toy.run(inputs)
    assert str(caught.value) == f"query: is float32 (1, 3, 64, 64); {toy.path} takes float32 (2, 3, 64, 64)"


def test_a_model_that_is_not_as_its_ranges_say_is_refused(tmp_path: Path) -> None:
    path = save_toy(tmp_path / "toy.onnx", metadata(), ALL.to_properties())
    with pytest.raises(
        ModelError, match=r"its metadata says reference float32 \('batch', 3, 'height', 'width'\)"
    ):
        load(path)


def test_a_flow_of_another_size_than_the_model_says_is_refused(tmp_path: Path) -> None:
    path = save_toy(tmp_path / "toy.onnx", ALL)
    model = onnx.load(path)
    (stride,) = [node for node in model.graph.node if node.output[0] == "stride"]
    stride.attribute[0].ints[:] = [8]
    onnx.save(model, path)
    image = _images(1, 64, 64)[0]
    with load(path) as estimator, pytest.raises(ModelError) as caught:
        estimator(image, image)
    expected = "its metadata says flow2 float32 (1, 2, 16, 16); export again"
    assert str(caught.value) == f"{path}: gave flow2 float32 (1, 2, 8, 8); {expected}"


def test_a_score_for_another_number_of_pairs_is_refused(tmp_path: Path) -> None:
    path = save_toy(tmp_path / "toy.onnx", NARROW)
    model = onnx.load(path)
    (score,) = [node for node in model.graph.node if node.output[0] == ORIENTATION_SCORE]
    axes = onnx.helper.make_node("Constant", [], ["all"], value_ints=[0, 1, 2, 3])
    model.graph.node.insert(0, axes)
    score.input[1] = "all"
    onnx.save(model, path)
    images = _images(2, 256, 256)
    with load(path) as estimator, pytest.raises(ModelError, match=r"orientation_score float32 \(\); its "):
        estimator(images, images)
