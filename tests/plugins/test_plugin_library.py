"""libgocor_plugins.so: compiled with NVIDIA's headers, loaded by NVIDIA's registry, driven as TensorRT does.

A program of ours (native/plugin_harness.cpp) takes TensorRT's place, and a CUDA driver of ours
(native/cpu_driver.cpp) runs the kernels that the library launches on this CPU. Both and the library are
built with AddressSanitizer and UndefinedBehaviorSanitizer; as it is shipped, the library is tried as well.
Where there is a GPU, the same calls go to NVIDIA's driver, too.
"""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from golden import relative_l2
from kernel_inputs import attributes_of, expected_output, kernel_inputs
from operator_cases import OPERATOR, table

from gocor.core.errors import ConfigError
from gocor.core.files import sha256
from gocor.core.version import __version__
from gocor.plugins.plugin_library import REMEDY, PluginLibrary, describe
from gocor.plugins.registry import KERNELS
from gocor.plugins.schema import DOMAIN, MAX_KERNEL_RADIUS

ROOT = Path(__file__).parents[2]
NATIVE = Path(__file__).parent / "native"
USUAL_PLACES = (
    *(f"/usr/include/{machine}-linux-gnu" for machine in ("x86_64", "aarch64")),
    *("/usr/include", "/usr/local/include", "/usr/local/tensorrt/include", "/opt/tensorrt/include"),
)
EXPORTED = {"getCreators", "setLoggerFinder", "gocor_plugins_version", "gocor_plugins_tensorrt_version"}
WITHOUT = "build without the plugin, from the model's function body"
KERNEL = pytest.mark.parametrize("operator", KERNELS)
DTYPE = pytest.mark.parametrize("dtype", ["float32", "float16"])
CASES = [
    ((1, 1, 1, 1), 1),
    ((2, 5, 7, 9), 1),
    ((1, 7, 5, 19), 3),
    ((1, 16, 8, 8), 4),
    ((2, 33, 4, 40), 4),
    ((1, 3, 9, 18), 8),
]


# ── building


@pytest.fixture(scope="module")
def headers() -> Path:
    """TensorRT's include folder."""
    if asked := os.environ.get("TENSORRT_INCLUDE_DIR"):
        return Path(asked)
    for place in map(Path, USUAL_PLACES):
        if (place / "NvInferRuntime.h").exists():
            return place
    pytest.skip(
        "no TensorRT headers (github.com/NVIDIA/TensorRT, include/): make test-native TENSORRT_INCLUDE_DIR=…"
    )


def build(source: Path, folder: Path, *options: str, targets: tuple[str, ...] = ("all",)) -> Path:
    """Builds a CMake project; skips without what it takes."""
    if not (cmake := shutil.which("cmake", path=_search_path())):
        pytest.skip("cmake is missing: pip install cmake")
    if not shutil.which("c++"):
        pytest.skip("a C++ compiler (c++) is missing")
    wheels = f"-DNVIDIA_WHEELS={sysconfig.get_path('purelib')}/nvidia"
    configured = _run([cmake, "-S", str(source), "-B", str(folder), wheels, *options])
    if "CUDA's headers were not found" in configured.stderr:
        pytest.skip("CUDA's headers are missing: pip install nvidia-cuda-runtime-cu12 nvidia-cuda-nvcc-cu12")
    assert configured.returncode == 0, configured.stderr
    built = _run([cmake, "--build", str(folder), "--parallel", "2", "--target", *targets])
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def _search_path() -> str:
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))


def _run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **options)


