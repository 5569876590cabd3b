import pytest

torch = pytest.importorskip("torch")

from gocor.evaluation.synthetic import textures  # noqa: E402
from gocor.evaluation.synthetic.config import SyntheticConfig  # noqa: E402
from gocor.evaluation.synthetic.randomness import Variates, hashed  # noqa: E402

KEYS = torch.arange(6, dtype=torch.int32)
CONFIG = SyntheticConfig(40, 56, photographs=0)


def test_a_layers_texture_does_not_depend_on_the_other_layers() -> None:
    variates = [Variates(CONFIG, range(3), 0, torch.device("cpu")) for _ in range(2)]
    everything = torch.ones(3, 4, dtype=torch.bool)
    some = everything.clone()
    some[1, 1:3] = False
    first = textures.random_canvases(variates[0], CONFIG, everything)
    second = textures.random_canvases(variates[1], CONFIG, some)
    torch.testing.assert_close(second, first.reshape(3, 4, *first.shape[1:])[some])


@pytest.mark.parametrize("kind", ["_cells", "_stripes", "_ramp"])
def test_every_kind_fills_the_range(kind: str) -> None:
    canvases = getattr(textures, kind)(KEYS, hashed(KEYS, 23), 50, 70)
    assert canvases.shape == (6, 3, 50, 70)
    assert canvases.min() >= 0
    assert canvases.max() <= 1
    assert canvases.flatten(1).std(dim=1).min() > 0.03


def test_cells_are_patches_of_even_colour() -> None:
    settings = torch.zeros(1, 23)
    settings[0, 0] = 1  # the largest, without shading
    canvas = textures._cells(KEYS[:1], settings, 200, 200)[0]
    same = (canvas[:, :, 1:] == canvas[:, :, :-1]).all(dim=0).float().mean()
    assert 0.93 < same < 0.99  # 48 px apart
    assert len(torch.unique(canvas.flatten(1).T, dim=0)) in range(15, 45)


def test_gain_makes_noise_rough_or_smooth() -> None:
    smooth, rough = textures._fractal(KEYS[[0, 0]], torch.tensor([0.4, 1.2]), 64, 64)
    assert smooth.mean().abs() < 1e-5
    assert rough.std() == pytest.approx(1, abs=1e-3)
    steps = [(field[:, :, 1:] - field[:, :, :-1]).abs().mean() for field in (smooth, rough)]
    assert steps[1] > 3 * steps[0]


@pytest.mark.parametrize("start", [0.0, 0.5, 0.999])
@pytest.mark.parametrize(("wanted", "there"), [(30, 100), (100, 100), (250, 100)])
def test_windows_stay_inside_and_mirror(start: float, wanted: int, there: int) -> None:
    positions = textures._window(start, wanted, there, torch.device("cpu"))
    assert positions.shape == (wanted,)
    assert positions.min() >= 0
    assert positions.max() < there
    assert ((positions[1:] - positions[:-1]).abs() == 1).all()
