"""``LocalGOCor`` in PyTorch: differentiable any number of times, traceable, exportable."""

import torch
from torch import Tensor

from gocor.plugins.local_correlation.torch_op import local_correlation
from gocor.plugins.local_correlation_transpose.torch_op import local_correlation_transpose
from gocor.plugins.local_gocor.schema import SCHEMA
from gocor.plugins.onnx_node import exporting, onnx_node


def local_gocor(
    reference: Tensor, query: Tensor, target: Tensor, weight: Tensor, mask: Tensor, scalars: Tensor,
    radius: int, iterations: int,
) -> Tensor:  # fmt: skip
    """Optimises a correlation filter for every pixel, and correlates it with the query.

    ``gocor.plugins.local_gocor.reference`` says what that means.

    Args:
        reference: features ``(N, C, H, W)``, any floating dtype.
        query: features, shape and dtype of ``reference``.
        target: y for each displacement, ``((2r+1)**2,)``.
        weight: v₊, likewise.
        mask: m, likewise.
        scalars: ``(4,)``: scaling, η, λ/C², and what is added to a step's denominator for each squared
            gradient.
        radius: search radius in feature pixels, 1..16.
        iterations: steps, from 0; unrolled.

    Returns:
        Correlation volume ``(N, (2r+1)**2, H, W)``, dtype of ``reference``; computed in float32, or in
        float64 for features of that dtype.

    Raises:
        ShapeError: shapes do not fit; the text gives them.

    Source:
        GOCor, NeurIPS 2020, sec. 3.
    """
    inputs = (reference, query, target, weight, mask, scalars)
    if exporting():
        return onnx_node(SCHEMA, *inputs, radius=radius, iterations=iterations)
    return torch.ops.gocor.local_gocor(*inputs, radius, iterations)


def _check(inputs: tuple[Tensor, ...], radius: int, iterations: int) -> tuple[int, ...]:
    return SCHEMA.check(*(tensor.shape for tensor in inputs), radius=radius, iterations=iterations)


@torch.library.custom_op("gocor::local_gocor", mutates_args=())
def _operator(
    reference: Tensor, query: Tensor, target: Tensor, weight: Tensor, mask: Tensor, scalars: Tensor,
    radius: int, iterations: int,
) -> Tensor:  # fmt: skip
    inputs = (reference, query, target, weight, mask, scalars)
    _check(inputs, radius, iterations)
    return _unrolled(inputs, radius, iterations)


@_operator.register_fake
def _fake(
    reference: Tensor, query: Tensor, target: Tensor, weight: Tensor, mask: Tensor, scalars: Tensor,
    radius: int, iterations: int,
) -> Tensor:  # fmt: skip
    inputs = (reference, query, target, weight, mask, scalars)
    return reference.new_empty(_check(inputs, radius, iterations))


def _unrolled(inputs: tuple[Tensor, ...], radius: int, iterations: int) -> Tensor:
    """The operator as a composition of the correlations and elementwise steps."""
    dtype = torch.promote_types(inputs[0].dtype, torch.float32)
    f, query, *maps, scalars = (tensor.to(dtype) for tensor in inputs)
    target, weight, mask = (tensor.reshape(-1, 1, 1) for tensor in maps)
    scaling, step_length, regularization, steplength_regularization = scalars.unbind()
    filters = scaling * f / ((f * f).mean(dim=1, keepdim=True) + 1e-6)
    scores = local_correlation(filters, f, radius) if iterations else filters
    for remaining in reversed(range(iterations)):
        slope = weight * ((1 - mask) / 2 * scores.sign() + (1 + mask) / 2)
        residual = slope * (slope * scores - weight * target)
        gradient = local_correlation_transpose(residual, f, radius) + regularization * filters
        change = local_correlation(gradient, f, radius)
        squared_gradient = (gradient * gradient).sum(dim=1, keepdim=True)
        squared_change = (slope * change).square().sum(dim=1, keepdim=True)
        curvature = (squared_change + regularization * squared_gradient).clamp(min=1e-8)
        curvature = curvature + steplength_regularization * squared_gradient
        step = step_length * squared_gradient / curvature
        filters = filters - step * gradient
        if remaining:
            scores = scores - step * change
    return local_correlation(filters, query, radius).to(inputs[0].dtype)


def _setup(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor | int, ...], output: Tensor
) -> None:
    *tensors, ctx.radius, ctx.iterations = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(*tensors)  # type: ignore[arg-type]


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Unrolls the operator once more, this time with a graph: nothing but its inputs is kept in between."""
    saved, wanted = ctx.saved_tensors, ctx.needs_input_grad  # type: ignore[attr-defined]
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = saved if create_graph else _leaves(saved, wanted)
        volume = _unrolled(inputs, ctx.radius, ctx.iterations)  # type: ignore[attr-defined]
    sought = [tensor for tensor, want in zip(inputs, wanted, strict=False) if want]
    found = iter(torch.autograd.grad(volume, sought, grad, create_graph=create_graph, materialize_grads=True))
    return tuple(next(found) if want else None for want in wanted)


def _leaves(tensors: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> tuple[Tensor, ...]:
    return tuple(t.detach().requires_grad_(want) for t, want in zip(tensors, wanted, strict=False))


_operator.register_autograd(_backward, setup_context=_setup)