@pytest.fixture(scope="module")
def shipped(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the library as users build it, and of a harness."""
    folder = tmp_path_factory.mktemp("shipped")
    return build(
        NATIVE, folder, f"-DTENSORRT_INCLUDE_DIR={headers}", targets=("gocor_plugins", "plugin_harness")
    )


@pytest.fixture(scope="module")
def library(shipped: Path) -> Path:
    return shipped / "plugins/libgocor_plugins.so"


class Harness(NamedTuple):
    """The program that takes TensorRT's place."""

    folder: Path

    def __call__(self, *arguments: object, driver: str = "cpu_driver", fails: str = "") -> dict[str, Any]:
        """Runs a command with one of our drivers, or this machine's; gives what it printed."""
        environment = {**os.environ}
        if driver:
            places = (str(self.folder / driver), os.environ.get("LD_LIBRARY_PATH", ""))
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, places))
        if fails:
            environment["GOCOR_DRIVER_FAILS"] = fails
        program, library = self.folder / "plugin_harness", self.folder / "plugins/libgocor_plugins.so"
        result = _run([str(program), str(library), *map(str, arguments)], env=environment)
        assert result.returncode == 0, result.stdout + result.stderr
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer


@pytest.fixture(scope="module")
def harness(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Harness:
    return sanitized(headers, tmp_path_factory.mktemp("sanitized"), "address,undefined")


def sanitized(headers: Path, folder: Path, sanitizers: str) -> Harness:
    options = (f"-DTENSORRT_INCLUDE_DIR={headers}", f"-DGOCOR_SANITIZE={sanitizers}")
    return Harness(build(NATIVE, folder, *options, "-DCMAKE_BUILD_TYPE=Debug"))


# ── the creators and the schema


def test_creators_say_what_the_schema_says(harness: Harness) -> None:
    assert harness("creators")["creators"] == [
        {
            "name": schema.name,
            "version": str(schema.version),
            "namespace": DOMAIN,
            "fields": [
                {"name": field.name, "type": "int32", "value": field.default}
                for field in schema.plugin_fields
            ],
        }
        for schema in KERNELS.values()
    ]


def values(operator: str, radius: int) -> str:
    """Of the attributes, for the harness."""
    return ",".join(map(str, attributes_of(operator, radius).values()))


def description(attributes: dict[str, int]) -> str:
    """What a plugin says of itself."""
    return ", ".join([f"gocor {__version__}", *(f"{name} {value}" for name, value in attributes.items())])


@KERNEL
@pytest.mark.parametrize("radius", [1, 4, MAX_KERNEL_RADIUS])
def test_a_plugin_lives_on_in_copies(harness: Harness, operator: str, radius: int) -> None:
    plugins = harness("lives", operator, values(operator, radius))["plugins"]
    attributes = attributes_of(operator, radius)
    text = description(attributes)
    fields = [{"name": name, "type": "int32", "value": value} for name, value in attributes.items()]
    expected = {"version": "1", "description": text, "timing": text, "fields": fields}
    assert plugins == [expected] * 3  # built, cloned, deserialised and attached


@KERNEL
def test_a_node_without_attributes_has_the_default_ones(harness: Harness, operator: str) -> None:
    defaults = {field.name: int(field.default) for field in KERNELS[operator].plugin_fields}
    assert harness("create", operator)["description"] == description(defaults)


@OPERATOR
@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("radius=0:int32", "has radius 0, and CUDA kernels go from 1 to 8"),
        ("radius=9:int32", "has radius 9, and CUDA kernels go from 1 to 8"),
        ("radius=-4:int32", "has radius -4, and CUDA kernels go from 1 to 8"),
        ("radius=4:int64", "takes one INT32 as its attribute radius"),
        ("radius=4:float32", "takes one INT32 as its attribute radius"),
        ("stride=2:int32", 'has no attribute "stride", only radius'),
    ],
)
def test_attributes_that_make_no_plugin(harness: Harness, operator: str, attribute: str, text: str) -> None:
    answer = harness("create", operator, attribute)
    if "go from" in text:
        text += f"; {WITHOUT}"
    assert answer == {"status": 1, "log": [f"gocor: {operator} layer: {text}"], "description": None}


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("iterations=-1:int32", "has iterations -1, and takes 0 to 1000"),
        ("iterations=1001:int32", "has iterations 1001, and takes 0 to 1000"),
        ("iterations=3:int64", "takes one INT32 as its attribute iterations"),
        ("stride=2:int32", 'has no attribute "stride", only radius and iterations'),
    ],
)
def test_iterations_that_make_no_plugin(harness: Harness, attribute: str, text: str) -> None:
    answer = harness("create", "LocalGOCor", attribute)
    assert answer == {"status": 1, "log": [f"gocor: LocalGOCor layer: {text}"], "description": None}


