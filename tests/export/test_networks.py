"""The networks and their modules against their definition; against the public code: test_golden.py."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from golden import golden_network, relative_l2, state_dict_shapes
from torch import Tensor, nn

from gocor.core.errors import ConfigError
from gocor.export.networks import GLUNet, Network, PWCNet, PWCNet_GOCor, create_network
from gocor.export.networks.filter_optimizer import FilterOptimizer
from gocor.export.networks.global_gocor import GlobalGOCor, SeparableConv4d
from gocor.export.networks.glunet import area_resize, normalize
from gocor.export.networks.layers import warp
from gocor.export.networks.local_gocor import LocalGOCor
from gocor.plugins.schema import displacements
from gocor.plugins.torch_ops import local_correlation, local_correlation_transpose
from gocor.runtime.spec import SPECS

NAMES = pytest.mark.parametrize("name", SPECS)


def seeded(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def images(name: str, batch: int = 1, seed: int = 0) -> list[Tensor]:
    """A network's inputs at its smallest size, or nearly: smooth, so that the flows are no mere noise."""
    sizes = [(64, 128)] * 2 if SPECS[name].family == "pwcnet" else [(256, 264)] * 2 + [(256, 256)] * 2
    coarse = (seeded(batch, 3, 9, 9, seed=seed + i).sigmoid() for i in range(len(sizes)))
    return [F.interpolate(x, size, mode="bicubic") for x, size in zip(coarse, sizes, strict=True)]


# ── whole networks


@NAMES
def test_state_dict_is_that_of_the_public_checkpoints(name: str) -> None:
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in create_network(name).state_dict().items()}
    assert shapes == state_dict_shapes(name)


