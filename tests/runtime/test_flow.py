import logging
import struct
import subprocess
import sys

import numpy as np
import pytest

from gocor.core.errors import ConfigError, ImageError, OutputError, ShapeError
from gocor.runtime.flow import consistent, encode_flow, read_flow, sample_flow, warp, write_flow

cv2 = pytest.importorskip("cv2")


@pytest.fixture
def flow():
    return np.random.default_rng(0).normal(0, 30, (2, 7, 11)).astype(np.float32)


@pytest.fixture
def valid():
    mask = np.ones((7, 11), bool)
    mask[2, 3:6] = False
    return mask


@pytest.mark.parametrize(("suffix", "tolerance"), [(".flo", 0), (".npy", 0), (".png", 1 / 128)])
def test_round_trip_keeps_values_and_mask(tmp_path, flow, valid, suffix, tolerance):
    path = tmp_path / f"a{suffix}"
    write_flow(path, flow, valid=valid)
    read, known = read_flow(path)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(known, valid)
    np.testing.assert_allclose(read, np.where(valid, flow, 0), rtol=0, atol=tolerance)


def test_flo_is_middleburys(tmp_path, flow):
    write_flow(tmp_path / "a.flo", flow)
    assert (tmp_path / "a.flo").read_bytes()[:4] == b"PIEH"
    np.testing.assert_array_equal(cv2.readOpticalFlow(str(tmp_path / "a.flo")), flow.transpose(1, 2, 0))


def test_kitti_is_what_the_devkit_reads(tmp_path, flow, valid):
    write_flow(tmp_path / "a.png", flow, "kitti", valid)
    samples = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert samples.dtype == np.uint16
    np.testing.assert_array_equal(samples[..., 2], valid)
    expected = np.where(valid, np.rint(flow * 64) + 2**15, 0)
    np.testing.assert_array_equal(samples[..., :2].transpose(2, 0, 1), expected)


def test_kitti_reads_other_writers_filters(tmp_path):
    samples = np.random.default_rng(0).integers(0, 65536, (9, 13, 3), np.uint16)
    samples[..., 2] &= 1
    cv2.imwrite(str(tmp_path / "a.png"), samples[..., ::-1])
    flow, known = read_flow(tmp_path / "a.png")
    np.testing.assert_array_equal(known, samples[..., 2] > 0)
    np.testing.assert_array_equal(flow[0][known], ((samples[..., 0] - 2.0**15) / 64)[known])


def test_kitti_marks_what_it_cannot_hold(tmp_path, caplog):
    flow = np.zeros((2, 1, 4), np.float32)
    flow[0, 0] = [-512, 511.98, 512, 3]
    flow[1, 0, 3] = -600
    with caplog.at_level(logging.WARNING, "gocor"):
        write_flow(tmp_path / "a.png", flow)
    assert "a.png: 2 pixels move by more than the 512 px" in caplog.text
    read, known = read_flow(tmp_path / "a.png")
    assert known.tolist() == [[True, True, False, False]]
    np.testing.assert_allclose(read[0, 0, :2], flow[0, 0, :2], atol=1 / 128)


@pytest.mark.parametrize("format", ["flo", "kitti", "npy"])
def test_what_is_not_finite_is_unknown(tmp_path, flow, format):
    flow[0, 1, 1], flow[1, 2, 2] = np.nan, np.inf
    path = tmp_path / {"flo": "a.flo", "kitti": "a.png", "npy": "a.npy"}[format]
    write_flow(path, flow, format)
    read, known = read_flow(path)
    assert np.argwhere(~known).tolist() == [[1, 1], [2, 2]]
    assert np.isfinite(read).all()


def test_npy_with_channels_last(tmp_path, flow):
    np.save(tmp_path / "a.npy", flow.transpose(1, 2, 0).astype(np.float64))
    np.testing.assert_array_equal(read_flow(tmp_path / "a.npy")[0], flow)


