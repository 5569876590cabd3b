"""The benchmark's baseline computes what it claims to: held against the recorded cases."""

import sys
from pathlib import Path

import pytest
import torch
from golden import case_names, fill, golden_network, load_case, relative_l2

from gocor.export.networks.local_gocor import LocalGOCor
from gocor.plugins.torch_ops import local_correlation, local_correlation_transpose
from gocor.runtime.preprocess import preprocess

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from shift_correlation import shift_correlation, shift_correlation_transpose, shift_correlations


@pytest.mark.parametrize("shape", [(2, 5, 9, 13), (1, 3, 1, 1)])
@pytest.mark.parametrize("radius", [1, 4])
def test_both_operators_equal_ours(shape: tuple[int, ...], radius: int) -> None:
    torch.manual_seed(0)
    reference, query = torch.randn(2, *shape)
    volume = torch.randn(shape[0], (2 * radius + 1) ** 2, *shape[2:])
    expected = local_correlation(reference, query, radius)
    assert relative_l2(shift_correlation(reference, query, radius), expected) < 1e-6
    expected = local_correlation_transpose(volume, query, radius)
    assert relative_l2(shift_correlation_transpose(volume, query, radius), expected) < 1e-6


@pytest.mark.parametrize("name", case_names("local_gocor_"))
def test_local_gocor_by_shifts(name: str) -> None:
    case = load_case(name)
    module = fill(LocalGOCor(int(case["iterations"])), "local_corr.")
    with torch.inference_mode(), shift_correlations():
        volume = module(torch.from_numpy(case["reference"]), torch.from_numpy(case["query"]))
    assert relative_l2(volume, case["volume"]) < 1e-5


@pytest.mark.parametrize("name", ["PWCNet", "PWCNet_GOCor", "GLUNet", "GLUNet_GOCor"])
def test_networks_by_shifts(name: str) -> None:
    case, network = load_case(f"network_{name}"), golden_network(name)
    if network.spec.family == "pwcnet":  # recorded without exchanging the colour channels
        images = [torch.from_numpy(case[k]).permute(0, 3, 1, 2).float() / 255 for k in ("reference", "query")]
    else:
        tensors = preprocess(network.spec, case["reference"], case["query"])
        images = [torch.from_numpy(tensor) for tensor in tensors.values()]
    with torch.inference_mode(), shift_correlations():
        flows = network(*images)
    for output, flow in zip(network.spec.outputs, flows, strict=False):
        assert relative_l2(flow, case[output]) < 5e-5, output


def test_the_operators_come_back_afterwards() -> None:
    from gocor.export.networks import pwcnet

    with shift_correlations():
        assert pwcnet.local_correlation is shift_correlation
    assert pwcnet.local_correlation is local_correlation
