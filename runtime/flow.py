"""Flow files, and what one does with a flow: warp an image, look it up at points, check it both ways.

A flow lies on the reference's pixel grid: ``reference(x) ≈ query(x + flow(x))``, ``(2, H, W)``, channel
0 = x, in pixels; the centre of the upper left pixel is (0, 0).
"""

import io
import logging
import re
import struct
import zlib
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from gocor.core.errors import ConfigError, ImageError, ModelError, ShapeError
from gocor.core.files import atomic_path
from gocor.core.reading import FLOW, check_size, read_bytes
from gocor.runtime.images import load_png16

FlowFormat = Literal["flo", "kitti", "npy"]

_FLO_TAG = 202021.25  # reads "PIEH" in the file
_FLO_UNKNOWN = 1e9  # Middlebury: a larger magnitude means that the flow is not known there
_KITTI_SCALE, _KITTI_OFFSET = 64.0, 1 << 15
_PFM_HEADER = re.compile(rb"(P[Ff])\s+(\d{1,9})\s+(\d{1,9})\s+([-+]?[\d.]+(?:[eE][-+]?\d+)?)[ \t]*\r?\n")
_log = logging.getLogger("gocor")


def read_flow(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a ``.flo``, KITTI ``.png``, ``.npy`` or ``.pfm`` file.

    ``.npy`` holds ``(2, H, W)`` or ``(H, W, 2)``. A ``.pfm`` with three channels holds x, y and nothing; one
    with one channel a disparity ``d`` of the left image, which is the flow ``(-d, 0)`` to the right one.

    Returns:
        Flow, float32 ``(2, H, W)``, 0 where it is not known, and bool ``(H, W)``, true where it is: what the
        file marks as unknown (KITTI's third channel, Middlebury's 1e9 and infinity, NaN) is not.

    Raises:
        ImageError: the file is missing, unreadable, truncated or not what its suffix says.
    """
    path = Path(path)
    readers = {".flo": _read_flo, ".png": _read_kitti, ".npy": _read_npy, ".pfm": _read_pfm}
    if path.suffix.lower() not in readers:
        raise ImageError(path, f"has suffix {path.suffix!r}", f"a flow file: {' '.join(readers)}")
    try:
        check_size(path, FLOW, ImageError)
        flow, valid = readers[path.suffix.lower()](path)
    except OSError as error:
        raise ImageError(
            path, f"cannot be read ({error.strerror or error})", "the path of a flow file"
        ) from error
    with np.errstate(invalid="ignore"):
        valid = valid & (np.abs(flow) < _FLO_UNKNOWN).all(axis=0)
    return np.where(valid, flow, 0).astype(np.float32), valid


def write_flow(
    path: str | Path, flow: np.ndarray, format: FlowFormat | None = None, valid: np.ndarray | None = None
) -> None:
    """Writes a flow atomically; for the arguments see ``encode_flow``, for the default format the suffix.

    Raises:
        ShapeError: the flow or the mask has another shape than wanted.
        ConfigError: the format is unknown.
        OutputError: the file cannot be written.
    """
    by_suffix: dict[str, FlowFormat] = {".flo": "flo", ".png": "kitti", ".npy": "npy"}
    suffix = Path(path).suffix.lower()
    if format is None and suffix not in by_suffix:
        raise ConfigError(path, f"has suffix {suffix!r}", f"one of {' '.join(by_suffix)}, or a format")
    encoded = encode_flow(flow, format or by_suffix[suffix], valid, where=path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)


def encode_flow(
    flow: np.ndarray, format: FlowFormat, valid: np.ndarray | None = None, where: object = "flow"
) -> bytes:
    """Bytes of a flow file.

    Args:
        flow: ``(2, H, W)`` in pixels.
        format: ``flo`` (Middlebury, exact), ``npy`` (float32 ``(2, H, W)``, exact) or ``kitti`` (16-bit PNG:
            steps of 1/64 px, from -512 to below 512 px; what is beyond is marked invalid, and logged).
        valid: bool ``(H, W)``, false where the flow is not known; everywhere known when None. NaN and
            infinity are never known.
        where: what errors and the warning name.
    """
    if format not in get_args(FlowFormat):
        raise ConfigError("format", f"unknown {format!r}", f"one of {', '.join(get_args(FlowFormat))}")
    if flow.ndim != 3 or flow.shape[0] != 2 or not flow.size:
        raise ShapeError(where, f"has shape {flow.shape}", "a flow, (2, H, W)")
    if valid is not None and valid.shape != flow.shape[1:]:
        raise ShapeError(where, f"has a mask of shape {valid.shape}", f"that of the flow, {flow.shape[1:]}")
    known = np.isfinite(flow).all(axis=0) & (True if valid is None else valid)
    if format == "kitti":
        return _encode_kitti(flow, known, where)
    flow = np.where(known, flow, np.nan if format == "npy" else 10 * _FLO_UNKNOWN).astype("<f4")
    if format == "npy":
        buffer = io.BytesIO()
        np.save(buffer, flow)
        return buffer.getvalue()
    height, width = flow.shape[1:]
    return struct.pack("<fii", _FLO_TAG, width, height) + flow.transpose(1, 2, 0).tobytes()


def check_finite(flow: np.ndarray, model: Path, pair: str) -> None:
    """Refuses a flow with values that are no numbers.

    Raises:
        ModelError: naming the model that gave it, and the pair.
    """
    if wrong := int((~np.isfinite(flow)).sum()):
        text = f"gave {wrong} of {flow.size} flow values that are not finite for {pair}"
        raise ModelError(model, text, "check the model with gocor verify")


def warp(query: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Brings the query onto the reference's grid, bilinearly; 0 where the flow leaves the query.

    Args:
        query: ``(Hq, Wq, C)`` or ``(Hq, Wq)``, any real dtype.
        flow: ``(2, H, W)`` in pixels.

    Returns:
        ``(H, W, C)`` or ``(H, W)`` in the query's dtype, integers rounded.
    """
    _check_flow(flow)
    warped = _sample(query, *_targets(flow))
    if np.issubdtype(query.dtype, np.integer):
        warped = np.rint(warped)
    return warped.astype(query.dtype)


def sample_flow(flow: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Flow at points of the reference, bilinearly between pixels.

    Args:
        flow: ``(2, H, W)``.
        points: ``(N, 2)``, x and y in pixels.

    Returns:
        float32 ``(N, 2)``: x and y of the flow at each point.

    Raises:
        ShapeError: the points are no ``(N, 2)`` array.
        ConfigError: a point lies outside the reference; the text says which.
    """
    _check_flow(flow)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ShapeError("points", f"have shape {points.shape}", "(N, 2), x and y in pixels")
    height, width = flow.shape[1:]
    outside = ~((points >= 0) & (points <= (width - 1, height - 1))).all(axis=1)
    if outside.any():
        index = int(outside.argmax())
        x, y = points[index]
        inside = f"0 to {width - 1} and 0 to {height - 1}"
        raise ConfigError(f"point {index + 1}", f"({x:g}, {y:g}) is outside the reference", inside)
    return _sample(flow.transpose(1, 2, 0), points[:, 0], points[:, 1])


def consistent(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Where the flow there and the flow back agree; elsewhere the reference is likely occluded in the query.

    ``|f(x) + b(x + f(x))|² < 0.01·(|f(x)|² + |b(x + f(x))|²) + 0.5``; false where ``x + f(x)`` leaves the
    query.

    Args:
        forward: ``(2, H, W)``, reference to query.
        backward: ``(2, Hq, Wq)``, query to reference.

    Returns:
        bool ``(H, W)``.

    Source:
        Sundaram, Brox, Keutzer: Dense point trajectories by GPU-accelerated large displacement optical flow,
        ECCV 2010, eq. 5.
    """
    _check_flow(forward)
    _check_flow(backward)
    x, y = _targets(forward)
    inside = (x >= 0) & (x <= backward.shape[2] - 1) & (y >= 0) & (y <= backward.shape[1] - 1)
    back = _sample(backward.transpose(1, 2, 0), x, y).transpose(2, 0, 1)
    difference = ((forward + back) ** 2).sum(axis=0)
    return inside & (difference < 0.01 * ((forward**2).sum(axis=0) + (back**2).sum(axis=0)) + 0.5)


def _check_flow(flow: np.ndarray) -> None:
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ShapeError("flow", f"has shape {flow.shape}", "(2, H, W)")


def _targets(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the query each pixel of the reference goes: x and y, ``(H, W)``."""
    height, width = flow.shape[1:]
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return flow[0] + columns, flow[1] + rows[:, None]


def _sample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples of ``(H, W, …)`` at positions of any shape, float32; 0 outside."""
    height, width = image.shape[:2]
    x, y = (np.nan_to_num(v.astype(np.float32), nan=-1, posinf=-1, neginf=-1) for v in (x, y))
    x, y = np.clip(x, -1, width), np.clip(y, -1, height)
    left, upper = np.floor(x), np.floor(y)
    axes = (1,) * (image.ndim - 2)
    across, down = ((v - first).reshape(v.shape + axes) for v, first in ((x, left), (y, upper)))
    # A border of zeros, before and after, stands for everything outside.
    border = [(1, 2), (1, 2)] + [(0, 0)] * len(axes)
    pixels = np.pad(image.astype(np.float32), border).reshape(-1, *image.shape[2:])
    index = ((upper + 1) * np.float64(width + 3) + (left + 1)).astype(np.intp)
    top = _mix(pixels.take(index, axis=0), pixels.take(index + 1, axis=0), across)
    index += width + 3
    return _mix(top, _mix(pixels.take(index, axis=0), pixels.take(index + 1, axis=0), across), down)


def _mix(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    second -= first
    second *= weight
    second += first
    return second


def _read_flo(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = read_bytes(path, FLOW, ImageError)
    if len(content) < 12 or struct.unpack_from("<f", content)[0] != _FLO_TAG:
        raise ImageError(path, "does not begin with the tag PIEH", "a Middlebury .flo file")
    width, height = struct.unpack_from("<ii", content, 4)
    _check_size(path, width, height, 8, len(content) - 12)
    flow = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).transpose(2, 0, 1)
    return flow, np.ones((height, width), bool)


def _read_kitti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    samples = load_png16(path).transpose(2, 0, 1)
    return (samples[:2].astype(np.float32) - _KITTI_OFFSET) / _KITTI_SCALE, samples[2] > 0


def _read_npy(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        # Mapped, since a damaged header would otherwise make NumPy allocate whatever size it claims.
        with np.errstate(over="ignore"):
            flow = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # NumPy takes headers for Python's source, and raises what its parsers do
        reason = str(error) or "its header makes no sense"
        raise ImageError(path, f"is truncated or no .npy file ({reason})", "an array (2, H, W)") from error
    if flow.ndim == 3 and flow.shape[0] != 2 and flow.shape[2] == 2:
        flow = flow.transpose(2, 0, 1)
    if flow.ndim != 3 or flow.shape[0] != 2 or not flow.size or flow.dtype.kind not in "fiu":
        raise ImageError(path, f"holds {flow.dtype} of shape {flow.shape}", "a flow, (2, H, W)")
    return np.array(flow, np.float32), np.ones(flow.shape[1:], bool)


def _read_pfm(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = read_bytes(path, FLOW, ImageError)
    if not (header := _PFM_HEADER.match(content)):
        raise ImageError(
            path, "does not begin with a PFM header", "a .pfm file: PF or Pf, width, height, scale"
        )
    channels, width, height = 3 if header[1] == b"PF" else 1, int(header[2]), int(header[3])
    _check_size(path, width, height, 4 * channels, len(content) - header.end())
    dtype = "<f4" if header[4].startswith(b"-") else ">f4"
    rows = np.frombuffer(content, dtype, offset=header.end()).reshape(height, width, channels)[::-1]
    planes = rows.transpose(2, 0, 1).astype(np.float32)
    flow = planes[:2] if channels == 3 else np.stack([-planes[0], np.zeros_like(planes[0])])
    # A disparity that is not known is infinite; that its y is 0 must not make it known.
    return flow, np.isfinite(planes).all(axis=0)


def _check_size(path: Path, width: int, height: int, pixel_bytes: int, there: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(path, f"has a header that says {width}×{height} pixels", "positive sizes")
    if there != width * height * pixel_bytes:
        kind = "is truncated" if there < width * height * pixel_bytes else "is too long"
        needed = f"{width}×{height} pixels need {width * height * pixel_bytes}"
        raise ImageError(path, f"{kind}: {there} bytes after the header", needed)


def _encode_kitti(flow: np.ndarray, known: np.ndarray, where: object) -> bytes:
    scaled = np.rint(np.where(known, flow, 0).astype(np.float64) * _KITTI_SCALE) + _KITTI_OFFSET
    fits = ((scaled >= 0) & (scaled <= 0xFFFF)).all(axis=0)
    if beyond := int((known & ~fits).sum()):
        text = "%s: %d pixels move by more than the 512 px that KITTI's format holds; they are marked invalid"
        _log.warning(text, where, beyond)
    valid = known & fits
    samples = np.where(valid, np.concatenate([scaled, np.ones_like(scaled[:1])]), 0)
    return _encode_png16(samples.transpose(1, 2, 0).astype(np.uint16))


def _encode_png16(samples: np.ndarray) -> bytes:
    """PNG of uint16 RGB ``(H, W, 3)``, which Pillow cannot write (as of 13.0)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = samples.shape
    rows = np.ascontiguousarray(samples, ">u2").reshape(height, width * 3).view(np.uint8)
    # Each row as the difference to the one above (PNG's filter 2): flow is smooth, and packs better so.
    up = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), up], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6))
        + chunk(b"IEND", b"")
    )
