import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation_pairs import image
from toy_models import save_toy

from gocor.core.errors import (
    CheckpointError,
    ConfigError,
    DependencyError,
    ImageError,
    ModelError,
    ProviderError,
)
from gocor.evaluation.methods import open_methods
from gocor.runtime.sample_pair import sample_pair


def test_models_are_closed_afterwards(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = save_toy(tmp_path / "toy.onnx")
    with open_methods([path], threads=1) as (model, zero):
        flow = model.estimate(image(), image(1))
        assert flow.shape == (2, 20, 32)
        assert (model.name, model.runs, model.facts["network"]) == ("toy.onnx", "32x64 · cpu", "PWCNet_GOCor")
        assert not zero.estimate(image(), image(1)).any()
    with pytest.raises(ModelError, match="was closed"):
        model.estimate(image(), image(1))


def test_models_of_one_file_name_are_told_apart(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    paths = [save_toy(tmp_path / folder / "toy.onnx") for folder in ("a", "b")]
    with open_methods(paths, threads=1) as methods:
        assert [method.name for method in methods] == [*map(str, paths), "zero flow"]


def test_a_checkpoint_runs_in_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from gocor.export.checkpoint import seeded_network
    from gocor.export.estimate import estimate_flow

    network = seeded_network("PWCNet")
    torch.save(network.state_dict(), tmp_path / "seeded.pth")
    with open_methods([tmp_path / "seeded.pth"]) as (method, _):
        assert (method.name, method.runs) == ("seeded.pth", "PyTorch · cpu")
        images = image(0, 64, 64), image(1, 64, 64)
        np.testing.assert_allclose(method.estimate(*images), estimate_flow(network, *images), atol=1e-4)


@pytest.mark.parametrize("peer", ["dis", "farneback"])
def test_opencv_finds_a_known_flow(peer: str) -> None:
    pytest.importorskip("cv2")
    reference, query, truth = sample_pair(96, 128)
    with open_methods([], [peer]) as (method, _):
        error = np.hypot(*(method.estimate(reference, query) - truth))[8:-8, 8:-8]
    assert np.median(error) < 0.5


def test_images_that_opencv_cannot_do() -> None:
    pytest.importorskip("cv2")
    with (
        open_methods([], ["dis"]) as (dis, _),
        pytest.raises(ImageError, match=r"^OpenCV DIS medium: cannot do images of 8×8 "),
    ):
        dis.estimate(image(0, 8, 8), image(1, 8, 8))


def test_opencv_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    text = r'^--peers dis: needs OpenCV, which is not installed; pip install "gocor-deploy\[video\]"$'
    with pytest.raises(DependencyError, match=text), open_methods([], ["dis"]):
        pass


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([], []), ConfigError, "MODEL: is missing; a model, a checkpoint, or --peers"),
        (([], ["raft"]), ConfigError, "peers: unknown name 'raft'; one of dis, farneback"),
        (([], ["dis", "dis"]), ConfigError, "peers: dis was given twice; each name once"),
        ((["a.onnx", "a.onnx"], []), ConfigError, "MODEL: a.onnx was given twice; each model once"),
        ((["a.onnx"], [], "gpu"), ProviderError, "provider: unknown name 'gpu'; one of cpu, cuda, tensorrt"),
        ((["a.onnx"], []), ModelError, "a.onnx: no such file"),
        ((["a.pth"], []), CheckpointError, "a.pth: no such file"),
        ((["a.pth"], [], "cpu", 0), ConfigError, "threads: is 0; at least 1"),
        ((["a.engine"], [], None, 2), ConfigError, "threads: are those of the CPU, and every model is"),
    ],
)
def test_wrong_arguments(arguments: tuple, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}"), open_methods(*arguments):
        pass


def test_a_checkpoint_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text = r"^a\.pth: PyTorch finds no CUDA GPU; --provider cpu$"
    with pytest.raises(ProviderError, match=text), open_methods(["a.pth"], [], "cuda"):
        pass
