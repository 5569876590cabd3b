import errno
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gocor.core.errors import ImageError, OutputError, ShapeError
from gocor.runtime.images import check_same_size, load_image, load_png16, pad_pair, save_image

cv2 = pytest.importorskip("cv2")


@pytest.fixture
def colours():
    """A smooth picture, so that JPEG stays close to it, and no symmetry hides a mirrored axis."""
    y, x = np.mgrid[:24, :40].astype(np.float32)
    return np.stack([x * 6, y * 10, 255 - x * 3 - y * 3], axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".ppm"])
def test_lossless_formats_round_trip(tmp_path, colours, suffix):
    save_image(tmp_path / f"a{suffix}", colours)
    loaded = load_image(tmp_path / f"a{suffix}")
    assert loaded.dtype == np.uint8
    assert loaded.flags.writeable
    np.testing.assert_array_equal(loaded, colours)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_stay_close(tmp_path, colours, suffix):
    save_image(tmp_path / f"a{suffix}", colours)
    assert np.abs(load_image(tmp_path / f"a{suffix}").astype(int) - colours).mean() < 2


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_palette_and_bilevel_become_rgb(tmp_path, colours, mode):
    image = Image.fromarray(colours).convert(mode)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path, colours, suffix):
    Image.fromarray(colours).convert("CMYK").save(tmp_path / f"a.{suffix}")
    assert np.abs(load_image(tmp_path / f"a.{suffix}").astype(int) - colours).mean() < 4


def test_transparent_pixels_lie_on_white(tmp_path, colours):
    alpha = np.full(colours.shape[:2], 255, np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 0, 51
    Image.fromarray(np.dstack([colours, alpha])).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert (loaded[:, :10] == 255).all()
    np.testing.assert_allclose(loaded[:, 10:20], 0.2 * colours[:, 10:20] + 0.8 * 255, atol=1)
    np.testing.assert_array_equal(loaded[:, 20:], colours[:, 20:])


def test_transparent_colour_of_a_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([200, 0, 0, 0, 0, 90])
    image.save(tmp_path / "a.png", transparency=0)
    assert load_image(tmp_path / "a.png").tolist() == [[[255, 255, 255], [0, 0, 90]]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_uses_the_full_range(tmp_path, suffix):
    samples = np.array([[0, 128, 129, 257, 40000, 65535]], np.uint16)
    Image.fromarray(samples).save(tmp_path / f"a.{suffix}")
    assert load_image(tmp_path / f"a.{suffix}")[0, :, 0].tolist() == [0, 0, 1, 1, 156, 255]


def test_16_bit_colour_png(tmp_path):
    samples = np.random.default_rng(0).integers(0, 65536, (9, 13, 3), np.uint16)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), samples[..., ::-1])
    np.testing.assert_array_equal(load_png16(path), samples)
    np.testing.assert_array_equal(load_image(path), np.round(samples / 257).astype(np.uint8))


def test_16_bit_colour_with_alpha(tmp_path):
    samples = np.array([[[65535, 0, 32896, 0], [65535, 0, 32896, 65535]]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), samples[..., [2, 1, 0, 3]])
    assert load_image(tmp_path / "a.png").tolist() == [[[255, 255, 255], [255, 0, 128]]]


def test_16_bit_grey_with_alpha(tmp_path):
    samples = np.array([[[40000, 0], [40000, 65535], [65535, 65535]]], ">u2")
    header = struct.pack(">IIBBBBB", 3, 1, 16, 4, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + samples.tobytes())), (b"IEND", b""))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )
    assert load_image(tmp_path / "a.png")[0, :, 0].tolist() == [255, 156, 255]


