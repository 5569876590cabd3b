"""The CUDA kernels without a GPU: the same source compiled by g++, plainly and with sanitizers."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from golden import case_names, load_case, relative_l2
from host_kernels import HARNESS, PLUGINS, HostKernels, Problem, compile_host
from kernel_inputs import gocor_inputs, golden_parameters
from operator_cases import CASES, LARGE, OPERATOR, table
from operator_models import random_inputs

from gocor.core.errors import ConfigError
from gocor.plugins import ptx
from gocor.plugins.launch import Launch
from gocor.plugins.local_correlation.launch import launch as launch_local_correlation
from gocor.plugins.local_correlation_transpose.launch import launch as launch_local_correlation_transpose
from gocor.plugins.local_gocor.launch import launch as launch_local_gocor
from gocor.plugins.references import REFERENCES
from gocor.plugins.registry import CORRELATIONS, KERNELS
from gocor.plugins.schema import MAX_KERNEL_RADIUS

# The radii that kernels know; then several tiles and chunks of channels, and widths that are multiples of 8
# or 4, which is what wide copies depend on.
KERNEL_CASES = [
    *(case for case in CASES if case[1] <= MAX_KERNEL_RADIUS),
    LARGE,
    ((1, 17, 11, 36), 1),
    ((1, 40, 7, 64), 2),
    ((1, 33, 6, 48), 3),
    ((2, 20, 9, 64), 6),
    ((1, 40, 10, 48), 8),
]
DTYPE = pytest.mark.parametrize("dtype", ["float32", "float16"])
CANARIES = 64  # elements on either side of an array


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    target = tmp_path_factory.mktemp("kernels") / "libkernels.so"
    flags = ("-DGOCOR_FIBERS", "-shared", "-fPIC")
    return HostKernels(compile_host(target, [HARNESS / "table.cpp"], flags))


def problem_of(shape: tuple[int, ...], radius: int, dtype: str, iterations: int = 0) -> Problem:
    return Problem(*shape, radius, dtype == "float16", iterations)


class Guarded(NamedTuple):
    """An array between canaries."""

    memory: np.ndarray
    array: np.ndarray

    def is_alone_changed(self) -> bool:
        start = (self.array.ctypes.data - self.memory.ctypes.data) // self.memory.itemsize
        around = np.delete(self.memory, np.s_[start : start + self.array.size])
        return bool(np.isnan(around).all())


def guarded(shape: tuple[int, ...], dtype: str, shift: int, content: np.ndarray | None = None) -> Guarded:
    """Room for an array, NaN in and around it, ``shift`` elements off a multiple of 64 bytes."""
    size = int(np.prod(shape))
    memory = np.full(size + 2 * CANARIES, np.nan, dtype)
    start = CANARIES // 2
    while (memory.ctypes.data + start * memory.itemsize) % 64 != 0:
        start += 1
    start += shift
    array = memory[start : start + size].reshape(shape)
    if content is not None:
        array[...] = content
    return Guarded(memory, array)


# ── correctness on the host


@pytest.mark.parametrize("loaded", [False, True], ids=["as CuTe lays it out", "loaded by ldmatrix"])
def test_tensor_core_operations_are_as_others_describe_them(kernels: HostKernels, loaded: bool) -> None:
    """The kernels and their host twin could agree on a wrong layout; the third description is CuTe's."""
    rng = np.random.default_rng(1)
    a, b = (rng.integers(-9, 10, shape).astype(np.float16) for shape in ((16, 16), (16, 8)))
    expected = a.astype(np.float32) @ b.astype(np.float32)
    assert np.array_equal(kernels.multiply(a, b, loaded), expected)