# ── building an engine


def dtypes_of(operator: str, dtype: str) -> list[str]:
    """Of all inputs, when that of the features is ``dtype``."""
    schema = KERNELS[operator]
    return [dtype] * len(schema.inputs) + ["float32"] * len(schema.parameters)


@KERNEL
def test_formats(harness: Harness, operator: str) -> None:
    expected = {
        " ".join(f"{each}/linear" for each in (*dtypes_of(operator, dtype), dtype))
        for dtype in KERNELS[operator].tolerances
    }
    found = harness("formats", operator, len(dtypes_of(operator, "float32")))["formats"]
    assert set(found) == expected


@KERNEL
@DTYPE
def test_the_output_has_the_dtype_of_the_features(harness: Harness, operator: str, dtype: str) -> None:
    assert harness("types", operator, *dtypes_of(operator, dtype)) == {"status": 0, "log": [], "type": dtype}


def test_parameters_are_float32(harness: Harness) -> None:
    answer = harness("types", "LocalGOCor", *["float16"] * 6)
    text = "gocor: LocalGOCor layer: takes float32 from its third input on, not float16"
    assert (answer["status"], answer["log"]) == (1, [text])


@KERNEL
def test_another_number_of_inputs(harness: Harness, operator: str) -> None:
    dtypes = dtypes_of(operator, "float32")
    text = f"gocor: {operator} layer: has {len(dtypes)} inputs and one output"
    answer = harness("types", operator, *dtypes, "float32")
    assert (answer["status"], answer["log"]) == (1, [text])


@OPERATOR
@pytest.mark.parametrize("dtypes", [("float32", "float16"), ("bfloat16", "bfloat16"), ("int8", "int8")])
def test_dtypes_that_do_not_fit(harness: Harness, operator: str, dtypes: tuple[str, str]) -> None:
    answer = harness("types", operator, *dtypes)
    words = [{"int8": "type 2 of TensorRT"}.get(dtype, dtype) for dtype in dtypes]
    text = f"takes two inputs of float32 or two of float16, not {' and '.join(words)}"
    assert (answer["status"], answer["log"]) == (1, [f"gocor: {operator} layer: {text}"])


@KERNEL
@table(CASES)
def test_output_shapes(harness: Harness, operator: str, shape: tuple[int, ...], radius: int) -> None:
    shapes = [array.shape for array in kernel_inputs(operator, shape, radius)]
    expected = KERNELS[operator].check(*shapes, **attributes_of(operator, radius))
    answer = harness("shapes", operator, values(operator, radius), *map(dims, shapes))
    assert answer == {"status": 0, "log": [], "shape": list(expected)}


