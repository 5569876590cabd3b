import dataclasses
import itertools

import numpy as np
import pytest

from gocor.core.errors import ConfigError
from gocor.runtime.flow import warp
from gocor.runtime.metrics import end_point_error

torch = pytest.importorskip("torch")

from gocor.evaluation.synthetic.config import SyntheticConfig  # noqa: E402
from gocor.evaluation.synthetic.generator import Batch, generate, render, sample, stream  # noqa: E402
from gocor.evaluation.synthetic.motion import random_motions  # noqa: E402
from gocor.evaluation.synthetic.randomness import Variates  # noqa: E402
from gocor.evaluation.synthetic.shapes import Shapes, random_shapes  # noqa: E402

DRAWN = SyntheticConfig(64, 80, max_displacement=12, photographs=0)  # needs no scikit-image
PLAIN = dataclasses.replace(DRAWN, photometric=0, noise=0)


def smooth_canvases(count: int, height: int, width: int) -> torch.Tensor:
    """Textures that bilinear interpolation reproduces almost exactly, another one for each layer."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phases = torch.arange(count)[:, None, None]
    channels = [
        torch.sin(x / 9 + phases),
        torch.cos(y / 7 + 2 * phases),
        torch.sin((x + y) / 11 + 3 * phases),
    ]
    return 0.5 + 0.5 * torch.stack(channels, dim=1)


def rendered(indices: range, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Difference of reference and query warped by the flow plus ``shift``, and the mask of visible pixels."""
    shapes = random_shapes(Variates(PLAIN, indices, 0, torch.device("cpu")), PLAIN)
    used = torch.cat((torch.ones(len(indices), 1, dtype=torch.bool), shapes.used), dim=1)
    motions = random_motions(Variates(PLAIN, indices, 1, torch.device("cpu")), PLAIN, 4, torch.device("cpu"))
    count = int(used.sum())
    places = torch.eye(2).expand(count, 2, 2)
    images, flow, visible = render(smooth_canvases(count, 80, 100), places, used, motions, shapes)
    differences = [
        np.abs(
            warp(query.permute(1, 2, 0).numpy(), f.numpy() + np.float32(shift))
            - reference.permute(1, 2, 0).numpy()
        )
        for (reference, query), f in zip(images, flow, strict=True)
    ]
    return np.stack(differences).mean(axis=-1), visible.numpy()


def test_the_flow_is_exact_wherever_it_is_visible() -> None:
    difference, visible = rendered(range(12))
    # The rest are pixels beside an outline, where warping mixes an object with what is behind it.
    assert np.percentile(difference[visible], 97) < 1 / 255
    assert difference[visible].mean() < 0.6 / 255
    assert difference[~visible].mean() > 50 / 255
    off, _ = rendered(range(12), shift=0.1)
    assert np.median(off[visible]) > 5 * np.median(difference[visible])


def one_bar(centre: tuple[float, float], half: float) -> Shapes:
    def row(*values: float) -> torch.Tensor:
        return torch.tensor([[values]]) if len(values) > 1 else torch.tensor([values])

    return Shapes(
        centre=row(*centre), axis=row(1.0, 0.0), radius=row(half / 0.8), aspect=row(1.0),
        waves=torch.zeros(1, 1, 4, 2), bar=torch.tensor([[True]]), used=torch.tensor([[True]]),
    )  # fmt: skip


def test_a_bar_that_moves_over_a_still_background() -> None:
    motions = torch.zeros(1, 2, 2, 40, 60)
    motions[0, 1, 0] = 8
    used = torch.ones(1, 2, dtype=torch.bool)
    # In the query the bar covers columns 25 to 34 and rows 15 to 24, in the reference 17 to 26.
    shapes = one_bar((29.5, 19.5), 5)
    canvases = smooth_canvases(2, 40, 60)
    images, flow, visible = render(canvases, torch.eye(2).expand(2, 2, 2), used, motions, shapes)
    bar = torch.zeros(40, 60, dtype=torch.bool)
    bar[15:25, 17:27] = True
    assert torch.equal(flow[0, 0], bar * 8.0)
    assert not flow[0, 1].any()
    hidden = torch.zeros(40, 60, dtype=torch.bool)
    hidden[15:25, 27:35] = True  # background that the bar has moved onto, outside of where the bar was
    assert torch.equal(visible[0], ~hidden)
    torch.testing.assert_close(images[0, 0][:, 15:25, 17:27], images[0, 1][:, 15:25, 25:35])
    torch.testing.assert_close(images[0, 0][:, ~(bar | hidden)], images[0, 1][:, ~(bar | hidden)])


def test_what_leaves_the_query_is_not_visible() -> None:
    motions = torch.zeros(1, 1, 2, 40, 60)
    motions[:, :, 0], motions[:, :, 1] = 7, -3
    shapes = random_shapes(
        Variates(PLAIN, [0], 0, torch.device("cpu")), dataclasses.replace(PLAIN, foreground=0)
    )
    used = torch.ones(1, 1, dtype=torch.bool)
    images, flow, visible = render(smooth_canvases(1, 50, 70), torch.eye(2)[None], used, motions, shapes)
    assert torch.equal(flow, motions[:, 0])
    assert visible[0, 3:, :53].all()
    assert visible.sum() == 37 * 53
    torch.testing.assert_close(images[0, 0][:, 3:, :53], images[0, 1][:, :37, 7:])


