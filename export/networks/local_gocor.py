"""Local GOCor: optimises one correlation filter per pixel against the reference's own neighbourhood."""

from typing import Literal

import torch
from torch import Tensor, nn

from gocor.export.networks.filter_optimizer import FilterOptimizer, Residual, squared_norm, window_distances
from gocor.plugins.torch_ops import local_correlation, local_correlation_transpose, local_gocor


class LocalFilterInitializer(nn.Module):
    """Initial filter of each pixel: its feature vector, divided by its mean square, times ``scaling``."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling = nn.Parameter(torch.ones(1))

    def forward(self, reference: Tensor) -> Tensor:
        """``(B, C, H, W)`` features to filters of the same shape."""
        return self.scaling * reference / ((reference * reference).mean(dim=1, keepdim=True) + 1e-6)


class LocalZeroInitializer(nn.Module):
    """Initial filters of zeros."""

    scaling: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scaling", torch.zeros(1), persistent=False)

    def forward(self, reference: Tensor) -> Tensor:
        """``(B, C, H, W)`` features to filters of the same shape."""
        return torch.zeros_like(reference)


class LocalGOCor(nn.Module):
    """Correlation volume of reference filters, optimised for ``iterations`` steps, with the query.

    Correlation is linear, so the scores of the next step are those of this one minus a multiple of the
    gradient's: one correlation and one transpose a step.

    Args:
        iterations: steepest-descent steps, ≥ 0; unrolled.
        radius: search radius in feature pixels, ≥ 1; the public checkpoints use 4.
        initializer: ``simple`` or ``zeros``.
        optimizer_options: further arguments of ``FilterOptimizer``.

    Attributes:
        fused: compute all of it by the operator ``LocalGOCor``, one node of an exported graph, instead of
            step by step.

    Source:
        GOCor, NeurIPS 2020, sec. 3 and supplement.
    """

    def __init__(
        self,
        iterations: int = 3,
        radius: int = 4,
        initializer: Literal["simple", "zeros"] = "simple",
        **optimizer_options: float,
    ) -> None:
        super().__init__()
        self.radius = radius
        self.fused = False
        self.filter_initializer = (
            LocalFilterInitializer() if initializer == "simple" else LocalZeroInitializer()
        )
        self.filter_optimizer = FilterOptimizer(iterations, **optimizer_options)  # type: ignore[arg-type]
        self.distances: Tensor
        self.register_buffer("distances", window_distances(radius).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, reference: Tensor, query: Tensor) -> Tensor:
        """Two ``(B, C, H, W)`` features to the volume ``(B, (2r+1)**2, H, W)``."""
        if self.fused:
            return self._in_one(reference, query)
        filters = self.filter_initializer(reference)
        filters = self.optimize(filters, reference)
        return local_correlation(filters, query, self.radius)

    def _in_one(self, reference: Tensor, query: Tensor) -> Tensor:
        optimizer = self.filter_optimizer
        maps = optimizer.frozen or optimizer.score_maps(self.distances)
        target, weight, mask = (m.flatten() for m in maps)
        scaling = self.filter_initializer.scaling
        numbers = (
            scaling,
            optimizer.log_step_length.exp(),
            optimizer.regularization / reference.shape[1] ** 2,
            torch.full_like(scaling, optimizer.steplength_regularization),
        )
        scalars = torch.cat(numbers)
        count = optimizer.iterations
        return local_gocor(reference, query, target, weight, mask, scalars, self.radius, count)

    def optimize(self, filters: Tensor, reference: Tensor) -> Tensor:
        """Filters ``(B, C, H, W)`` after all steps."""
        optimizer = self.filter_optimizer
        if optimizer.iterations == 0:
            return filters
        residual = Residual(*(optimizer.frozen or optimizer.score_maps(self.distances)))
        regularization = optimizer.regularization / reference.shape[1] ** 2
        scores = local_correlation(filters, reference, self.radius)
        for remaining in reversed(range(optimizer.iterations)):
            slope = residual.slope(scores)
            back = local_correlation_transpose(residual.gradient(scores, slope), reference, self.radius)
            gradient = back + regularization * filters
            change = local_correlation(gradient, reference, self.radius)
            step = optimizer.step(squared_norm(gradient), squared_norm(slope * change), regularization)
            filters = filters - step * gradient
            if remaining:
                scores = scores - step * change
        return filters
