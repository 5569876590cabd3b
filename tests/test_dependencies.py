"""What the light parts of the package may need, tried in a Python that has nothing else."""

import ast
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from other_python import in_python_with
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gocor.__main__ import COMMANDS, EXTRA_OF

ROOT = Path(__file__).parent.parent
FOLDERS = ("core", "plugins", "runtime", "export", "evaluation", "calibration", "cli")
RUNTIME = sorted(
    ".".join(("gocor", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in (ROOT / "runtime").rglob("*.py")
)


def test_the_other_python_lacks_what_it_should() -> None:
    result = in_python_with(["numpy"], "import numpy; import torch")
    assert "ModuleNotFoundError: No module named 'torch'" in result.stderr


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import gocor; print([m for m in ('numpy', 'rich', 'typer') if m in sys.modules])"
    result = in_python_with([], code)
    assert result.stdout == "[]\n", result.stderr


def test_the_runtime_needs_numpy_alone() -> None:
    result = in_python_with(["numpy"], "".join(f"import {module}\n" for module in RUNTIME))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("doctor",)], ids=" ".join)
def test_the_command_line_needs_little(arguments: tuple[str, ...]) -> None:
    code = "from gocor.__main__ import main; main()"
    result = in_python_with(["numpy", "typer", "rich"], code, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_needs_little(command: str) -> None:
    code = "from gocor.__main__ import main; main()"
    result = in_python_with(["numpy", "typer", "rich"], code, command, "--help")
    assert result.returncode == 0, result.stdout + result.stderr


def declared() -> dict[str, set[str]]:
    """Extras that every declared distribution is in; "" is the base."""
    found: dict[str, set[str]] = {}
    for text in requires("gocor-deploy") or []:
        requirement = Requirement(text)
        marker = str(requirement.marker or "")
        extra = marker.split("extra == ")[-1].strip('"') if "extra ==" in marker else ""
        found.setdefault(canonicalize_name(requirement.name), set()).add(extra)
    return found


def imported_packages(*folders: str) -> set[str]:
    """Third-party packages imported anywhere under the folders, inside functions, too."""
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return {name for name in found if name != "gocor" and name not in sys.stdlib_module_names}


@pytest.mark.parametrize("package", sorted(imported_packages(*FOLDERS)))
def test_every_imported_package_is_declared(package: str) -> None:
    owners = {canonicalize_name(owner) for owner in packages_distributions().get(package, [package])}
    assert owners & set(declared()) - {"dev"}, f"{package} ({owners}) is in no extra of setup.py"


def test_the_base_requirements_are_small() -> None:
    assert {name for name, extras in declared().items() if "" in extras} == {
        "numpy",
        "pillow",
        "rich",
        "typer",
    }


@pytest.mark.parametrize(("package", "extra"), EXTRA_OF.items())
def test_the_advice_for_a_missing_package_names_an_extra_that_brings_it(package: str, extra: str) -> None:
    owners = {canonicalize_name(owner) for owner in packages_distributions()[package]}
    assert any(extra in declared().get(owner, set()) for owner in owners)


def test_the_extra_all_can_be_installed_without_a_gpu() -> None:
    everything = {name for name, extras in declared().items() if "all" in extras}
    assert everything >= {"torch", "onnx", "onnxruntime", "polygraphy"}
    assert not everything & {"onnxruntime-gpu", "tensorrt"}