def dims(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


@pytest.mark.parametrize(
    ("operator", "first", "query", "shape"),
    [
        ("LocalCorrelation", "N,C,H,W", "N,C,H,W", ["N", 25, "H", "W"]),
        ("LocalCorrelation", "1,32,H,W", "1,32,H,W", [1, 25, "H", "W"]),
        ("LocalCorrelation", "N,32,8,W", "2,C,H,9", [2, 25, "H", 9]),
        ("LocalCorrelationTranspose", "N,25,H,W", "N,C,H,W", ["N", "C", "H", "W"]),
        ("LocalCorrelationTranspose", "N,D,8,W", "2,16,H,9", [2, 16, "H", 9]),
        ("LocalGOCor", "N,32,8,W", "2,C,H,9 25 25 M 4", [2, 25, "H", 9]),
    ],
)
def test_output_shapes_that_are_not_known_yet(
    harness: Harness, operator: str, first: str, query: str, shape: list[int | str]
) -> None:
    answer = harness("shapes", operator, 2, first, *query.split())
    assert answer == {"status": 0, "log": [], "shape": shape}


VOLUME = "(N, 25, H, W) and (N, C, H, W)"
WRONG_SHAPES = [
    ("LocalCorrelation", "1,3,8,9", "1,3,8,8", "two equal shapes (N, C, H, W)"),
    ("LocalCorrelationTranspose", "1,81,8,9", "1,3,8,9", VOLUME),
    ("LocalCorrelationTranspose", "2,25,8,9", "1,3,8,9", VOLUME),
    ("LocalCorrelationTranspose", "1,25,8,9", "1,3,7,9", VOLUME),
]
GOCOR_SHAPES = "three of (25) and one of (4) after the first two"
WRONG_GOCOR = [
    ("1,3,8,9 1,3,8,8 25 25 25 4", "two equal shapes (N, C, H, W)"),
    ("1,3,8,9 1,3,8,9 25 25 81 4", GOCOR_SHAPES),
    ("1,3,8,9 1,3,8,9 25 25 25 3", GOCOR_SHAPES),
]
WRONG_RANKS = [
    ("LocalCorrelation", "1,3,8", "1,3,8,8", 3),
    ("LocalCorrelationTranspose", "1,25,8,9", "1,3", 2),
]


@pytest.mark.parametrize(("operator", "first", "query", "expected"), WRONG_SHAPES)
def test_shapes_that_do_not_fit(
    harness: Harness, operator: str, first: str, query: str, expected: str
) -> None:
    shapes = " and ".join(f"({text.replace(',', ', ')})" for text in (first, query))
    check_refused(harness, operator, first, query, f"has inputs of shapes {shapes}; expected {expected}")


@pytest.mark.parametrize(("operator", "first", "query", "rank"), WRONG_RANKS)
def test_ranks_that_do_not_fit(harness: Harness, operator: str, first: str, query: str, rank: int) -> None:
    check_refused(harness, operator, first, query, f"takes tensors of 4 dimensions, not {rank}")


@pytest.mark.parametrize(("shapes", "expected"), WRONG_GOCOR)
def test_shapes_of_local_gocor_that_do_not_fit(harness: Harness, shapes: str, expected: str) -> None:
    *others, last = (f"({text.replace(',', ', ')})" for text in shapes.split())
    text = f"has inputs of shapes {', '.join(others)} and {last}; expected {expected}"
    check_refused(harness, "LocalGOCor", *shapes.split(), text)


def test_a_map_of_local_gocor_that_is_no_vector(harness: Harness) -> None:
    shapes = ("1,3,8,9", "1,3,8,9", "5,5", "25", "25", "4")
    text = "takes vectors from its third input on, not tensors of 2 dimensions"
    check_refused(harness, "LocalGOCor", *shapes, text)


def check_refused(harness: Harness, operator: str, *shapes_and_text: str) -> None:
    """The same refusal at every stage."""
    *shapes, text = shapes_and_text
    refused = {"status": 1, "log": [f"gocor: {operator} layer: {text}"]}
    assert harness("shapes", operator, 2, *shapes) == refused | {"shape": []}
    assert harness("configure", operator, 2, "float32", *shapes) == refused
    assert harness("resize", operator, 2, "float32", *shapes) == refused


def test_a_shape_of_which_little_is_known(harness: Harness) -> None:
    answer = harness("shapes", "LocalCorrelation", 2, "N,3,H,W", "N,4,H,W")
    assert answer["log"] == [
        "gocor: LocalCorrelation layer: has inputs of shapes (?, 3, ?, ?) and (?, 4, ?, ?); "
        "expected two equal shapes (N, C, H, W)"
    ]


@KERNEL
@DTYPE
def test_sizes_may_be_open_while_an_engine_is_built(harness: Harness, operator: str, dtype: str) -> None:
    first = "-1,25,-1,9" if operator == "LocalCorrelationTranspose" else "-1,16,-1,9"
    others = ("25", "25", "25", "4") if operator == "LocalGOCor" else ()
    answer = harness("configure", operator, 2, dtype, first, "2,16,-1,-1", *others)
    assert answer == {"status": 0, "log": []}


def test_sizes_must_be_known_when_it_runs(harness: Harness) -> None:
    answer = harness("resize", "LocalCorrelation", 4, "float32", "1,16,-1,9", "1,16,-1,9")
    assert answer == {"status": 1, "log": ["gocor: LocalCorrelation layer: cannot have a size of -1"]}


@pytest.mark.parametrize("shape", ["1,512,2048,2048", "1,16,8192,4096", "65536,1,1,1"])
def test_more_elements_than_the_kernels_can_count(harness: Harness, shape: str) -> None:
    answer = harness("resize", "LocalCorrelation", 4, "float32", shape, shape)
    text = "takes 65535 images of 2147483647 elements at most, not a query of shape "
    assert answer["status"] == 1
    assert answer["log"][0].startswith(f"gocor: LocalCorrelation layer: {text}({shape.split(',')[0]}, ")


# ── running it


class Call:
    """A call of a plugin with random numbers, whose arrays are files.

    Args:
        folder: for the files.
        operator: its name.
        shape: of the query.
        radius: of the search.
        dtype: of the features and the output.
    """

    def __init__(self, folder: Path, operator: str, shape: tuple[int, ...], radius: int, dtype: str) -> None:
        self._inputs = kernel_inputs(operator, shape, radius, dtype)
        self._operator, self._radius, self._dtype = operator, radius, dtype
        files = [folder / f"input{number}" for number in range(len(self._inputs))]
        self._output = folder / "output"
        for array, file in zip(self._inputs, files, strict=True):
            array.tofile(file)
        shapes = (dims(array.shape) for array in self._inputs)
        self.arguments = ("enqueue", operator, values(operator, radius), dtype, *shapes, *files, self._output)

    def check_output(self) -> None:
        """Compares what the plugin wrote with the reference."""
        expected = expected_output(self._operator, self._inputs, self._radius)
        output = np.fromfile(self._output, self._dtype).reshape(expected.shape)
        error = relative_l2(output.astype(np.float64), expected)
        assert error <= KERNELS[self._operator].tolerances[self._dtype]


@KERNEL
@DTYPE
@table(CASES)
def test_enqueue(
    harness: Harness, tmp_path: Path, operator: str, shape: tuple[int, ...], radius: int, dtype: str
) -> None:
    call = Call(tmp_path, operator, shape, radius, dtype)
    assert harness(*call.arguments) == {"status": 0, "log": []}
    call.check_output()


@pytest.mark.parametrize("radius", range(1, MAX_KERNEL_RADIUS + 1))
@KERNEL
@DTYPE
def test_every_kernel_is_in_the_library(
    harness: Harness, tmp_path: Path, operator: str, radius: int, dtype: str
) -> None:
    call = Call(tmp_path, operator, (1, 2, 3, 4), radius, dtype)
    assert harness(*call.arguments) == {"status": 0, "log": []}
    call.check_output()


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (1, 3, 0, 5)])
def test_nothing_to_do_is_no_failure(harness: Harness, tmp_path: Path, shape: tuple[int, ...]) -> None:
    call = Call(tmp_path, "LocalCorrelation", shape, 4, "float32")
    assert harness(*call.arguments) == {"status": 0, "log": []}