@OPERATOR
@DTYPE
@pytest.mark.parametrize("shift", [0, 1, 4], ids=["aligned", "unaligned", "partly aligned"])
@table(KERNEL_CASES)
def test_kernel(
    kernels: HostKernels, operator: str, dtype: str, shape: tuple[int, ...], radius: int, shift: int
) -> None:
    """NaN around the inputs and in the output: what is read outside, or not written, shows."""
    schema = CORRELATIONS[operator]
    first, query = random_inputs(operator, shape, radius, dtype)
    expected = REFERENCES[operator](first.astype(np.float64), query.astype(np.float64), radius)
    inputs = [guarded(array.shape, dtype, shift, array) for array in (first, query)]
    out = guarded(expected.shape, dtype, shift)
    failure = kernels.run(
        schema, problem_of(shape, radius, dtype), [placed.array for placed in inputs], out.array
    )
    assert failure is None
    assert relative_l2(out.array, expected) <= schema.tolerances[dtype]
    assert out.is_alone_changed()
    assert np.array_equal(inputs[0].array, first)
    assert np.array_equal(inputs[1].array, query)


@OPERATOR
@DTYPE
def test_kernel_accumulates_in_float32(kernels: HostKernels, operator: str, dtype: str) -> None:
    """A thousand times 1 + 2^-9: in float16 the small part of a sum is lost from 2 on."""
    shape, radius = (1, 1024, 3, 8), 1
    first, query = (np.ones_like(array) for array in random_inputs(operator, shape, radius, dtype))
    query += np.asarray(2**-9, dtype)
    expected = REFERENCES[operator](first.astype(np.float64), query.astype(np.float64), radius)
    out = np.empty(expected.shape, dtype)
    kernels.run(CORRELATIONS[operator], problem_of(shape, radius, dtype), (first, query), out)
    assert np.array_equal(out, expected.astype(dtype))


@OPERATOR
@DTYPE
def test_kernel_on_an_empty_batch(kernels: HostKernels, operator: str, dtype: str) -> None:
    out = np.full(100, np.nan, dtype)
    shape = (0, 4, 9, 7)
    assert kernels.run(CORRELATIONS[operator], problem_of(shape, 2, dtype), (out, out), out) is None
    assert np.isnan(out).all()


@OPERATOR
def test_there_is_no_kernel_beyond_radius_8(kernels: HostKernels, operator: str) -> None:
    out = np.zeros(1, np.float32)
    problem = problem_of((1, 1, 1, 1), MAX_KERNEL_RADIUS + 1, "float32")
    assert kernels.run(CORRELATIONS[operator], problem, (out, out), out) == "there is no such kernel"


# ── LocalGOCor

GOCOR = KERNELS["LocalGOCor"]
# Below, at and above the tiles of 8x4 and 8x2 pixels, one and several chunks of channels, which all fit into
# shared memory or do not, and widths that wide copies can and cannot take.
GOCOR_CASES = [
    ((1, 1, 1, 1), 4, 3),
    ((2, 5, 7, 9), 1, 2),
    ((1, 100, 3, 9), 1, 1),
    ((1, 7, 5, 19), 2, 3),
    ((2, 33, 4, 8), 3, 3),
    ((1, 16, 8, 8), 4, 0),
    ((1, 17, 5, 16), 4, 1),
    ((2, 32, 4, 12), 4, 3),
    ((1, 49, 6, 10), 4, 3),
    ((1, 90, 3, 8), 4, 2),
    ((1, 3, 13, 2), 5, 3),
    ((1, 17, 3, 16), 6, 2),
    ((1, 40, 2, 5), 7, 1),
    ((2, 9, 2, 24), 8, 2),
]
GOCOR_TABLE = pytest.mark.parametrize(
    ("shape", "radius", "iterations"), GOCOR_CASES, ids=["{}-r{}-n{}".format(*case) for case in GOCOR_CASES]
)


