"""Pictures of a flow: its colours with a legend, an overview of the pair, and where it is not consistent."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gocor.core.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

# Steps from each colour of the wheel to the next: red, yellow, green, cyan, blue, magenta, red.
_WHEEL_STEPS = (15, 6, 4, 11, 13, 6)
_WHEEL_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))
_INK, _PAPER, _FAINT = (40, 40, 40), (255, 255, 255), (120, 120, 120)
_TINT = (235, 20, 110)  # of what is not consistent; rare in photographs
_PANEL_WIDTH = (256, 640)  # of the overview, px


def color_wheel() -> np.ndarray:
    """The 55 colours of directions, uint8 ``(55, 3)``, from right (red) over down and left to up.

    Source:
        Baker et al.: A database and evaluation methodology for optical flow, IJCV 2011.
    """
    corners = np.array([*_WHEEL_CORNERS, _WHEEL_CORNERS[0]], np.float64)
    segments = [
        start + (end - start) * np.arange(steps)[:, None] / steps
        for start, end, steps in zip(corners[:-1], corners[1:], _WHEEL_STEPS, strict=True)
    ]
    return np.floor(np.concatenate(segments)).astype(np.uint8)


def flow_to_color(flow: np.ndarray, max_magnitude: float | None = None) -> np.ndarray:
    """Colours of a flow: direction is hue, magnitude is saturation, no motion is white.

    Args:
        flow: ``(2, H, W)`` in pixels; what is not finite becomes black.
        max_magnitude: magnitude of full saturation, px; larger ones are darker. The flow's largest when None.

    Returns:
        uint8 RGB ``(H, W, 3)``.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ShapeError("flow", f"has shape {flow.shape}", "(2, H, W)")
    known = np.isfinite(flow).all(axis=0)
    x, y = np.where(known, flow, 0).astype(np.float32)
    radius = np.hypot(x, y)
    radius /= largest_magnitude(flow) if max_magnitude is None else _positive(max_magnitude)
    wheel = color_wheel().astype(np.float32)
    position = (np.arctan2(-y, -x) / np.float32(np.pi) + 1) / 2 * (len(wheel) - 1)
    first = position.astype(np.intp)
    share = (position - first)[..., None]
    hue = wheel[first] * (1 - share) + wheel[(first + 1) % len(wheel)] * share
    radius = radius[..., None]
    color = np.where(radius <= 1, 255 - radius * (255 - hue), 0.75 * hue)
    return np.where(known[..., None], color, 0).astype(np.uint8)


def largest_magnitude(flow: np.ndarray) -> float:
    """Largest finite magnitude of a flow ``(2, H, W)``, px; a hair above 0 where nothing moves."""
    magnitudes = np.hypot(*flow.astype(np.float32))
    finite = magnitudes[np.isfinite(magnitudes)]
    return max(float(finite.max()) if finite.size else 0.0, 1e-6)


def flow_picture(flow: np.ndarray, max_magnitude: float | None = None) -> np.ndarray:
    """``flow_to_color`` with a small colour wheel, whose rim is ``max_magnitude``, in the lower right corner.

    Images with a side below 96 px are left without, since it would hide them.
    """
    from PIL import Image

    if max_magnitude is None:
        max_magnitude = largest_magnitude(flow)
    picture = Image.fromarray(flow_to_color(flow, max_magnitude))
    _draw_wheel(picture, max_magnitude)
    return np.asarray(picture)


def overview(
    reference: np.ndarray,
    query: np.ndarray,
    warped: np.ndarray,
    flow: np.ndarray,
    max_magnitude: float | None = None,
) -> np.ndarray:
    """Reference, query, warped query and flow side by side, with captions.

    Args:
        reference: uint8 RGB ``(H, W, 3)``.
        query: uint8 RGB, also of another size.
        warped: the query on the reference's grid, uint8 RGB ``(H, W, 3)``.
        flow: ``(2, H, W)``.
        max_magnitude: as for ``flow_to_color``.

    Returns:
        uint8 RGB; each panel between 256 and 640 px wide, whatever the images are.
    """
    from PIL import Image

    if max_magnitude is None:
        max_magnitude = largest_magnitude(flow)
    height, width = reference.shape[:2]
    scale = min(max(width, _PANEL_WIDTH[0]), _PANEL_WIDTH[1]) / width
    size = (round(width * scale), max(1, round(height * scale)))
    colors = flow_to_color(flow, max_magnitude)
    panels = [Image.fromarray(image) for image in (reference, query, warped, colors)]
    panels[1] = _fit(panels[1], (width, height))
    panels = [panel.resize(size, Image.Resampling.LANCZOS) for panel in panels]
    _draw_wheel(panels[3], max_magnitude)
    captions = ("reference", "query", "query, warped onto the reference", "flow, reference to query")
    return _side_by_side(panels, captions)


