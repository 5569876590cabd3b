"""What the images show: photographs, and patterns of several kinds in random colours."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from gocor.evaluation.synthetic.config import SyntheticConfig
from gocor.evaluation.synthetic.photographs import photographs
from gocor.evaluation.synthetic.randomness import Variates, hashed, mixed, unit

MARGIN = 1.25  # size of a canvas over that of the images: room for turning and zooming it
COARSEST_OCTAVE, FINEST_OCTAVE = 6, 1  # cells of 64 to 2 pixels
LARGEST_CELL, SMALLEST_CELL = 48.0, 8.0  # px, of cells and stripes


def random_canvases(variates: Variates, config: SyntheticConfig, used: Tensor) -> Tensor:
    """A texture for each used layer.

    Args:
        variates: of the pairs.
        config: gives the size and the share of photographs.
        used: bool ``(B, layers)``.

    Returns:
        float32 RGB ``(N, 3, Hc, Wc)`` in 0..1, one for each true entry of ``used``, in order.
    """
    height, width = math.ceil(config.height * MARGIN), math.ceil(config.width * MARGIN)
    layers = used.shape[1]
    # Drawn for every layer, so that one layer's texture does not depend on whether another is used.
    keys = variates.keys(layers)[used]
    choice = variates.uniform(0, 1, layers, 5)[used]
    canvases = torch.empty(len(keys), 3, height, width, device=keys.device)
    is_photograph = choice[:, 0] < config.photographs
    photographed = is_photograph.nonzero()[:, 0]
    drawn = (~is_photograph).nonzero()[:, 0]
    if len(photographed):
        canvases[photographed] = _photographs(
            choice[photographed, 1:].cpu(), config, height, width, keys.device
        )
    if len(drawn):
        canvases[drawn] = _patterns(keys[drawn], height, width)
    return canvases


def _photographs(
    choice: Tensor, config: SyntheticConfig, height: int, width: int, device: torch.device
) -> Tensor:
    """Random parts of random photographs at random reductions, mirrored at their borders where too small."""
    bank = photographs(config.split, device)
    crops = []
    for which, reduction, top, left in choice.tolist():
        levels = bank[int(which * len(bank))]
        image = levels[int(reduction * len(levels))]
        rows, columns = (
            _window(start, wanted, there, device)
            for start, wanted, there in ((top, height, image.shape[1]), (left, width, image.shape[2]))
        )
        crops.append(image[:, rows[:, None], columns])
    return torch.stack(crops).float() / 255


def _window(start: float, wanted: int, there: int, device: torch.device) -> Tensor:
    positions = torch.arange(wanted, device=device) + int(start * (abs(there - wanted) + 1))
    if there >= wanted:
        return positions
    positions = positions % (2 * there - 2)
    return torch.where(positions < there, positions, 2 * there - 2 - positions)


def _patterns(keys: Tensor, height: int, width: int) -> Tensor:
    """Textures ``(N, 3, H, W)``: a base of one of four kinds, and finer or coarser noise over it."""
    settings = hashed(mixed(keys ^ 1), 24)
    base = torch.full((len(keys), 3, height, width), 0.5, device=keys.device)
    kinds: tuple[Callable[..., Tensor], ...] = (_cells, _stripes, _ramp)  # and noise alone, with an even base
    kind = (settings[:, 0] * (len(kinds) + 1)).long()
    for number, draw in enumerate(kinds):
        chosen = (kind == number).nonzero()[:, 0]
        if len(chosen):
            base[chosen] = draw(keys[chosen], settings[chosen, 1:], height, width)
    noise = _fractal(mixed(keys ^ 2), 0.4 + 0.8 * settings[:, 22], height, width)
    saturation = (0.7 * settings[:, 21])[:, None, None, None]
    noise = noise[:, :1] * (1 - saturation) + noise * saturation
    amount = torch.where(kind == len(kinds), 0.15 + 0.15 * settings[:, 23], 0.2 * settings[:, 23])
    return (base + amount[:, None, None, None] * noise).clamp_(0, 1)


def _fractal(keys: Tensor, gain: Tensor, height: int, width: int) -> Tensor:
    """Noise of many sizes, mean 0, deviation 1; ``gain`` is an octave's strength over the coarser one's."""
    field = torch.zeros(len(keys), 3, 1, 1, device=keys.device)
    for octave in range(COARSEST_OCTAVE, FINEST_OCTAVE - 1, -1):
        size = (height >> octave) + 2, (width >> octave) + 2
        strength = gain[:, None, None, None] ** (COARSEST_OCTAVE - octave)
        field = interpolate(field, size=size, mode="bilinear", align_corners=False)
        field += strength * (hashed(mixed(keys ^ (16 + octave)), 3, *size) - 0.5)
    full = interpolate(field, size=(height, width), mode="bilinear", align_corners=False)
    spread, mean = torch.std_mean(full, dim=(1, 2, 3), keepdim=True)
    return (full - mean) / spread


def _cells(keys: Tensor, settings: Tensor, height: int, width: int) -> Tensor:
    """Irregular cells of one colour each (Worley's noise), darker towards their borders."""
    size = _cell_size(settings[:, 0])
    x, y = (torch.arange(side, device=keys.device) / size for side in (width, height))
    x, y = x[:, None, :], y[:, :, None]
    # The four lattice squares around a position; a nearer point further away is too rare to be seen.
    column, row = (x - 0.5).floor(), (y - 0.5).floor()
    nearest = torch.full((len(keys), height, width), 9.0, device=keys.device)
    owner = torch.zeros((len(keys), height, width), dtype=torch.int32, device=keys.device)
    for dy, dx in itertools.product((0, 1), repeat=2):
        square = mixed((column + dx).int() ^ keys[:, None, None]) ^ ((row + dy).int() * 0x9E37)
        point = mixed(square)
        across, down = (point & 0xFFFF) * 2.0**-16, ((point >> 16) & 0xFFFF) * 2.0**-16
        distance = (across + (column + dx - x)).square_() + (down + (row + dy - y)).square_()
        closer = distance < nearest
        nearest = torch.where(closer, distance, nearest)
        owner = torch.where(closer, point, owner)
    shade = 1 - (0.6 * settings[:, 1])[:, None, None] * nearest.clamp_(max=1)
    return torch.stack([unit(mixed(owner ^ (2 + channel))) * shade for channel in range(3)], dim=1)


def _stripes(keys: Tensor, settings: Tensor, height: int, width: int) -> Tensor:
    """Stripes or a chessboard in two colours, soft or sharp, a little bent."""
    period, angle = 2 * _cell_size(settings[:, 0]), 2 * math.pi * settings[:, 1]
    x = torch.arange(width, device=keys.device)[None, None, :] * (2 * math.pi)
    y = torch.arange(height, device=keys.device)[None, :, None] * (2 * math.pi)
    cos, sin = ((f(angle)[:, None, None] / period[:, None]) for f in (torch.cos, torch.sin))
    along, across = x * cos + y * sin, y * cos - x * sin
    bend = 0.7 * settings[:, 2, None, None]
    wave = torch.sin(along + bend * torch.sin(0.3 * across))
    board = (settings[:, 3] < 0.4)[:, None, None]
    wave = torch.where(board, wave * torch.sin(across), wave)
    part = 0.5 + 0.5 * torch.tanh((1 + 9 * settings[:, 4, None, None]) * wave)
    first, second = settings[:, 5:8, None, None], settings[:, 8:11, None, None]
    return first + (second - first) * part[:, None]


def _ramp(keys: Tensor, settings: Tensor, height: int, width: int) -> Tensor:
    """Four colours, one in each corner: large even parts, as skies and walls are."""
    corners = settings[:, :12].reshape(-1, 3, 2, 2)
    return interpolate(corners, size=(height, width), mode="bilinear", align_corners=True)


def _cell_size(setting: Tensor) -> Tensor:
    """Sizes ``(N, 1)`` in px, the small ones as likely as the large ones by ratio."""
    return SMALLEST_CELL * (LARGEST_CELL / SMALLEST_CELL) ** setting[:, None]
