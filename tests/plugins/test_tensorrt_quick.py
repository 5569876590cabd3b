"""The quickly deployable plugins in NVIDIA's real plugin layer, as far as a build goes without TensorRT."""

import itertools
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import tensorrt_layer as layer
from kernel_inputs import attributes_of, kernel_inputs
from tensorrt_stubs import InTensorRT, compile_nvinfer, process_with_tensorrt

from gocor.core.errors import ConfigError, DependencyError, ShapeError
from gocor.plugins import ptx, tensorrt_quick
from gocor.plugins.launch import Launch
from gocor.plugins.registry import KERNELS
from gocor.plugins.schema import DOMAIN

OPERATOR = pytest.mark.parametrize("operator", KERNELS)
DTYPES = {"FLOAT": "float32", "HALF": "float16"}
SIZES = [(1, 1, 1, 1), (2, 13, 17, 23), (1, 196, 6, 8), (1, 32, 112, 256), (3, 128, 60, 81)]
Size = tuple[int, ...]
Build = Callable[..., layer.Built]


@pytest.fixture(scope="module")
def in_tensorrt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InTensorRT]:
    """Runs a function of ``tensorrt_layer`` where TensorRT's bindings can be imported."""
    with process_with_tensorrt(tmp_path_factory.mktemp("stubs")) as run:
        yield run


@pytest.fixture(scope="module")
def build_from_cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """``tensorrt_layer.build_from_cpp``, which needs TensorRT's headers."""
    folder = tmp_path_factory.mktemp("stubs")
    library = compile_nvinfer(Path(__file__).parent / "native" / "quick_build.cpp", folder)
    with process_with_tensorrt(folder, library) as run:
        yield lambda *node: run(layer.build_from_cpp, str(library), *node)


@pytest.fixture
def build(in_tensorrt: InTensorRT) -> Build:
    """Takes a node through the stages of a build: operator, attributes, dtype, shapes, whether dynamic."""
    return lambda *node: in_tensorrt(layer.build, *node)


def inputs(operator: str, size: Size, radius: int) -> list[Size]:
    """Shapes of all inputs for a query of this size."""
    small = (*size[:2], 1, 1)  # quickly made
    shapes = [array.shape for array in kernel_inputs(operator, small, radius)]
    return [(*shape[:2], *size[2:]) if len(shape) == 4 else shape for shape in shapes]


def launch(operator: str, query: Size, radius: int, dtype: str) -> Launch:
    """The launch for a query of this shape, in plain numbers."""
    module = import_module(f"gocor.plugins.{KERNELS[operator].torch_name}.launch")
    return module.launch(*query, dtype=dtype, **attributes_of(operator, radius))


# ── registration


def test_registering_again_does_nothing(in_tensorrt: InTensorRT) -> None:
    in_tensorrt(layer.register, 3)
    assert len(in_tensorrt(layer.registered)) == len(KERNELS)


@OPERATOR
def test_the_registry_knows_the_plugin_of_the_schema(operator: str, in_tensorrt: InTensorRT) -> None:
    """The parser looks for the name, version and namespace of a node, and copies the fields it finds."""
    schema = KERNELS[operator]
    in_tensorrt(layer.register, 1)
    node = schema.node_attributes(radius=4)
    fields = in_tensorrt(layer.registered)[operator, node["plugin_version"], node["plugin_namespace"]]
    assert node["plugin_namespace"] == DOMAIN
    assert [name for name, _ in fields] == [attribute.name for attribute in schema.plugin_fields]
    assert {kind for _, kind in fields} == {"INT32"}  # as the parser hands integers over


@OPERATOR
def test_every_attribute_has_a_reader(operator: str) -> None:
    """A node's attribute that neither the plugin nor the parser reads would be lost without a word."""
    schema = KERNELS[operator]
    parser = {"plugin_namespace", "plugin_version", "aot"}
    assert parser | {a.name for a in schema.plugin_fields} == {a.name for a in schema.attributes}
    assert schema.attribute("aot").default == 1


# ── a build


@OPERATOR
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_build(operator: str, size: Size, dtype: str, dynamic: bool, build: Build) -> None:
    shapes, attributes = inputs(operator, size, 4), attributes_of(operator, 4)
    built = build(operator, attributes, dtype, shapes, dynamic)
    assert built.output_dtypes == [dtype]
    assert built.output_shape == KERNELS[operator].check(*shapes, **attributes)
    assert (built.kernel, built.ptx) == ptx.read(operator, DTYPES[dtype], 4)
    geometry = launch(operator, size, 4, DTYPES[dtype])
    assert built.arguments == geometry.numbers
    assert (built.kernel, built.grid) == (geometry.kernel, geometry.grid)
    assert (built.block, built.shared_bytes) == ((geometry.block, 1, 1), geometry.shared)


@OPERATOR
@pytest.mark.parametrize("radius", range(1, 9))
def test_every_radius(operator: str, radius: int, build: Build) -> None:
    size = (2, 5, 19, 7)
    shapes, attributes = inputs(operator, size, radius), attributes_of(operator, radius)
    for dtype in DTYPES:
        built = build(operator, attributes, dtype, shapes, True)
        assert built.output_shape == KERNELS[operator].check(*shapes, **attributes)
        assert (built.kernel, built.ptx) == ptx.read(operator, DTYPES[dtype], radius)
        assert built.grid == launch(operator, size, radius, DTYPES[dtype]).grid


