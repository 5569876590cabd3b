"""Inputs of every operator that has a kernel; of ``LocalGOCor`` also those of the golden cases."""

import numpy as np
from golden import golden_state_dict, state_dict_shapes
from operator_models import random_inputs

from gocor.plugins.references import REFERENCES


def attributes_of(operator: str, radius: int) -> dict[str, int]:
    """All that a caller chooses, of the operator called so."""
    return {"radius": radius} | ({"iterations": 2} if operator == "LocalGOCor" else {})


def kernel_inputs(
    operator: str, shape: tuple[int, ...], radius: int, dtype: np.typing.DTypeLike = np.float32
) -> list[np.ndarray]:
    """All inputs for a query ``(N, C, H, W)``, reproducible."""
    if operator == "LocalGOCor":
        return gocor_inputs(shape, radius, dtype)
    return list(random_inputs(operator, shape, radius, dtype))


def expected_output(operator: str, inputs: list[np.ndarray], radius: int) -> np.ndarray:
    """In float64, with ``attributes_of(operator, radius)``."""
    exact = (array.astype(np.float64) for array in inputs)
    return REFERENCES[operator](*exact, **attributes_of(operator, radius))


def gocor_inputs(
    shape: tuple[int, ...], radius: int, dtype: np.typing.DTypeLike = np.float32
) -> list[np.ndarray]:
    """Reproducible normal numbers as features, with maps and scalars like trained ones."""
    rng = np.random.default_rng(sum(shape) + radius)
    reference, query = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    steps = np.arange(-radius, radius + 1)
    distance = np.hypot(*np.meshgrid(steps, steps, indexing="ij")).ravel()
    # Noise, so that no two displacements have the same numbers.
    target, weight, mask = (rng.uniform(0.9, 1.1, distance.shape) for _ in range(3))
    target *= np.exp(-(distance**2) / 2)
    mask *= 0.9 / (1 + np.exp(-4 * np.tanh(2 - distance)))
    scalars = np.array([1.2, 0.8, 0.1 / shape[1] ** 2, 0.05])
    return [reference, query, *(array.astype(np.float32) for array in (target, weight, mask, scalars))]


def golden_parameters(channels: int) -> list[np.ndarray]:
    """Inputs after the features that belong to the golden cases' weights."""
    import torch

    from gocor.export.networks.filter_optimizer import FilterOptimizer, window_distances

    optimizer = FilterOptimizer(0)
    shapes = {
        key.removeprefix("local_corr."): shape
        for key, shape in state_dict_shapes("GLUNet_GOCor").items()
        if key.startswith("local_corr.")
    }
    weights = golden_state_dict(shapes, "local_corr.")
    scaling = weights.pop("filter_initializer.scaling")
    optimizer.load_state_dict({k.removeprefix("filter_optimizer."): v for k, v in weights.items()})
    with torch.no_grad():
        maps = [m.numpy() for m in optimizer.score_maps(window_distances(4))]
        step_length = optimizer.log_step_length.exp()
        regularization = optimizer.regularization / channels**2
    return [*maps, torch.cat((scaling, step_length, regularization, torch.zeros(1))).numpy()]
