import pytest

torch = pytest.importorskip("torch")

from gocor.evaluation.synthetic.config import SyntheticConfig  # noqa: E402
from gocor.evaluation.synthetic.randomness import Variates  # noqa: E402
from gocor.evaluation.synthetic.shapes import Shapes, random_shapes  # noqa: E402


def positions(count: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    return torch.stack((x, y)).expand(1, count, 2, 60, 80)


def shapes(**changes: torch.Tensor) -> Shapes:
    """A disk and a bar turned by 90°, three times as wide as high before it; both around (40, 30)."""
    settings = {
        "centre": torch.tensor([[[40.0, 30.0], [40.0, 30.0]]]),
        "axis": torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]),
        "radius": torch.tensor([[10.0, 10.0]]),
        "aspect": torch.tensor([[1.0, 3.0]]),
        "waves": torch.zeros(1, 2, 4, 2),
        "bar": torch.tensor([[False, True]]),
        "used": torch.tensor([[True, True]]),
    }
    return Shapes(**(settings | changes))


def test_disks_and_bars_have_their_size() -> None:
    disk, bar = shapes().coverage(positions(2))[0]
    assert disk.sum() == pytest.approx(torch.pi * 100, rel=0.01)
    rows, columns = (bar > 0.5).any(dim=1), (bar > 0.5).any(dim=0)
    assert rows.sum() == pytest.approx(2 * 8 * 3**0.5, abs=2)
    assert columns.sum() == pytest.approx(2 * 8 / 3**0.5, abs=2)


def test_waves_are_harmonics_of_the_outline() -> None:
    waves = torch.zeros(1, 2, 4, 2)
    waves[0, 0, 1, 0] = 0.3  # cos 3φ
    disk = shapes(waves=waves).coverage(positions(2))[0, 0] > 0.5
    assert disk[30, 40 + 12]  # φ = 0: radius 13
    assert not disk[30, 40 - 8]  # φ = 180°: radius 7
    turned = waves.roll(1, dims=-1)  # Re(i·e^3iφ) = -sin 3φ
    disk = shapes(waves=turned).coverage(positions(2))[0, 0] > 0.5
    assert disk[30 + 12, 40]  # φ = 90°, downwards: radius 13
    assert not disk[30 - 8, 40]


def test_unused_shapes_cover_nothing() -> None:
    covered = shapes(used=torch.tensor([[False, True]])).coverage(positions(2))
    assert not covered[0, 0].any()
    assert covered[0, 1].any()


def test_every_number_of_shapes_is_drawn() -> None:
    config = SyntheticConfig(64, 64, foreground=3)
    used = random_shapes(Variates(config, range(100), 0, torch.device("cpu")), config).used
    counts = torch.bincount(used.sum(dim=1), minlength=4)
    assert len(counts) == 4
    assert counts.min() > 10
