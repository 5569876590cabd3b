"""Gradients, registration and export of the PyTorch operators; their values are in test_operators.py."""

import pytest
import torch
from operator_models import first_shape

from gocor.core.errors import ShapeError
from gocor.plugins.local_correlation.reference import local_correlation as reference_correlation
from gocor.plugins.registry import CORRELATIONS
from gocor.plugins.torch_ops import local_correlation, local_correlation_transpose

TORCH_OPS = {"LocalCorrelation": local_correlation, "LocalCorrelationTranspose": local_correlation_transpose}
OPERATOR = pytest.mark.parametrize("operator", TORCH_OPS)


def inputs(
    operator: str, shape: tuple[int, ...], radius: int, requires_grad: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = first_shape(operator, shape, radius), shape
    first, query = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return first.requires_grad_(requires_grad), query.requires_grad_(requires_grad)


@OPERATOR
@pytest.mark.parametrize(("shape", "radius"), [((1, 2, 9, 2), 1), ((2, 1, 2, 3), 2), ((1, 1, 1, 1), 3)])
def test_gradient(operator: str, shape: tuple[int, ...], radius: int) -> None:
    assert torch.autograd.gradcheck(TORCH_OPS[operator], (*inputs(operator, shape, radius), radius))


@OPERATOR
def test_gradient_of_the_gradient(operator: str) -> None:
    assert torch.autograd.gradgradcheck(TORCH_OPS[operator], (*inputs(operator, (1, 2, 2, 3), 1), 1))


@OPERATOR
@pytest.mark.parametrize("wanted", [0, 1], ids=["first", "query"])
def test_gradient_of_one_input_only(operator: str, wanted: int) -> None:
    both = inputs(operator, (1, 3, 5, 9), 2)
    full = torch.autograd.grad(TORCH_OPS[operator](*both, 2).square().sum(), both)[wanted]
    both[1 - wanted].requires_grad_(False)
    (alone,) = torch.autograd.grad(TORCH_OPS[operator](*both, 2).square().sum(), both[wanted])
    assert torch.equal(alone, full)


@OPERATOR
def test_gradient_through_one_tensor_in_both_places(operator: str) -> None:
    """GOCor correlates filters made of a feature map with that same map."""

    def squared(x: torch.Tensor) -> torch.Tensor:
        volume = local_correlation(x, x, 1)
        return volume if operator == "LocalCorrelation" else local_correlation_transpose(volume, x, 1)

    assert torch.autograd.gradcheck(squared, inputs("LocalCorrelation", (1, 2, 4, 3), 1)[0])


@pytest.mark.parametrize("radius", [1, 4])
def test_transpose_is_the_adjoint(radius: int) -> None:
    """⟨corr(f, g), r⟩ = ⟨f, transpose(r, g)⟩ for all f, g and r."""
    f, g = inputs("LocalCorrelation", (2, 5, 11, 18), radius, requires_grad=False)
    r, _ = inputs("LocalCorrelationTranspose", (2, 5, 11, 18), radius, requires_grad=False)
    left = (local_correlation(f, g, radius) * r).sum()
    right = (f * local_correlation_transpose(r, g, radius)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@OPERATOR
def test_registration(operator: str) -> None:
    """PyTorch's own test: schema, fake tensor, autograd, tracing with fixed and symbolic shapes."""
    registered = getattr(torch.ops.gocor, CORRELATIONS[operator].torch_name).default
    first, query = inputs(operator, (1, 3, 9, 5), 2)
    torch.library.opcheck(registered, (first, query, 2))
    torch.library.opcheck(registered, (first.float().detach(), query.float().detach(), 2))


@OPERATOR
def test_shapes_without_data(operator: str) -> None:
    first, query = (tensor.detach().to("meta") for tensor in inputs(operator, (2, 3, 9, 5), 2))
    output = TORCH_OPS[operator](first, query, 2)
    assert output.device.type == "meta"
    assert output.shape == CORRELATIONS[operator].check(first.shape, query.shape, radius=2)


def test_the_registered_operator_checks_shapes_too() -> None:
    """Whoever calls ``torch.ops.gocor`` directly gets the same error instead of meaningless numbers."""
    with pytest.raises(ShapeError, match="LocalCorrelation: inputs of shapes"):
        torch.ops.gocor.local_correlation(torch.zeros(1, 3, 5, 7), torch.zeros(1, 3, 5, 8), 4)
    with pytest.raises(ShapeError, match="LocalCorrelationTranspose: inputs of shapes"):
        torch.ops.gocor.local_correlation_transpose(torch.zeros(1, 9, 5, 7), torch.zeros(1, 3, 5, 7), 4)


class BothOperators(torch.nn.Module):
    def forward(self, features: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Both operators, with two radii."""
        volume = local_correlation(features, query, 2)
        return local_correlation(local_correlation_transpose(volume, query, 2), query, 1)


def test_export_to_onnx() -> None:
    """One node for each call, with every attribute of the schema and no other, and the version as opset."""
    pytest.importorskip("onnxscript")
    features, query = inputs("LocalCorrelation", (1, 3, 9, 5), 2, requires_grad=False)
    program = torch.onnx.export(
        BothOperators().eval(),
        (features.float(), query.float()),
        dynamo=True,
        opset_version=19,
        verbose=False,
    )
    model = program.model_proto
    nodes = [node for node in model.graph.node if node.domain == "gocor"]
    correlation, transpose = CORRELATIONS
    assert [node.op_type for node in nodes] == [correlation, transpose, correlation]
    assert {opset.domain: opset.version for opset in model.opset_import}["gocor"] == 1
    for node, radius in zip(nodes, (2, 2, 1), strict=True):
        attributes = {a.name: a.s.decode() if a.s else a.i for a in node.attribute}
        assert attributes == {"radius": radius, "plugin_namespace": "gocor", "plugin_version": "1", "aot": 1}
        assert not node.overload
    shape = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    assert shape == [1, 9, 9, 5]


def test_use_after_export() -> None:
    """Exporting leaves no trace: afterwards the operator computes again."""
    features, query = inputs("LocalCorrelation", (1, 3, 9, 5), 2, requires_grad=False)
    expected = reference_correlation(features.numpy(), query.numpy(), 2)
    torch.testing.assert_close(local_correlation(features, query, 2), torch.from_numpy(expected))
