"""The training example: it learns, it goes on where it was stopped, and what it writes is a checkpoint."""

import csv
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gocor.core.errors import GocorError
from gocor.export.checkpoint import load_network, read_checkpoint

SCRIPT = Path(__file__).parent.parent / "examples" / "train_demo" / "train.py"


@pytest.fixture(scope="module")
def train() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def small(train: SimpleNamespace, **changes: object) -> object:
    return train.Config(
        **{"steps": 4, "batch": 1, "crop": 64, "displacement": 8.0, "iterations": 1} | changes
    )


def test_a_stopped_run_goes_on_and_ends_like_one_that_was_not(train: SimpleNamespace, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    whole = train.Trainer(small(train), tmp_path / "whole", cpu, None)
    whole.out.mkdir()
    whole.run(log_every=2, minutes=10)
    part = train.Trainer(small(train), tmp_path / "part", cpu, None)
    part.out.mkdir()
    part.run(log_every=1, minutes=0)
    assert part.step == 0
    for _ in range(2):
        part._train_step()
        part.step += 1
    part.save()
    again = train.Trainer(small(train), tmp_path / "part", cpu, None)
    assert again.step == 2
    again.run(log_every=2, minutes=10)
    expected, resumed = whole.network.state_dict(), again.network.state_dict()
    for name, value in resumed.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    with (whole.out / "log.csv").open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [2, 4]


def test_the_checkpoint_loads_by_itself_and_says_how_it_was_trained(
    train: SimpleNamespace, tmp_path: Path
) -> None:
    trainer = train.Trainer(small(train), tmp_path, torch.device("cpu"), None)
    trainer.save()
    path = tmp_path / "pwcnet-gocor.safetensors"
    assert path.stat().st_size < 20e6
    assert read_checkpoint(path).local_iterations == 1
    network = load_network(path)
    assert (network.spec.name, network.local_iterations) == ("PWCNet_GOCor", 1)
    expected = trainer.network.state_dict()["conv1a.0.weight"]
    torch.testing.assert_close(network.state_dict()["conv1a.0.weight"], expected, rtol=1e-3, atol=1e-6)
    finetuned = train.Trainer(small(train), tmp_path / "second", torch.device("cpu"), path)
    torch.testing.assert_close(finetuned.network.state_dict()["conv1a.0.weight"], network.conv1a[0].weight)


def test_another_run_in_the_same_folder_is_refused(train: SimpleNamespace, tmp_path: Path) -> None:
    train.Trainer(small(train), tmp_path, torch.device("cpu"), None).save()
    with pytest.raises(GocorError, match="belongs to a run with other options; give those, or another --out"):
        train.Trainer(small(train, seed=1), tmp_path, torch.device("cpu"), None)


def test_the_loss_is_the_mean_end_point_error_of_every_level(train: SimpleNamespace) -> None:
    truth = torch.zeros(1, 2, 64, 64)
    truth[:, 0] = 20.0
    flows = tuple(torch.zeros(1, 2, 64 >> level, 64 >> level) for level in range(6, 1, -1))
    loss, error = train.multiscale_loss(flows, truth)
    assert loss.item() == pytest.approx(sum(train.LEVEL_WEIGHTS), rel=1e-4)
    assert error.item() == pytest.approx(20.0)
    assert (
        train.multiscale_loss(tuple(flow + truth[:, :, :1, :1] / 20 for flow in flows), truth)[1].item()
        < 1e-4
    )


def test_displacements_grow_and_then_stay(train: SimpleNamespace) -> None:
    config = train.Config(steps=100, crop=192, displacement=32.0)
    longest = [config.pairs(step).max_displacement for step in (0, 25, 50, 99)]
    assert longest == [8.0, 20.0, 32.0, 32.0]
    assert [config.pairs(step).height for step in (0, 49, 50)] == [128, 128, 192]
