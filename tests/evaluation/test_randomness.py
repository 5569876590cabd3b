import pytest

torch = pytest.importorskip("torch")

from gocor.evaluation.synthetic.config import SyntheticConfig  # noqa: E402
from gocor.evaluation.synthetic.randomness import Variates, hashed, hashed_normal, mixed  # noqa: E402

CPU = torch.device("cpu")


def test_hashes_are_those_of_lowbias32() -> None:
    """Against the function in plain Python, with unsigned integers of 32 bits."""

    def lowbias32(x: int) -> int:
        x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
        x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
        return x ^ (x >> 16)

    values = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xDEADBEEF]
    signed = torch.tensor([v - (1 << 32) if v >> 31 else v for v in values], dtype=torch.int32)
    assert [v & 0xFFFFFFFF for v in mixed(signed).tolist()] == [lowbias32(v) for v in values]


def test_fields_are_even_and_without_structure() -> None:
    fields = hashed(torch.arange(4, dtype=torch.int32), 3, 64, 64)
    assert fields.min() >= 0
    assert fields.max() < 1
    counts = torch.histc(fields, 16, 0, 1) / fields.numel()
    torch.testing.assert_close(counts, torch.full((16,), 1 / 16), atol=0.004, rtol=0)
    between = torch.corrcoef(fields.flatten(1)) - torch.eye(4)
    assert between.abs().max() < 0.04
    shifted = torch.corrcoef(torch.stack((fields[..., 1:].flatten(), fields[..., :-1].flatten())))
    assert shifted[0, 1].abs() < 0.02


def test_normal_fields() -> None:
    field = hashed_normal(torch.arange(4, dtype=torch.int32), 3, 64, 64)
    assert field.mean().abs() < 0.02
    assert field.std() == pytest.approx(1, abs=0.01)
    assert (field.abs() > 2).float().mean() == pytest.approx(0.046, abs=0.01)


def test_a_pairs_numbers_do_not_depend_on_the_batch() -> None:
    config = SyntheticConfig()

    def numbers(indices: list[int]) -> torch.Tensor:
        variates = Variates(config, indices, 2, CPU)
        variates.uniform(0, 1, 5)
        return torch.cat((variates.uniform(-1, 1, 3), variates.integers(10, 2), variates.keys(2)), dim=1)

    assert torch.equal(numbers([4, 9])[1], numbers([9])[0])
    assert not torch.equal(numbers([4])[0], numbers([9])[0])


def test_parts_have_streams_of_their_own() -> None:
    first, second = (Variates(SyntheticConfig(), [0], part, CPU).uniform(0, 1, 8) for part in (0, 1))
    assert not torch.equal(first, second)
