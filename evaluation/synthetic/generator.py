"""Pairs from textures, shapes and motions: what is drawn is decided first, so that the flow is exact.

Every layer (the background and up to some shapes) has a texture and an outline in the query's coordinates,
and a motion, a function of the reference's pixels. A reference pixel shows the layer where its motion takes
it, the query pixel the layer where it is; both are sampled from the layer's texture directly. So
``reference(x) = query(x + flow(x))`` up to interpolation wherever the pixel is visible, and what is hidden is
known exactly, too.

On the CPU one call uses one core, which makes about 75 pairs of 128×128 a second: the work is many small
operations, of which two threads made half as many on a busy machine of two cores. More cores are used by more
processes, as the workers of a ``DataLoader`` are.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from gocor.evaluation.sample import Truth
from gocor.evaluation.synthetic.config import SyntheticConfig
from gocor.evaluation.synthetic.motion import random_motions
from gocor.evaluation.synthetic.photometric import change
from gocor.evaluation.synthetic.randomness import Variates
from gocor.evaluation.synthetic.shapes import Shapes, random_shapes
from gocor.evaluation.synthetic.textures import random_canvases

LARGEST_ZOOM = 1.4  # of a texture, either way
MOTION, SHAPES, TEXTURES, PLACES, PHOTOMETRY = range(5)  # streams of random numbers


@dataclass(frozen=True)
class Batch:
    """Pairs with their flow.

    Attributes:
        reference: uint8 RGB ``(B, 3, H, W)``.
        query: likewise.
        flow: float32 ``(B, 2, H, W)`` on the reference grid, in pixels; known everywhere.
        visible: bool ``(B, H, W)``: the reference's pixel is seen in the query, neither outside nor behind
            something.
    """

    reference: Tensor
    query: Tensor
    flow: Tensor
    visible: Tensor


def generate(
    indices: Sequence[int], config: SyntheticConfig | None = None, device: str | torch.device = "cpu"
) -> Batch:
    """Generates the pairs of some indices.

    A pair depends on the config and its index only; between batches of different sizes and devices, images
    may differ by rounding, that is one level at a few pixels.

    Args:
        indices: of the pairs, from 0; any order.
        config: what they are like.
        device: where they are computed, and are then.

    Raises:
        DependencyError: the config wants photographs and scikit-image is not installed.
    """
    config, device = config or SyntheticConfig(), torch.device(device)
    with torch.no_grad(), _one_thread() if device.type == "cpu" else contextlib.nullcontext():
        shapes = random_shapes(Variates(config, indices, SHAPES, device), config)
        background = torch.ones(len(indices), 1, dtype=torch.bool, device=device)
        used = torch.cat((background, shapes.used), dim=1)
        motions = random_motions(Variates(config, indices, MOTION, device), config, used.shape[1], device)
        canvases = random_canvases(Variates(config, indices, TEXTURES, device), config, used)
        places = random_places(Variates(config, indices, PLACES, device), used)
        images, flow, visible = render(canvases, places, used, motions, shapes)
        images = change(images, Variates(config, indices, PHOTOMETRY, device), config)
        reference, query = (images * 255).round_().to(torch.uint8).unbind(1)
    return Batch(reference, query, flow, visible)


def stream(
    config: SyntheticConfig, batch_size: int, start: int = 0, device: str | torch.device = "cpu"
) -> Iterator[Batch]:
    """Batches of pairs ``start``, ``start + 1``, … without end."""
    for first in itertools.count(start, batch_size):
        yield generate(range(first, first + batch_size), config, device)


def sample(index: int, config: SyntheticConfig | None = None) -> Truth:
    """One pair as NumPy arrays."""
    batch = generate([index], config)
    reference, query = (
        image[0].permute(1, 2, 0).contiguous().numpy() for image in (batch.reference, batch.query)
    )
    visible = batch.visible[0].numpy()
    return Truth(reference, query, batch.flow[0].numpy(), torch.ones_like(batch.visible[0]).numpy(), visible)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def random_places(variates: Variates, used: Tensor) -> Tensor:
    """How textures lie on the used layers: turned and zoomed, ``(N, 2, 2)``, from image to canvas pixels."""
    layers = used.shape[1]
    angle = variates.uniform(0, 2 * math.pi, layers)[used]
    zoom = variates.uniform(-math.log(LARGEST_ZOOM), math.log(LARGEST_ZOOM), layers)[used].exp()
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    return torch.stack((cos, -sin, sin, cos), dim=-1).reshape(-1, 2, 2)


def render(
    canvases: Tensor, places: Tensor, used: Tensor, motions: Tensor, shapes: Shapes
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws pairs from their layers; layer 0 is the background, later ones lie above earlier ones.

    Args:
        canvases: textures of the used layers, ``(N, 3, Hc, Wc)``.
        places: how they lie on the images, ``(N, 2, 2)``; centres on centres.
        used: bool ``(B, 1 + F)``, with N true entries.
        motions: flows of all layers, ``(B, 1 + F, 2, H, W)``.
        shapes: outlines of the F foreground layers.

    Returns:
        Images ``(B, 2, 3, H, W)``, reference and query; flow ``(B, 2, H, W)``; visible ``(B, H, W)``.
    """
    height, width = motions.shape[-2:]
    grid = _grid(height, width, motions.device)
    targets = grid + motions
    covered = shapes.coverage(targets[:, 1:]), shapes.coverage(grid.expand_as(targets[:, 1:]))
    seen = targets[used], grid.expand(len(canvases), -1, -1, -1)
    images = []
    for coverage, positions in zip(covered, seen, strict=True):
        colours = motions.new_zeros(*used.shape, 3, height, width)
        colours[used] = _look_up(canvases, places, positions)
        image = colours[:, 0]
        for layer in range(1, used.shape[1]):
            image = torch.lerp(image, colours[:, layer], coverage[:, layer - 1, None])
        images.append(image)
    flow, visible = _flow(grid, targets, covered[0], shapes)
    return torch.stack(images, dim=1), flow, visible


