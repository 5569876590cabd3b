"""``LocalGOCor`` in every form against its NumPy reference, and that against the public code."""

import numpy as np
import pytest
from golden import case_names, golden_state_dict, load_case, relative_l2, state_dict_shapes

from gocor.plugins.local_gocor.reference import local_gocor

torch = pytest.importorskip("torch")


def golden_parameters(channels: int) -> list[np.ndarray]:
    """Inputs after the features that belong to the golden cases' weights."""
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


@pytest.mark.parametrize("name", case_names("local_gocor_"))
def test_reference_is_the_public_code(name: str) -> None:
    case = load_case(name)
    parameters = golden_parameters(case["reference"].shape[1])
    volume = local_gocor(case["reference"], case["query"], *parameters, 4, int(case["iterations"]))
    assert volume.dtype == np.float32
    assert relative_l2(volume, case["volume"]) <= 1e-5
