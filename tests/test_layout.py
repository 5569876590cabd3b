"""The house rules of the source tree, read from the syntax trees: layers, imports, sizes, docstrings."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("core", "plugins", "runtime", "export", "evaluation", "calibration", "cli")
MODULES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
HEAVY = {
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "PIL",
    "cv2",
    "matplotlib",
    "rich",
    "polygraphy",
    "tensorrt",
    "openvino",
    "pyarrow",
    "ray",
}
LONGEST_FUNCTION, LONGEST_COMMAND = 50, 20

# (file pattern, packages that must not be imported while the module is)
LIGHT = (
    (r"(core|runtime)/.*", HEAVY),
    (r"plugins/(.*/)?(schema|references?|launch|nvrtc|ptx|tensorrt_quick)\.py", HEAVY),
    (r"cli/.*", HEAVY - {"rich"}),
)
NEVER = ((r"(core|runtime)/.*", {"torch", "onnx", "onnxscript", "typer"}),)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(node: ast.AST, *, at_import: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements under ``node``; with ``at_import`` those that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not (at_import and is_deferred(child)):
            yield from imports(child, at_import=at_import)


def is_deferred(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def modules_in(statement: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(statement, ast.ImportFrom):
        return [f"{statement.module}.{alias.name}" for alias in statement.names]
    return [alias.name for alias in statement.names]


def layer_of(module: str) -> str | None:
    """Layer that an imported name lives in; None for other packages."""
    parts = module.split(".")
    if parts[0] != "gocor":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "cli"


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef))


def length(function: ast.FunctionDef) -> int:
    """Lines of the body without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return body[-1].end_lineno - body[0].lineno + 1


@pytest.fixture(params=MODULES, ids=name_of)
def module(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_is_something_to_check() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} >= {
        "core",
        "plugins",
        "runtime",
        "export",
        "cli",
    }


def test_a_layer_imports_only_lower_ones(module: Path) -> None:
    own = LAYERS.index(module.relative_to(ROOT).parts[0])
    for statement in imports(tree_of(module), at_import=False):
        for imported in modules_in(statement):
            layer = layer_of(imported)
            assert layer is None or LAYERS.index(layer) <= own, f"line {statement.lineno}: {imported}"


def test_imports_are_absolute_and_named(module: Path) -> None:
    for statement in imports(tree_of(module), at_import=False):
        if isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"line {statement.lineno}: relative import"
            assert all(alias.name != "*" for alias in statement.names), (
                f"line {statement.lineno}: star import"
            )
        for imported in modules_in(statement):
            assert imported.split(".")[0] not in LAYERS, f"line {statement.lineno}: write gocor.{imported}"


def test_heavy_packages_are_imported_on_use(module: Path) -> None:
    for pattern, packages in LIGHT:
        if re.fullmatch(pattern, name_of(module)):
            for statement in imports(tree_of(module), at_import=True):
                found = {imported.split(".")[0] for imported in modules_in(statement)} & packages
                assert not found, f"line {statement.lineno}: import {found} inside the function that needs it"


def test_the_runtime_never_needs_build_time_packages(module: Path) -> None:
    for pattern, packages in NEVER:
        if re.fullmatch(pattern, name_of(module)):
            for statement in imports(tree_of(module), at_import=False):
                found = {imported.split(".")[0] for imported in modules_in(statement)} & packages
                assert not found, f"line {statement.lineno}: {found}"


def test_functions_are_short(module: Path) -> None:
    too_long = {f.name: length(f) for f in functions(module) if length(f) > LONGEST_FUNCTION}
    assert not too_long


@pytest.mark.parametrize("path", sorted((ROOT / "cli/commands").glob("[!_]*.py")), ids=name_of)
def test_commands_only_parse_call_and_print(path: Path) -> None:
    command = next(f for f in functions(path) if f.name == path.stem)
    assert length(command) <= LONGEST_COMMAND


def test_every_module_says_what_it_is(module: Path) -> None:
    assert ast.get_docstring(tree_of(module))