def _flow(grid: Tensor, targets: Tensor, covered: Tensor, shapes: Shapes) -> tuple[Tensor, Tensor]:
    """The topmost layer's motion at each pixel of the reference, and whether that is seen in the query."""
    height, width = grid.shape[-2:]
    target = targets[:, 0]
    top = torch.zeros_like(target[:, 0], dtype=torch.int64)
    for layer in range(1, targets.shape[1]):
        here = covered[:, layer - 1] > 0.5
        target = torch.where(here[:, None], targets[:, layer], target)
        top = torch.where(here, layer, top)
    x, y = target.unbind(1)
    visible = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    hiding = shapes.coverage(target[:, None].expand_as(targets[:, 1:])) > 0.5
    for layer in range(1, targets.shape[1]):
        visible &= ~(hiding[:, layer - 1] & (top < layer))
    return target - grid, visible


def _look_up(canvases: Tensor, places: Tensor, positions: Tensor) -> Tensor:
    """Colours ``(N, 3, H, W)`` of the canvases at positions ``(N, 2, H, W)`` of images that lie on them."""
    height, width = positions.shape[-2:]
    centre = positions.new_tensor([(width - 1) / 2, (height - 1) / 2])[:, None, None]
    onto = torch.einsum("nij,njhw->nhwi", places, positions - centre)
    # grid_sample's units with aligned corners: -1 and 1 are the outermost pixels.
    onto *= onto.new_tensor([2 / (canvases.shape[3] - 1), 2 / (canvases.shape[2] - 1)])
    return grid_sample(canvases, onto, padding_mode="reflection", align_corners=True)


def _grid(height: int, width: int, device: torch.device) -> Tensor:
    """x and y of each pixel, float32 ``(2, H, W)``."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack((x, y))
