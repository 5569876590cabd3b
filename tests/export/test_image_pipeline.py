"""The resizing inside the graph against Pillow and exact averages, to the bit."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from gocor.export.image_pipeline import AreaResize, PillowResize
from gocor.export.resample import area_matrix, pillow_bilinear_matrix
from gocor.runtime.preprocess import resize_area

SIZES = [
    ((100, 130), (128, 192)),  # enlarging, as PWC-Net does
    ((64, 130), (64, 192)),  # one side stays
    ((65, 128), (128, 128)),
    ((200, 331), (64, 128)),  # reducing: the filter is antialiased
    ((37, 1), (64, 64)),
    ((1, 1), (64, 64)),
]


def images(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(height * 1000 + width)
    noise = random.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    noise[0, ::3] = 255  # saturated rows: sums at their largest
    noise[1, :, ::2] = 0
    return noise


def as_tensor(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).float().permute(0, 3, 1, 2)


def as_pictures(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(0, 2, 3, 1).numpy()


def in_onnx_runtime(module: torch.nn.Module, x: torch.Tensor, path: str) -> torch.Tensor:
    program = torch.onnx.export(module.eval(), (x,), dynamo=True, opset_version=19, verbose=False)
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.parametrize(("size", "new_size"), SIZES)
def test_pillow_resize_equals_pillow_to_the_bit(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    pictures = images(*size)
    expected = [
        np.asarray(Image.fromarray(p).resize(new_size[::-1], Image.Resampling.BILINEAR)) for p in pictures
    ]
    resized = as_pictures(PillowResize(size, new_size)(as_tensor(pictures)))
    np.testing.assert_array_equal(resized, np.stack(expected))


@pytest.mark.parametrize(("size", "new_size"), [*SIZES, ((203, 330), (256, 256)), ((480, 640), (256, 256))])
def test_area_resize_equals_truncated_exact_averages(
    size: tuple[int, int], new_size: tuple[int, int]
) -> None:
    pictures = images(*size)
    resized = as_pictures(AreaResize(size, new_size)(as_tensor(pictures)))
    np.testing.assert_array_equal(resized, resize_area(pictures, *new_size))


@pytest.mark.parametrize("kind", [PillowResize, AreaResize])
def test_resizing_stays_exact_in_onnx_runtime(kind: type[torch.nn.Module], tmp_path: Path) -> None:
    size, new_size = (75, 101), (128, 128)
    module = kind(size, new_size)
    x = as_tensor(images(*size))
    np.testing.assert_array_equal(in_onnx_runtime(module, x, str(tmp_path / "m.onnx")), module(x))


def test_an_average_that_is_a_whole_number_is_not_truncated() -> None:
    """All pixels 253, in windows of 3×3 and 3×2: a rounded sum of rounded ninths could fall below."""
    pictures = np.full((1, 50, 47, 3), 253, np.uint8)
    resized = AreaResize((50, 47), (17, 19))(as_tensor(pictures))
    assert resized.unique().tolist() == [253.0]


def test_weights_of_pillows_filter_are_normalised_to_one_part_in_a_million() -> None:
    matrix = pillow_bilinear_matrix(300, 113)
    assert matrix.min() >= 0
    assert np.abs(matrix.sum(1) / 2**22 - 1).max() < 1e-6


def test_a_reduction_too_strong_for_exact_sums_is_refused() -> None:
    with pytest.raises(AssertionError, match="would not be exact"):
        PillowResize((64 * 70, 64), (64, 64))


def test_area_weights_average_every_window() -> None:
    np.testing.assert_allclose(area_matrix(17, 5).sum(1), 1, rtol=1e-6)
    assert area_matrix(17, 5, average=False).sum(1).tolist() == [4, 4, 5, 4, 4]