def test_pfm_disparity(tmp_path):
    rows = np.array([[1, 2, np.inf], [4, 5, 6]], "<f4")
    (tmp_path / "a.pfm").write_bytes(b"Pf\n3 2\n-0.003922\n" + rows[::-1].tobytes())
    flow, known = read_flow(tmp_path / "a.pfm")
    assert known.tolist() == [[True, True, False], [True, True, True]]
    assert flow.tolist() == [[[-1, -2, 0], [-4, -5, -6]], [[0, 0, 0], [0, 0, 0]]]


def test_pfm_flow_big_endian(tmp_path, flow):
    rows = np.concatenate([flow, np.zeros_like(flow[:1])]).transpose(1, 2, 0)
    (tmp_path / "a.pfm").write_bytes(b"PF\n11 7\n1.0\n" + rows[::-1].astype(">f4").tobytes())
    np.testing.assert_array_equal(read_flow(tmp_path / "a.pfm")[0], flow)


@pytest.mark.parametrize("name", ["a.flo", "a.png", "a.npy", "a.pfm"])
def test_missing_truncated_and_foreign_files(tmp_path, flow, name):
    path = tmp_path / name
    with pytest.raises(ImageError, match=rf"{name}: (cannot be read \(No such file|does not exist)"):
        read_flow(path)
    if name == "a.pfm":
        path.write_bytes(b"Pf 20 30 -1\n" + bytes(2400))
    else:
        write_flow(path, flow)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=rf"{name}: .*(truncated|damaged)"):
        read_flow(path)
    for foreign in (b"", b"something else entirely"):
        path.write_bytes(foreign)
        with pytest.raises(ImageError, match=name):
            read_flow(path)


@pytest.mark.parametrize(
    ("width", "height", "text"),
    [
        (
            1 << 30,
            1 << 30,
            r"a\.flo: is truncated: 80 bytes after the header; 1073741824×1073741824 pixels need",
        ),
        (-3, 5, r"a\.flo: has a header that says -3×5 pixels; positive sizes"),
        (0, 5, "has a header that says 0×5 pixels"),
        (3, 3, "is too long: 80 bytes after the header; 3×3 pixels need 72"),
    ],
)
def test_flo_header_against_the_file(tmp_path, width, height, text):
    (tmp_path / "a.flo").write_bytes(struct.pack("<fii", 202021.25, width, height) + bytes(80))
    with pytest.raises(ImageError, match=text):
        read_flow(tmp_path / "a.flo")


def test_wrong_tag(tmp_path):
    (tmp_path / "a.flo").write_bytes(struct.pack("<fii", 1.0, 2, 2) + bytes(32))
    with pytest.raises(
        ImageError, match=r"a\.flo: does not begin with the tag PIEH; a Middlebury \.flo file"
    ):
        read_flow(tmp_path / "a.flo")


