import contextlib
import re

import pytest

from gocor.core.errors import ConfigError, GocorError, ShapeError
from gocor.plugins.local_correlation.reference import local_correlation
from gocor.plugins.local_correlation.schema import SCHEMA as CORRELATION
from gocor.plugins.local_correlation_transpose.schema import SCHEMA as TRANSPOSE
from gocor.plugins.local_gocor.schema import SCHEMA as LOCAL_GOCOR
from gocor.plugins.registry import CORRELATIONS, KERNELS, OPERATORS
from gocor.plugins.schema import OpSchema, displacements

ALL = pytest.mark.parametrize("schema", OPERATORS.values(), ids=OPERATORS)
BOTH = pytest.mark.parametrize("schema", CORRELATIONS.values(), ids=CORRELATIONS)


@pytest.fixture(params=["numpy", "torch"])
def host(request: pytest.FixtureRequest):
    """The two public functions of an implementation, and how it makes an array of zeros."""
    if request.param == "numpy":
        import numpy as np

        from gocor.plugins.local_correlation_transpose.reference import local_correlation_transpose

        return local_correlation, local_correlation_transpose, np.zeros
    torch = pytest.importorskip("torch")
    from gocor.plugins import torch_ops

    return torch_ops.local_correlation, torch_ops.local_correlation_transpose, torch.zeros


def test_the_registry_has_each_operator_under_its_own_name() -> None:
    assert list(CORRELATIONS) == ["LocalCorrelation", "LocalCorrelationTranspose"]
    assert list(OPERATORS) == [*CORRELATIONS, "LocalGOCor"]
    assert set(KERNELS) <= set(OPERATORS)
    assert all(name == schema.name for name, schema in OPERATORS.items())


def test_names_are_no_standard_ones() -> None:
    """TensorRT's parser ignores the domain: a function called Relu becomes the standard one."""
    onnx = pytest.importorskip("onnx")
    assert not set(OPERATORS) & {schema.name for schema in onnx.defs.get_all_schemas()}


@ALL
def test_attributes_of_a_node(schema: OpSchema) -> None:
    chosen = {"radius": 3, "iterations": 0} if schema is LOCAL_GOCOR else {"radius": 3}
    expected = {**chosen, "plugin_namespace": "gocor", "plugin_version": "1", "aot": 1}
    assert schema.node_attributes(**chosen) == expected
    assert list(schema.node_attributes(**chosen)) == [attribute.name for attribute in schema.attributes]
    assert [attribute.name for attribute in schema.plugin_fields] == list(chosen)
    assert schema.attribute("plugin_version").default == str(schema.version)


@BOTH
def test_the_name_in_pytorch(schema: OpSchema) -> None:
    torch = pytest.importorskip("torch")
    from gocor.plugins import torch_ops

    assert schema.torch_name in torch_ops.__all__
    assert hasattr(torch.ops.gocor, schema.torch_name)


@pytest.mark.parametrize("radius", range(1, 17))
def test_output_shapes(radius: int) -> None:
    volume, features = (2, (2 * radius + 1) ** 2, 5, 7), (2, 3, 5, 7)
    assert displacements(radius) == volume[1]
    assert CORRELATION.check(features, features, radius=radius) == volume
    assert TRANSPOSE.check(volume, features, radius=radius) == features
    maps = [volume[1:2]] * 3
    assert LOCAL_GOCOR.check(features, features, *maps, (4,), radius=radius, iterations=0) == volume


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (
            ((1, 3, 5, 7), (1, 3, 5, 8), (25,), (25,), (25,), (4,)),
            "inputs of shapes [1, 3, 5, 7] and [1, 3, 5, 8]; expected two equal shapes (N, C, H, W)",
        ),
        (
            ((1, 3, 5, 7), (1, 3, 5, 7), (25,), (1, 25, 1, 1), (25,), (4,)),
            "inputs of shapes [25], [1, 25, 1, 1], [25] and [4]; expected three of (25,), and (4,)",
        ),
        (
            ((1, 3, 5, 7), (1, 3, 5, 7), (25,), (25,), (25,), (3,)),
            "inputs of shapes [25], [25], [25] and [3]; expected three of (25,), and (4,)",
        ),
    ],
)
def test_inputs_of_local_gocor_that_do_not_fit(shapes: tuple[tuple[int, ...], ...], text: str) -> None:
    with pytest.raises(ShapeError) as caught:
        LOCAL_GOCOR.check(*shapes, radius=2, iterations=3)
    assert str(caught.value) == f"LocalGOCor: {text}"


