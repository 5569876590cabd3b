import dataclasses

import pytest

torch = pytest.importorskip("torch")

from gocor.evaluation.synthetic.config import SyntheticConfig  # noqa: E402
from gocor.evaluation.synthetic.photometric import _blurred, change  # noqa: E402
from gocor.evaluation.synthetic.randomness import Variates  # noqa: E402

CONFIG = SyntheticConfig(32, 32)


def changed(images: torch.Tensor, **settings: float) -> torch.Tensor:
    config = dataclasses.replace(CONFIG, **settings)
    return change(images, Variates(config, range(len(images)), 0, torch.device("cpu")), config)


def test_nothing_changes_at_strength_0() -> None:
    images = torch.rand(2, 2, 3, 32, 32)
    assert torch.equal(changed(images, photometric=0, noise=0), images)


def test_noise_has_its_strength_and_differs_between_the_images() -> None:
    images = torch.full((20, 2, 3, 32, 32), 0.5)
    noise = changed(images, photometric=0, noise=0.05) - images
    deviations = noise.flatten(2).std(dim=2)
    assert deviations.max() < 0.052
    assert deviations.max() > 0.04
    assert deviations.min() < 0.01
    assert torch.corrcoef(noise[:, :, 0, 0, :].transpose(0, 1).flatten(1))[0, 1].abs() < 0.2


def test_light_and_colour_change_more_between_pairs_than_within() -> None:
    images = torch.full((40, 2, 3, 32, 32), 0.5)
    values = changed(images, noise=0)[..., 0, 0]
    assert (values[:, 0] - values[:, 1]).abs().mean() > 0.02
    assert values.std() > 2 * (values[:, 0] - values[:, 1]).std() / 2**0.5
    assert (values[:, 0].amax(dim=1) - values[:, 0].amin(dim=1)).max() > 0.03  # colours drift apart


def test_blur_spreads_a_point_as_a_gaussian() -> None:
    images = torch.zeros(1, 2, 3, 15, 15)
    images[..., 7, 7] = 1
    sharp, blurred = _blurred(images, torch.tensor([[0.0, 1.0]]))[0]
    assert torch.equal(sharp, images[0, 0])
    weights = torch.exp(-0.5 * torch.arange(-7.0, 8).square())
    weights[weights < 0.01] = 0
    expected = torch.outer(weights, weights) / weights.sum() ** 2
    torch.testing.assert_close(blurred[1], expected, atol=1e-5, rtol=0)
