"""Outlines of foreground objects, as functions that say for any position how far inside it is."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gocor.evaluation.synthetic.config import SyntheticConfig
from gocor.evaluation.synthetic.randomness import Variates

HARMONICS = 5  # of a blob's outline: from an egg (2) to a starfish
SMALLEST_RADIUS, LARGEST_RADIUS = 0.08, 0.3  # of the image's shorter side


@dataclass(frozen=True)
class Shapes:
    """Outlines ``(B, F)`` in the query's pixels; blobs and bars.

    Attributes:
        centre: ``(B, F, 2)``, x and y.
        axis: ``(B, F, 2)``, cosine and sine of the rotation.
        radius: ``(B, F)``, px.
        aspect: ``(B, F)``, width over height.
        waves: ``(B, F, HARMONICS - 1, 2)``: complex harmonics of the outline, from the second, as shares of
            the radius.
        bar: bool ``(B, F)``: a rectangle instead of a blob.
        used: bool ``(B, F)``; unused shapes cover nothing.
    """

    centre: Tensor
    axis: Tensor
    radius: Tensor
    aspect: Tensor
    waves: Tensor
    bar: Tensor
    used: Tensor

    def coverage(self, positions: Tensor) -> Tensor:
        """How much of a pixel at a position is covered, 0 to 1.

        Args:
            positions: ``(B, F, 2, H, W)``, x and y in the query.

        Returns:
            ``(B, F, H, W)``.
        """
        covered = positions.new_zeros(positions[:, :, 0].shape)
        covered[self.used] = (0.5 - self._outside(positions[self.used])).clamp_(0, 1)
        return covered

    def _outside(self, positions: Tensor) -> Tensor:
        """About how far outside a position is, px, negative inside: ``(N, H, W)`` for the used shapes."""
        x, y = (positions - self.centre[self.used][..., None, None]).unbind(1)
        cos, sin = self.axis[self.used][..., None, None].unbind(1)
        stretch = self.aspect[self.used].sqrt()[:, None, None]
        x, y = (x * cos + y * sin) / stretch, (y * cos - x * sin) * stretch
        radius, bar = self.radius[self.used][:, None, None], self.bar[self.used]
        outside = torch.empty_like(x)
        outside[bar] = torch.maximum(x[bar].abs(), y[bar].abs()) - 0.8 * radius[bar]
        blob = ~bar
        outside[blob] = _outside_blob(x[blob], y[blob], radius[blob], self.waves[self.used][blob])
        return outside


def _outside_blob(x: Tensor, y: Tensor, radius: Tensor, waves: Tensor) -> Tensor:
    distance = torch.hypot(x, y).clamp_(min=1e-3)
    turn = torch.complex(x / distance, y / distance)
    # The sum of the harmonics, as a polynomial of the unit number in the position's direction (Horner).
    outline = torch.zeros_like(turn)
    for wave in reversed(torch.view_as_complex(waves).unbind(1)):
        outline = torch.addcmul(wave[:, None, None], outline, turn)
    outline = outline * turn * turn
    return distance - radius * (1 + outline.real)


def random_shapes(variates: Variates, config: SyntheticConfig) -> Shapes:
    """Up to ``foreground`` shapes for each pair, all numbers of them equally likely."""
    count = config.foreground
    place = variates.uniform(0.05, 0.95, count, 2)
    angle = variates.uniform(0, 2 * math.pi, count)
    falloff = 0.35 / torch.arange(2, HARMONICS + 1, device=angle.device).float()
    return Shapes(
        centre=place * torch.tensor((config.width - 1, config.height - 1), device=angle.device),
        axis=torch.stack((angle.cos(), angle.sin()), dim=-1),
        radius=variates.uniform(SMALLEST_RADIUS, LARGEST_RADIUS, count) * min(config.height, config.width),
        aspect=variates.uniform(math.log(1 / 3), math.log(3), count).exp(),
        waves=variates.uniform(-1, 1, count, HARMONICS - 1, 2) * falloff[:, None],
        bar=variates.uniform(0, 1, count) < 0.3,
        used=torch.arange(count, device=angle.device) < variates.integers(count + 1, 1),
    )