@pytest.mark.parametrize("photographs", [0.0, 1.0])
def test_whole_pairs_fit_their_flow(photographs: float) -> None:
    if photographs:
        pytest.importorskip("skimage")
    config = dataclasses.replace(PLAIN, photographs=photographs)
    aligned, unaligned = [], []
    for index in range(8):
        truth = sample(index, config)
        seen = truth.visible
        aligned.append(np.abs(warp(truth.query, truth.flow)[seen].astype(int) - truth.reference[seen]).mean())
        unaligned.append(np.abs(truth.query[seen].astype(int) - truth.reference[seen]).mean())
    # Not nearer to 0, since both images are interpolated from the texture, and one pixel's detail is in it.
    assert np.mean(aligned) < 4
    assert np.mean(aligned) < 0.2 * np.mean(unaligned)


def test_without_motion_both_images_are_one() -> None:
    batch = generate(range(3), dataclasses.replace(PLAIN, max_displacement=0))
    assert torch.equal(batch.reference, batch.query)
    assert not batch.flow.any()
    assert batch.visible.all()


def same(first: Batch, second: Batch, one: int, two: int) -> None:
    """Equal up to the rounding of other vector widths."""
    for name in ("reference", "query"):
        difference = getattr(first, name)[one].int() - getattr(second, name)[two].int()
        assert difference.abs().max() <= 1
        assert (difference != 0).float().mean() < 0.01
    torch.testing.assert_close(first.flow[one], second.flow[two], atol=1e-3, rtol=0)
    assert (first.visible[one] != second.visible[two]).float().mean() < 0.01


def test_a_pair_depends_on_its_index_alone() -> None:
    batch = generate([3, 11, 7], DRAWN)
    again = generate([3, 11, 7], DRAWN)
    for name in ("reference", "query", "flow", "visible"):
        assert torch.equal(getattr(batch, name), getattr(again, name))
    same(batch, generate([7, 3], DRAWN), 2, 0)
    same(batch, generate([11], DRAWN), 1, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_makes_the_same_pairs() -> None:
    on_gpu = generate(range(4), DRAWN, "cuda")
    assert on_gpu.reference.device.type == "cuda"
    on_cpu = generate(range(4), DRAWN)
    moved = Batch(*(getattr(on_gpu, name).cpu() for name in ("reference", "query", "flow", "visible")))
    for number in range(4):
        same(moved, on_cpu, number, number)


def test_a_call_leaves_the_number_of_threads_as_it_was() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        generate([0], DRAWN)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"split": "evaluation"}])
def test_other_seeds_and_splits_give_other_pairs(changes: dict[str, object]) -> None:
    first = generate(range(4), DRAWN)
    second = generate(range(4), dataclasses.replace(DRAWN, **changes))
    assert all((a != b).float().mean() > 0.1 for a, b in zip(first.flow, second.flow, strict=True))


def test_pairs_of_one_config_differ() -> None:
    batch = generate(range(6), DRAWN)
    for one, two in itertools.combinations(range(6), 2):
        assert (batch.flow[one] - batch.flow[two]).abs().mean() > 0.1
        assert (batch.query[one] != batch.query[two]).float().mean() > 0.5


def test_larger_displacements_keep_the_scene() -> None:
    small, large = (generate(range(4), dataclasses.replace(PLAIN, max_displacement=d)) for d in (2, 16))
    assert torch.equal(small.query, large.query)
    lengths = [batch.flow.norm(dim=1).amax(dim=(1, 2)) for batch in (small, large)]
    assert (lengths[1] > 2 * lengths[0]).all()


def test_displacements_fill_their_range_and_no_more() -> None:
    lengths = generate(range(40), DRAWN).flow.norm(dim=1)
    assert lengths.max() <= 12 + 1e-3
    assert lengths.amax(dim=(1, 2)).max() > 10
    assert 2 < lengths.mean() < 8


def test_most_is_visible_and_something_hidden() -> None:
    share = generate(range(40), DRAWN).visible.float().mean()
    assert 0.7 < share < 0.97


def test_the_light_differs_only_if_asked_for() -> None:
    still = dataclasses.replace(DRAWN, max_displacement=0, noise=0)
    changed = generate(range(6), still)
    difference = (changed.reference.float() - changed.query.float()).mean(dim=(1, 2, 3)).abs()
    assert difference.max() > 3
    strong = generate(range(6), dataclasses.replace(still, photometric=2))
    assert (strong.reference.float() - strong.query.float()).abs().mean() > (
        changed.reference.float() - changed.query.float()
    ).abs().mean()


def test_streams_go_on_where_they_are_told_to() -> None:
    batches = list(itertools.islice(stream(DRAWN, 2, start=4), 2))
    expected = generate(range(4, 8), DRAWN)
    assert [batch.reference.shape for batch in batches] == [(2, 3, 64, 80)] * 2
    for number in range(4):
        same(batches[number // 2], expected, number % 2, number)


def test_a_sample_in_numpy() -> None:
    truth = sample(5, DRAWN)
    batch = generate([5], DRAWN)
    assert (truth.reference.dtype, truth.reference.shape) == (np.uint8, (64, 80, 3))
    np.testing.assert_array_equal(truth.query, batch.query[0].permute(1, 2, 0).numpy())
    assert end_point_error(batch.flow[0].numpy(), truth.flow).max() == 0
    assert truth.valid.all()
    assert truth.visible is not None
    assert truth.visible.dtype == bool


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"height": 8}, r"size: is 8x256; at least 16 pixels each way"),
        ({"split": "test"}, r"split: unknown name 'test'; one of train, evaluation"),
        ({"photographs": 1.5}, r"photographs: is 1.5; a share from 0 to 1"),
        ({"max_displacement": -1.0}, r"max_displacement: is -1.0; at least 0"),
        ({"noise": float("nan")}, r"noise: is nan; at least 0"),
        ({"foreground": -1}, r"foreground: is -1; at least 0"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{text}$"):
        SyntheticConfig(**changes)
