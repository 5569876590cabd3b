"""From uint8 images to a network's input tensors, and from its last flow back to pixels, in NumPy and Pillow.

This is the official pipeline, and its rounding is part of the result: PWC-Net's images go through Pillow's
bilinear filter, GLU-Net's through area averaging that is truncated to uint8.
"""

import numpy as np
from numpy.typing import ArrayLike

from gocor.core.errors import ShapeError
from gocor.runtime.spec import GLUNET_COARSE_SIDE, Family, NetworkSpec

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def as_batches(reference: ArrayLike, query: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """A pair of images ``(H, W, 3)``, or of batches ``(N, H, W, 3)``, as two arrays ``(N, H, W, 3)``.

    Raises:
        ShapeError: they are not both uint8 RGB and of one shape; the text names the wrong one.
    """
    arrays = np.asarray(reference), np.asarray(query)
    for name, images in zip(("reference", "query"), arrays, strict=True):
        if images.dtype != np.uint8:
            raise ShapeError(name, f"has dtype {images.dtype}", "uint8, values 0 to 255")
        if images.ndim not in (3, 4) or images.shape[-1] != 3 or 0 in images.shape[-3:]:
            raise ShapeError(name, f"has shape {images.shape}", "RGB, (H, W, 3) or a batch (N, H, W, 3)")
    if arrays[0].shape != arrays[1].shape:
        got = f"has shape {arrays[1].shape}"
        raise ShapeError("query", got, f"that of the reference, {arrays[0].shape}")
    first, second = (images.reshape(-1, *images.shape[-3:]) for images in arrays)
    return first, second


def preprocess(
    spec: NetworkSpec, reference: np.ndarray, query: np.ndarray, size: tuple[int, int] | None = None
) -> dict[str, np.ndarray]:
    """Input tensors of a network for pairs of images.

    Args:
        spec: the network.
        reference: uint8 RGB ``(N, H, W, 3)``, or one image ``(H, W, 3)``.
        query: likewise, of the same shape.
        size: height and width of the full-size tensors; the network's own working size for these images
            when None. Only that one gives the official result.

    Returns:
        float32 ``(N, 3, height, width)`` for each of ``spec.tensor_inputs``: PWC-Net BGR in 0..1; GLU-Net RGB
        normalised by ImageNet's mean and deviation, and again at 256×256, made from the original images.

    Raises:
        ShapeError: the images are no uint8 RGB arrays of one shape.
    """
    reference, query = as_batches(reference, query)
    height, width = size or spec.working_size(*reference.shape[1:3])
    sizes = [(height, width)] * 2 + [(GLUNET_COARSE_SIDE, GLUNET_COARSE_SIDE)] * 2
    tensors = {}
    for name, images, wanted in zip(spec.tensor_inputs, [reference, query] * 2, sizes, strict=False):
        tensors[name] = normalize(resize_images(images, *wanted, spec.family), spec.family)
    return tensors


def postprocess(
    spec: NetworkSpec, last_flow: np.ndarray, height: int, width: int, working_size: tuple[int, int]
) -> np.ndarray:
    """Flow in pixels of the images from a network's last flow.

    Args:
        spec: the network.
        last_flow: float32 ``(N, 2, h, w)`` as the network returns it.
        height: of the images.
        width: of the images.
        working_size: height and width of the network's input.

    Returns:
        float32 ``(N, 2, height, width)`` in pixels, channel 0 = x.
    """
    return resize_flow(last_flow * np.float32(spec.flow_unit), height, width, working_size)


def normalize(images: np.ndarray, family: Family) -> np.ndarray:
    """uint8 RGB ``(N, H, W, 3)`` as float32 ``(N, 3, H, W)`` in the family's colour order and range."""
    ordered = images[..., ::-1] if family == "pwcnet" else images
    scaled = np.ascontiguousarray(ordered.transpose(0, 3, 1, 2), np.float32)
    scaled /= 255
    if family == "glunet":
        scaled -= IMAGENET_MEAN[:, None, None]
        scaled /= IMAGENET_STD[:, None, None]
    return scaled


def resize_images(images: np.ndarray, height: int, width: int, family: Family) -> np.ndarray:
    """Resizes uint8 ``(N, H, W, 3)`` as the family's official code does; the array itself if it fits."""
    if images.shape[1:3] == (height, width):
        return images
    if family == "pwcnet":
        return _resize_pillow(images, height, width)
    return resize_area(images, height, width)


def _resize_pillow(images: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    resized = np.empty((len(images), height, width, 3), np.uint8)
    for image, out in zip(images, resized, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(image))
        # One side after the other: from Pillow 13 on it begins with the height where that shrinks more, and
        # what is rounded in between then differs by 1 (github.com/python-pillow/Pillow/pull/9549).
        for size in ((width, picture.height), (width, height)):
            picture = picture.resize(size, Image.Resampling.BILINEAR)
        out[...] = np.asarray(picture)
    return resized


def resize_area(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Adaptive average pooling of uint8 ``(N, H, W, C)`` to ``(N, height, width, C)``, truncated to uint8.

    Output row i averages the input rows ``floor(i·H/height)`` up to ``ceil((i+1)·H/height)``, so that
    enlarging is defined, too. Exact: integer sums divided by the count (a float average can land just below
    an integer, and truncation then loses 1).
    """
    sums, rows = _window_sums(images, height, axis=1)
    sums, columns = _window_sums(sums, width, axis=2)
    counts = (rows[:, None] * columns)[..., None].astype(np.uint32)
    return (sums // counts).astype(np.uint8)


def _window_sums(values: np.ndarray, count: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    size = values.shape[axis]
    steps = np.arange(count)
    starts, ends = steps * size // count, -(-(steps + 1) * size // count)
    shape = list(values.shape)
    shape[axis] += 1
    # Unsigned sums wrap around, and so do their differences: right for windows of up to 16 million pixels.
    running = np.zeros(shape, np.uint32)
    np.cumsum(values, axis, np.uint32, out=running[(slice(None),) * axis + (slice(1, None),)])
    return running.take(ends, axis) - running.take(starts, axis), ends - starts


def resize_flow(flow: np.ndarray, height: int, width: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """Resizes a flow ``(…, 2, h, w)`` bilinearly to ``(…, 2, height, width)`` and scales its vectors.

    Args:
        flow: float32, channel 0 = x.
        height: of the result.
        width: of the result.
        size: height and width of the image whose pixels the flow counts; its own grid's when None.
    """
    from_height, from_width = size or flow.shape[-2:]
    resized = resize_bilinear(flow, height, width)
    resized[..., 0, :, :] *= width / from_width
    resized[..., 1, :, :] *= height / from_height
    return resized


def resize_bilinear(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes float32 ``(…, h, w)``, as ``torch.nn.functional.interpolate(align_corners=False)`` does.

    No antialiasing; always a new array.
    """
    if values.shape[-2:] == (height, width):
        return values.copy()
    left, right, across = _neighbours(values.shape[-1], width)
    upper, lower, down = _neighbours(values.shape[-2], height)
    rows = _mix(values.take(left, -1), values.take(right, -1), across)
    return _mix(rows.take(upper, -2), rows.take(lower, -2), down[:, None])


def _neighbours(size: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two neighbours of every output position and the weight of the second."""
    # In float32 with one rounding, as PyTorch computes it: at 1000 pixels a position in float64 would differ
    # by 6e-5, visibly more than the weights' own rounding. The product of two float32 is exact in float64.
    scale = np.float64(np.float32(size) / np.float32(count))
    position = np.maximum(scale * (np.arange(count) + 0.5) - 0.5, 0).astype(np.float32)
    first = np.minimum(position.astype(np.intp), size - 1)
    return first, np.minimum(first + 1, size - 1), np.clip(position - first, 0, 1).astype(np.float32)


def _mix(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return first * (1 - weight) + second * weight