@OPERATOR
def test_features_have_one_dtype_and_everything_is_contiguous(operator: str, build: Build) -> None:
    shapes = inputs(operator, (1, 8, 9, 10), 2)
    built = build(operator, attributes_of(operator, 2), "HALF", shapes, True)
    parameters = ["FLOAT LINEAR"] * len(KERNELS[operator].parameters)
    rows = [[f"{dtype} LINEAR"] * 2 + parameters + [f"{dtype} LINEAR"] for dtype in DTYPES]
    assert sorted(built.formats) == rows


# ── what cannot be built


@OPERATOR
def test_a_radius_without_a_kernel(operator: str, in_tensorrt: InTensorRT) -> None:
    shapes = inputs(operator, (1, 8, 30, 30), 9)
    with pytest.raises(ConfigError) as caught:
        in_tensorrt(layer.build, operator, attributes_of(operator, 9), "FLOAT", shapes, True)
    assert str(caught.value) == (
        f"radius of {operator}: is 9, and CUDA kernels go up to 8; "
        "build with --plugins none, which takes the function body of the model"
    )


def test_inputs_that_do_not_fit(in_tensorrt: InTensorRT) -> None:
    features, volume = (1, 8, 9, 10), (1, 81, 9, 10)
    with pytest.raises(
        ShapeError, match=r"inputs of shapes \[1, 8, 9, 10\] and \[1, 8, 9, 9\]; expected two"
    ):
        in_tensorrt(layer.build, "LocalCorrelation", {"radius": 2}, "FLOAT", (features, (1, 8, 9, 9)), False)
    with pytest.raises(ShapeError, match=r"and \[1, 8, 9, 10\]; expected \(N, 25, H, W\) and \(N, C, H, W\)"):
        in_tensorrt(
            layer.build, "LocalCorrelationTranspose", {"radius": 2}, "FLOAT", (volume, features), False
        )


def test_more_elements_than_the_kernels_can_count(in_tensorrt: InTensorRT) -> None:
    shape = (1, 512, 2048, 2048)
    with pytest.raises(ShapeError, match=r"a query of shape \[1, 512, 2048, 2048\]; CUDA kernels take 65535"):
        in_tensorrt(layer.build, "LocalCorrelation", {"radius": 4}, "FLOAT", (shape, shape), False)


def test_maps_that_do_not_fit(in_tensorrt: InTensorRT) -> None:
    shapes = inputs("LocalGOCor", (1, 8, 9, 10), 3)
    with pytest.raises(ShapeError, match=r"expected three of \(25,\), and \(4,\)"):
        in_tensorrt(layer.build, "LocalGOCor", attributes_of("LocalGOCor", 2), "FLOAT", shapes, False)


def test_iterations_out_of_range(in_tensorrt: InTensorRT) -> None:
    shapes = inputs("LocalGOCor", (1, 8, 9, 10), 2)
    with pytest.raises(ConfigError, match="iterations: is 1001; a whole number from 0 to 1000"):
        in_tensorrt(layer.build, "LocalGOCor", {"radius": 2, "iterations": 1001}, "FLOAT", shapes, True)


# ── a build that comes from C++, as TensorRT's does


@OPERATOR
def test_a_build_from_cpp(operator: str, build: Build, build_from_cpp: Build) -> None:
    """Through all of NVIDIA's bindings a plugin says the same as to their Python half alone."""
    nodes = [(size, 4) for size in SIZES] + [((2, 5, 19, 7), radius) for radius in range(1, 9)]
    for (size, radius), dtype, dynamic in itertools.product(nodes, DTYPES, (False, True)):
        shapes = inputs(operator, size, radius)
        node = (operator, attributes_of(operator, radius), dtype, shapes, dynamic)
        assert build_from_cpp(*node) == build(*node)


def test_tensorrt_hears_of_a_failure(build_from_cpp: Build) -> None:
    """An error becomes a failed build, not a crash; its text is on stderr."""
    features = (1, 8, 9, 10)
    with pytest.raises(RuntimeError, match="getOutputDataTypes"):
        build_from_cpp("LocalCorrelation", {"radius": 9}, "FLOAT", (features, features), True)
    with pytest.raises(RuntimeError, match="getOutputShapes"):
        build_from_cpp("LocalCorrelation", {"radius": 2}, "FLOAT", (features, (1, 8, 9, 9)), False)


# ── TensorRT that is not there, or too old


def test_tensorrt_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DependencyError) as caught:
        tensorrt_quick.register()
    text = str(caught.value)
    assert text.startswith("TensorRT's Python plugins: cannot be imported (")
    assert text.endswith('; pip install "gocor-deploy[tensorrt]"')


def test_a_tensorrt_from_before_plugins_were_compiled_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt.plugin"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    with pytest.raises(DependencyError) as caught:
        tensorrt_quick.register()
    assert str(caught.value) == (
        "TensorRT's Python plugins: cannot be compiled ahead of time; "
        "TensorRT 10.9 or later, or build with --plugins none"
    )
