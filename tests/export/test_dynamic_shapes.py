"""Exported models whose sizes vary: one of them is what the models of fixed sizes are, each at its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import Exported
from golden import relative_l2
from toy_models import metadata

from gocor.core.errors import ConfigError
from gocor.export.checkpoint import load_network, seeded_network
from gocor.export.dynamic_shapes import ranges
from gocor.export.estimate import estimate_flow
from gocor.export.networks import Network
from gocor.export.onnx_export import ExportConfig, export_onnx
from gocor.export.precision import POLICIES, check_policy, lower
from gocor.export.resample import area_matrix, area_weights
from gocor.export.verify import _built_in_sizes, verify
from gocor.runtime.metadata import AXES, Axis, Range
from gocor.runtime.metrics import FlowError
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.session import FlowEstimator, load
from gocor.runtime.spec import SPECS, extra_levels


@pytest.fixture(scope="module")
def network(exported: Exported) -> Network:
    return load_network(exported.checkpoint, 1)


@pytest.fixture(scope="module")
def model(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of ``exported``, for any batch and size."""
    path = tmp_path_factory.mktemp("dynamic") / "dynamic.onnx"
    return export_onnx(network, path, height=64, width=128, io="tensors", dynamic=AXES).path


@pytest.fixture(scope="module")
def estimator(model: Path) -> Iterator[FlowEstimator]:
    with load(model) as estimator:
        yield estimator


