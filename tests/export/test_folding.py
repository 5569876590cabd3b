import copy
import re

import pytest
import torch
import torch.nn.functional as F
from golden import golden_network, relative_l2
from torch import Tensor, nn

from gocor.export.checkpoint import seeded_network
from gocor.export.folding import CHANNEL_BLOCK, fold
from gocor.export.networks import GLUNet, Network
from gocor.export.networks.filter_optimizer import FilterOptimizer
from gocor.export.networks.glunet import VGG
from gocor.runtime.spec import SPECS

NAMES = pytest.mark.parametrize("name", SPECS)
CONVOLUTIONS = nn.Conv2d | nn.ConvTranspose2d

# Inputs of a decoder, of its flow head and of what comes after it; a pyramid keeps the channels that it has.
BLOCKED = r"(conv\d_\d|dc_conv\d|l_dc_conv\d|predict_flow\d|upfeat\d|decoder\d.*)(\.\d)*"


def run(network: Network, dtype: torch.dtype) -> tuple[Tensor, ...]:
    family, generator = network.spec.family, torch.Generator().manual_seed(0)
    sizes = [(64, 128)] * 2 if family == "pwcnet" else [(256, 264)] * 2 + [(256, 256)] * 2
    inputs = [torch.rand(2, 3, 8, 8, generator=generator, dtype=dtype) for _ in sizes]
    with torch.inference_mode():
        return tuple(network(*(F.interpolate(x[:1], size) for x, size in zip(inputs, sizes, strict=True))))


class QuickPyramid(nn.Module):
    """Stands for VGG-16, which takes most of the time and has nothing to fold."""

    def forward(self, image: Tensor, levels: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        features = []
        for level, (_, *_, channels) in enumerate(VGG[: levels + 1]):
            mix = torch.randn(channels, 3, 1, 1, generator=generator, dtype=image.dtype)
            features.append(F.conv2d(F.avg_pool2d(image, 2**level), mix))
        return features


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        *((name, torch.float64, 1e-10) for name in SPECS),  # nothing but the algebra makes a difference
        *((name, torch.float32, 1e-5) for name in SPECS if name != "GLUNet_GOCor"),
    ],
    ids=str,
)
def test_a_folded_network_computes_the_same(name: str, dtype: torch.dtype, tolerance: float) -> None:
    network = copy.deepcopy(golden_network(name, 1)).to(dtype)
    if isinstance(network, GLUNet):
        network.add_module("pyramid", QuickPyramid())
    for actual, expected in zip(run(fold(network), dtype), run(network, dtype), strict=True):
        assert relative_l2(actual, expected) <= tolerance


@NAMES
def test_the_network_itself_stays_as_it_was(name: str) -> None:
    network = seeded_network(name).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold(network)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(module.frozen is None for module in network.modules() if isinstance(module, FilterOptimizer))
    assert not any(module.training for module in folded.modules())
    shared = {p.data_ptr() for p in network.parameters()} & {p.data_ptr() for p in folded.parameters()}
    assert not shared


@NAMES
def test_what_a_network_is_called_and_comes_from_is_kept(name: str) -> None:
    network = seeded_network(name, iterations=2)
    folded = fold(network)
    assert type(folded) is type(network)
    assert (folded.spec, folded.info) == (network.spec, network.info)
    assert folded.global_iterations == network.global_iterations
    assert folded.local_iterations == network.local_iterations


@NAMES
def test_batch_norms_are_gone_and_score_maps_constant(name: str) -> None:
    folded = fold(seeded_network(name))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(
        module.frozen is not None and not any(scores.requires_grad for scores in module.frozen)
        for module in folded.modules()
        if isinstance(module, FilterOptimizer)
    )


@NAMES
def test_decoders_read_whole_blocks_of_channels(name: str) -> None:
    inputs = {
        key: module.in_channels
        for key, module in fold(seeded_network(name)).named_modules()
        if isinstance(module, CONVOLUTIONS) and re.fullmatch(BLOCKED, key)
    }
    assert len(inputs) >= 20
    assert not {key: count for key, count in inputs.items() if count % CHANNEL_BLOCK}
