"""Global GOCor: optimises one filter for each reference position against all positions of both images."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gocor.export.networks.filter_optimizer import FilterOptimizer, Residual, grid_distances, grid_shape

Initializer = Literal["context", "flexible_context", "simple", "flexible_simple"]


class SimpleInitializer(nn.Module):
    """``scaling * f / (f·f)``; the flexible one has a scaling for each channel."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.scaling = nn.Parameter(torch.ones(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, HW, C)`` to filters of the same shape."""
        return self.scaling * features / _dot(features, features)


class ContextAwareInitializer(nn.Module):
    """The filter that scores ``target_fg`` on its own feature f and ``target_bg`` on the mean feature b.

    Written with the part r of f that is orthogonal to b: ``(f·f)(b·b) - (f·b)²`` is ``(b·b)(r·r)``, and the
    difference would lose all its digits in float32 where features resemble their mean.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.target_fg = nn.Parameter(torch.ones(channels))
        self.target_bg = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, HW, C)`` to filters of the same shape."""
        mean = features.mean(dim=1, keepdim=True)
        mean_square = _dot(mean, mean).clamp(min=1e-20)  # features may all be zero
        along = _dot(features, mean)
        rest = features - along / mean_square * mean
        rest_square = _dot(rest, rest)
        foreground = self.target_fg * mean_square * rest
        background = self.target_bg * (along * rest - rest_square * mean)
        return (foreground - background) / (mean_square * rest_square).clamp(min=1e-6)


class SeparableConv4d(nn.Module):
    """Regulariser R of the query loss: 3×3 over the query grid to 16 channels, 3×3 over the reference.

    The first of the two is computed as one dense matrix product. It gives at once the layout of the second,
    where the convolution would leave volumes of 16 channels to be transposed: 90 ms in ONNX Runtime.

    Attributes:
        frozen: that matrix as a constant, once ``gocor.export.folding`` has computed it.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(1e-3 * torch.randn(channels, 1, 3, 3))
        self.weight2 = nn.Parameter(1e-3 * torch.randn(channels, channels, 3, 3))
        self.frozen: Tensor | None = None

    def forward(self, volume: Tensor, grid: tuple[int, int]) -> Tensor:
        """Volume ``(B, HW, H'W')`` to ``(B, H'W', 16, H, W)``; both grids are ``grid``."""
        batch, positions, _ = volume.shape
        x = self._over_query(grid) @ volume.mT
        x = F.conv2d(x.reshape(batch * positions, -1, *grid), self.weight2, padding=1)
        return x.reshape(batch, positions, -1, *grid)

    def adjoint(self, maps: Tensor) -> Tensor:
        """``(B, H'W', 16, H, W)`` to ``(B, HW, H'W')``: the exact adjoint of ``forward``."""
        batch, positions, _, *grid = maps.shape
        x = F.conv2d(maps.flatten(0, 1), _adjoint_weight(self.weight2), padding=1)
        return x.reshape(batch, -1, positions).mT @ self._over_query((grid[0], grid[1]))

    def over_query(self, grid: tuple[int, int]) -> Tensor:
        """The convolution over the query as a matrix ``(H'W'·16, H'W')``, a function of the weights alone."""
        positions = grid[0] * grid[1]
        impulses = torch.eye(positions).to(self.weight1).reshape(positions, 1, *grid)
        responses = F.conv2d(impulses, self.weight1, padding=1)  # (impulse, channel, H', W')
        return responses.permute(2, 3, 1, 0).reshape(-1, positions)

    def _over_query(self, grid: tuple[int, int]) -> Tensor:
        return self.over_query(grid) if self.frozen is None else self.frozen


class GlobalFilterOptimizer(FilterOptimizer):
    """Steepest descent on the filters of all positions, without or with the query loss."""

    def __init__(self, iterations: int, query_loss: bool, **options: float) -> None:
        super().__init__(iterations, **options)  # type: ignore[arg-type]
        self.reg_layer = SeparableConv4d() if query_loss else None

    def forward(self, filters: Tensor, reference: Tensor, query: Tensor, grid: tuple[int, int]) -> Tensor:
        """Filters ``(B, HW, C)`` and features ``(B, C, HW)`` to the query's scores ``(B, HW, H'W')``."""
        residual = Residual(*(self.frozen or self.score_maps(grid_distances(*grid).to(reference.device))))
        if self.reg_layer is None:
            return self._optimize(filters, reference, residual) @ query
        return self._optimize_with_query(filters, reference, query, residual, grid)

    def _optimize(self, filters: Tensor, reference: Tensor, residual: Residual) -> Tensor:
        if self.iterations == 0:
            return filters
        regularization = self.regularization
        scores = filters @ reference
        for remaining in reversed(range(self.iterations)):
            slope = residual.slope(scores)
            gradient = residual.gradient(scores, slope) @ reference.mT + regularization * filters
            change = gradient @ reference
            weighted = slope * change
            step = self.step(_dot(gradient, gradient), _dot(weighted, weighted), regularization)
            filters = filters - step * gradient
            if remaining:
                scores = scores - step * change
        return filters

    def _optimize_with_query(
        self, filters: Tensor, reference: Tensor, query: Tensor, residual: Residual, grid: tuple[int, int]
    ) -> Tensor:
        """As ``_optimize``, with the roughness of the query's scores in the loss; one step for each image.

        Scores and regulariser are linear in the filters, so each is computed once and then updated.
        """
        assert self.reg_layer is not None
        regularization = self.regularization
        query_scores = filters @ query
        if self.iterations == 0:
            return query_scores
        scores = filters @ reference
        rough = self.reg_layer(query_scores, grid)
        for remaining in reversed(range(self.iterations)):
            slope = residual.slope(scores)
            gradient = residual.gradient(scores, slope) @ reference.mT + regularization * filters
            gradient = gradient + self.reg_layer.adjoint(rough) @ query.mT
            change, query_change = gradient @ reference, gradient @ query
            rough_change = self.reg_layer(query_change, grid)
            curvature = _image_norm(slope * change) + _image_norm(rough_change)
            step = self.step(_image_norm(gradient), curvature, regularization)
            query_scores = query_scores - step * query_change
            if remaining:
                filters = filters - step * gradient
                scores = scores - step * change
                rough = rough - step[..., None, None] * rough_change
        return query_scores


