"""The PTX that is shipped: current, the same on every machine, and fit for every GPU from Ampere on."""

import locale
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from gocor.core.errors import ConfigError, DependencyError, ModelError
from gocor.plugins import nvrtc, ptx
from gocor.plugins.launch import SUFFIXES, entry_point
from gocor.plugins.nvrtc import Nvrtc
from gocor.plugins.ptx import Variant
from gocor.plugins.registry import KERNELS

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
ALL = list(ptx.variants())
EACH = pytest.mark.parametrize("variant", ALL, ids=[variant.name for variant in ALL])
CORRELATION = KERNELS["LocalCorrelation"]
NUMBERS = {"LocalGOCor": 5}  # N, C, H, W, iterations


@pytest.fixture(scope="module")
def compiler() -> Nvrtc:
    try:
        return Nvrtc()
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def ptxas() -> str:
    wheel = Path(sysconfig.get_path("purelib"), "nvidia/cuda_nvcc/bin")
    if found := shutil.which("ptxas") or shutil.which("ptxas", path=str(wheel)):
        return found
    pytest.skip("there is no ptxas: a CUDA toolkit, or pip install nvidia-cuda-nvcc-cu12")


# ── what is committed


def test_every_operator_dtype_and_radius_is_there() -> None:
    assert len(ALL) == len(KERNELS) * 2 * 8
    assert {path.name for path in ptx.FOLDER.iterdir()} == {f"{v.name}.ptx" for v in ALL} | {"index.json"}
    assert set(ptx.index()["variants"]) == {variant.name for variant in ALL}


def test_it_stays_small() -> None:
    assert sum(path.stat().st_size for path in ptx.FOLDER.iterdir()) <= 3 << 20


def test_no_kernel_changed_after_it_was_compiled() -> None:
    assert ptx.stale_sources() == [], "run: make ptx"


@EACH
def test_what_a_file_says(variant: Variant) -> None:
    kernel, text = ptx.read(variant.schema.name, variant.dtype, variant.radius)
    assert kernel == entry_point(variant.schema.torch_name, variant.dtype, variant.radius)
    assert re.findall(r"^\.visible \.entry (\w+)\(", text, re.MULTILINE) == [kernel]
    assert re.findall(r"^\.(version|target) (.+)$", text, re.MULTILINE) == [
        ("version", "8.4"),
        ("target", "sm_80"),
    ]
    parameters = re.findall(rf"\.param (\.\w+) {kernel}_param_\d", text)
    schema = variant.schema
    inputs = len(schema.inputs) + len(schema.parameters)
    assert parameters == [".u64"] * inputs + [".u32"] * NUMBERS.get(schema.name, 4) + [".u64"]


@EACH
def test_nothing_of_this_machine_is_in_a_file(variant: Variant) -> None:
    text = variant.path.read_text(encoding="utf-8")
    assert str(ptx.PLUGINS) not in text
    assert not re.search(r"/(home|root|tmp|usr|opt|work)\b", text)


# ── compiling


@EACH
def test_a_file_is_what_the_kernel_compiles_to(variant: Variant, compiler: Nvrtc) -> None:
    fresh = ptx.compile_variant(variant, compiler)
    assert variant.path.read_text(encoding="utf-8") == fresh, "run: make ptx"


def test_compiling_leaves_the_locale(compiler: Nvrtc) -> None:
    before = locale.getpreferredencoding(False)
    compiler.compile("__global__ void kernel() {}", "kernel.cuh")
    assert locale.getpreferredencoding(False) == before


def test_a_source_that_does_not_compile(compiler: Nvrtc) -> None:
    with pytest.raises(ModelError) as caught:
        compiler.compile("__global__ void kernel() { missing(); }", "a/kernel.cuh")
    text = 'a/kernel.cuh: does not compile; a/kernel.cuh(1): error: identifier "missing" is undefined'
    assert str(caught.value) == text


@pytest.mark.parametrize("version", [(12, 3), (12, 9), (13, 5)])
def test_another_compiler_is_refused(version: tuple[int, int]) -> None:
    with pytest.raises(DependencyError) as caught:
        nvrtc.check_version(version)
    assert str(caught.value) == (
        f"NVRTC: is {version[0]}.{version[1]}, whose PTX many drivers refuse; "
        '12.4: pip install "nvidia-cuda-nvrtc-cu12==12.4.*"'
    )


def test_a_wheel_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "WHEEL", "no-such-wheel")
    with pytest.raises(DependencyError) as caught:
        Nvrtc()
    assert (
        str(caught.value) == 'no-such-wheel: is not installed; pip install "nvidia-cuda-nvrtc-cu12==12.4.*"'
    )


def test_a_wheel_that_lacks_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "WHEEL", "pytest")
    monkeypatch.setattr(nvrtc, "LIBRARY", "no/such/library.so")
    with pytest.raises(DependencyError) as caught:
        Nvrtc()
    assert str(caught.value) == f"pytest: lacks no/such/library.so; {nvrtc.INSTALL}"


# ── reading


