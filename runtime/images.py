"""Reading images as a person would expect to see them, writing them, and fitting a pair together.

Whatever the file holds, ``load_image`` gives uint8 RGB: EXIF rotation is applied; grey, palette and CMYK
become RGB; 16 bits become 8 so that full range stays full range (divided by 257, or, in colour TIFF and grey
PNG with alpha, the upper byte); transparent pixels lie on white, as a viewer shows them (the colour under a
transparent pixel is often garbage, and would be matched).
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gocor.core.errors import GocorError, ImageError, ShapeError
from gocor.core.files import atomic_path
from gocor.core.reading import IMAGE, check_size

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM")  # none that starts another program, as EPS would
_EXPECTED = "a PNG, JPEG, TIFF, WebP, BMP or PPM image"
_ORIENTATION = 0x0112  # EXIF tag


def load_image(path: str | Path) -> np.ndarray:
    """Reads an image as uint8 RGB ``(H, W, 3)``; of several frames or pages the first.

    Raises:
        ImageError: the file is missing, unreadable, truncated, no image, of more than 8 or 16 bits, or so
            large that it is taken for a decompression bomb.
    """
    from PIL import Image, ImageOps

    with _opened(path, _FORMATS) as image:
        eight = _eight_bit(image, path)
        # Asked after decoding: Pillow's TIFF reader has applied and removed the orientation by then.
        eight.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
        upright = ImageOps.exif_transpose(eight)
        if upright.has_transparency_data:
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright.convert("RGBA"))
        return np.array(upright.convert("RGB"))


def load_png16(path: str | Path) -> np.ndarray:
    """Reads a 16-bit RGB PNG without loss, as uint16 ``(H, W, 3)``.

    Raises:
        ImageError: the file cannot be read or is another kind of image.
    """

    with _opened(path, ("PNG",)) as image:
        if _raw_mode(image) != "RGB;16B":
            raise ImageError(path, f"is an image of mode {image.mode}, not of 16 bits", "a 16-bit RGB PNG")
        return _all_16_bits(image, path)


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Writes uint8 RGB ``(H, W, 3)`` or grey ``(H, W)`` atomically, in the format of the suffix.

    Raises:
        ShapeError: ``image`` is something else.
        ImageError: the suffix is that of no image format.
        OutputError: the file cannot be written.
    """
    encoded = encode_image(image, Path(path).suffix, where=path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)


def encode_image(image: np.ndarray, suffix: str, where: object = "image") -> bytes:
    """Bytes of the file that ``save_image`` writes. For raises see there."""
    from PIL import Image

    if (
        image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or image.shape[2:] not in ((), (3,))
        or not image.size
    ):
        raise ShapeError(where, f"has shape {image.shape}, dtype {image.dtype}", "uint8, (H, W, 3) or (H, W)")
    Image.init()
    if suffix.lower() not in IMAGE_SUFFIXES:
        raise ImageError(where, f"has suffix {suffix!r}", f"one of {' '.join(IMAGE_SUFFIXES)}")
    # Into memory first: Pillow's own writers lose the reason when the disk is full ("encoder error -2").
    buffer = io.BytesIO()
    # PNG: half the time of Pillow's level 6 for files 4 to 10 % larger.
    options = {"compress_level": 3} if suffix.lower() == ".png" else {"quality": 95}
    Image.fromarray(image).save(buffer, Image.EXTENSION[suffix.lower()], **options)
    return buffer.getvalue()


def pad_pair(reference: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pads both images with zeros at the right and bottom to their common size, as the official script does.

    The flow of the padded pair, cropped to the reference's height and width, is that of the pair.
    """
    height = max(reference.shape[0], query.shape[0])
    width = max(reference.shape[1], query.shape[1])
    return _pad(reference, height, width), _pad(query, height, width)


def check_same_size(reference: np.ndarray, query: np.ndarray, where: object) -> None:
    """Refuses a pair of two sizes.

    Raises:
        ImageError: naming ``where`` and both sizes.
    """
    (height, width), (query_height, query_width) = reference.shape[:2], query.shape[:2]
    if (height, width) != (query_height, query_width):
        raise ImageError(
            where,
            f"the reference has {width}×{height} pixels and the query {query_width}×{query_height}",
            "images of one size, or --pad to pad the smaller one with black",
        )


@contextlib.contextmanager
def _opened(path: str | Path, formats: tuple[str, ...]) -> "Iterator[Image.Image]":
    from PIL import Image

    with decoding(path):
        check_size(path, IMAGE, ImageError)
        if not Path(path).is_file() and not Path(path).is_dir():
            raise ImageError(path, "is no regular file", _EXPECTED)  # a pipe would be waited for
        with Image.open(path, formats=formats) as image:
            yield image


@contextlib.contextmanager
def decoding(path: str | Path) -> Iterator[None]:
    """Turns whatever goes wrong while an image file is read into an ``ImageError`` that names it."""
    from PIL import Image

    try:
        yield
    except GocorError:
        raise
    except FileNotFoundError as error:
        raise ImageError(path, "does not exist", "the path of an image") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            path, "is of no image format known here, or damaged at its beginning", _EXPECTED
        ) from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise ImageError(
            path, "is too large to be decoded safely", f"at most {limit} million pixels"
        ) from error
    except MemoryError as error:
        raise ImageError(path, "does not fit into memory", "a smaller image") from error
    except Exception as error:  # on damaged files Pillow's readers raise whatever their parsing ran into
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(path, f"cannot be read ({error.strerror})", _EXPECTED) from error
        raise ImageError(path, f"is truncated or damaged ({error})", _EXPECTED) from error


def _eight_bit(image: "Image.Image", path: str | Path) -> "Image.Image":
    from PIL import Image

    if _raw_mode(image) in ("RGB;16B", "RGBA;16B"):
        return Image.fromarray(_scaled(_all_16_bits(image, path)))
    image.load()
    if image.mode == "F":
        raise ImageError(path, "holds floating-point samples, whose range is not known", "8 or 16 bits")
    if image.mode.startswith("I"):
        samples = np.asarray(image)
        if image.mode == "I" and not 0 <= samples.min() <= samples.max() <= 0xFFFF:
            raise ImageError(path, "holds samples of more than 16 bits", "8 or 16 bits")
        return Image.fromarray(_scaled(samples))
    return image


def _raw_mode(image: "Image.Image") -> str:
    """How the samples lie in a PNG: with 16 bits, grey and alpha has the mode that colours and alpha have."""
    return str(image.tile[0][3]) if image.format == "PNG" else ""  # type: ignore[attr-defined]


def _all_16_bits(image: "Image.Image", path: str | Path) -> np.ndarray:
    """uint16 samples of an RGB or RGBA PNG, of which Pillow keeps only the high byte of each.

    Decoded a second time as if it were little-endian, the high byte Pillow keeps is the low one.
    """
    from PIL import Image

    high = np.asarray(image, np.uint16)
    with Image.open(path, formats=("PNG",)) as again:
        codec, box, offset, _ = again.tile[0]
        again.tile = [(codec, box, offset, f"{image.mode};16L")]
        return high << 8 | np.asarray(again)


def _scaled(samples: np.ndarray) -> np.ndarray:
    scaled = np.empty(samples.shape, np.uint8)
    for row, out in zip(samples, scaled, strict=True):  # at once, it would take 8 bytes more for each sample
        out[:] = (row.astype(np.uint32) + 128) // 257
    return scaled


def _pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)))
