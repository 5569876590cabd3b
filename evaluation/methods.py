"""Everything that makes flow and can be measured: models, checkpoints, OpenCV, and doing nothing."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gocor.core.errors import ConfigError, DependencyError, ImageError, ProviderError
from gocor.runtime.openvino_manifest import OPENVINO
from gocor.runtime.session import BUILT_SUFFIXES, ENGINE_SUFFIXES, PROVIDERS, load

ZERO = "zero flow"


@dataclass(frozen=True)
class Method:
    """Something to measure.

    Attributes:
        name: in reports.
        estimate: uint8 RGB images ``(H, W, 3)`` of one size to a flow ``(2, H, W)`` in pixels.
        runs: what it runs in and where, as "PyTorch · cpu".
        facts: what else a reader of the report wants to know.
    """

    name: str
    estimate: Callable[[np.ndarray, np.ndarray], np.ndarray]
    runs: str
    facts: Mapping[str, object]


@contextlib.contextmanager
def open_methods(
    models: Sequence[str | Path],
    peers: Sequence[str] = (),
    provider: str | None = None,
    threads: int | None = None,
) -> Iterator[tuple[Method, ...]]:
    """Loads models and checkpoints, closes them afterwards, and puts peers and the zero flow behind them.

    Args:
        models: ``.onnx`` files, what ``gocor build`` made, and checkpoints, which run in PyTorch.
        peers: names among ``PEERS``.
        provider: where ``.onnx`` files run, ``cpu`` for None; checkpoints run on the CPU for that, else on
            the GPU. What ``gocor build`` made runs on what it was built for.
        threads: for the operators on the CPU, of all but engines.

    Raises:
        ConfigError: there is nothing to measure, a peer is unknown or named twice, or threads are given and
            every model is an engine.
        ProviderError: the provider is unknown or not available here.
        ModelError: a model cannot be loaded.
        CheckpointError: a checkpoint cannot be loaded.
        DependencyError: a library is not installed.
    """
    if not models and not peers:
        raise ConfigError("MODEL", "is missing", "a model, a checkpoint, or --peers")
    if provider is not None and provider not in (*PROVIDERS, OPENVINO):
        raise ProviderError("provider", f"unknown name {provider!r}", f"one of {', '.join(PROVIDERS)}")
    if threads is not None and models and all(Path(model).suffix in ENGINE_SUFFIXES for model in models):
        raise ConfigError("threads", "are those of the CPU, and every model is an engine", "leave them out")
    opened = [_peer(name) for name in peers]
    if repeated := next((name for name in peers if list(peers).count(name) > 1), None):
        raise ConfigError("peers", f"{repeated} was given twice", "each name once")
    with contextlib.ExitStack() as stack:
        names = _names([str(model) for model in models])
        loaded = [
            _open(model, name, provider, threads, stack) for model, name in zip(models, names, strict=True)
        ]
        yield (*loaded, *opened, Method(ZERO, _no_flow, "–", {}))


def _names(models: Sequence[str]) -> list[str]:
    """File names, or where two are alike, paths."""
    short = [Path(model).name for model in models]
    if twice := next((model for model in models if models.count(model) > 1), None):
        raise ConfigError("MODEL", f"{twice} was given twice", "each model once")
    return short if len(set(short)) == len(short) else list(models)


def _open(
    model: str | Path, name: str, provider: str | None, threads: int | None, stack: contextlib.ExitStack
) -> Method:
    if (suffix := Path(model).suffix) == ".onnx" or suffix in BUILT_SUFFIXES:
        where = provider if suffix == ".onnx" else None
        estimator = stack.enter_context(load(model, where, None if suffix in ENGINE_SUFFIXES else threads))
        about = estimator.metadata
        facts = {"path": str(model), "network": about.network, "size": f"{about.height}x{about.width}"}
        return Method(name, estimator, f"{facts['size']} · {estimator.provider}", facts)
    return _checkpoint(model, name, provider, threads)


def _checkpoint(model: str | Path, name: str, provider: str | None, threads: int | None) -> Method:
    import torch

    from gocor.export.checkpoint import load_network
    from gocor.export.estimate import estimate_flow

    if provider == OPENVINO:
        raise ProviderError("provider", f"{provider!r} does not run checkpoints", "cpu or cuda")
    device = "cpu" if provider in (None, "cpu") else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise ProviderError(model, "PyTorch finds no CUDA GPU", "--provider cpu")
    if threads is not None:
        if threads < 1:
            raise ConfigError("threads", f"is {threads}", "at least 1")
        torch.set_num_threads(threads)
    network = load_network(model).to(device)
    facts = {"path": str(model), "network": network.spec.name, "size": "that of the images"}
    return Method(
        name, lambda reference, query: estimate_flow(network, reference, query), f"PyTorch · {device}", facts
    )


def _no_flow(reference: np.ndarray, query: np.ndarray) -> np.ndarray:
    return np.zeros((2, *reference.shape[:2]), np.float32)


def _dis(cv2: Any) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return lambda reference, query: dis.calc(reference, query, None)


def _farneback(cv2: Any) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    # As in OpenCV's tutorial: 3 levels of half size, window 15, 3 iterations, polynomials over 5 px.
    return lambda reference, query: cv2.calcOpticalFlowFarneback(
        reference, query, None, 0.5, 3, 15, 3, 5, 1.2, 0
    )


PEERS = {"dis": ("OpenCV DIS medium", _dis), "farneback": ("OpenCV Farnebäck", _farneback)}


def _peer(name: str) -> Method:
    if name not in PEERS:
        raise ConfigError("peers", f"unknown name {name!r}", f"one of {', '.join(PEERS)}")
    try:
        import cv2
    except ImportError as error:
        raise DependencyError(
            f"--peers {name}", "needs OpenCV, which is not installed", 'pip install "gocor-deploy[video]"'
        ) from error
    title, make = PEERS[name]
    calculate = make(cv2)

    def estimate(reference: np.ndarray, query: np.ndarray) -> np.ndarray:
        try:
            grey = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (reference, query))
            return np.moveaxis(calculate(*grey), -1, 0)
        except cv2.error as error:
            size = f"{reference.shape[1]}×{reference.shape[0]}"
            raise ImageError(title, f"cannot do images of {size} ({error.err})", "larger images") from error

    return Method(title, estimate, f"{cv2.__version__} · cpu", {"opencv": cv2.__version__})