def gocor_error(
    kernels: HostKernels, inputs: Sequence[np.ndarray], radius: int, iterations: int, shift: int = 0
) -> float:
    """Relative L2 error of a call, whose arrays have NaN around them."""
    dtype = inputs[0].dtype.name
    exact = [array.astype(np.float64) for array in inputs[:2]]
    expected = REFERENCES["LocalGOCor"](*exact, *inputs[2:], radius, iterations)
    placed = [guarded(array.shape, array.dtype.name, shift, array) for array in inputs]
    out = guarded(expected.shape, dtype, shift)
    problem = problem_of(inputs[0].shape, radius, dtype, iterations)
    assert kernels.run(GOCOR, problem, [each.array for each in placed], out.array) is None
    assert out.is_alone_changed()
    assert all(np.array_equal(each.array, array) for each, array in zip(placed, inputs, strict=True))
    return relative_l2(out.array, expected)


@DTYPE
@pytest.mark.parametrize("shift", [0, 1], ids=["aligned", "unaligned"])
@GOCOR_TABLE
def test_fused_kernel(
    kernels: HostKernels, dtype: str, shape: tuple[int, ...], radius: int, iterations: int, shift: int
) -> None:
    inputs = gocor_inputs(shape, radius, dtype)
    assert gocor_error(kernels, inputs, radius, iterations, shift) <= GOCOR.tolerances[dtype]


@DTYPE
@pytest.mark.parametrize("name", case_names("local_gocor_"))
def test_fused_kernel_is_the_public_code(kernels: HostKernels, name: str, dtype: str) -> None:
    case = load_case(name)
    features = [case[which].astype(dtype) for which in ("reference", "query")]
    inputs = [*features, *golden_parameters(features[0].shape[1])]
    assert gocor_error(kernels, inputs, 4, int(case["iterations"])) <= GOCOR.tolerances[dtype]


@DTYPE
@pytest.mark.parametrize(
    ("kind", "size"),
    [("normal", 1e-3), ("normal", 1e3), ("positive", 30), ("smooth", 1)],
    ids=["small", "large", "positive", "smooth"],
)
def test_fused_kernel_on_features_of_any_kind(
    kernels: HostKernels, kind: str, size: float, dtype: str
) -> None:
    """Gradients are differences and filters reciprocals of features: float16 may not hold either."""
    shape, radius = (1, 24, 8, 8), 4
    reference, query, *parameters = gocor_inputs(shape, radius, "float32")
    if kind == "positive":
        reference, query = np.abs(reference), np.abs(query)
    if kind == "smooth":
        y, x = np.mgrid[:8, :8] / 8
        phases = np.arange(24).reshape(1, 24, 1, 1)
        reference, query = np.sin(phases + x + 2 * y), np.cos(phases - x + y)
    features = [(array * size).astype(dtype) for array in (reference, query)]
    assert gocor_error(kernels, [*features, *parameters], radius, 3) <= GOCOR.tolerances[dtype]


@DTYPE
def test_fused_kernel_takes_scores_of_zero_as_neither_positive_nor_negative(
    kernels: HostKernels, dtype: str
) -> None:
    """Each pixel has a channel of its own: all scores but the centre's are exactly 0."""
    reference = np.zeros((1, 12, 3, 4), dtype)
    reference.reshape(12, 12)[np.arange(12), np.arange(12)] = 1 + np.arange(12) / 8
    _, query, *parameters = gocor_inputs(reference.shape, 2, dtype)
    assert gocor_error(kernels, [reference, query, *parameters], 2, 1) <= GOCOR.tolerances[dtype]


@DTYPE
@pytest.mark.parametrize("size", [0, 1e-6, 1e-4, 1e-2])
def test_fused_kernel_on_pixels_with_hardly_any_features(
    kernels: HostKernels, size: float, dtype: str
) -> None:
    """Their filters begin as up to a million times their vector; far from others, denominators are 0."""
    reference, query, *parameters = gocor_inputs((1, 6, 5, 9), 3, dtype)
    reference[..., 3:] *= size
    assert gocor_error(kernels, [reference, query, *parameters], 3, 2) <= GOCOR.tolerances[dtype]


# ── launches

