"""What differs between two photographs of one scene apart from motion: light, colour, sharpness, noise."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from gocor.evaluation.synthetic.config import SyntheticConfig
from gocor.evaluation.synthetic.randomness import Variates, hashed_normal

BLUR_RADIUS = 3  # px: of the kernel, enough for a deviation of 1.3
# Largest change at strength 1: of both images alike, and of either on its own.
CONTRAST, BRIGHTNESS, GAMMA, COLOUR = (0.3, 0.1), (0.1, 0.06), (0.3, 0.1), (0.1, 0.05)
BLUR, BLUR_SHARE = 1.3, 0.3  # px, and how many images have any


def change(images: Tensor, variates: Variates, config: SyntheticConfig) -> Tensor:
    """Changes the two images of each pair.

    Args:
        images: float ``(B, 2, 3, H, W)`` in 0..1, reference and query.
        variates: of the pairs.
        config: gives the strengths.

    Returns:
        Changed images, in 0..1.
    """
    contrast = _both(variates, CONTRAST, config.photometric, 1, 1, 1).exp()
    brightness = _both(variates, BRIGHTNESS, config.photometric, 1, 1, 1)
    gamma = _both(variates, GAMMA, config.photometric, 1, 1, 1).exp()
    colour = _both(variates, COLOUR, config.photometric, 3, 1, 1).exp()
    blurred, deviation = variates.uniform(0, 1, 2), variates.uniform(0.3, BLUR, 2)
    level, keys = variates.uniform(0, config.noise, 2), variates.keys(2)
    if config.photometric:
        images = _blurred(images, (blurred < BLUR_SHARE) * deviation * config.photometric)
        images = ((images - 0.5) * contrast + (0.5 + brightness)) * colour
        images = images.clamp_(0, 1).pow_(gamma)
    if config.noise:
        noise = hashed_normal(keys.flatten(), *images.shape[2:]).unflatten(0, (-1, 2))
        images = images + noise * level[..., None, None, None]
    return images.clamp(0, 1)


def _both(variates: Variates, size: tuple[float, float], strength: float, *shape: int) -> Tensor:
    """Random numbers ``(B, 2, *shape)``: a part that both images have in common, and one of each."""
    common, own = variates.uniform(-1, 1, 1, *shape), variates.uniform(-1, 1, 2, *shape)
    return strength * (size[0] * common + size[1] * own)


def _blurred(images: Tensor, deviation: Tensor) -> Tensor:
    """Gaussian blur of the images whose deviation ``(B, 2)`` is above 0."""
    chosen = (deviation > 0).nonzero(as_tuple=True)
    if not len(chosen[0]):
        return images
    part = images[chosen]
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=images.device)
    weights = torch.exp(-0.5 * (offsets / deviation[chosen][:, None]).square())
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
    channels = pad(part, (BLUR_RADIUS,) * 4, mode="replicate").flatten(0, 1)[None]
    channels = conv2d(channels, weights[:, None, :, None], groups=len(weights))
    channels = conv2d(channels, weights[:, None, None, :], groups=len(weights))
    images = images.clone()
    images[chosen] = channels[0].unflatten(0, (-1, 3))
    return images
