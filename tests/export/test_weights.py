"""The built-in checkpoint: found by its name everywhere, small, and worth its name on pairs it never saw."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gocor.evaluation.datasets import open_dataset
from gocor.evaluation.evaluate import MethodResult, evaluate
from gocor.evaluation.methods import open_methods
from gocor.export.checkpoint import load_network, read_checkpoint
from gocor.export.inspection import inspect_file
from gocor.export.onnx_export import export_onnx
from gocor.export.verify import verify
from gocor.export.weights import BUILT_IN, checkpoint_path

DEMO = "pwcnet-gocor-demo"
SIZE = (125, 185)  # of the motorcycle at a quarter


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "demo.onnx"
    export_onnx(load_network(DEMO), path, height=SIZE[0], width=SIZE[1])
    return path


def share_of_zero_flow(results: tuple[MethodResult, ...]) -> list[float]:
    """AEPE of every method but the last, which is the zero flow, in parts of the zero flow's."""
    errors = [result.groups[next(iter(result.groups))].aepe for result in results]
    return [error / errors[-1] for error in errors[:-1]]


def test_the_name_is_a_checkpoint() -> None:
    network = load_network(DEMO)
    assert (network.spec.name, network.local_iterations) == ("PWCNet_GOCor", 3)
    assert network.info is not None
    assert network.info.path == checkpoint_path(DEMO)


def test_only_the_bare_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checkpoint_path(Path(DEMO)) == checkpoint_path(DEMO)
    assert checkpoint_path(tmp_path / DEMO) == tmp_path / DEMO
    assert checkpoint_path(f"{DEMO}.safetensors") == Path(f"{DEMO}.safetensors")


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_file_is_in_half_precision_and_says_how_it_was_trained(name: str) -> None:
    path = checkpoint_path(name)
    assert path.stat().st_size <= 20e6
    assert {value.dtype for value in read_checkpoint(name).tensors.values()} == {torch.float16}
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
    assert facts.keys() >= {"network", "iterations", "step", "seed"}
    assert facts["license"] == "Apache-2.0"


def test_it_can_be_inspected() -> None:
    assert inspect_file(DEMO).network == "PWCNet_GOCor"


def test_the_model_knows_the_checkpoint_by_its_name(model: Path) -> None:
    report = verify(model, DEMO)
    assert report.passed
    assert report.metadata.checkpoint == f"{DEMO}.safetensors"


def test_it_finds_correspondences_of_a_real_pair(model: Path) -> None:
    with open_methods([DEMO, model]) as methods:
        report = evaluate(methods, open_dataset("motorcycle"))
    pytorch, onnxruntime = share_of_zero_flow(report.results)
    assert pytorch <= 0.35
    assert onnxruntime == pytest.approx(pytorch, abs=1e-4)


def test_it_finds_correspondences_of_synthetic_pairs() -> None:
    with open_methods([DEMO]) as methods:
        report = evaluate(methods, open_dataset("synthetic").select(None, 10))
    assert share_of_zero_flow(report.results)[0] <= 0.35