LAUNCHES: dict[str, Callable[..., Launch]] = {
    "LocalCorrelation": launch_local_correlation,
    "LocalCorrelationTranspose": launch_local_correlation_transpose,
    "LocalGOCor": partial(launch_local_gocor, iterations=5),
}
KERNEL = pytest.mark.parametrize("operator", KERNELS)


@KERNEL
@DTYPE
def test_launches_are_the_same_in_python_and_cpp(kernels: HostKernels, operator: str, dtype: str) -> None:
    schema = KERNELS[operator]
    for radius in range(1, MAX_KERNEL_RADIUS + 1):
        for shape in ((1, 1, 1, 1), (3, 32, 112, 256), (2, 33, 113, 257), (1, 196, 7, 16), (0, 5, 4, 3)):
            there = kernels.geometry(schema, problem_of(shape, radius, dtype, 5))
            here = LAUNCHES[operator](*shape, radius, dtype)
            assert there.kernel.decode() == here.kernel == ptx.Variant(schema, dtype, radius).kernel
            assert (*there.grid,) == here.grid
            assert (there.threads, there.shared) == (here.block, here.shared)
            assert (*there.numbers[: there.count],) == here.numbers
            assert there.inputs == len(schema.inputs) + len(schema.parameters)
            assert here.block <= 256


@KERNEL
def test_launch_refuses_a_radius_without_kernel(operator: str) -> None:
    with pytest.raises(ConfigError, match="is 9, and CUDA kernels go up to 8"):
        LAUNCHES[operator](1, 3, 4, 5, 9, "float32")


# ── sanitizers

ADDRESS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")
THREAD = ("-fsanitize=thread", "-g1")


def radii(*values: int) -> str:
    return f"-DGOCOR_RADII(X)={' '.join(f'X({value})' for value in values)}"


