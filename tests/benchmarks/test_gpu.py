"""What of the GPU benchmark can be known without a GPU.

Its table of cases runs here on the kernels' host twins, behind a stand-in for the CUDA driver, through the
very code that launches them there.
"""

import contextlib
import dataclasses
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from golden import relative_l2

from gocor.core.errors import ConfigError, DependencyError, GocorError, ModelError, ProviderError
from gocor.export.networks import create_network
from gocor.export.networks.local_gocor import LocalGOCor
from gocor.plugins.launch import Launch
from gocor.plugins.registry import CORRELATIONS, KERNELS

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import gpu
from on_gpu import (
    correctness,
    engines,
    facts,
    kernel_times,
    kernels,
    networks,
    operators,
    parts,
    peers,
    run_once,
    sanitizer,
    show,
    timing,
)  # fmt: skip
from on_gpu.driver import Driver, DriverError
from on_gpu.levels import BYTES, LEVELS, RADIUS, SIZES, Level, Limits, Work, attributes, works
from on_gpu.results import (
    CheckRow,
    EngineRow,
    NetworkRow,
    Part,
    Results,
    SanitizerRow,
    TimeRow,
    load,
)
from shift_correlation import replaced_correlations

ROOT = Path(__file__).parents[2]
RADII = (1, 4)
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a library that stands in for libcuda.so.1; has the kernels of radius 1 and 4."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the host twins of the kernels")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so"
    sources = [ROOT / "plugins/native/host/launch.cpp", ROOT / "tests/benchmarks/fake_driver.cpp"]
    radii = "GOCOR_RADII(X)=" + " ".join(f"X({radius})" for radius in RADII)
    options = ["-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-DGOCOR_FIBERS", f"-D{radii}"]
    command = ["g++", *options, f"-I{ROOT / 'plugins'}", *map(str, sources), "-o", str(library)]
    subprocess.run(command, check=True)
    return str(library)


@pytest.fixture
def host_kernels(fake_driver: str) -> kernels.Kernels:
    return kernels.Kernels(Driver(fake_driver))


# ── the table of cases


@pytest.mark.parametrize("radius", RADII)
def test_the_table_on_the_host(host_kernels: kernels.Kernels, radius: int) -> None:
    """All but the largest shapes, which take the host long."""
    for case in correctness.cases(correctness.SHAPES[:-2], (radius,)):
        rows = list(correctness.check(host_kernels, case, CPU))
        assert [row.offset for row in rows] == list(correctness.OFFSETS)
        for row in rows:
            assert row.passed, row


def test_the_table_has_every_kernel_aligned_and_not() -> None:
    table = list(correctness.cases())
    assert {(c.operator, c.dtype, c.radius) for c in table} == {
        (operator, dtype, radius) for operator in KERNELS for dtype in BYTES for radius in range(1, 9)
    }
    assert 0 in correctness.OFFSETS
    assert any(offset % 2 for offset in correctness.OFFSETS)
    timed = {(c.operator, c.dtype, c.shape) for c in correctness.level_cases()}
    assert timed == {(w.operator, w.dtype, w.level.shape) for w in works()}


CASE = correctness.Case("LocalCorrelation", "float32", 4, (1, 40, 19, 64))


