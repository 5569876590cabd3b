from pathlib import Path

import numpy as np
import pytest

from gocor.core.errors import ImageError
from gocor.evaluation.homography import homography_flow, read_homography


def test_flow_is_where_the_matrix_takes_a_pixel() -> None:
    matrix = np.array([[1.1, 0.02, -3], [-0.05, 0.9, 2], [1e-4, -2e-4, 1]])
    flow, valid = homography_flow(matrix, (40, 60), (40, 60))
    x, y = 33, 21
    u, v, w = matrix @ (x, y, 1)
    assert valid[y, x]
    np.testing.assert_allclose(flow[:, y, x], (u / w - x, v / w - y), atol=1e-5)


def test_points_outside_of_the_query_are_not_known() -> None:
    shift = np.array([[1, 0, 10.0], [0, 1, 0], [0, 0, 1]])
    flow, valid = homography_flow(shift, (4, 30), (4, 35))
    assert valid[:, :25].all()  # 24 + 10 is the query's last column
    assert not valid[:, 25:].any()
    assert (flow[0][valid] == 10).all()
    assert not flow[:, ~valid].any()


def test_the_sign_of_the_matrix_is_free_and_what_is_behind_the_camera_unknown() -> None:
    # The plane's horizon crosses the image at x = 80; beyond it the matrix gives finite, false positions.
    matrix = np.array([[1, 0, 0], [0, 1, 0], [-1 / 80, 0, 1.0]])
    flow, valid = homography_flow(matrix, (4, 100), (4, 10_000))
    assert not valid[:, 80:].any()
    assert valid[:, :80].any()
    for result, expected in zip(homography_flow(-matrix, (4, 100), (4, 10_000)), (flow, valid), strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("text", ["1 0 2\n0 1 3\n0 0 1\n", "1,0,2,0,1,3,0,0,1", "1e0 0 2 0 1.0 3 0 0 1"])
def test_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "H").write_text(text)
    np.testing.assert_array_equal(read_homography(tmp_path / "H"), [[1, 0, 2], [0, 1, 3], [0, 0, 1]])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"1 0 0 0 1 0", r"H: holds 6 numbers; 3×3 numbers, a homography from reference to query"),
        (b"1 0 0 0 one 0", r"H: is no text of numbers \(could not convert string to float: 'one'\); 3×3"),
        (b"\xff\xfe", r"H: is no text of numbers \(.+\); 3×3"),
        (b"1 2 3 2 4 6 0 0 1", r"H: holds a matrix that has no inverse; 3×3"),
        (b"1 0 0 0 nan 0 0 0 1", r"H: holds a matrix that has no inverse; 3×3"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "H").write_bytes(content)
    with pytest.raises(ImageError, match=text):
        read_homography(tmp_path / "H")


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"H: cannot be read \(No such file or directory\); 3×3"):
        read_homography(tmp_path / "H")