def run_sanitized(program: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}
    command = [str(program)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    # ThreadSanitizer of g++ 12 finds no place for its memory where Linux randomises addresses much.
    if "unexpected memory mapping" in result.stderr and (setarch := shutil.which("setarch")):
        command = [setarch, "--addr-no-randomize", *command]
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
    return result


SANITIZER = pytest.mark.parametrize(
    "flags", [ADDRESS, THREAD], ids=["address and undefined behaviour", "thread"]
)
ONLY_CORRELATIONS, ONLY_FUSED = "-DGOCOR_ONLY_CORRELATIONS", "-DGOCOR_ONLY_FUSED"


@SANITIZER
@pytest.mark.parametrize(
    ("operators", "chosen"),
    [(ONLY_CORRELATIONS, (1, 4, 5)), (ONLY_FUSED, (4,))],
    ids=["correlations", "LocalGOCor"],
)
def test_sanitizer_finds_nothing(
    flags: tuple[str, ...], operators: str, chosen: tuple[int, ...], tmp_path: Path
) -> None:
    """Radius 1 and 4 as they are mostly used, 5 has two groups of displacements and two products a window."""
    sources = [HARNESS / "sanitize.cpp"]
    options = (*flags, radii(*chosen), operators)
    result = run_sanitized(compile_host(tmp_path / "sanitize", sources, options))
    assert (result.returncode, result.stdout) == (0, "ok\n"), result.stderr


@pytest.mark.slow
@SANITIZER
def test_sanitizer_finds_nothing_at_any_radius(flags: tuple[str, ...], tmp_path: Path) -> None:
    sources = [HARNESS / "sanitize.cpp"]
    result = run_sanitized(compile_host(tmp_path / "sanitize", sources, (*flags, radii(*range(1, 9)))))
    assert (result.returncode, result.stdout) == (0, "ok\n"), result.stderr


class Plant(NamedTuple):
    """A mistake put into a copy of the sources, how it is compiled, and what finds it."""

    file: str
    right: str
    wrong: str
    flags: tuple[str, ...]
    report: str


PLANTS = {
    "write beyond the output": Plant(
        "native/tile.cuh",
        "if (row >= 0 && x + column < width) image[",
        "if (row >= 0) image[",
        ADDRESS,
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "read beyond the input": Plant(
        "native/tile.cuh",
        " && plane < planes;",
        " && planes > 0;",
        ADDRESS,
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "shared memory too small": Plant(
        "local_correlation/kernel.cuh",
        "GOCOR_SHARED(half_t, query_tiles, 2 * QueryLoader::SIZE)",
        "GOCOR_SHARED(half_t, query_tiles, 2 * QueryLoader::SIZE - 8)",
        ADDRESS,
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "barrier missing before a tile is overwritten": Plant(
        "local_correlation/kernel.cuh",
        "work(reference_tile, query_tile);\n            sync_block();",
        "work(reference_tile, query_tile);",
        THREAD,
        "ThreadSanitizer: data race",
    ),
    "barrier missing before a tile is read": Plant(
        "local_correlation_transpose/kernel.cuh",
        "wait_copies<T::AHEAD - 1>();\n            sync_block();",
        "wait_copies<T::AHEAD - 1>();",
        THREAD,
        "ThreadSanitizer: data race",
    ),
    "partial filters overwritten before they are read": Plant(
        "local_gocor/kernel.cuh",
        "turn_ ^= 1;",
        "",
        THREAD,
        "ThreadSanitizer: data race",
    ),
    "features overwritten while they are used": Plant(
        "local_gocor/kernel.cuh",
        "sync_block();  // what was taken before is done with, too: its place is free",
        "",
        THREAD,
        "ThreadSanitizer: data race",
    ),
    "features read before they are there": Plant(
        "local_gocor/kernel.cuh",
        "wait_copies<Tile::SLOTS - 2>();",
        "",
        ("-DGOCOR_FIBERS",),
        "a copy that nobody waited for",
    ),
    "volume written where features still are": Plant(
        "local_gocor/kernel.cuh",
        "    sync_block();\n    optimizer.keep_products(slots);",
        "    optimizer.keep_products(slots);",
        THREAD,
        "ThreadSanitizer: data race",
    ),
    "a map too small": Plant(
        "local_gocor/kernel.cuh",
        "MAP = MAP_ORIGIN + (SIDE + 1) * MAP_PITCH;",
        "MAP = MAP_ORIGIN + SIDE * MAP_PITCH;",
        ADDRESS,
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "copies not waited for": Plant(
        "local_correlation_transpose/kernel.cuh",
        "wait_copies<0>();",
        "",
        ("-DGOCOR_FIBERS",),
        "a copy that nobody waited for",
    ),
}


# Of each kind of mistake one is enough in the fast tests: every one is a compilation.
SLOW_PLANTS = [
    PLANTS["features overwritten while they are used"],
    PLANTS["features read before they are there"],
    PLANTS["a map too small"],
    PLANTS["volume written where features still are"],
]
EACH_PLANT = [
    pytest.param(plant, id=name, marks=pytest.mark.slow if plant in SLOW_PLANTS else ())
    for name, plant in PLANTS.items()
]


@pytest.mark.parametrize("plant", EACH_PLANT)
def test_planted_mistake_is_found(plant: Plant, tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    for folder in ("native", *(schema.torch_name for schema in KERNELS.values())):
        shutil.copytree(PLUGINS / folder, plugins / folder, ignore=shutil.ignore_patterns("__pycache__"))
    source = (plugins / plant.file).read_text()
    assert source.count(plant.right) == 1
    (plugins / plant.file).write_text(source.replace(plant.right, plant.wrong))
    only = ONLY_FUSED if plant.file.startswith("local_gocor/") else ONLY_CORRELATIONS
    flags = (*plant.flags, radii(4), only)
    program = compile_host(tmp_path / "planted", [HARNESS / "sanitize.cpp"], flags, plugins)
    result = run_sanitized(program)
    assert result.returncode != 0
    assert plant.report in result.stderr