LOADED = "gocor_local_correlation_f16_r4"


@pytest.mark.parametrize(
    ("driver", "fails", "text"),
    [
        ("old_driver", "", "is too old (it has no cuLibraryLoadData); 550 or later is needed"),
        ("cpu_driver", "cuInit", "cannot be used: no CUDA-capable device is detected"),
        ("cpu_driver", "cuLibraryLoadData", f"refuses kernel {LOADED}, which needs driver 550 or later and a "
         "GPU from Ampere on: the provided PTX was compiled with an unsupported toolchain."),
        ("cpu_driver", "cuLaunchKernel", f"cannot launch kernel {LOADED}: error 400"),
    ],
)  # fmt: skip
def test_a_driver_that_fails(harness: Harness, tmp_path: Path, driver: str, fails: str, text: str) -> None:
    call = Call(tmp_path, "LocalCorrelation", (1, 2, 3, 4), 4, "float16")
    answer = harness(*call.arguments, driver=driver, fails=fails)
    assert answer == {"status": 1, "log": [f"gocor: LocalCorrelation layer: the CUDA driver {text}"]}


def test_contexts_of_several_threads(headers: Path, tmp_path: Path) -> None:
    harness = sanitized(headers, tmp_path / "build", "thread")
    call = Call(tmp_path, "LocalCorrelation", (1, 5, 7, 9), 4, "float32")
    assert harness("parallel", *call.arguments[1:]) == {"status": 0, "log": []}
    call.check_output()


