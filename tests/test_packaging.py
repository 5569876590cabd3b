"""What is in the wheel and in the source archive, built from a copy of the source tree."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {  # as in setup.py; written again, since a folder forgotten there is what this test is for
    "cli": "gocor", "core": "gocor/core", "plugins": "gocor/plugins",
    "runtime": "gocor/runtime", "export": "gocor/export", "evaluation": "gocor/evaluation",
    "calibration": "gocor/calibration",
}  # fmt: skip


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the wheel (built from the source archive) and the source archive."""
    source = tmp_path_factory.mktemp("source") / "tree"
    output = tmp_path_factory.mktemp("dist")
    ignore = shutil.ignore_patterns(
        ".*", "build", "dist", "*.egg-info", "__pycache__", "demo-out", "*.npz", "*.onnx"
    )
    shutil.copytree(ROOT, source, ignore=ignore)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return output


@pytest.fixture(scope="module")
def wheel_names(archives: Path) -> set[str]:
    with zipfile.ZipFile(next(archives.glob("*.whl"))) as wheel:
        return set(wheel.namelist())


@pytest.fixture(scope="module")
def source_names(archives: Path) -> set[str]:
    with tarfile.open(next(archives.glob("*.tar.gz"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def tree_modules() -> set[str]:
    return {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    }


def test_the_wheel_has_every_module_and_nothing_but_the_package(wheel_names: set[str]) -> None:
    content = {name for name in wheel_names if ".dist-info/" not in name}
    assert {name for name in content if name.endswith(".py")} == tree_modules()
    weights = {f"gocor/export/weights/{name}" for name in ("README.md", "pwcnet-gocor-demo.safetensors")}
    native = {  # PTX, and the sources of the plugin library, which can be built from an installed package
        f"gocor/plugins/{path.relative_to(ROOT / 'plugins').as_posix()}"
        for path in (ROOT / "plugins").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    library = {  # libgocor and its example, which gocor package hands on
        f"gocor/{path.relative_to(ROOT).as_posix()}"
        for folder in ("runtime/cpp", "examples/cpp")
        for path in (ROOT / folder).rglob("[!.]*")
        if path.is_file()
    }
    assert content - tree_modules() == {"gocor/py.typed", *weights, *native, *library}


def test_the_wheel_carries_its_licence(wheel_names: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names)


def test_the_wheel_brings_the_command(archives: Path) -> None:
    with zipfile.ZipFile(next(archives.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert "gocor = gocor.__main__:main" in wheel.read(name).decode()


def test_the_source_archive_can_be_tested_and_built(source_names: set[str]) -> None:
    assert source_names >= {
        *(
            "setup.py",
            "pyproject.toml",
            "README.md",
            "LICENSE",
            "CHANGELOG.md",
            "Makefile",
            "constraints.txt",
        ),
        *("cli/py.typed", "cli/__main__.py", "core/errors.py", "tests/test_packaging.py"),
    }


def test_nothing_left_over_is_shipped(wheel_names: set[str], source_names: set[str]) -> None:
    left_over = (".pyc", ".onnx", ".engine", ".pth", ".so")
    assert not [name for name in wheel_names | source_names if name.endswith(left_over)]