@pytest.mark.parametrize("iterations", [-1, 1001, 1.5])
def test_iterations_that_make_no_sense(iterations: object) -> None:
    features = (1, 3, 5, 7)
    with pytest.raises(ConfigError) as caught:
        LOCAL_GOCOR.check(features, features, iterations=iterations)  # type: ignore[arg-type]
    assert str(caught.value) == f"iterations: is {iterations!r}; a whole number from 0 to 1000"


@BOTH
@pytest.mark.parametrize("radius", [0, 17, -4, 2.0, "4", None])
def test_a_radius_that_makes_no_sense(schema: OpSchema, radius: object) -> None:
    features = (1, 3, 5, 7)
    with pytest.raises(ConfigError) as caught:
        schema.check(features, features, radius=radius)  # type: ignore[arg-type]
    assert str(caught.value) == f"radius: is {radius!r}; a whole number from 1 to 16"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1, 3, 5, 7), (1, 3, 5, 8)),
        ((1, 3, 5, 7), (1, 4, 5, 7)),
        ((2, 3, 5, 7), (1, 3, 5, 7)),
        ((3, 5, 7), (3, 5, 7)),
    ],
)
def test_features_that_do_not_fit(host: tuple, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    correlate, _, zeros = host
    text = (
        f"LocalCorrelation: inputs of shapes {list(first)} and {list(second)}; "
        "expected two equal shapes (N, C, H, W)"
    )
    with pytest.raises(ShapeError, match=f"^{re.escape(text)}$"):
        correlate(zeros(first), zeros(second), 4)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1, 81, 5, 7), (1, 3, 5, 7)),  # 81 is of another radius
        ((1, 25, 5, 7), (1, 3, 5, 8)),
        ((1, 25, 5, 7), (2, 3, 5, 7)),
        ((25, 5, 7), (3, 5, 7)),
        ((1, 25, 5, 7), (3, 5, 7)),
    ],
)
def test_a_volume_that_does_not_fit(host: tuple, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    _, transpose, zeros = host
    text = (
        f"LocalCorrelationTranspose: inputs of shapes {list(first)} and {list(second)}; "
        "expected (N, 25, H, W) and (N, C, H, W)"
    )
    with pytest.raises(ShapeError, match=f"^{re.escape(text)}$"):
        transpose(zeros(first), zeros(second), 2)


def test_a_radius_that_makes_no_sense_reaches_every_host(host: tuple) -> None:
    correlate, transpose, zeros = host
    for operator in (correlate, transpose):
        with pytest.raises(GocorError, match="radius: is 0; a whole number from 1 to 16"):
            operator(zeros((1, 3, 5, 7)), zeros((1, 3, 5, 7)), 0)


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ((65535, 1, 1, 1), True),
        ((65536, 1, 1, 1), False),
        ((1, 512, 2048, 2047), True),
        ((1, 512, 2048, 2048), False),
        ((1, 16, 5120, 5120), True),
        ((1, 16, 5200, 5120), False),  # its volume of 81 planes
    ],
)
def test_what_the_kernels_can_count(query: tuple[int, ...], fits: bool) -> None:
    with contextlib.nullcontext() if fits else pytest.raises(ShapeError, match="a query of shape"):
        CORRELATION.check_kernel_size(query, 4)
