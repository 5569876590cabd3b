"""``LocalCorrelationTranspose`` in PyTorch: differentiable any number of times, traceable, exportable."""

import torch
from torch import Tensor

from gocor.plugins.local_correlation_transpose.schema import SCHEMA
from gocor.plugins.onnx_node import exporting, onnx_node
from gocor.plugins.tiles import correlate_transpose, reverse


def local_correlation_transpose(volume: Tensor, query: Tensor, radius: int) -> Tensor:
    """Sums the query vectors around each pixel, weighted by that pixel's volume.

    ``out[n, c, y, x] = 1/C * sum_d volume[n,d,y,x] * query[n,c,y+dy,x+dx]`` with
    ``d = (dy+r)*(2r+1) + dx+r``, zero outside: the adjoint of ``local_correlation`` in its reference.

    Args:
        volume: weights ``(N, (2r+1)**2, H, W)``, any floating dtype.
        query: features ``(N, C, H, W)``, dtype of ``volume``.
        radius: search radius in feature pixels, 1..16.

    Returns:
        Features ``(N, C, H, W)``, dtype of ``query``; accumulated in float32.

    Raises:
        ShapeError: shapes do not fit; the text gives both.

    Source:
        GOCor, NeurIPS 2020, sec. 3.
    """
    if exporting():
        return onnx_node(SCHEMA, volume, query, radius=radius)
    return torch.ops.gocor.local_correlation_transpose(volume, query, radius)


@torch.library.custom_op("gocor::local_correlation_transpose", mutates_args=())
def _operator(volume: Tensor, query: Tensor, radius: int) -> Tensor:
    SCHEMA.check(volume.shape, query.shape, radius=radius)
    return correlate_transpose(volume, query, radius)


@_operator.register_fake
def _fake(volume: Tensor, query: Tensor, radius: int) -> Tensor:
    return query.new_empty(SCHEMA.check(volume.shape, query.shape, radius=radius))


def _setup(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, int], output: Tensor
) -> None:
    volume, query, ctx.radius = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(volume, query)


def _backward(
    ctx: torch.autograd.function.FunctionCtx, grad: Tensor
) -> tuple[Tensor | None, Tensor | None, None]:
    volume, query = ctx.saved_tensors  # type: ignore[attr-defined]
    radius = ctx.radius  # type: ignore[attr-defined]
    needs_volume, needs_query, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
    return (
        torch.ops.gocor.local_correlation(grad, query, radius) if needs_volume else None,
        torch.ops.gocor.local_correlation_transpose(reverse(volume, radius), grad, radius)
        if needs_query
        else None,
        None,
    )


_operator.register_autograd(_backward, setup_context=_setup)
