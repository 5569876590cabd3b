"""``LocalCorrelation`` in PyTorch: differentiable any number of times, traceable, exportable."""

import torch
from torch import Tensor

from gocor.plugins.local_correlation.schema import SCHEMA
from gocor.plugins.onnx_node import exporting, onnx_node
from gocor.plugins.tiles import correlate, reverse


def local_correlation(reference: Tensor, query: Tensor, radius: int) -> Tensor:
    """Correlates each reference vector with the query vectors around the same pixel.

    ``out[n, (dy+r)*(2r+1) + dx+r, y, x] = mean_c reference[n,c,y,x] * query[n,c,y+dy,x+dx]``, zero outside.

    Args:
        reference: features ``(N, C, H, W)``, any floating dtype.
        query: features, shape and dtype of ``reference``.
        radius: search radius in feature pixels, 1..16.

    Returns:
        Correlation volume ``(N, (2r+1)**2, H, W)``, dtype of ``reference``; accumulated in float32.

    Raises:
        ShapeError: shapes differ; the text gives both.

    Source:
        GOCor, NeurIPS 2020, sec. 3; order and scale as in the public checkpoints.
    """
    if exporting():
        return onnx_node(SCHEMA, reference, query, radius=radius)
    return torch.ops.gocor.local_correlation(reference, query, radius)


@torch.library.custom_op("gocor::local_correlation", mutates_args=())
def _operator(reference: Tensor, query: Tensor, radius: int) -> Tensor:
    SCHEMA.check(reference.shape, query.shape, radius=radius)
    return correlate(reference, query, radius)


@_operator.register_fake
def _fake(reference: Tensor, query: Tensor, radius: int) -> Tensor:
    return reference.new_empty(SCHEMA.check(reference.shape, query.shape, radius=radius))


def _setup(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, int], output: Tensor
) -> None:
    reference, query, ctx.radius = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(reference, query)


def _backward(
    ctx: torch.autograd.function.FunctionCtx, grad: Tensor
) -> tuple[Tensor | None, Tensor | None, None]:
    reference, query = ctx.saved_tensors  # type: ignore[attr-defined]
    radius = ctx.radius  # type: ignore[attr-defined]
    needs_reference, needs_query, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
    transpose = torch.ops.gocor.local_correlation_transpose
    return (
        transpose(grad, query, radius) if needs_reference else None,
        transpose(reverse(grad, radius), reference, radius) if needs_query else None,
        None,
    )


_operator.register_autograd(_backward, setup_context=_setup)