@pytest.mark.parametrize(
    ("dtype", "radius", "text"),
    [
        ("bfloat16", 4, "dtype of LocalCorrelation: is bfloat16; one of float32, float16"),
        ("float32", 0, "radius: is 0; a whole number from 1 to 16"),
        (
            "float16",
            9,
            "radius of LocalCorrelation: is 9, and CUDA kernels go up to 8; "
            "build with --plugins none, which takes the function body of the model",
        ),
    ],
)
def test_a_kernel_that_there_is_not(dtype: str, radius: int, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ptx.read("LocalCorrelation", dtype, radius)
    assert str(caught.value) == text


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, which ``ptx`` takes for the real one."""
    folder = tmp_path / "ptx"
    shutil.copytree(ptx.FOLDER, folder)
    monkeypatch.setattr(ptx, "FOLDER", folder)
    monkeypatch.setattr(ptx, "INDEX", folder / "index.json")
    ptx.index.cache_clear()
    yield folder
    ptx.index.cache_clear()


def test_a_file_that_was_changed(copied: Path) -> None:
    path = Variant(CORRELATION, "float32", 4).path
    path.write_text(path.read_text().replace("ret;", "trap;"))
    with pytest.raises(ModelError) as caught:
        ptx.read("LocalCorrelation", "float32", 4)
    assert str(caught.value) == (
        f"{path}: is not the PTX that this package was made with; "
        'reinstall gocor-deploy, or run "make ptx" in its source tree'
    )


@pytest.mark.parametrize("name", ["local_correlation_f32_r4.ptx", "index.json"])
def test_a_file_that_is_missing(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(
        ModelError, match=rf"{re.escape(name)}: cannot be read; reinstall gocor-deploy, or run"
    ):
        ptx.read("LocalCorrelation", "float32", 4)


# ── the command


@pytest.fixture
def two_variants(monkeypatch: pytest.MonkeyPatch, copied: Path) -> list[Variant]:
    """Only so many are compiled, to save time."""
    chosen = [Variant(CORRELATION, "float32", 1), Variant(CORRELATION, "float16", 1)]
    monkeypatch.setattr(ptx, "variants", lambda: iter(chosen))
    return chosen


def test_check_after_write(
    two_variants: list[Variant], compiler: Nvrtc, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = two_variants
    first.path.write_text("old")
    assert ptx.main(["--check"]) == 1
    assert capsys.readouterr().err == f"not up to date: {first.name}; run: make ptx\n"
    assert ptx.main(["--write"]) == 0
    assert capsys.readouterr().out == f"2 variants in {ptx.FOLDER}\n"
    assert {path.stem for path in ptx.FOLDER.glob("*.ptx")} == {first.name, second.name}
    assert ptx.main(["--check"]) == 0
    assert capsys.readouterr().out == "up to date\n"


def test_a_changed_source_is_noticed(
    two_variants: list[Variant],
    compiler: Nvrtc,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ptx, "source_hashes", lambda: {"native/device.cuh": "another"})
    assert ptx.main(["--check"]) == 1
    assert capsys.readouterr().err == "not up to date: native/device.cuh; run: make ptx\n"


def test_write_without_the_compiler_leaves_everything(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nvrtc, "WHEEL", "no-such-wheel")
    before = {path: path.read_bytes() for path in copied.iterdir()}
    assert ptx.main(["--write"]) == 2
    assert capsys.readouterr().err.startswith("no-such-wheel: is not installed; pip install ")
    assert {path: path.read_bytes() for path in copied.iterdir()} == before


# ── ptxas: what the driver's translator makes of it


def assemble(ptxas: str, path: Path, architecture: str, folder: Path) -> str:
    """The resource report of a kernel."""
    command = [ptxas, "-v", f"--gpu-name={architecture}", str(path), "-o", str(folder / "kernel.cubin")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "is not defined for option 'gpu-name'" in result.stderr:
        pytest.skip(f"this ptxas does not know {architecture}")
    assert result.returncode == 0, result.stderr
    return result.stderr


def check_resources(ptxas: str, variant: Variant, architecture: str, folder: Path) -> None:
    report = assemble(ptxas, variant.path, architecture, folder)
    numbers = [int(n) for n in re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", report)]
    assert numbers == [0, 0, 0], report
    (registers,) = re.findall(r"Used (\d+) registers", report)
    # Four blocks of 128 threads an SM, or for LocalGOCor two; that one has up to 256 threads beyond radius 4.
    most = {"LocalGOCor": 255}.get(variant.schema.name, 128)
    assert int(registers) <= most, report
    print(f"{variant.name} {architecture}: {re.search(r'Used .*', report)[0]}")


@EACH
def test_kernels_keep_to_registers(variant: Variant, ptxas: str, tmp_path: Path) -> None:
    check_resources(ptxas, variant, "sm_80", tmp_path)


@pytest.mark.parametrize("architecture", ARCHITECTURES[1:])
@pytest.mark.parametrize("dtype", SUFFIXES)
@pytest.mark.parametrize("operator", KERNELS)
def test_kernels_of_pwcnet_on_every_architecture(
    operator: str, dtype: str, architecture: str, ptxas: str, tmp_path: Path
) -> None:
    check_resources(ptxas, Variant(KERNELS[operator], dtype, 4), architecture, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES[1:])
@EACH
def test_all_kernels_on_every_architecture(
    variant: Variant, architecture: str, ptxas: str, tmp_path: Path
) -> None:
    check_resources(ptxas, variant, architecture, tmp_path)
