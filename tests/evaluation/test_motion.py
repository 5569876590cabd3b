import numpy as np
import pytest

from gocor.evaluation.homography import homography_flow as flow_of_matrix

torch = pytest.importorskip("torch")

from gocor.evaluation.synthetic.config import SyntheticConfig  # noqa: E402
from gocor.evaluation.synthetic.motion import (  # noqa: E402
    CONTROL_POINTS,
    homography_flow,
    random_motions,
    spline_flow,
)
from gocor.evaluation.synthetic.randomness import Variates  # noqa: E402

HEIGHT, WIDTH = 30, 40


def corner_moves_of(matrix: np.ndarray) -> torch.Tensor:
    moves = []
    for y in (0, HEIGHT - 1):
        for x in (0, WIDTH - 1):
            u, v, w = matrix @ (x, y, 1)
            moves.append((u / w - x, v / w - y))
    return torch.tensor([moves], dtype=torch.float32)


def test_homographies_are_those_of_their_corners() -> None:
    matrix = np.array([[1.05, 0.08, -3], [-0.04, 0.95, 2], [1e-3, -2e-3, 1]])
    expected, inside = flow_of_matrix(matrix, (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    flow = homography_flow(corner_moves_of(matrix), HEIGHT, WIDTH)[0].numpy()
    np.testing.assert_allclose(flow[:, inside], expected[:, inside], atol=1e-4)


def test_corners_that_move_alike_translate() -> None:
    moves = torch.tensor([2.5, -1.25]).expand(1, 4, 2)
    flow = homography_flow(moves, HEIGHT, WIDTH)
    torch.testing.assert_close(flow, torch.tensor([2.5, -1.25])[None, :, None, None].expand_as(flow))


def test_large_images_stay_exact() -> None:
    moves = torch.tensor([[[30.0, 5], [-20, 10], [0, 0], [10, -25]]])
    flow = homography_flow(moves, 1080, 1920)
    corners = flow[0][:, [0, 0, -1, -1], [0, -1, 0, -1]].T
    torch.testing.assert_close(corners, moves[0], atol=1e-3, rtol=0)


def test_splines_pass_through_their_knots_and_keep_affine_moves() -> None:
    height, width = 3 * 9 + 1, 3 * 12 + 1  # so that the knots lie on pixels
    moves = torch.randn(2, 2, CONTROL_POINTS**2, generator=torch.Generator().manual_seed(0))
    knots = spline_flow(moves, height, width)[:, :, ::9, ::12]
    torch.testing.assert_close(knots.flatten(2), moves, atol=1e-4, rtol=1e-4)
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    affine = torch.stack((0.1 * x - 0.2 * y + 3, 0.05 * y - 1))
    spline = spline_flow(affine[None, :, ::9, ::12].flatten(2), height, width)
    torch.testing.assert_close(spline[0], affine, atol=1e-3, rtol=0)


def test_motions_do_not_fold_the_image() -> None:
    config = SyntheticConfig(96, 128, max_displacement=40)
    flow = random_motions(Variates(config, range(64), 0, torch.device("cpu")), config, 2, torch.device("cpu"))
    flow = flow.flatten(0, 1)
    assert flow.norm(dim=1).max() <= 40 + 1e-3
    x_dx, y_dx = (flow[:, :, 1:, 1:] - flow[:, :, 1:, :-1]).unbind(1)
    x_dy, y_dy = (flow[:, :, 1:, 1:] - flow[:, :, :-1, 1:]).unbind(1)
    area = (1 + x_dx) * (1 + y_dy) - x_dy * y_dx
    assert area.min() > 0.1


def test_some_motions_only_translate_and_some_bend() -> None:
    config = SyntheticConfig(32, 32)
    flow = random_motions(
        Variates(config, range(120), 0, torch.device("cpu")), config, 1, torch.device("cpu")
    )[:, 0]
    still = (flow.amax(dim=(2, 3)) - flow.amin(dim=(2, 3))).amax(dim=1) < 1e-3
    assert 0.08 < still.float().mean() < 0.28