def test_npy_of_something_else(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    with pytest.raises(ImageError, match=r"a\.npy: holds float64 of shape \(3, 4\); a flow, \(2, H, W\)"):
        read_flow(tmp_path / "a.npy")


def test_npy_never_unpickles(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"a\.npy: is truncated or no \.npy file"):
        read_flow(tmp_path / "a.npy")


def test_colour_png_is_no_flow(tmp_path):
    cv2.imwrite(str(tmp_path / "flow.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ImageError, match=r"flow\.png: is an image of mode RGB, not of 16 bits"):
        read_flow(tmp_path / "flow.png")


def test_unknown_suffix_and_format(tmp_path, flow):
    with pytest.raises(ImageError, match=r"a\.txt: has suffix '\.txt'; a flow file: \.flo"):
        read_flow(tmp_path / "a.txt")
    with pytest.raises(
        ConfigError, match=r"a\.pfm: has suffix '\.pfm'; one of \.flo \.png \.npy, or a format"
    ):
        write_flow(tmp_path / "a.pfm", flow)
    with pytest.raises(ConfigError, match="format: unknown 'exr'; one of flo, kitti, npy"):
        encode_flow(flow, "exr")


def test_wrong_shapes(flow, valid):
    with pytest.raises(ShapeError, match=r"flow: has shape \(7, 11\); a flow, \(2, H, W\)"):
        encode_flow(flow[0], "flo")
    with pytest.raises(ShapeError, match=r"flow: has a mask of shape \(6, 11\); that of the flow, \(7, 11\)"):
        encode_flow(flow, "flo", valid[1:])
    with pytest.raises(ShapeError, match=r"flow: has shape \(1, 2, 7, 11\); \(2, H, W\)"):
        warp(np.zeros((7, 11)), flow[None])
    with pytest.raises(ShapeError, match=r"points: have shape \(3,\); \(N, 2\)"):
        sample_flow(flow, np.zeros(3))


def test_unwritable_and_full(tmp_path, flow):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a\.flo: cannot be written"):
        write_flow(tmp_path / "file" / "a.flo", flow)
    code = (
        "import resource, sys, numpy as np; from gocor.runtime.flow import write_flow;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "write_flow(sys.argv[1], np.zeros((2, 90, 90), np.float32))"
    )
    path = tmp_path / "a.flo"
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert "a.flo: cannot be written (File too large)" in run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_warp_is_grid_sample(dtype):
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    query = generator.integers(0, 256, (20, 30, 3)).astype(dtype)
    flow = generator.normal(0, 8, (2, 16, 24)).astype(np.float32)
    y, x = np.mgrid[:16, :24]
    grid = np.stack([(x + flow[0]) * 2 / 29 - 1, (y + flow[1]) * 2 / 19 - 1], axis=-1).astype(np.float32)
    image = torch.from_numpy(query.astype(np.float32).transpose(2, 0, 1))[None]
    expected = torch.nn.functional.grid_sample(image, torch.from_numpy(grid)[None], align_corners=True)
    warped = warp(query, flow)
    assert warped.dtype == dtype
    tolerance = 0.51 if dtype == np.uint8 else 1e-2
    np.testing.assert_allclose(warped, expected[0].permute(1, 2, 0).numpy(), atol=tolerance)


def test_warp_of_grey_and_of_wild_flow():
    query = np.arange(12, dtype=np.uint8).reshape(3, 4) + 1
    flow = np.zeros((2, 3, 4), np.float32)
    np.testing.assert_array_equal(warp(query, flow), query)
    flow[0, 0] = [np.nan, np.inf, -1e30, 1e30]
    assert warp(query, flow)[0].tolist() == [0, 0, 0, 0]


def test_sample_flow(flow):
    points = np.array([[0, 0], [10, 6], [2.5, 3], [4, 1.25]])
    expected = [
        flow[:, 0, 0],
        flow[:, 6, 10],
        (flow[:, 3, 2] + flow[:, 3, 3]) / 2,
        0.75 * flow[:, 1, 4] + 0.25 * flow[:, 2, 4],
    ]
    np.testing.assert_allclose(sample_flow(flow, points), expected, rtol=1e-5)


@pytest.mark.parametrize("point", [(10.5, 0), (0, -0.1), (np.nan, 1)])
def test_sample_flow_outside(flow, point):
    with pytest.raises(ConfigError, match=r"point 2: \(.*\) is outside the reference; 0 to 10 and 0 to 6"):
        sample_flow(flow, np.array([(1, 1), point]))


def test_consistency():
    forward = np.zeros((2, 10, 20), np.float32)
    forward[0] = 3
    backward = -forward
    backward[0, :, 8:10] = 4  # seen by columns 5 and 6
    mask = consistent(forward, backward)
    assert np.flatnonzero(~mask[0]).tolist() == [5, 6, 17, 18, 19]
    assert (mask == mask[0]).all()
    # 3 there and 2.2 back: 0.64 < 0.01·(9 + 4.84) + 0.5 only just fails, 2.3 passes.
    assert not consistent(forward, np.where(backward < 0, -2.2, 0))[:, :10].any()
    assert consistent(forward, np.where(backward < 0, -2.3, 0))[:, :5].all()
