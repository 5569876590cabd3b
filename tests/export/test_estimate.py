"""The pipeline around the networks; that it is the official one is in test_golden.py."""

import numpy as np
import pytest
import torch
from golden import golden_network, relative_l2

from gocor.core.errors import ShapeError
from gocor.export.checkpoint import seeded_network
from gocor.export.estimate import estimate_flow, estimate_flow_with_flip_check, run_network, upsample_flow
from gocor.export.networks import GLUNet
from gocor.runtime.preprocess import postprocess
from gocor.runtime.sample_pair import sample_pair


def pair(height: int = 100, width: int = 130, batch: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Two random but smooth images, or batches of them."""
    small = np.random.default_rng(0).integers(0, 256, (2, batch or 1, 12, 12, 3))
    large = small.repeat(-(-height // 12), axis=2).repeat(-(-width // 12), axis=3)[:, :, :height, :width]
    images = large.astype(np.uint8)
    return (images[0], images[1]) if batch else (images[0, 0], images[1, 0])


def test_a_single_pair_has_the_shape_of_its_images() -> None:
    flow = estimate_flow(golden_network("PWCNet_GOCor"), *pair())
    assert flow.shape == (2, 100, 130)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()


def test_a_batch_is_its_pairs_one_by_one() -> None:
    network = golden_network("PWCNet_GOCor")
    references, queries = pair(batch=2)
    flows = estimate_flow(network, references, queries)
    assert flows.shape == (2, 2, 100, 130)
    for flow, reference, query in zip(flows, references, queries, strict=True):
        assert relative_l2(flow, estimate_flow(network, reference, query)) <= 1e-5


def test_channels_and_roles_matter() -> None:
    network, (reference, query) = golden_network("PWCNet"), pair()
    flow = estimate_flow(network, reference, query)
    assert relative_l2(estimate_flow(network, query, reference), flow) > 0.01
    assert relative_l2(estimate_flow(network, reference[..., ::-1], query[..., ::-1]), flow) > 0.01


def test_nothing_needs_a_gradient_and_nothing_is_left_behind() -> None:
    network = golden_network("PWCNet")
    images = pair()
    kept = [image.copy() for image in images]
    outputs = run_network(network, *images)
    assert not any(flow.requires_grad for flow in outputs.values())
    assert all(np.array_equal(image, copy) for image, copy in zip(images, kept, strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_run_network_names_every_flow() -> None:
    network = golden_network("PWCNet")
    outputs = run_network(network, *pair(batch=2))
    assert tuple(outputs) == network.spec.outputs == ("flow6", "flow5", "flow4", "flow3", "flow2")
    assert tuple(outputs["flow2"].shape) == (2, 2, 128 // 4, 192 // 4)  # 100×130 becomes 128×192


def test_run_network_gives_orientation_scores_of_the_glunet_family() -> None:
    network = golden_network("GLUNet_GOCor", 1)
    assert isinstance(network, GLUNet)
    outputs = run_network(network, *pair(batch=2))
    assert tuple(outputs) == (*network.spec.outputs, "orientation_score")
    assert tuple(outputs["orientation_score"].shape) == (2,)
    assert tuple(outputs["flow1"].shape) == (2, 2, 64, 64)


def test_another_size_for_the_network() -> None:
    network, images = golden_network("PWCNet"), pair()
    official = estimate_flow(network, *images)
    larger = estimate_flow(network, *images, size=(192, 256))
    assert larger.shape == official.shape
    assert relative_l2(larger, official) > 1e-3
    assert np.array_equal(estimate_flow(network, *images, size=(128, 192)), official)


def zeros(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("reference", "query", "text"),
    [
        (zeros(8, 8, 3, dtype=np.float32), zeros(8, 8, 3), "reference: has dtype float32; uint8"),
        (zeros(8, 8), zeros(8, 8), "reference: has shape .8, 8.; RGB"),
        (zeros(8, 8, 3), zeros(8, 9, 3), "query: has shape .8, 9, 3.; that of the reference, .8, 8, 3."),
        (
            zeros(2, 8, 8, 3),
            zeros(8, 8, 3),
            "query: has shape .8, 8, 3.; that of the reference, .2, 8, 8, 3.",
        ),
    ],
)
def test_images_that_are_none(reference: np.ndarray, query: np.ndarray, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        estimate_flow(golden_network("PWCNet"), reference, query)


def test_upsample_counts_in_pixels_of_the_new_size() -> None:
    flow = torch.ones(1, 2, 4, 6)
    large = upsample_flow(flow, 30, 48, working_size=(16, 24))
    assert tuple(large.shape) == (1, 2, 30, 48)
    torch.testing.assert_close(large[:, 0], torch.full((1, 30, 48), 48 / 24))
    torch.testing.assert_close(large[:, 1], torch.full((1, 30, 48), 30 / 16))


@pytest.mark.parametrize("size", [(64, 128), (50, 90), (64, 90)], ids=str)
def test_upsample_is_what_the_deployed_part_does(size: tuple[int, int]) -> None:
    """The deployed part has its own, in NumPy: a model's flow must not depend on which one was used."""
    spec = golden_network("PWCNet").spec
    flow = torch.randn(2, 2, 16, 32, generator=torch.Generator().manual_seed(0))
    expected = postprocess(spec, flow.numpy(), *size, (64, 128))
    actual = upsample_flow(flow * spec.flow_unit, *size, (64, 128))
    assert relative_l2(actual, expected) <= 1e-6


def test_flip_check_runs_only_the_coarsest_level_to_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    network = seeded_network("GLUNet_GOCor", iterations=1)
    assert isinstance(network, GLUNet)
    scores, full_runs = iter([1.0, 2.0, 3.0, 2.0]), []
    forward = network.forward

    def counted(*tensors: torch.Tensor) -> object:
        full_runs.append(tensors)
        return forward(*tensors)

    monkeypatch.setattr(network, "forward", counted)
    monkeypatch.setattr(network, "coarse_flow", lambda reference, query: (reference, query))
    monkeypatch.setattr(network, "orientation_score", lambda volume, flow4: torch.tensor([next(scores, 0.0)]))
    reference, query = pair(64, 64)
    flow, decision = estimate_flow_with_flip_check(network, reference, query)
    assert decision.scores == (1.0, 2.0, 3.0, 2.0)  # mirrored won, and the exchanged roles took it back
    assert not decision.flipped
    assert len(full_runs) == 1
    assert flow.shape == (2, 64, 64)


def test_flow_of_the_built_in_pair_by_an_untrained_network_is_finite() -> None:
    """What verify compares by default: seeded weights must give numbers, whatever they mean."""
    reference, query, _ = sample_pair(64, 128)
    flow = estimate_flow(seeded_network("PWCNet_GOCor"), reference, query)
    assert np.isfinite(flow).all()
    assert flow.any()