@NAMES
def test_a_batch_of_two_is_two_single_runs(name: str) -> None:
    network = golden_network(name)
    first, second = images(name), images(name, seed=10)
    with torch.inference_mode():
        together = network(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
        alone = network(*first), network(*second)
    for joint, *single in zip(together, *alone, strict=True):
        assert relative_l2(joint, torch.cat(single)) <= 2e-5


@pytest.mark.parametrize("radius", [1, 2, 6])
@pytest.mark.parametrize("network", [PWCNet, PWCNet_GOCor])
def test_pwcnet_with_another_radius(network: type[PWCNet], radius: int) -> None:
    with torch.inference_mode():
        flows = network(radius=radius)(*images("PWCNet"))
    sizes = [(64 >> level, 128 >> level) for level in (6, 5, 4, 3, 2)]
    assert [tuple(flow.shape) for flow in flows] == [(1, 2, *size) for size in sizes]
    assert all(flow.isfinite().all() for flow in flows)


@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_pwcnet_gocor_with_another_count(iterations: int) -> None:
    network = create_network("PWCNet_GOCor", local_iterations=iterations)
    counts = {m.iterations for m in network.modules() if isinstance(m, FilterOptimizer)}
    assert counts == {network.local_iterations} == {iterations}
    with torch.inference_mode():
        flows = network(*images("PWCNet_GOCor"))
    assert [tuple(flow.shape[-2:]) for flow in flows] == [(1, 2), (2, 4), (4, 8), (8, 16), (16, 32)]


def test_glunet_gocor_with_another_count() -> None:
    network = create_network("GLUNet_GOCor", global_iterations=0, local_iterations=5)
    assert network.get_submodule("corr.corr_module.filter_optimizer").iterations == 0
    assert network.get_submodule("local_corr.filter_optimizer").iterations == 5
    assert (network.global_iterations, network.local_iterations) == (0, 5)


@NAMES
def test_counts_of_what_a_network_does_not_have_are_ignored(name: str) -> None:
    with torch.device("meta"):
        network = create_network(name, global_iterations=7, local_iterations=2)
    spec = SPECS[name]
    assert network.spec is spec
    assert network.global_iterations == (7 if spec.global_gocor else None)
    assert network.local_iterations == (2 if spec.local_gocor else None)


@pytest.mark.parametrize("option", ["global_iterations", "local_iterations"])
@NAMES
def test_a_negative_count(name: str, option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_network(name, **{option: -1})
    assert str(caught.value) == f"--{option.replace('_', '-')}: is -1; a whole number from 0"


def test_an_unknown_network() -> None:
    with pytest.raises(ConfigError, match="network: unknown name 'RAFT'; one of PWCNet, PWCNet_GOCor, GLU"):
        create_network("RAFT")


def without_gradient(network: Network, inputs: list[Tensor], outputs: int) -> set[str]:
    """Parameters that the first outputs do not depend on."""
    loss = sum(flow.square().mean() for flow in network(*inputs)[:outputs])
    assert isinstance(loss, Tensor)
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert all(g.isfinite().all() for g in gradients if g is not None)
    return {name for name, g in zip(names, gradients, strict=True) if g is None or not g.any()}


def test_every_parameter_of_pwcnet_gocor_can_be_trained() -> None:
    """All but deconv2, which only checkpoints have. Harsh images: masks act on negative scores alone."""
    blocks = (10 * seeded(1, 3, 4, 6, seed=i) for i in (0, 1))
    harsh = [F.interpolate(x, (256, 192)) for x in blocks]
    unused = without_gradient(golden_network("PWCNet_GOCor"), harsh, 5)
    assert unused == {"deconv2.weight", "deconv2.bias"}


def test_every_parameter_of_glunet_gocor_can_be_trained() -> None:
    """With two iterations: VGG features are positive, and so are the scores of the first."""
    assert not without_gradient(golden_network("GLUNet_GOCor", 2), images("GLUNet_GOCor"), 4)


@pytest.mark.parametrize("name", ["GLUNet", "GLUNet_GOCor"])
def test_coarse_flow_and_orientation_score(name: str) -> None:
    network = golden_network(name)
    assert isinstance(network, GLUNet)
    inputs = images(name)
    with torch.inference_mode():
        output = network(*inputs)
        volume, flow4 = network.coarse_flow(*inputs[2:])
        score = network.orientation_score(volume, flow4)
    torch.testing.assert_close(volume, output.global_volume)
    torch.testing.assert_close(flow4, output.flow4)
    best = volume[0].view(256, 256).max(dim=1).values
    definition = flow4[0, 0].abs().mean() if name == "GLUNet" else best.sum()
    torch.testing.assert_close(score, definition[None])


def test_initial_values() -> None:
    torch.manual_seed(0)
    network = create_network("GLUNet_GOCor")
    for name, value in network.state_dict().items():
        leaf = name.rsplit(".", 1)[-1]
        if leaf in ("scaling", "target_fg", "running_var"):
            assert (value == 1).all(), name
        elif leaf in ("target_bg", "log_step_length", "bias", "running_mean"):
            assert (value == 0).all(), name
        elif leaf == "filter_reg":
            assert value.item() == pytest.approx(0.01)
        elif leaf in ("weight1", "weight2"):
            assert value.std() == pytest.approx(1e-3, rel=0.3)
        elif leaf == "weight" and value.dim() == 1:
            assert 0 <= value.min() <= value.max() <= 1, name
    weight = network.get_submodule("decoder1.conv_2.0").get_parameter("weight")
    assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.02)  # Kaiming, fan-in


# ── score maps


BIN_CENTRES = torch.arange(10, dtype=torch.float64) / 2


def score_maps_of(module: FilterOptimizer, distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Target y, weight v₊ and mask m by their definition, in float64."""
    bins = torch.stack([(1 - (distances / 0.5 - k).abs()).clamp(min=0) for k in range(10)])
    bins[9] = (1 + distances / 0.5 - 9).clamp(0, 1)
    shape = -1, *[1] * distances.dim()
    predictors = (
        module.label_map_predictor,
        module.spatial_weight_predictor,
        module.target_mask_predictor.get_submodule("0"),
    )
    y, v, m = ((p.get_parameter("weight").reshape(shape) * bins).sum(dim=0) for p in predictors)
    activation = {"sigmoid": torch.sigmoid, "linear": torch.clone, "softplus": F.softplus}
    return y, v, activation[module.mask_activation](m)


def window(radius: int) -> Tensor:
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    return torch.stack([torch.hypot(dy, dx) for dy in steps for dx in steps])


def test_initial_score_maps() -> None:
    module = FilterOptimizer(3).double()
    at_bins = module.score_maps(BIN_CENTRES)
    gauss = torch.exp(-BIN_CENTRES.square() / 2)
    expected = gauss - gauss.min(), torch.ones(10).double(), torch.sigmoid(4 * torch.tanh(2 - BIN_CENTRES))
    torch.testing.assert_close(at_bins, expected, rtol=1e-6, atol=1e-6)


def test_sigma_zero_makes_the_target_a_delta() -> None:
    target, _, _ = FilterOptimizer(3, sigma=0).score_maps(torch.tensor([0.0, 0.25, 0.5, 1.0, 9.0]))
    torch.testing.assert_close(target, torch.tensor([1.0, 0.5, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("activation", ["linear", "softplus"])
def test_masks_start_alike_whatever_their_activation(activation: str) -> None:
    """Their initial weights undo the activation, so that the network starts with the same mask."""
    other = FilterOptimizer(3, mask_activation=activation)  # type: ignore[arg-type]
    expected = FilterOptimizer(3).score_maps(BIN_CENTRES)
    torch.testing.assert_close(other.score_maps(BIN_CENTRES), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "linear", "softplus"])
def test_score_maps_between_and_beyond_the_bins(activation: str) -> None:
    module = perturbed(FilterOptimizer(3, mask_activation=activation))  # type: ignore[arg-type]
    distances = torch.tensor([0, 0.1, 0.5, 2**0.5, 3.9, 4.2, 4.5, 5.66, 30], dtype=torch.float64)
    torch.testing.assert_close(module.score_maps(distances), score_maps_of(module, distances))


def perturbed(module: nn.Module) -> nn.Module:
    """The module in float64 with every parameter a little off its initial value, so that each one counts."""
    for i, parameter in enumerate(module.double().parameters()):
        parameter.data += 0.05 * seeded(*parameter.shape, dtype=torch.float64, seed=i)
    return module


# ── local GOCor


def leaky_score(x: Tensor, m: Tensor) -> Tensor:
    return (1 - m) / 2 * x.abs() + (1 + m) / 2 * x


def leaky_slope(x: Tensor, m: Tensor) -> Tensor:
    return (1 - m) / 2 * x.sign() + (1 + m) / 2


def local_gocor_step_by_step(module: LocalGOCor, f: Tensor, query: Tensor) -> Tensor:
    """Local GOCor as it is written down: every score is computed anew from the filters of its iteration."""
    optimizer, radius, channels = module.filter_optimizer, module.radius, f.shape[1]
    y, v, m = (scores.reshape(1, -1, 1, 1) for scores in score_maps_of(optimizer, window(radius)))
    regularization = optimizer.filter_reg.square().clamp(min=1e-10) / channels**2
    w = torch.zeros_like(f)
    if hasattr(module.filter_initializer, "scaling"):
        w = module.filter_initializer.scaling * f / (f.square().mean(dim=1, keepdim=True) + 1e-6)
    for _ in range(optimizer.iterations):
        s = local_correlation(w, f, radius)
        slope, a = v * leaky_slope(s, m), v * leaky_score(s, m)
        g = local_correlation_transpose(slope * (a - v * y), f, radius) + regularization * w
        q = slope * local_correlation(g, f, radius)
        length, change = g.square().sum(1, keepdim=True), q.square().sum(1, keepdim=True)
        denominator = (change + regularization * length).clamp(min=1e-8)
        denominator = denominator + optimizer.steplength_regularization * length
        w = w - optimizer.log_step_length.exp() * length / denominator * g
    return local_correlation(w, query, radius)


LOCAL_VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "no iteration": {"iterations": 0},
    "one iteration": {"iterations": 1},
    "five iterations": {"iterations": 5},
    "radius 1": {"radius": 1},
    "radius 6": {"radius": 6, "iterations": 2},
    "zeros": {"initializer": "zeros"},
    "linear mask": {"mask_activation": "linear"},
    "softplus mask": {"mask_activation": "softplus"},
    "sigma 0": {"sigma": 0},
    "step length": {"steplength_regularization": 0.3},
    "regularised": {"initial_regularization": 2.0},
    "no regularisation": {"initial_regularization": -0.05},
}


@pytest.mark.parametrize("options", LOCAL_VARIANTS.values(), ids=LOCAL_VARIANTS)
def test_local_gocor_is_its_definition(options: dict) -> None:
    module = perturbed(LocalGOCor(**options))
    f, query = seeded(2, 7, 9, 10, dtype=torch.float64), seeded(2, 7, 9, 10, dtype=torch.float64, seed=1)
    with torch.inference_mode():
        volume = module(f, query)
        expected = local_gocor_step_by_step(module, f, query)
    assert volume.shape == (2, displacements(module.radius), 9, 10)
    assert relative_l2(volume, expected) <= 1e-6


def test_zeros_without_iterations_match_nothing() -> None:
    f = seeded(1, 3, 4, 5)
    assert not LocalGOCor(0, initializer="zeros")(f, f).any()


def test_local_gocor_of_empty_features_is_finite() -> None:
    """A black image's features may be zero: then there is nothing to optimise, and no division by zero."""
    module = LocalGOCor()
    volume = module(torch.zeros(1, 4, 9, 9), seeded(1, 4, 9, 9))
    assert not volume.any()


def test_more_iterations_fit_the_target_better() -> None:
    f = seeded(1, 16, 12, 12)
    losses = []
    for iterations in (0, 1, 3, 8):
        module = LocalGOCor(iterations)
        y, v, m = (x.detach() for x in module.filter_optimizer.score_maps(module.distances))
        with torch.no_grad():
            scores = module(f, f)
        losses.append(float((v * leaky_score(scores, m) - v * y).square().sum()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", [LocalGOCor, GlobalGOCor])
def test_gradients_reach_every_parameter_and_both_features(kind: Callable[..., nn.Module]) -> None:
    module = kind(2) if kind is LocalGOCor else kind(2, channels=6)
    features = [normalize(seeded(2, 6, 5, 6, seed=i)).requires_grad_() for i in (0, 1)]
    wanted = [*module.parameters(), *features]
    for gradient in torch.autograd.grad(module(*features).square().sum(), wanted):
        assert gradient.isfinite().all()
        assert gradient.any()


# ── global GOCor


def conv4d(module: SeparableConv4d, volume: Tensor, grid: tuple[int, int]) -> Tensor:
    """R by its definition, ``(HW, H'W')`` to ``(16, H, W, H', W')``: one convolution for each position."""
    height, width = grid
    volume = volume.reshape(height, width, 1, height, width)
    rows = [[F.conv2d(volume[y, x], module.weight1, padding=1) for x in range(width)] for y in range(height)]
    inner = torch.stack([torch.stack(row) for row in rows])  # H, W, 16, H', W'
    maps = inner.permute(3, 4, 2, 0, 1)  # H', W', 16, H, W
    rows = [[F.conv2d(maps[y, x], module.weight2, padding=1) for x in range(width)] for y in range(height)]
    return torch.stack([torch.stack(row) for row in rows]).permute(2, 3, 4, 0, 1)


def start(module: GlobalGOCor, f: Tensor) -> Tensor:
    """Initial filters ``(HW, C)`` of features ``(HW, C)``, as they are written down."""
    initializer, ff = module.filter_initializer, (f * f).sum(1, keepdim=True)
    if hasattr(initializer, "scaling"):
        return initializer.scaling * f / ff
    b = f.mean(dim=0, keepdim=True)
    bb, fb = (b * b).sum(1, keepdim=True), (f * b).sum(1, keepdim=True)
    fg, bg = initializer.target_fg, initializer.target_bg
    return ((fg * bb - bg * fb) * f - (fg * fb - bg * ff) * b) / (ff * bb - fb**2).clamp(min=1e-6)


def global_gocor_step_by_step(module: GlobalGOCor, f: Tensor, query: Tensor) -> Tensor:
    """Global GOCor of one pair ``(C, H, W)`` as it is written down; Rᵀ comes from autograd."""
    optimizer, grid = module.filter_optimizer, (f.shape[1], f.shape[2])
    positions = torch.tensor(list(itertools.product(*map(range, grid))), dtype=torch.float64)
    y, v, m = score_maps_of(optimizer, torch.cdist(positions, positions))
    regularization = optimizer.filter_reg.square().clamp(min=1e-10)
    F_, Q = f.flatten(1), query.flatten(1)
    R = optimizer.reg_layer
    W = start(module, F_.T)
    for _ in range(optimizer.iterations):
        S = W @ F_
        slope, a = v * leaky_slope(S, m), v * leaky_score(S, m)
        G = (slope * (a - v * y)) @ F_.T + regularization * W
        if R is not None:
            rough = partial(conv4d, R, grid=grid)
            back = torch.autograd.functional.vjp(rough, W @ Q, rough(W @ Q))[1]
            G = G + back @ Q.T
        q = slope * (G @ F_)
        if R is None:
            length, change = G.square().sum(1, keepdim=True), q.square().sum(1, keepdim=True)
        else:
            length, change = G.square().sum(), q.square().sum() + conv4d(R, G @ Q, grid).square().sum()
        denominator = (change + regularization * length).clamp(min=1e-8)
        denominator = denominator + optimizer.steplength_regularization * length
        W = W - optimizer.log_step_length.exp() * length / denominator * G
    return (W @ Q).T.reshape(-1, *grid)


GLOBAL_VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "no iteration": {"iterations": 0},
    "one iteration": {"iterations": 1},
    "six iterations": {"iterations": 6},
    "plain context": {"initializer": "context"},
    "simple": {"initializer": "simple"},
    "flexible simple": {"initializer": "flexible_simple"},
    "softplus mask": {"mask_activation": "softplus"},
    "linear mask": {"mask_activation": "linear"},
    "sigma 0": {"sigma": 0},
    "step length": {"steplength_regularization": 0.3},
    "regularised": {"initial_regularization": 0.5},
}


@pytest.mark.parametrize("query_loss", [False, True], ids=["reference loss", "query loss"])
@pytest.mark.parametrize("options", GLOBAL_VARIANTS.values(), ids=GLOBAL_VARIANTS)
def test_global_gocor_is_its_definition(options: dict, query_loss: bool) -> None:
    """On a grid that is not square, and with a batch: the query loss has one step length for each image."""
    module = perturbed(GlobalGOCor(channels=6, query_loss=query_loss, **options))
    f, query = (normalize(seeded(2, 6, 3, 4, dtype=torch.float64, seed=i) + 0.5) for i in (0, 1))
    with torch.no_grad():
        volume = module(f, query)
        pairs = zip(f, query, strict=True)
        expected = torch.stack([global_gocor_step_by_step(module, *pair) for pair in pairs])
    assert volume.shape == (2, 12, 3, 4)
    assert relative_l2(volume, expected) <= 1e-6


def test_global_volume_without_iterations_is_a_plain_correlation() -> None:
    """Channel = query position."""
    module = GlobalGOCor(0, initializer="simple", query_loss=False)
    f, query = (normalize(seeded(1, 8, 3, 4, seed=i)) for i in (0, 1))
    expected = torch.einsum("bcqr,bcyx->bqryx", query, f / f.square().sum(1, keepdim=True)).flatten(1, 2)
    torch.testing.assert_close(module(f, query).detach(), expected)


def test_global_gocor_of_empty_features_is_finite() -> None:
    empty = torch.zeros(1, 512, 3, 4)
    assert not GlobalGOCor()(empty, empty).any()


def test_conv4d_and_its_adjoint() -> None:
    """⟨R(v), t⟩ = ⟨v, Rᵀ(t)⟩, and R is what its definition says."""
    grid, module = (3, 4), perturbed(SeparableConv4d())
    assert isinstance(module, SeparableConv4d)
    volume = seeded(2, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        maps = module(volume, grid)
        test = seeded(*maps.shape, dtype=torch.float64, seed=1)
        left, right = (maps * test).sum(), (volume * module.adjoint(test)).sum()
        definition = torch.stack([conv4d(module, v, grid) for v in volume])
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(maps.permute(0, 2, 3, 4, 1).flatten(4), definition.flatten(4))


# ── warping and resizing


FLOWS: dict[str, Callable[[Tensor], Tensor]] = {
    "small": lambda noise: 0.5 * noise,
    "far out": lambda noise: 20 * noise,
    "whole pixels": lambda noise: (4 * noise).round(),
    "none": lambda noise: 0 * noise,
}


@pytest.mark.parametrize("size", [(9, 14), (1, 7), (6, 1), (1, 1), (33, 2)], ids=str)
@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_warp_with_a_mask(flow: Callable[[Tensor], Tensor], size: tuple[int, int]) -> None:
    """The mask is what sampling an image of ones would give, without sampling one."""
    features, vectors = seeded(2, 5, *size), flow(seeded(2, 2, *size, seed=1))
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in size), indexing="ij")
    grid = torch.stack(
        (
            2 * (x + vectors[:, 0]) / max(size[1] - 1, 1) - 1,
            2 * (y + vectors[:, 1]) / max(size[0] - 1, 1) - 1,
        ),
        dim=-1,
    )
    sampled = F.grid_sample(features, grid, align_corners=True)
    ones = F.grid_sample(torch.ones_like(features), grid, align_corners=True)
    torch.testing.assert_close(warp(features, vectors), sampled)
    torch.testing.assert_close(warp(features, vectors, mask_border=True), sampled * (ones >= 0.9999))


def test_warp_follows_the_flow() -> None:
    features = torch.arange(20.0).reshape(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0], flow[:, 1] = 2, 1
    expected = torch.zeros(1, 1, 4, 5)
    expected[..., :3, :3] = features[..., 1:, 2:]
    torch.testing.assert_close(warp(features, flow, mask_border=True), expected)


@pytest.mark.parametrize(("size", "new_size"), [((32, 41), (16, 20)), ((17, 30), (4, 7)), ((5, 6), (9, 6))])
def test_area_resize_is_adaptive_average_pooling(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    features = seeded(2, 3, *size)
    torch.testing.assert_close(area_resize(features, new_size), F.adaptive_avg_pool2d(features, new_size))


def test_normalize() -> None:
    """1e-6 under the root: unlike with ``F.normalize`` small vectors come out shorter than 1."""
    features = seeded(2, 5, 3, 4) * torch.tensor([0, 1e-4, 1e-3, 1]).reshape(1, 1, 1, 4)
    expected = features / (features.square().sum(dim=1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(normalize(features), expected)
    assert normalize(features)[..., 1].norm(dim=1).max() < 0.5


@pytest.mark.parametrize(
    ("height", "width", "sizes"),
    [
        (256, 256, []),
        (4096, 256, []),  # the width alone decides
        (256, 1080, []),
        (256, 1088, [(16, 68)]),
        (256, 2168, [(16, 135)]),
        (264, 2176, [(8, 68), (16, 136)]),
        (256, 4352, [(4, 68), (8, 136), (16, 272)]),
    ],
)
def test_extra_levels(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int, sizes: list[tuple[int, int]]
) -> None:
    """max(0, round(log2(W / 8 / 32 / 3))) of them, each twice the size of the one before."""
    network, seen = GLUNet(), []

    def correlate(reference: Tensor, query: Tensor) -> Tensor:
        assert reference.shape == query.shape
        seen.append(tuple(reference.shape[-2:]))
        return reference.new_zeros(1, 81, *reference.shape[-2:])

    monkeypatch.setattr(network, "correlate", correlate)
    features, flow = torch.zeros(1, 4, height // 8, width // 8), torch.zeros(1, 2, 32, 32)
    with torch.inference_mode():
        refined = network.eval()._extra_levels(features, features, flow, height, width)
    assert seen == sizes
    assert tuple(refined.shape[-2:]) == (sizes[-1] if sizes else (32, 32))