def test_16_bit_colour_tiff(tmp_path):
    samples = np.random.default_rng(0).integers(0, 65536, (9, 13, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "a.tif"), samples[..., ::-1])
    assert np.abs(load_image(tmp_path / "a.tif") - samples / 257).max() <= 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_applied(tmp_path, colours, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns = {1: 0, 3: 2, 6: 1, 8: -1}[orientation]  # counterclockwise, so that the orientation undoes them
    Image.fromarray(np.rot90(colours, turns).copy()).save(tmp_path / f"a.{suffix}", exif=exif)
    loaded = load_image(tmp_path / f"a.{suffix}")
    assert loaded.shape == colours.shape
    assert np.abs(loaded.astype(int) - colours).mean() < 8


def test_exif_orientation_of_16_bit(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "a.png", exif=exif)
    assert load_image(tmp_path / "a.png")[:, :, 0].tolist() == [[0], [255]]


def test_missing_file(tmp_path):
    with pytest.raises(ImageError, match=r"no\.png: does not exist; the path of an image"):
        load_image(tmp_path / "no.png")


@pytest.mark.parametrize("content", [b"", b"not an image at all", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_not_an_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png: is of no image format known here, .*; a PNG, JPEG, TIFF"):
        load_image(tmp_path / "a.png")


def test_folder_instead_of_file(tmp_path):
    with pytest.raises(ImageError, match=r"cannot be read \(Is a directory\)"):
        load_image(tmp_path)


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png: is no regular file; a PNG, JPEG"):
        load_image(tmp_path / "pipe.png")


def test_too_little_memory(tmp_path, colours, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise MemoryError

    save_image(tmp_path / "a.png", colours)
    monkeypatch.setattr(Image.Image, "convert", refuse)
    with pytest.raises(ImageError, match=r"a\.png: does not fit into memory; a smaller image"):
        load_image(tmp_path / "a.png")


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "a.png").touch()
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read \(Permission denied\)"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_truncated(tmp_path, suffix, part):
    path = tmp_path / f"a{suffix}"
    save_image(path, np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ImageError, match=rf"a\{suffix}: is truncated or damaged|a\{suffix}: is of no image"):
        load_image(path)


def test_truncated_16_bit(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 65536, (90, 90, 3), np.uint16))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ImageError, match=r"a\.png: is truncated or damaged"):
        load_png16(path)


def test_decompression_bomb(tmp_path, colours, monkeypatch):
    save_image(tmp_path / "a.png", colours)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(
        ImageError, match=r"a\.png: is too large to be decoded safely; at most 0 million pixels"
    ):
        load_image(tmp_path / "a.png")


def test_floating_point_and_32_bit_images_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ImageError, match=r"f\.tif: holds floating-point samples"):
        load_image(tmp_path / "f.tif")
    Image.fromarray(np.full((2, 2), 1 << 20, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(ImageError, match=r"i\.tif: holds samples of more than 16 bits"):
        load_image(tmp_path / "i.tif")


def test_png16_refuses_8_bits(tmp_path, colours):
    save_image(tmp_path / "a.png", colours)
    with pytest.raises(
        ImageError, match=r"a\.png: is an image of mode RGB, not of 16 bits; a 16-bit RGB PNG"
    ):
        load_png16(tmp_path / "a.png")


@pytest.mark.parametrize(
    "image", [np.zeros((2, 3, 3), np.float32), np.zeros((2, 3, 4), np.uint8), np.zeros((0, 3, 3), np.uint8)]
)
def test_save_refuses_what_is_no_image(tmp_path, image):
    with pytest.raises(ShapeError, match=r"a\.png: has shape .* uint8, \(H, W, 3\) or \(H, W\)"):
        save_image(tmp_path / "a.png", image)


def test_save_refuses_unknown_suffix(tmp_path, colours):
    with pytest.raises(ImageError, match=r"has suffix '\.doc'; one of \.png"):
        save_image(tmp_path / "a.doc", colours)
    assert not list(tmp_path.iterdir())


def test_save_where_no_folder_can_be(tmp_path, colours):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a\.png: cannot be written"):
        save_image(tmp_path / "file" / "a.png", colours)


def test_full_disk_leaves_the_earlier_file(tmp_path, colours):
    path = tmp_path / "a.png"
    save_image(path, colours)
    before = path.read_bytes()
    code = (
        "import resource, sys, numpy as np; from gocor.runtime.images import save_image;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "save_image(sys.argv[1], np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert "a.png: cannot be written (File too large)" in run.stderr
    assert [p.name for p in Path(tmp_path).iterdir()] == ["a.png"]
    assert path.read_bytes() == before


def test_pad_pair():
    reference, query = np.full((4, 6, 3), 9, np.uint8), np.full((5, 3, 3), 7, np.uint8)
    padded_reference, padded_query = pad_pair(reference, query)
    assert padded_reference.shape == padded_query.shape == (5, 6, 3)
    assert padded_reference.sum() == reference.sum()
    np.testing.assert_array_equal(padded_reference[:4, :6], reference)
    np.testing.assert_array_equal(padded_query[:5, :3], query)
    assert padded_query.sum() == query.sum()


def test_two_sizes_are_named(colours):
    check_same_size(colours, colours, "p")
    with pytest.raises(
        ImageError,
        match=r"p: the reference has 40×24 pixels and the query 40×20; images of one size, or --pad",
    ):
        check_same_size(colours, colours[:20], "p")