def test_an_output_that_is_not_written_is_noticed(
    host_kernels: kernels.Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_tile_less(*arguments: int) -> Launch:
        launch = kernels.correlation.launch(*arguments)
        return dataclasses.replace(launch, grid=(launch.grid[0] - 1, *launch.grid[1:]))

    monkeypatch.setitem(kernels.LAUNCHES, CASE.operator, one_tile_less)
    for row in correctness.check(host_kernels, CASE, CPU):
        assert (row.passed, row.relative_l2, row.outside) == (False, None, False)


def test_a_write_beside_the_output_is_noticed(
    host_kernels: kernels.Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = host_kernels.launch

    def shifted(*arguments: object) -> None:
        *before, (*inputs, output), stream = arguments
        launch(*before, (*inputs, output - 4), stream)

    monkeypatch.setattr(host_kernels, "launch", shifted)
    for row in correctness.check(host_kernels, CASE, CPU):
        assert row.outside
        assert not row.passed


def test_one_wrong_element_in_a_large_output_is_noticed(
    host_kernels: kernels.Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its relative L2 error would pass in float16, which is why the worst element is looked at as well."""
    exact = correctness._expected

    def off_by_one_element(*arguments: object) -> torch.Tensor:
        expected = exact(*arguments)
        expected[0, 0, 9, 9] += 0.03 * expected.abs().max()
        return expected

    monkeypatch.setattr(correctness, "_expected", off_by_one_element)
    row = next(correctness.check(host_kernels, dataclasses.replace(CASE, dtype="float16"), CPU))
    assert row.relative_l2 <= CORRELATIONS[CASE.operator].tolerances["float16"]
    assert row.worst == pytest.approx(0.03, rel=0.1)
    assert not row.passed


def test_the_large_cases_have_the_same_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    for operator in KERNELS:
        case = dataclasses.replace(CASE, operator=operator, shape=(2, 30, 40, 50))
        inputs = case.inputs()
        assert inputs[1].size >= 1e5  # computed by shifts
        expected = correctness.REFERENCES[operator](
            *(array.astype(np.float64) for array in inputs), **attributes(operator, case.radius)
        )
        assert relative_l2(correctness._expected(case, inputs, CPU), expected) < 1e-12


# ── the driver


def test_without_a_driver(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"^GPU: no CUDA GPU; libnone\.so cannot be loaded; .*libnone"):
        Driver("libnone.so")


def test_ptx_that_the_driver_refuses(fake_driver: str) -> None:
    expected = (
        r"^some_kernel: cuModuleLoadDataEx failed: error 218, a PTX JIT .* failed; ptxas: line 1 is garbage"
    )
    with pytest.raises(DriverError, match=expected):
        Driver(fake_driver).load(b"garbage", "some_kernel")


def test_ptx_without_the_entry_point(fake_driver: str) -> None:
    with pytest.raises(DriverError, match=r"^missing: cuModuleGetFunction failed: error 500"):
        Driver(fake_driver).load(b".visible .entry other(", "missing")


def test_a_launch_that_the_driver_refuses(host_kernels: kernels.Kernels) -> None:
    kernel = host_kernels.kernel("LocalCorrelation", "float32", 4)
    with pytest.raises(
        DriverError, match=r"^gocor_local_correlation_f32_r4: cuLaunchKernel failed: error 719"
    ):
        host_kernels.driver.launch(kernel, (1, 1, 1), 999, 0, 0, [kernels.ctypes.c_int(1)] * 7)


def test_the_driver_tells_of_the_kernel(host_kernels: kernels.Kernels) -> None:
    kernel = host_kernels.kernel("LocalCorrelation", "float16", 4)
    assert kernel.name == "gocor_local_correlation_f16_r4"
    # The stand-in answers with 100 and the number of the attribute, as in cuda.h.
    assert (kernel.shared_bytes, kernel.local_bytes, kernel.registers) == (101, 103, 104)
    assert host_kernels.kernel("LocalCorrelation", "float16", 4) is kernel


def test_nvcc_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DependencyError, match=r"^nvcc: is not on PATH; leave --nvcc out"):
        kernels.Nvcc("sm_90")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")
def test_nvcc_compiles_and_explains() -> None:
    name, image = kernels.Nvcc("sm_80")("LocalCorrelation", "float16", 1)
    assert name == "gocor_local_correlation_f16_r1"
    assert image[:4] == b"\x7fELF"
    assert name.encode() in image
    with pytest.raises(DriverError, match=r"kernel\.cuh: nvcc does not compile it; .*error"):
        kernels.Nvcc("sm_80")("LocalCorrelation", "float16", -1)


# ── compute-sanitizer


def test_the_watched_process(fake_driver: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--driver={fake_driver}", "--radius=1"]
    assert run_once.main(arguments) == 0
    assert run_once.main([*arguments, f"--plant={run_once.NO_BARRIERS}"]) == 0
    assert capsys.readouterr().err == ""
    with mock.patch.dict(run_once.REFERENCES, LocalCorrelation=lambda *_, **__: np.ones(1)):
        assert run_once.main(arguments) == 1
    assert "wrong result: LocalCorrelation float32 radius 1 (2, 5, 7, 9) + 0" in capsys.readouterr().err
    assert run_once.main(["--driver=libnone.so"]) == 2
    assert capsys.readouterr().err.startswith("GPU: no CUDA GPU")


@pytest.mark.parametrize(("plant", "missing"), [("", 0), (run_once.OUT_OF_BOUNDS, 4)])
def test_allocations_end_where_the_arrays_do(fake_driver: str, plant: str, missing: int) -> None:
    watched = kernels.Kernels(Driver(fake_driver))
    with mock.patch.object(watched.driver, "allocate", wraps=watched.driver.allocate) as allocate:
        assert run_once._is_right(watched, ("LocalCorrelation", "float32", 1), (1, 2, 3, 4), 1, plant)
    sizes = [call.args[0] for call in allocate.call_args_list]
    assert sizes == [100, 100, 4 * (9 * 12 + 1) - missing]


@pytest.mark.parametrize("operator", KERNELS)
@pytest.mark.parametrize("dtype", BYTES)
def test_barriers_can_be_taken_out(operator: str, dtype: str) -> None:
    assert b"bar.sync" in kernels.packaged(operator, dtype, 4)[1]
    assert b"bar.sync" not in run_once.without_barriers(kernels.packaged)(operator, dtype, 4)[1]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a program called compute-sanitizer on PATH; gives the file where it leaves its arguments."""

    def install(script: str) -> Path:
        program = tmp_path / "compute-sanitizer"
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n{script}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path))
        return tmp_path / "arguments"

    return install


def test_sanitizer_that_finds_nothing(tool: Callable[[str], Path]) -> None:
    arguments = tool("echo '========= COMPUTE-SANITIZER'; echo '========= ERROR SUMMARY: 0 errors'; echo bye")
    row = sanitizer.sanitize("memcheck", "", (4, 5))
    assert (row.passed, row.summary) == (True, "ERROR SUMMARY: 0 errors")
    run = f"{sys.executable} -m on_gpu.run_once --radius=4 --radius=5"
    assert arguments.read_text().strip() == f"--tool memcheck --error-exitcode 9 {run}"


@pytest.mark.parametrize(
    ("planted", "code", "passed"),
    [
        ("", 9, False),
        ("", 1, False),
        ("no-barriers", 9, True),
        ("no-barriers", 0, False),
        ("no-barriers", 1, False),
    ],
)
def test_a_planted_fault_has_to_be_found_and_no_other(
    tool: Callable[[str], Path], planted: str, code: int, passed: bool
) -> None:
    arguments = tool(f"echo '========= RACECHECK SUMMARY: {code} hazards' >&2; exit {code}")
    row = sanitizer.sanitize("racecheck", planted, ())
    assert (row.passed, row.summary) == (passed, f"RACECHECK SUMMARY: {code} hazards")
    assert ("--radius=4 --plant=no-barriers" in arguments.read_text()) == bool(planted)


def test_sanitizer_that_hangs(tool: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tool("while :; do :; done")
    monkeypatch.setattr(sanitizer, "TIMEOUT", 0.2)
    row = sanitizer.sanitize("memcheck", "", ())
    assert (row.passed, row.summary) == (False, "SUMMARY: stopped after 0.2 s")


def test_sanitizer_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sanitizer, "TOOLKIT", tmp_path)
    with pytest.raises(
        DependencyError, match=r"^compute-sanitizer: is neither on PATH nor in .*; it is in the CUDA"
    ):
        sanitizer.program()


def test_every_tool_but_one_proves_that_it_sees() -> None:
    plan = list(sanitizer.runs(quick=False))
    assert {tool for tool, planted in plan if not planted} == set(sanitizer.PLANTS)
    assert {tool for tool, planted in plan if planted} == set(sanitizer.PLANTS) - {"synccheck"}
    assert {tool for tool, _ in sanitizer.runs(quick=True)} == {"memcheck", "racecheck"}


# ── work and floors


@pytest.mark.parametrize("name", SIZES)
def test_levels_are_those_of_the_networks(name: str) -> None:
    asked = set()

    def correlation(reference: torch.Tensor, query: torch.Tensor, radius: int) -> torch.Tensor:
        asked.add((tuple(query.shape), radius))
        return reference.new_empty(
            CORRELATIONS["LocalCorrelation"].check(reference.shape, query.shape, radius=radius)
        )

    def transpose(volume: torch.Tensor, query: torch.Tensor, radius: int) -> torch.Tensor:
        asked.add((tuple(query.shape), radius))
        return torch.empty_like(query)

    network = create_network(name).to("meta").eval()
    sizes = [SIZES[name]] * 2 + [(256, 256)] * (len(network.spec.tensor_inputs) - 2)
    with torch.inference_mode(), replaced_correlations(correlation, transpose):
        network(*(torch.empty(1, 3, *size, device="meta") for size in sizes))
    family = name.split("_")[0].replace("Net", "-Net")
    assert asked == {(level.shape, RADIUS) for level in LEVELS if level.network.split()[0] == family}


def test_bytes_and_flops() -> None:
    correlation, transpose = (Work(name, LEVELS[0], "float16") for name in CORRELATIONS)
    pixels = 112 * 256
    assert correlation.bytes == transpose.bytes == 2 * pixels * (32 + 32 + 81)
    assert dataclasses.replace(correlation, dtype="float32").bytes == 2 * correlation.bytes
    assert correlation.flops == transpose.flops == 2 * 32 * 81 * pixels
    assert correlation.feature_shapes[0] == correlation.level.shape == transpose.output_shape
    assert transpose.feature_shapes[0] == correlation.output_shape == (1, 81, 112, 256)
    fused = dataclasses.replace(correlation, operator="LocalGOCor")
    assert (fused.bytes, fused.flops) == (correlation.bytes, 8 * correlation.flops)
    for work in works():
        elements = sum(map(np.prod, (*work.feature_shapes, work.output_shape)))
        assert work.bytes == BYTES[work.dtype] * elements


def test_floors() -> None:
    limits = Limits(copy_gb_per_s=1000.0, tflops={"float32": 50.0, "float16": 500.0}, launch_us=1.0)
    work = Work("LocalCorrelation", LEVELS[0], "float16")
    assert limits.memory_us(work) == pytest.approx(8.314880)  # 8,314,880 bytes at 1 GB a ms
    assert limits.arithmetic_us(work) == pytest.approx(148_635_648 / 500e12 * 1e6)


def test_tensor_sets_exceed_the_cache() -> None:
    megabyte = 1 << 20
    assert kernel_times.tensor_sets(8 * megabyte, 50 * megabyte) * 8 > 3 * 50
    assert kernel_times.tensor_sets(1, 50 * megabyte) == 4096
    assert kernel_times.tensor_sets(1 << 40, 50 * megabyte) == 1


def test_timing_statistics() -> None:
    time = timing.timing([4.0, 1.0, 2.0, 3.0, 100.0], 7)
    assert (time.median_us, time.spread_us, time.minimum_us, time.calls) == (3.0, 2.0, 1.0, 7)
    assert time.samples_us == (4.0, 1.0, 2.0, 3.0, 100.0)


@pytest.mark.parametrize("operator", KERNELS)
@pytest.mark.parametrize("radius", [1, 4])
def test_peers_compute_the_same(host_kernels: kernels.Kernels, operator: str, radius: int) -> None:
    case = correctness.Case(operator, "float32", radius, (2, 5, 9, 13))
    inputs = [torch.from_numpy(array) for array in case.inputs()]
    expected = correctness.REFERENCES[operator](*case.inputs(), **attributes(operator, radius))
    table = peers.peers(operator, host_kernels)
    if operator in peers.WINDOWS:
        table["compiled"] = peers.WINDOWS[operator]
    for peer in table.values():
        actual = peer(*inputs, radius)
        assert actual.is_contiguous()
        assert relative_l2(actual, expected) < 2e-6


@pytest.mark.parametrize("operator", CORRELATIONS)
def test_the_compiled_peer_compiles_whole(operator: str) -> None:
    case = correctness.Case(operator, "float32", 4, (1, 5, 9, 13))
    inputs = [torch.from_numpy(array) for array in case.inputs()]
    compiled = torch.compile(peers.WINDOWS[operator], fullgraph=True, dynamic=False, backend="eager")
    assert relative_l2(compiled(*inputs, 4), peers.WINDOWS[operator](*inputs, 4)) == 0


def test_networks_with_our_kernels(host_kernels: kernels.Kernels) -> None:
    torch.manual_seed(0)
    network = create_network("PWCNet_GOCor", local_iterations=1).eval()
    images = torch.rand(2, 1, 3, 64, 64)
    with torch.inference_mode():
        expected = network(*images)[-1]
        with operators.kernel_correlations(host_kernels):
            actual = network(*images)[-1]
    assert relative_l2(actual, expected) < 1e-4
    assert not torch.equal(actual, expected)  # that is, something else did compute them


def test_networks_with_the_fused_kernel(
    host_kernels: kernels.Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    launch = host_kernels.launch

    def noted(*arguments: object) -> None:
        launched.append(arguments[0])
        launch(*arguments)

    monkeypatch.setattr(host_kernels, "launch", noted)
    torch.manual_seed(0)
    network = create_network("PWCNet_GOCor").eval()
    images = torch.rand(2, 1, 3, 64, 64)
    with torch.inference_mode():
        expected = network(*images)[-1]
        with operators.fused_kernels(host_kernels, network):
            actual = network(*images)[-1]
    assert launched == ["LocalGOCor"] * 5
    assert relative_l2(actual, expected) < 1e-4
    assert not any(module.fused for module in network.modules() if isinstance(module, LocalGOCor))


class FakeEvent:
    """Of which two are always half a millisecond apart."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        pass

    def elapsed_time(self, end: "FakeEvent") -> float:
        return 0.5


class FakeGraph:
    """Counts its replays."""

    replays = 0

    def replay(self) -> None:
        FakeGraph.replays += 1


class CpuTorch:
    """PyTorch whose CUDA device is this CPU: each line that measures is run before it meets a GPU."""

    cuda = SimpleNamespace(
        Event=FakeEvent,
        synchronize=lambda: None,
        CUDAGraph=FakeGraph,
        graph=contextlib.nullcontext,
        get_device_properties=lambda index: SimpleNamespace(L2_cache_size=1 << 16),
    )

    def __getattr__(self, name: str) -> object:
        value = getattr(torch, name)
        if name not in ("empty", "ones", "randn"):
            return value
        return lambda *size, device, **options: value(*size, **options)

    def device(self, name: str) -> torch.device:
        assert name == "cuda"
        return CPU


@pytest.fixture
def no_gpu_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (timing, kernel_times, networks):
        monkeypatch.setattr(module, "torch", CpuTorch())
    monkeypatch.setattr(timing, "COPY_ELEMENTS", 100)
    monkeypatch.setattr(timing, "MATMUL_SIDES", {"float32": 8, "float16": 16})
    monkeypatch.setattr(FakeGraph, "replays", 0)


@pytest.mark.usefixtures("no_gpu_needed")
def test_limits_from_times(host_kernels: kernels.Kernels) -> None:
    limits = timing.measure_limits(host_kernels, 3)
    assert limits.copy_gb_per_s == pytest.approx(2 * 400 / 0.5e-3 / 1e9)
    assert limits.tflops["float16"] == pytest.approx(2 * 16**3 / 0.5e-3 / 1e12)
    assert limits.launch_us == pytest.approx(500 / 200)


@pytest.mark.usefixtures("no_gpu_needed")
def test_samples() -> None:
    calls: list[int] = []
    in_graph = timing.graph_time(calls.append, 5, 7)
    assert calls == [*range(timing.WARM_UP), *range(5)]  # captured once,
    assert FakeGraph.replays == 1 + 7  # then replayed
    calls.clear()
    called = timing.call_time(calls.append, 5, 7)
    assert calls == [*range(timing.WARM_UP), *(list(range(5)) * 7)]
    assert in_graph == called
    assert in_graph.samples_us == (100.0,) * 7


@pytest.mark.usefixtures("no_gpu_needed")
@pytest.mark.parametrize("operator", KERNELS)
@pytest.mark.parametrize("dtype", BYTES)
def test_a_row_of_times(
    host_kernels: kernels.Kernels, monkeypatch: pytest.MonkeyPatch, operator: str, dtype: str
) -> None:
    def fails(*inputs: object) -> torch.Tensor:
        raise RuntimeError("no\ncompiler")

    monkeypatch.setattr(peers.torch, "compile", lambda *arguments, **options: fails)
    limits = Limits(copy_gb_per_s=1000.0, tflops={dtype: 1000.0}, launch_us=1.0)
    fused = operator == "LocalGOCor"
    # A hundred calls as on a GPU take the host too long.
    monkeypatch.setattr(
        kernel_times, "graph_time", lambda call, _, samples: timing.graph_time(call, 5, samples)
    )
    work = Work(operator, Level("PWC-Net 448×1024", "2", (1, 8, 8, 16)), dtype)
    row = kernel_times.time_row(host_kernels, work, limits, 3)
    assert (row.bytes, row.flops, row.registers) == (work.bytes, work.flops, 104)
    assert row.floor_us == limits.memory_us(work)
    names = {"shifts", "tiles"} | ({"unrolled"} if fused else set())
    assert set(row.times) == {"kernel", "kernel, L2"} | names | {f"{name}, graph" for name in names}
    assert row.failed == ({} if fused else {"compiled": "no compiler"})
    assert set(row.errors) == {"kernel"} | names
    assert max(row.errors.values()) < (1e-5 if dtype == "float32" else 5e-3)


@pytest.mark.usefixtures("no_gpu_needed")
def test_a_row_of_a_network(host_kernels: kernels.Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "PWCNet", (64, 64))
    row = networks.time_network(host_kernels, "PWCNet", 2)
    assert (row.network, row.size, set(row.times)) == ("PWCNet", (64, 64), {"kernels", "tiles", "shifts"})
    assert row.error < 1e-4


# ── engines


def test_engines_without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"^engines: TensorRT is not installed; pip install"):
        next(engines.time_engines("PWCNet", 3))


def test_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def gocor(*arguments: object) -> str:
        commands.append([str(argument) for argument in arguments])
        if arguments[0] == "bench":
            arguments[-1].write_text(json.dumps({"results": [{"times_ms": [3.0, 1.0, 2.0]}]}))
        return json.dumps({"build_seconds": 4.5, "manifest": {"library_version": "11.4.0"}})

    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: "there")
    monkeypatch.setattr(engines, "export_onnx", lambda *arguments, **options: None)
    monkeypatch.setattr(engines, "gocor", gocor)
    rows = list(engines.time_engines("PWCNet", 3))
    assert [(row.plugins, row.tensorrt, row.build_seconds) for row in rows] == [
        ("auto", "11.4.0", 4.5),
        ("none", "11.4.0", 4.5),
    ]
    assert rows[0].times["engine"].median_us == 2000.0
    assert [command[0] for command in commands] == ["build", "bench"] * 2
    assert commands[0][commands[0].index("--plugins") + 1] == "auto"


def test_a_command_that_fails() -> None:
    expected = r"^gocor bench: failed with exit code 2; error: .*no\.engine: .*"
    with pytest.raises(engines.CommandError, match=expected):
        engines.gocor("bench", "no.engine")


# ── results


def time(median: float) -> timing.Timing:
    return timing.timing([median - 0.1, median, median + 0.1], 100)


def time_row(operator: str, dtype: str, level: int, kernel: float) -> TimeRow:
    times = {"kernel": kernel, "kernel, L2": 2.0, "shifts": 1500.0, "shifts, graph": 400.0, "tiles": 300.0}
    work = Work(operator, LEVELS[level], dtype)
    return TimeRow(
        operator,
        work.level.network,
        work.level.name,
        work.level.shape,
        dtype,
        work.bytes,
        work.flops,
        2.8,
        0.2,
        96,
        0,
        {name: time(value) for name, value in times.items()},
        dict.fromkeys(times, 0.0001),
        {"compiled": "there is no compiler"},
    )


@pytest.fixture
def results() -> Results:
    """As a machine would write them, with figures that no machine measured."""
    kernel_facts = {
        "limits": {"copy_gb_per_s": 3000.0, "tflops": {"float32": 50.0, "float16": 700.0}, "launch_us": 1.2},
        "clocks_before": {"clocks.sm": "1980 MHz"},
        "clocks_after": {"clocks.sm": "1950 MHz"},
    }
    checks = (
        CheckRow("LocalCorrelation", "float16", 4, (1, 2, 3, 4), 0, 2e-4, 4e-4, False, True),
        CheckRow("LocalCorrelation", "float16", 5, (1, 2, 3, 4), 1, None, None, True, False),
    )
    rows = {
        "correctness": checks,
        "sanitizer": (SanitizerRow("racecheck", "no-barriers", True, "RACECHECK SUMMARY: 7 hazards", 3.0),),
        "kernels": (
            time_row("LocalCorrelation", "float16", 0, 3.5),
            time_row("LocalCorrelation", "float32", 1, 2.5),
            time_row("LocalCorrelationTranspose", "float16", 0, 5.6),
        ),
        "networks": (NetworkRow("PWCNet", (448, 1024), "float32", {"kernels": time(9000.0)}, 1e-6),),
    }
    done = {
        name: Part("done", "", "2026-01-02 03:04", "abc", False, "PTX 123", 60.0, {}, row)
        for name, row in rows.items()
    }
    done["kernels"] = dataclasses.replace(done["kernels"], facts=kernel_facts)
    done["engines"] = Part("not run", "TensorRT is not installed")
    gpu_facts = {
        "name": "An Imagined GPU", "compute_capability": "9.0", "driver": "580.1", "cuda": "13.0",
        "torch": "2.13", "multiprocessors": 132, "memory_gib": 79.6, "l2_mib": 50.0,
    }  # fmt: skip
    return Results(gpu_facts, {"cpu": "some"}, done)


def test_results_come_back(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "gpu.json")
    assert load(tmp_path / "gpu.json") == results


def test_engine_rows_come_back(tmp_path: Path) -> None:
    row = EngineRow("PWCNet", (448, 1024), "auto", "11.4.0", 60.0, {"engine": time(5000.0)})
    results = Results({}, {}, {"engines": Part("done", rows=(row,))})
    results.save(tmp_path / "gpu.json")
    assert load(tmp_path / "gpu.json") == results


def test_results_of_two_runs(results: Results, tmp_path: Path) -> None:
    later = dataclasses.replace(results, parts={"kernels": Part("failed", "out of memory")})
    both = later.added_to(results, tmp_path)
    assert both.parts["kernels"].status == "failed"
    assert both.parts["correctness"] == results.parts["correctness"]
    other = dataclasses.replace(results, gpu={**results.gpu, "driver": "600.1"})
    expected = r"gpu\.json: has results of An Imagined GPU, driver 600\.1; give another --out"
    with pytest.raises(ConfigError, match=expected):
        results.added_to(other, Path("gpu.json"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "holds no results of this benchmark"),
        ('{"gpu": {}}', "holds no results of this benchmark"),
        ('{"gpu": {}, "machine": {}, "parts": {"other": {}}, "format": 1}', "holds no results"),
        ('{"gpu": {}, "machine": {}, "parts": {}, "format": 9}', "has format 9; expected 1"),
        (None, "cannot be read (No such file or directory); a file that this benchmark wrote"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: str | None, expected: str) -> None:
    path = tmp_path / "gpu.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


def test_markdown(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.save(tmp_path / "gpu.json")
    gpu.main(show=tmp_path / "gpu.json")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "### An Imagined GPU"
    assert "| LocalCorrelation | float16 | 1 of 2 | not a number | not a number |" in lines
    assert any(line.startswith("FAILED: LocalCorrelation float16 radius 5") for line in lines)
    assert "| racecheck | fault planted: no-barriers | yes | RACECHECK SUMMARY: 7 hazards |" in lines
    level, ours = "PWC-Net 2 | float16 | 32×112×256", "3.50 ± 0.10 | 2.00 ± 0.10 | 2.80 m | 80 %"
    assert f"| {level} | {ours} | 1500 (400) | - | 300 | 428.6 | - |" in lines
    assert (
        "PWC-Net's level 2, float16: 80 % of the floor (met: at least 70 %), "
        "429 times as fast as 81 shifts (met: at least 10)." in lines
    )
    assert any("50 % of the floor (missed: 70 %)" in line for line in lines)
    assert "compiled did not run: there is no compiler" in lines
    assert "| PWCNet | 448×1024 | 9.00 ± 0.00 | 1.0e-06 |" in lines
    assert "not run: TensorRT is not installed" in lines
    for number, line in enumerate(lines):  # a table has as many cells in each line, and an empty line before
        if line.startswith("| ---"):
            assert line.count("|") == lines[number - 1].count("|") == lines[number + 1].count("|")
            assert lines[number - 2] == ""


def test_a_part_that_broke_off_is_shown_as_far_as_it_came(results: Results) -> None:
    part = results.parts["kernels"]
    found = {name: fact for name, fact in part.facts.items() if name != "clocks_after"}
    broken = dataclasses.replace(part, status="failed", reason="out of memory", facts=found)
    printed = show.markdown(dataclasses.replace(results, parts={"kernels": broken}))
    assert "failed: out of memory" in printed
    assert "| PWC-Net 2 | float16 |" in printed
    assert "clocks.sm 1980 MHz; after: unknown." in printed


def test_tables_in_the_terminal(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    bracket = Part("not run", 'pip install "gocor-deploy[tensorrt]"')
    gpu.print_results(dataclasses.replace(results, parts={**results.parts, "engines": bracket}))
    printed = capsys.readouterr().out
    assert "An Imagined GPU" in printed
    assert "1500 (400)" in printed
    assert "gocor-deploy[tensorrt]" in printed
    assert [block.title for block in show.blocks(results)][:2] == [
        "An Imagined GPU",
        show.TITLES["correctness"],
    ]


# ── parts and the command


def nobody(done: int, total: int | None, text: str) -> None:
    """Takes the place of a progress bar."""


def test_a_quick_run_of_the_table(host_kernels: kernels.Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = ((1, 196, 6, 8), (1, 17, 9, 24))  # the real ones are for a GPU
    monkeypatch.setattr(parts, "QUICK_SHAPES", shapes)
    part = parts.run_part("correctness", parts.Setting(host_kernels, "host", True, "cpu"), nobody)
    assert (part.status, part.reason, part.passed, part.kernels) == ("done", "", True, "host")
    assert len(part.rows) == len(KERNELS) * 2 * len(shapes) * len(correctness.OFFSETS)
    assert {kernel["registers"] for kernel in part.facts["kernels"]} == {104}
    json.dumps(part.facts)


@pytest.mark.parametrize(
    ("error", "status", "passed"),
    [
        (DependencyError("tool", "is not there"), "not run", True),
        (GocorError("CUDA driver", "failed"), "failed", False),
        (RuntimeError("CUDA error:\nan illegal memory access"), "failed", False),
    ],
)
def test_what_stops_a_part_is_recorded_with_what_was_found_before(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, passed: bool
) -> None:
    def run(setting: object, rows: list[object], found: dict[str, object], report: object) -> None:
        rows.append(1)
        raise error

    monkeypatch.setitem(parts.RUNNERS, "kernels", run)
    part = parts.run_part("kernels", parts.Setting(None, "", False), nobody)
    assert (part.status, part.passed, part.rows) == (status, passed, (1,))
    assert part.reason == str(error).replace("\n", " ")


def test_every_part_is_saved_at_once(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "gpu.json", []

    def run_part(name: str, setting: parts.Setting, report: object) -> Part:
        seen.append(sorted(load(out).parts) if out.exists() else [])
        assert setting.origin.startswith("PTX ")
        return results.parts[name]

    monkeypatch.setattr(parts, "run_part", run_part)
    monkeypatch.setattr("on_gpu.driver.Driver", lambda: None)
    empty = dataclasses.replace(results, parts={})
    gpu.measure(empty, ["correctness", "kernels"], out, quick=True, nvcc=False)
    assert seen == [[], ["correctness"]]
    assert load(out).parts == {name: results.parts[name] for name in ("correctness", "kernels")}


def test_which_parts_run() -> None:
    assert gpu._plan(["kernels", "correctness"], no_sanitizer=False) == ["correctness", "kernels"]
    assert "sanitizer" not in gpu._plan(list(gpu.PARTS), no_sanitizer=True)
    with pytest.raises(ConfigError, match=r"^--part: is speed; one of correctness, sanitizer, kernels"):
        gpu._plan(["speed"], no_sanitizer=False)


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("not run", 0), ("failed", 1)])
def test_the_command(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    """Adds to the file named after the GPU; its exit code is of what was run now."""
    monkeypatch.setattr(facts, "require_gpu", lambda: None)
    monkeypatch.setattr(facts, "gpu_facts", lambda: results.gpu)
    monkeypatch.setattr(gpu, "FOLDER", tmp_path)
    results.save(tmp_path / "an-imagined-gpu.json")  # in which a check has failed

    def measure(earlier: Results, plan: list[str], out: Path, *, quick: bool, nvcc: bool) -> Results:
        assert (earlier.parts, out, quick) == (results.parts, tmp_path / "an-imagined-gpu.json", False)
        return dataclasses.replace(
            earlier, parts={**earlier.parts, **dict.fromkeys(plan, Part(status, "so"))}
        )

    monkeypatch.setattr(gpu, "measure", measure)
    with pytest.raises(gpu.typer.Exit) as caught:
        gpu.main(part=["engines"])
    assert caught.value.exit_code == code


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_refusal_without_a_gpu() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: GPU: no CUDA GPU; PyTorch ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_the_documentation_shows_the_results_that_are_kept() -> None:
    document = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    files = sorted((ROOT / "benchmarks/results").glob("*.json"))
    kept = [path for path in files if "gpu" in json.loads(path.read_text(encoding="utf-8"))]
    assert ("No GPU was at hand" in document) == (not kept)
    for path in kept:
        assert show.markdown(load(path)) in document, path


def test_refusal_of_an_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(
        ProviderError, match=r"^GPU: Tesla T4 has compute capability 7\.5; the kernels need 8\.0"
    ):
        facts.require_gpu()


def test_refusal_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DependencyError, match=r"^torch: cannot be imported"):
        facts.require_gpu()


def test_where_the_kernels_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts.ptx, "stale_sources", list)
    origin = facts.packaged_kernels()
    assert len(origin) == len("PTX ") + 12
    monkeypatch.setattr(facts.ptx, "stale_sources", lambda: ["native/device.cuh"])
    assert facts.packaged_kernels() == origin + " (older than the sources: make ptx)"
