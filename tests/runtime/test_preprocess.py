"""Resizing is part of the official result, so it is compared with Pillow and PyTorch themselves."""

import numpy as np
import pytest
from PIL import Image

from gocor.core.errors import ShapeError
from gocor.runtime import preprocess
from gocor.runtime.spec import SPECS

PWCNET, GLUNET = SPECS["PWCNet"], SPECS["GLUNet_GOCor"]


def images(height: int, width: int, count: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((101, 67), (64, 64)),
        ((16, 24), (53, 91)),
        ((257, 300), (256, 256)),
        ((90, 517), (88, 512)),
        ((5, 7), (9, 6)),
    ],
)
def test_area_resize_is_adaptive_average_pooling_truncated(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    torch = pytest.importorskip("torch")
    batch = images(*size, count=2)
    sums = torch.from_numpy(batch).permute(0, 3, 1, 2).double()
    means = torch.nn.functional.adaptive_avg_pool2d(sums, wanted).permute(0, 2, 3, 1).numpy()
    # An exact mean may come out as 41.99999 even in float64.
    expected = np.floor(means + 1e-9).astype(np.uint8)
    np.testing.assert_array_equal(preprocess.resize_area(batch, *wanted), expected)


def test_area_resize_of_a_constant_image_keeps_its_value() -> None:
    white = np.full((1, 61, 43, 3), 255, np.uint8)
    assert (preprocess.resize_area(white, 47, 59) == 255).all()


def test_running_sums_may_wrap_around() -> None:
    tall = np.full((1, 2, 9_000_000, 1), 255, np.uint8)  # 255·18e6 > 2**32
    assert (preprocess.resize_area(tall, 2, 3) == 255).all()


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((24, 32), (96, 128)),
        ((129, 257), (517, 1021)),
        ((64, 96), (31, 40)),
        ((1, 5), (7, 3)),
        ((8, 8), (8, 8)),
    ],
)
def test_bilinear_resize_is_that_of_pytorch(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(1).uniform(-1, 1, (2, 2, *size)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values), wanted, mode="bilinear", align_corners=False
    )
    resized = preprocess.resize_bilinear(values, *wanted)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected.numpy(), rtol=0, atol=5e-7)


def test_pillow_resizes_the_width_first_whatever_its_version() -> None:
    picture = images(96, 40)
    narrow = preprocess.resize_images(picture, 96, 31, "pwcnet")
    expected = preprocess.resize_images(narrow, 24, 31, "pwcnet")
    np.testing.assert_array_equal(preprocess.resize_images(picture, 24, 31, "pwcnet"), expected)


def test_pwcnet_images_go_through_pillow_and_come_out_as_bgr() -> None:
    batch = images(70, 100, count=2)
    tensors = preprocess.preprocess(PWCNET, batch, batch[::-1])
    assert list(tensors) == ["reference", "query"]
    picture = np.asarray(Image.fromarray(batch[1]).resize((128, 128), Image.Resampling.BILINEAR))
    expected = picture[..., ::-1].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(tensors["reference"][1], expected)
    np.testing.assert_array_equal(tensors["query"][0], expected)


def test_glunet_images_are_normalised_rgb_and_the_small_copy_comes_from_the_original() -> None:
    batch = images(300, 523)
    tensors = preprocess.preprocess(GLUNET, batch, batch)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "reference": (1, 3, 296, 520),
        "query": (1, 3, 296, 520),
        "reference_256": (1, 3, 256, 256),
        "query_256": (1, 3, 256, 256),
    }
    small = preprocess.resize_area(batch, 256, 256)
    assert (small != preprocess.resize_area(preprocess.resize_area(batch, 296, 520), 256, 256)).any()
    expected = (small[0, :, :, 2].astype(np.float64) / 255 - 0.406) / 0.225
    np.testing.assert_allclose(tensors["query_256"][0, 2], expected, atol=1e-6)


def test_an_explicit_size_replaces_the_working_size() -> None:
    batch = images(70, 100)
    assert preprocess.preprocess(PWCNET, batch, batch, (192, 64))["query"].shape == (1, 3, 192, 64)
    assert preprocess.preprocess(GLUNET, batch, batch, (264, 320))["query_256"].shape == (1, 3, 256, 256)


def test_an_image_of_the_right_size_is_not_touched() -> None:
    batch = images(64, 128)
    assert preprocess.resize_images(batch, 64, 128, "pwcnet") is batch


@pytest.mark.parametrize(("spec", "unit"), [(PWCNET, 20), (GLUNET, 1)])
def test_postprocess_scales_the_vectors_to_pixels_of_the_image(spec: object, unit: int) -> None:
    last = np.ones((1, 2, 16, 32), np.float32)
    last[:, 1] = -2
    flow = preprocess.postprocess(spec, last, 60, 100, (64, 128))  # type: ignore[arg-type]
    assert flow.shape == (1, 2, 60, 100)
    np.testing.assert_allclose(flow[:, 0], unit * 100 / 128, rtol=1e-6)
    np.testing.assert_allclose(flow[:, 1], -2 * unit * 60 / 64, rtol=1e-6)


def test_resize_flow_leaves_its_input_alone() -> None:
    flow = np.ones((2, 4, 6), np.float32)
    resized = preprocess.resize_flow(flow, 4, 6, (2, 3))
    assert (resized == 2).all()
    assert (flow == 1).all()


GOOD = images(8, 8)


@pytest.mark.parametrize(
    ("reference", "query", "message"),
    [
        ([[1]], GOOD, "reference: has dtype int64; uint8, values 0 to 255"),
        (GOOD[0, 0], GOOD, "reference: has shape (8, 3); RGB, (H, W, 3) or a batch (N, H, W, 3)"),
        (GOOD, GOOD[0], "query: has shape (8, 8, 3); that of the reference, (1, 8, 8, 3)"),
        (GOOD / 255, GOOD, "reference: has dtype float64; uint8, values 0 to 255"),
        (GOOD, GOOD[..., :2], "query: has shape (1, 8, 8, 2); RGB, (H, W, 3) or a batch (N, H, W, 3)"),
        (GOOD, GOOD[:, :0], "query: has shape (1, 0, 8, 3); RGB, (H, W, 3) or a batch (N, H, W, 3)"),
        (GOOD, images(8, 9), "query: has shape (1, 8, 9, 3); that of the reference, (1, 8, 8, 3)"),
    ],
)
def test_wrong_images_are_named(reference: object, query: object, message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        preprocess.preprocess(PWCNET, reference, query)  # type: ignore[arg-type]
    assert str(caught.value) == message
