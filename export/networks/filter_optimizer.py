"""What the local and the global filter optimiser share: learned maps, residual, length of a step.

Both compare a filter's scores with a target score y, weighted by v₊, and treat negative scores with a mask m.
Each of the three maps is a function of a displacement's length: a weighted sum of triangular distance bins.
"""

from typing import Literal

import torch
from torch import Tensor, nn

BINS = 10
SPACING = 0.5
MaskActivation = Literal["sigmoid", "linear", "softplus"]


def distance_bins(distances: Tensor) -> Tensor:
    """``(...)`` Euclidean lengths to ``(BINS, ...)`` bin values; the last bin takes everything beyond."""
    k = torch.arange(BINS, dtype=distances.dtype, device=distances.device).reshape(-1, *[1] * distances.dim())
    offset = distances / SPACING - k
    inner = (1 - offset.abs()).clamp(min=0)
    last = (1 + offset[-1:]).clamp(0, 1)
    return torch.cat((inner[:-1], last))


def window_distances(radius: int) -> Tensor:
    """Length of each displacement of a search window, ``((2r+1)**2,)``, dy-major."""
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return torch.hypot(steps[:, None], steps[None, :]).flatten()


def grid_distances(height: int, width: int) -> Tensor:
    """Distance between all positions of a grid, ``(height*width, height*width)``."""
    y = torch.arange(height, dtype=torch.float32).repeat_interleave(width)
    x = torch.arange(width, dtype=torch.float32).repeat(height)
    return torch.hypot(y[:, None] - y, x[:, None] - x)


class ScoreMaps(nn.Module):
    """The three predictors; a filter optimiser is made from this, since in checkpoints they are its children.

    Args:
        sigma: width of the initial target score; 0 makes it a delta at length 0.
        mask_activation: what turns the mask's weighted sum into m.

    Attributes:
        frozen: the maps as constants, once ``gocor.export.folding`` has computed them.
    """

    def __init__(self, sigma: float = 1.0, mask_activation: MaskActivation = "sigmoid") -> None:
        super().__init__()
        lengths = torch.arange(BINS, dtype=torch.float32) * SPACING
        target = torch.exp(-0.5 * (lengths / sigma) ** 2) if sigma else (lengths == 0).float()
        mask = 4 * torch.tanh(2 - lengths)
        if mask_activation != "sigmoid":
            mask = mask.sigmoid()
        if mask_activation == "softplus":
            mask = torch.log(torch.expm1(mask))
        self.mask_activation = mask_activation
        self.label_map_predictor = _predictor(target - target.min())
        self.spatial_weight_predictor = _predictor(torch.ones(BINS))
        self.target_mask_predictor = nn.Sequential(_predictor(mask))
        self.frozen: tuple[Tensor, Tensor, Tensor] | None = None

    def score_maps(self, distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(y, v₊, m)``, each of the shape of ``distances``."""
        weight = self.label_map_predictor.weight
        bins = distance_bins(distances.to(weight))
        target, positive, mask = (
            torch.tensordot(predictor.get_parameter("weight").flatten(), bins, dims=1)
            for predictor in (
                self.label_map_predictor,
                self.spatial_weight_predictor,
                self.target_mask_predictor[0],
            )
        )
        return target, positive, self._activate(mask)

    def _activate(self, mask: Tensor) -> Tensor:
        if self.mask_activation == "sigmoid":
            return mask.sigmoid()
        return nn.functional.softplus(mask) if self.mask_activation == "softplus" else mask


class FilterOptimizer(ScoreMaps):
    """Parameters that the local and the global optimiser have in common.

    Args:
        iterations: steepest-descent steps, ≥ 0.
        initial_regularization: initial ``filter_reg``.
        steplength_regularization: added to the step's denominator, times the squared gradient norm.
    """

    def __init__(
        self,
        iterations: int,
        sigma: float = 1.0,
        mask_activation: MaskActivation = "sigmoid",
        initial_regularization: float = 0.01,
        steplength_regularization: float = 0.0,
    ) -> None:
        super().__init__(sigma, mask_activation)
        self.iterations = iterations
        self.steplength_regularization = steplength_regularization
        self.log_step_length = nn.Parameter(torch.zeros(1))
        self.filter_reg = nn.Parameter(torch.tensor([initial_regularization]))

    @property
    def regularization(self) -> Tensor:
        """λ, shape ``(1,)``."""
        return (self.filter_reg**2).clamp(min=1e-10)

    def step(self, squared_gradient: Tensor, squared_change: Tensor, regularization: Tensor) -> Tensor:
        """Length of the steepest-descent step, η·α."""
        curvature = (squared_change + regularization * squared_gradient).clamp(min=1e-8)
        if self.steplength_regularization:
            curvature = curvature + self.steplength_regularization * squared_gradient
        return torch.exp(self.log_step_length) * squared_gradient / curvature


class Residual:
    """The robust residual of a score and its derivative; ``s(x, m)`` is a leaky ReLU with slope m.

    ``s(x, m) = s'(x, m) * x``, so with ``a' = v₊ s'(x, m)`` the weighted score is ``a' x`` and the residual
    ``a' (a' x - v₊ y)``.
    """

    def __init__(self, target: Tensor, positive: Tensor, mask: Tensor) -> None:
        self.half_difference = positive * (1 - mask) / 2
        self.half_sum = positive * (1 + mask) / 2
        self.weighted_target = positive * target

    def slope(self, scores: Tensor) -> Tensor:
        """``a' = v₊ s'(scores, m)``."""
        # The sign of all that is more than 1e-30. ONNX Runtime's Sign operator is not vectorised and takes
        # three times as long as these two together. In 8-bit models OpenVINO moves the product behind the
        # clamp, whose limits become those over the factor: with 1e38 they would be denormal, and taken for 0.
        sign = (scores.detach() * 1e30).clamp(-1, 1)
        return self.half_difference * sign + self.half_sum

    def gradient(self, scores: Tensor, slope: Tensor) -> Tensor:
        """``r``, the gradient of half the squared residual in the scores."""
        return slope * (slope * scores - self.weighted_target)


def _predictor(weights: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(BINS, 1, kernel_size=1, bias=False)
    conv.weight.data.copy_(weights.reshape(1, -1, 1, 1))
    return conv


def grid_shape(features: Tensor) -> tuple[int, int]:
    """Height and width of features, as plain numbers."""
    return int(features.shape[-2]), int(features.shape[-1])


def squared_norm(maps: Tensor) -> Tensor:
    """Sum of squares over channels, keeping the dimension."""
    return (maps * maps).sum(dim=1, keepdim=True)