def has_gpu() -> bool:
    """NVIDIA's driver is here, and finds a GPU."""
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False


@KERNEL
@DTYPE
@table(CASES)
def test_the_library_as_it_is_shipped(
    shipped: Path, tmp_path: Path, operator: str, shape: tuple[int, ...], radius: int, dtype: str
) -> None:
    call = Call(tmp_path, operator, shape, radius, dtype)
    answer = Harness(shipped)(*call.arguments, driver="")
    if has_gpu():
        assert answer == {"status": 0, "log": []}
        call.check_output()
    else:
        reason = r"(there is no CUDA driver \(libcuda\.so\.1: .+\)|the CUDA driver cannot be used: .+)"
        assert answer["status"] == 1
        assert re.fullmatch(f"gocor: {operator} layer: {reason}", answer["log"][0])


# ── the file


def symbols(library: Path, *options: str) -> Iterator[str]:
    """Names in the dynamic table, without versions."""
    result = _run(["nm", "--dynamic", "--demangle", *options, str(library)])
    assert result.returncode == 0, result.stderr
    for line in result.stdout.splitlines():
        yield line.split(maxsplit=2 if "--undefined-only" not in options else 1)[-1].split("@")[0]


def test_it_shows_nothing_but_its_four_functions(library: Path) -> None:
    assert set(symbols(library, "--defined-only")) == EXPORTED


def test_it_needs_nothing_of_tensorrt_or_cuda(library: Path) -> None:
    undefined = list(symbols(library, "--undefined-only"))
    assert undefined
    assert not [name for name in undefined if "nvinfer" in name.lower() or "tensorrt" in name.lower()]
    assert not [name for name in undefined if name.startswith(("cu", "nv"))]
    needed = _run(["readelf", "--dynamic", str(library)]).stdout
    assert not [word for word in ("cuda", "cudart", "nvinfer") if f"lib{word}" in needed]


def test_it_says_what_it_was_built_from(library: Path, headers: Path) -> None:
    found = describe(library)
    assert found == PluginLibrary(library, sha256(library), found.tensorrt_version, __version__)
    text = (headers / "NvInferVersion.h").read_text()
    major = found.tensorrt_version.split(".")[0]
    assert f"MAJOR_ENTERPRISE {major}" in text or f"NV_TENSORRT_MAJOR {major}" in text
    assert len(found.tensorrt_version.split(".")) == 4
    found.check_fits(f"{major}.99")


LOAD = """
import json, sys, numpy as np, tensorrt_rtx as trt

class Log(trt.ILogger):
    def __init__(self): trt.ILogger.__init__(self)
    def log(self, severity, message):
        if severity == trt.ILogger.ERROR: print("error:", message)

log = Log()
builder = trt.Builder(log)
registry = trt.get_plugin_registry()
library, names, radii = map(json.loads, sys.argv[1:])
assert registry.load_library(library) is not None
for name in names:
    creator = registry.get_creator(name, "1", "gocor")
    print(creator.name, creator.plugin_version, creator.plugin_namespace, creator.field_names[0].name)
    for radius in radii:
        field = trt.PluginField("radius", np.array([radius], np.int32), trt.PluginFieldType.INT32)
        fields = trt.PluginFieldCollection([field])
        print(creator.create_plugin("conv1", fields, trt.TensorRTPhase.BUILD) is not None)
"""