def pairs(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch of generated pairs."""
    sides = zip(*(sample_pair(height, width, seed)[:2] for seed in range(count)), strict=True)
    reference, query = (np.stack(side) for side in sides)
    return reference, query


@pytest.mark.parametrize("count", [1, 3])
def test_it_gives_the_flow_of_the_model_of_fixed_sizes(
    estimator: FlowEstimator, exported: Exported, count: int
) -> None:
    images = pairs(count, 64, 64)
    with load(exported.model) as fixed:
        assert relative_l2(estimator(*images), fixed(*images)) <= 1e-5


@pytest.mark.parametrize(
    ("count", "height", "width"), [(1, 64, 64), (2, 64, 192), (3, 129, 70), (1, 200, 310), (2, 1, 3)]
)
def test_it_gives_the_flow_of_pytorch_at_any_size(
    estimator: FlowEstimator, network: Network, count: int, height: int, width: int
) -> None:
    images = pairs(count, height, width)
    assert FlowError.between(estimator(*images), estimate_flow(network, *images)).aepe <= 0.005


def test_the_file_says_what_varies(model: Path, estimator: FlowEstimator) -> None:
    assert estimator.metadata.dynamic == {"batch": Range(1), "height": Range(64), "width": Range(64)}
    graph = onnx.load(model).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "reference": ["batch", 3, "height", "width"],
        "query": ["batch", 3, "height", "width"],
        **{f"flow{n}": ["batch", 2, f"height/{2**n}", f"width/{2**n}"] for n in range(6, 1, -1)},
    }


def test_verification_is_over_several_sizes(model: Path, network: Network) -> None:
    report = verify(model, network)
    assert report.passed
    assert [(p.height, p.width) for p in report.pairs] == [(64, 128), (64, 128), (64, 64), (128, 192)]
    mixed = [tuple(image[0] for image in pairs(1, *size)) for size in ((70, 100), (64, 64), (64, 64))]
    assert verify(model, network, mixed).passed  # type: ignore[arg-type]


def test_verification_stays_within_what_an_engine_was_built_for() -> None:
    described = metadata(
        io="tensors", height=64, width=128, dynamic={"batch": Range(1, 1), "width": Range(64, 128)}
    )
    assert _built_in_sizes(described) == [(64, 128), (64, 64), (64, 64)]
    assert _built_in_sizes(metadata(batch=3)) == [(32, 64)] * 3


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision_can_be_lowered(model: Path, precision: Any) -> None:
    proto = onnx.load(model)
    policy = POLICIES["PWCNet_GOCor"]
    lower(proto, policy, precision)
    check_policy(proto, policy, precision)
    assert sum(node.op_type == "Cast" for node in proto.graph.node) > 20


def test_precision_fp16_gives_nearly_the_same_flow(model: Path, estimator: FlowEstimator) -> None:
    proto = onnx.load(model)
    lower(proto, POLICIES["PWCNet_GOCor"], "fp16")
    path = model.with_name("half.onnx")
    onnx.save(proto, path)
    images = pairs(2, 64, 128)
    with load(path) as half:
        assert 0 < relative_l2(half(*images), estimator(*images)) < 0.02


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dynamic": ("depth",)}, "--dynamic: has 'depth'; some of batch,height,width"),
        (
            {"dynamic": ("width", "height", "batch")},
            "--dynamic: has height and width with --io images; --io tensors, or --dynamic batch: an images "
            "model resizes from one size",
        ),
        (
            {"dynamic": ("height",), "io": "tensors", "height": 70},
            "--size: is 70x64; with --io tensors PWCNet needs sides that are multiples of 64",
        ),
    ],
)
def test_what_cannot_vary_is_refused(options: dict[str, Any], text: str) -> None:
    config = ExportConfig(**{"height": 64, "width": 64} | options)
    with pytest.raises(ConfigError) as caught:
        config.check(SPECS["PWCNet"])
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("width", "widths"), [(256, (256, 1080)), (1080, (256, 1080)), (1088, (1088, 2168)), (4096, (2176, 4344))]
)
def test_the_levels_of_a_glunet_bound_its_width(width: int, widths: tuple[int, int]) -> None:
    found = ranges(SPECS["GLUNet"], ("width", "height"), width)
    assert found == {"height": Range(256), "width": Range(*widths)}
    assert list(found) == ["height", "width"]
    levels = extra_levels(width)
    assert {extra_levels(end) for end in widths} == {levels}
    assert levels not in {
        extra_levels(widths[0] - 8) if widths[0] > 256 else None,
        extra_levels(widths[1] + 8),
    }


def test_area_weights_of_unknown_sizes() -> None:
    class Weights(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return area_weights(x.shape[0], x.shape[0] // 2)

    size = torch.export.Dim("size", min=4, max=200)
    traced = torch.export.export(Weights(), (torch.zeros(8),), dynamic_shapes=({0: size},)).module()
    for count in (4, 9, 137):
        np.testing.assert_array_equal(traced(torch.zeros(count)), area_matrix(count, count // 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dynamic", "sizes"),
    [
        ("PWCNet", AXES, [(1, 64, 64), (3, 120, 60), (1, 150, 310)]),
        ("PWCNet_GOCor", AXES, [(1, 64, 64), (2, 40, 170), (1, 256, 128)]),
        ("GLUNet", ("height", "width"), [(1, 256, 1088), (1, 270, 1115), (1, 312, 1096)]),
        ("GLUNet_GOCor", AXES, [(1, 256, 256), (2, 265, 200), (1, 100, 333)]),
        ("GLUNet_GOCor", ("height",), [(1, 256, 264), (1, 310, 270)]),
    ],
)
def test_a_grid_of_sizes(
    name: str, dynamic: tuple[Axis, ...], sizes: list[tuple[int, int, int]], tmp_path: Path
) -> None:
    """Resized on the host as models of fixed sizes do inside."""
    network = seeded_network(name)
    _, *size = sizes[0]
    limit = 0.005 if network.spec.family == "pwcnet" else 0.02
    one = export_onnx(
        network, tmp_path / "one.onnx", height=size[0], width=size[1], io="tensors", dynamic=dynamic
    )
    with load(one.path) as estimator:
        for count, height, width in sizes:
            images = pairs(count, height, width)
            fixed = export_onnx(network, tmp_path / "m.onnx", height=height, width=width, batch=count)
            with load(fixed.path) as alone:
                # Where a model of a fixed size enlarges the flow, ONNX Runtime rounds positions in another
                # order than PyTorch: beyond 1024 they differ by 6e-5 px, between vectors 100 px apart.
                allowed = 3e-5 if width > 1024 else 1e-5
                assert relative_l2(estimator(*images), alone(*images)) <= allowed, (count, height, width)
            assert FlowError.between(estimator(*images), estimate_flow(network, *images)).aepe <= limit


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PWCNet", "GLUNet_GOCor"])
def test_images_in_any_batch(name: str, tmp_path: Path) -> None:
    network = seeded_network(name)
    height, width = (70, 100) if name == "PWCNet" else (200, 270)
    path = tmp_path / "m.onnx"
    report = export_onnx(network, path, height=height, width=width, dynamic=("batch",))
    assert report.metadata.flow.shape == ("batch", 2, height, width)
    with load(path) as estimator:
        for count in (1, 3):
            images = pairs(count, height, width)
            assert FlowError.between(estimator(*images), estimate_flow(network, *images)).aepe <= 0.02


def test_the_command_line(
    exported: Exported, tmp_path: Path, invoke: Callable[..., tuple[int, str, str]]
) -> None:
    command = ("export", exported.checkpoint, "-o", tmp_path / "m.onnx", "--size", "64x64")
    code, _, error = invoke(*command, "--dynamic", "height")
    assert code == 2
    assert error.startswith("error: --dynamic: has height with --io images; --io tensors, or --dynamic batch")
