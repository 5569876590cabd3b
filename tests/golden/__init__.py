"""Recorded inputs and outputs of the four networks, and the weights behind them; see README.md."""

import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from golden.golden_weights import fill_state_dict

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from gocor.export.networks import Network

FOLDER = Path(__file__).parent
Shapes = dict[str, tuple[int, ...]]


def case_names(prefix: str) -> list[str]:
    """All cases whose name starts so."""
    return sorted(path.stem for path in FOLDER.glob(f"{prefix}*.npz"))


def load_case(name: str) -> dict[str, np.ndarray]:
    """The fields of a case; images that are kept as PNG come decoded, under their own name."""
    from PIL import Image

    with np.load(FOLDER / f"{name}.npz") as file:
        fields = dict(file)
    for key in [key for key in fields if key.endswith("_png")]:
        image = Image.open(io.BytesIO(fields.pop(key).tobytes()))
        fields[key.removesuffix("_png")] = np.asarray(image)
    return fields


@cache
def state_dict_shapes(network: str) -> Shapes:
    """Every key of a public checkpoint of a network, in order, with its shape."""
    keys = json.loads((FOLDER / "state_dict_keys.json").read_text(encoding="utf-8"))
    return {key: tuple(shape) for key, shape in keys[network].items()}


def golden_state_dict(shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, "Tensor"]:
    """The stand-in weights for keys that a checkpoint has under ``prefix``."""
    import torch

    arrays = fill_state_dict({prefix + key: shape for key, shape in shapes.items()})
    return {key.removeprefix(prefix): torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}


def fill(module: "nn.Module", prefix: str = "") -> "nn.Module":
    """The module itself, in evaluation mode, with the stand-in weights of the keys under ``prefix``."""
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    module.load_state_dict(golden_state_dict(shapes, prefix))
    return module.eval()


@cache
def golden_network(name: str, iterations: int = 3) -> "Network":
    """A network with the stand-in weights; one for all tests of a process, so leave it as it is."""
    from gocor.export.networks import create_network

    return fill(create_network(name, iterations, iterations))  # type: ignore[return-value]


def relative_l2(actual: "np.ndarray | torch.Tensor", expected: "np.ndarray | torch.Tensor") -> float:
    """L2 norm of the difference over that of what was expected; computed in float64."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