class GlobalGOCor(nn.Module):
    """Correspondence volume between all positions of two L2-normalised feature maps.

    Args:
        iterations: steepest-descent steps, ≥ 0; unrolled.
        channels: of the features; only the flexible initialisers need to know.
        initializer: how filters start; GLU-Net-GOCor's is ``flexible_context``.
        query_loss: also penalise rough scores on the query, as GLU-Net-GOCor does.

    Source:
        GOCor, NeurIPS 2020, sec. 3 and supplement.
    """

    def __init__(
        self,
        iterations: int = 3,
        channels: int = 512,
        initializer: Initializer = "flexible_context",
        query_loss: bool = True,
        **optimizer_options: float,
    ) -> None:
        super().__init__()
        kind = ContextAwareInitializer if initializer.endswith("context") else SimpleInitializer
        self.filter_initializer = kind(channels if initializer.startswith("flexible") else 1)
        self.filter_optimizer = GlobalFilterOptimizer(iterations, query_loss, **optimizer_options)

    def forward(self, reference: Tensor, query: Tensor) -> Tensor:
        """Two ``(B, C, H, W)`` features to ``(B, HqWq, H, W)``: channel = query position."""
        grid = grid_shape(reference)
        flat_reference, flat_query = reference.flatten(2), query.flatten(2)
        filters = self.filter_initializer(flat_reference.mT)
        scores = self.filter_optimizer(filters, flat_reference, flat_query, grid)
        return scores.mT.unflatten(2, grid)


def _adjoint_weight(weight: Tensor) -> Tensor:
    return weight.transpose(0, 1).flip(2, 3)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=-1, keepdim=True)


def _image_norm(maps: Tensor) -> Tensor:
    return (maps * maps).flatten(1).sum(dim=1).reshape(-1, 1, 1)