def consistency_picture(reference: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The reference, tinted where forward and backward flow disagree (occlusions, mostly).

    Args:
        reference: uint8 RGB ``(H, W, 3)``.
        mask: bool ``(H, W)``, true where they agree.

    Returns:
        uint8 RGB ``(H, W, 3)``.
    """
    from PIL import Image

    if mask.shape != reference.shape[:2]:
        raise ShapeError("mask", f"has shape {mask.shape}", f"that of the reference, {reference.shape[:2]}")
    # Grey below the tint: it stands out against every colour of the image.
    grey = reference.mean(axis=-1, keepdims=True)
    tinted = np.where(mask[..., None], reference, 0.35 * grey + 0.65 * np.array(_TINT)).astype(np.uint8)
    picture = Image.fromarray(tinted)
    _draw_key(picture, f"not consistent: {100 * (1 - mask.mean()):.1f} %")
    return np.asarray(picture)


def _positive(magnitude: float) -> float:
    if not (np.isfinite(magnitude) and magnitude > 0):
        raise ConfigError("max_magnitude", f"{magnitude}", "a positive number of pixels")
    return magnitude


def _fit(image: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    """The image on a canvas of ``size``, shrunk if it is larger."""
    from PIL import Image, ImageOps

    if image.size == size:
        return image
    canvas = Image.new("RGB", size, (235, 235, 235))
    if image.width > size[0] or image.height > size[1]:
        image = ImageOps.contain(image, size)
    canvas.paste(image)
    return canvas


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _side_by_side(panels: Sequence["Image.Image"], captions: Sequence[str]) -> np.ndarray:
    from PIL import Image, ImageDraw

    width, height = panels[0].size
    font_size = max(14, width // 30)
    gap, bar = font_size, round(2.2 * font_size)
    sheet = Image.new("RGB", (gap + len(panels) * (width + gap), bar + height + gap), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = gap + index * (width + gap)
        draw.text((left, bar / 2), caption, _INK, _font(font_size), anchor="lm")
        sheet.paste(panel, (left, bar))
        draw.rectangle((left - 1, bar - 1, left + width, bar + height), outline=(200, 200, 200))
    return np.asarray(sheet)


def _card(
    picture: "Image.Image", width: int, height: int, gap: int
) -> tuple["ImageDraw.ImageDraw", int, int]:
    """Puts a light, rounded card into the lower right corner; its drawing, left and top."""
    from PIL import Image, ImageDraw

    left, top = picture.width - width - gap, picture.height - height - gap
    mask = Image.new("L", (4 * width, 4 * height))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * width - 1, 4 * height - 1), 4 * gap, fill=225)
    picture.paste(_PAPER, (left, top), mask.resize((width, height), Image.Resampling.LANCZOS))
    return ImageDraw.Draw(picture), left, top


def _draw_wheel(picture: "Image.Image", max_magnitude: float) -> None:
    side = min(picture.size)
    if side < 96:
        return
    diameter = min(max(side // 6, 36), 160)
    gap, font = max(4, diameter // 12), _font(max(10, diameter // 6))
    text = f"rim {max_magnitude:.3g} px"
    left, top, right, bottom = font.getbbox(text)
    width = round(max(diameter, right - left)) + 2 * gap
    height = diameter + round(bottom - top) + 3 * gap
    draw, card_left, card_top = _card(picture, width, height, gap)
    wheel, mask = _wheel_picture(diameter)
    picture.paste(wheel, (card_left + (width - diameter) // 2, card_top + gap), mask)
    draw.text((card_left + width / 2, card_top + height - gap), text, _INK, font, anchor="mb")


def _wheel_picture(diameter: int) -> tuple["Image.Image", "Image.Image"]:
    """A disk with the colours of every flow up to 1, and its mask, both with smooth edges."""
    from PIL import Image

    fine = 4 * diameter
    steps = (np.arange(fine, dtype=np.float32) + 0.5) / fine * 2 - 1
    vectors = np.stack(np.meshgrid(steps, steps))
    radius = np.hypot(*vectors)
    disk = flow_to_color(vectors / np.maximum(radius, 1), 1.0)
    edge = radius > 1 - 6 / diameter / 4
    disk[edge] = _FAINT
    images = Image.fromarray(disk), Image.fromarray(np.where(radius <= 1, 255, 0).astype(np.uint8))
    size = (diameter, diameter)
    return images[0].resize(size, Image.Resampling.BOX), images[1].resize(size, Image.Resampling.BOX)


def _draw_key(picture: "Image.Image", text: str) -> None:
    side = min(picture.size)
    font = _font(min(max(11, side // 32), 28))
    left, top, right, bottom = font.getbbox(text)
    swatch, gap = round(bottom - top), max(4, side // 80)
    width, height = round(right - left) + swatch + 3 * gap, swatch + 2 * gap
    if width + 2 * gap > picture.width or side < 96:
        return
    draw, card_left, card_top = _card(picture, width, height, gap)
    draw.rectangle(
        (card_left + gap, card_top + gap, card_left + gap + swatch, card_top + gap + swatch), _TINT
    )
    draw.text((card_left + 2 * gap + swatch, card_top + height / 2), text, _INK, font, anchor="lm")