def test_nvidias_registry_loads_it(library: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason='needs: pip install "gocor-deploy[rtx]"')
    # What a library built for TensorRT 10 logs in TensorRT 11, which that of RTX is, ends up elsewhere.
    can_log = describe(library).tensorrt_version.startswith("11.")
    arguments = (str(library), list(KERNELS), (4, 9) if can_log else (4,))
    result = _run([sys.executable, "-c", LOAD, *map(json.dumps, arguments)])
    assert result.returncode == 0, result.stdout + result.stderr
    expected = []
    for name in KERNELS:
        error = f"error: gocor: {name} conv1: has radius 9, and CUDA kernels go from 1 to 8; {WITHOUT}"
        expected += [f"{name} 1 gocor radius", "True", *([error, "False"] if can_log else [])]
    assert result.stdout.splitlines() == expected


# ── building and asking goes wrong


def failure(source: Path, folder: Path, include: Path) -> str:
    """Why a build fails, in one line."""
    with pytest.raises(AssertionError) as caught:
        build(source, folder, f"-DTENSORRT_INCLUDE_DIR={include}")
    return " ".join(str(caught.value).split())


def test_ptx_that_was_changed_is_not_built_in(headers: Path, tmp_path: Path) -> None:
    for folder in ("core", "plugins"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    ptx = tmp_path / "plugins/ptx/local_correlation_f32_r4.ptx"
    ptx.write_text(ptx.read_text().replace("ret;", "trap;"))
    text = failure(tmp_path / "plugins", tmp_path / "build", headers)
    assert f"{ptx} is not the PTX of index.json; run: make ptx" in text


def test_headers_that_are_not_there(headers: Path, tmp_path: Path) -> None:
    text = failure(ROOT / "plugins", tmp_path / "build", tmp_path)
    assert "TensorRT's headers were not found. Give -DTENSORRT_INCLUDE_DIR=…" in text


def test_an_old_tensorrt(headers: Path, tmp_path: Path) -> None:
    old = tmp_path / "include"
    shutil.copytree(headers, old)
    with (old / "NvInferVersion.h").open("a") as file:
        for part, number in (("MAJOR", 10), ("MINOR", 3)):
            file.write(f"\n#undef NV_TENSORRT_{part}\n#define NV_TENSORRT_{part} {number}\n")
    text = failure(ROOT / "plugins", tmp_path / "build", old)
    assert "TensorRT 10.9 or later is needed" in text


def test_the_cpp_example_compiles(headers: Path, tmp_path: Path) -> None:
    build(NATIVE, tmp_path, f"-DTENSORRT_INCLUDE_DIR={headers}", targets=("run_engine",))
    assert list(tmp_path.rglob("run_engine.cpp.o"))


def test_a_library_for_another_tensorrt() -> None:
    library = PluginLibrary(Path("libgocor_plugins.so"), "", "10.9.0.34", "0.1.0")
    library.check_fits("10.16.1")
    with pytest.raises(ConfigError) as caught:
        library.check_fits("11.4.0.106")
    assert str(caught.value) == (
        "libgocor_plugins.so: was built for TensorRT 10.9.0.34, and this is 11.4.0.106; "
        "build libgocor_plugins.so with: make plugins TENSORRT_INCLUDE_DIR=… of 11.4.0.106"
    )


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    file = tmp_path / "libgocor_plugins.so"
    for content in (None, "text"):
        if content:
            file.write_text(content)
        with pytest.raises(ConfigError) as caught:
            describe(file)
        assert str(caught.value).startswith(f"{file}: cannot be loaded (")
        assert str(caught.value).endswith(f"); {REMEDY}")


def test_another_library() -> None:
    math = next(Path("/").glob("lib*/*-linux-gnu/libm.so.6"), None) or "libm.so.6"
    with pytest.raises(ConfigError) as caught:
        describe(math)
    question = "gocor_plugins_tensorrt_version"
    assert str(caught.value) == f"{math}: is not our plugin library (it has no {question}); {REMEDY}"
