"""What commands print about packages."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from gocor.console import (
    facts_table,
    iterations,
    print_figures,
    print_json,
    print_line,
    progress,
    stdout,
)
from gocor.core.errors import ConfigError
from gocor.core.files import check_writable
from gocor.runtime.report import write_json

if TYPE_CHECKING:
    from rich.table import Table

    from gocor.calibration.packaging.build import BuildReport
    from gocor.runtime.package import Package
    from gocor.runtime.package_check import ModelCheck, PackageReport, Result
    from gocor.runtime.package_inspection import PackageInspection

_STYLES = {"passed": "green", "failed": "red", "not run": "yellow"}
_SHOWN = 20  # differing files


def refuse(options: Mapping[str, object], what: str) -> None:
    """Raises ConfigError for the first option that was given and means nothing to what was named."""
    for option, value in options.items():
        if value is not None and value is not False and value != []:
            raise ConfigError(option, f"means nothing for {what}", "leave it out")


def verify_package(
    folder: Path, provider: str | None, threads: int | None, index_sha256: str | None, json: Path | None
) -> int:
    """``gocor verify DIR``: checks a package, prints what was found, and returns the exit code."""
    from gocor.runtime.package_check import check_package

    if json:
        if json.resolve().is_relative_to(folder.resolve()):
            got = f"{json} would lie in the package, and is none of its files"
            raise ConfigError("--json", got, "a path outside of it")
        check_writable(json)
    with progress("verify") as show:
        report = check_package(folder, provider, threads, index_sha256=index_sha256, progress=show)
    print_check(report)
    if json:
        write_json(json, report)
        print_line("written", json, "green")
    return 0 if report.passed else 1


def print_check(report: "PackageReport") -> None:
    """Prints what was found out about a package."""
    print_figures(_checks_table(report.models))
    counts = {result: sum(check.result == result for check in report.models) for result in _STYLES}
    said = ", ".join(f"{count} {result}" for result, count in counts.items() if count)
    files = f"{report.files} files, {_differing(len(report.differences))}"
    verdict = Text("PASSED", "green") if report.passed else Text("FAILED", "red")
    stdout.print(verdict, f"models: {said}; {files}", soft_wrap=True)
    stdout.print(f"SHA-256 of package.json: {report.index_sha256}", soft_wrap=True)
    for path, reason in list(report.differences.items())[:_SHOWN]:
        print_line(path, reason, style="red")
    if (rest := len(report.differences) - _SHOWN) > 0:
        print_line("and", f"{rest} more; --json has all", style="red")
    _print_reasons(report.models, "failed")
    _print_reasons(report.models, "not run")
    if not counts["passed"] and not counts["failed"]:
        print_line("note", "no model could be run here, so nothing is known about their flows", "cyan")


def _print_reasons(checks: "Sequence[ModelCheck]", result: "Result") -> None:
    """Why models have a result, each reason once."""
    reasons: dict[str, list[str]] = {}
    for check in checks:
        if check.result == result:
            reasons.setdefault(check.reason, []).append(check.path.removeprefix("models/"))
    for reason, paths in reasons.items():
        print_line(result, f"{', '.join(paths)}: {reason}", _STYLES[result])


def _differing(count: int) -> str:
    return "all as they were packaged" if not count else f"{count} not as packaged"


def _checks_table(checks: "tuple[ModelCheck, ...]") -> "Table":
    from rich.table import Table

    table = Table()
    for name in ("model", "images", "precision", "on"):
        table.add_column(name, overflow="fold")
    for name in ("AEPE px", "99 % px", "max px"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("result", no_wrap=True)
    for check in checks:
        worst = check.worst
        values = (worst.aepe, worst.p99, worst.maximum) if worst else (None,) * 3
        figures = ("-" if value is None else f"{value:.2g}" for value in values)
        where = (check.path.removeprefix("models/"), check.size, check.precision, check.provider)
        table.add_row(*map(Text, where), *figures, Text(check.result, style=_STYLES[check.result]))
    return table


def print_inspection(found: "PackageInspection", json: bool) -> None:
    """Prints what a package is and which model runs for which images."""
    from rich.table import Table

    package = found.package
    if json:
        print_json(found)
        return
    stdout.print(facts_table(_package_facts(package) | {
        "SHA-256 of package.json": found.index_sha256,
        f"{found.precision} runs on": found.provider or f"nothing here: {found.why_none}",
    }, title=str(package.folder)), "")  # fmt: skip
    models = Table(title="models", title_justify="left")
    for name in ("model", "images", "precision", "size", "here"):
        models.add_column(name, overflow="fold", justify="right" if name == "size" else "left")
    sizes = {file.path: file.bytes for file in package.files}
    for model in package.models:
        obstacle = found.obstacles[model.path]
        here = Text(f"no: {obstacle}", "yellow") if obstacle else Text("runs", "green")
        size = f"{sum(sizes[path] for path in model.files) / 1e6:.1f} MB"
        models.add_row(Text(model.path), model.size, model.precision, size, here)
    stdout.print(models)
    choices = Table(title=f"which runs, in {found.precision}", title_justify="left")
    for name in ("images", "model", "why"):
        choices.add_column(name, overflow="fold")
    for choice in found.choices:
        choices.add_row(f"{choice.height}x{choice.width}", Text(choice.model.path), choice.why)
    if found.choices:
        stdout.print(choices)


def _package_facts(package: "Package") -> dict[str, object]:
    described = package.described
    return {
        "kind": f"package made by gocor {package.gocor_version}",
        "network": described.network,
        "iterations": iterations(described.global_iterations, described.local_iterations),
        "checkpoint": described.checkpoint or None,
        "SHA-256 of the checkpoint": described.checkpoint_sha256 or None,
        "SHA-256 of the weights": described.weights_sha256,
        "licence": package.licence,
        "pairs": f"{len(package.pairs)} with PyTorch's flows",
    }


def print_built(report: "BuildReport", json: bool) -> None:
    """Prints what was packaged."""
    if json:
        print_json(report)
        return
    print_figures(_checks_table(report.check.models))
    _print_reasons(report.check.models, "not run")
    count = len(report.package.files) + 1
    facts: dict[str, object] = {
        "package": report.path,
        "size": f"{report.bytes / 1e6:.1f} MB in {count} files",
    }
    facts |= _package_facts(report.package) | {
        "to read": f"{report.path / 'README.md'}, {report.path / 'reports' / 'report.md'}",
    }
    stdout.print(facts_table(facts))
    command = shlex.join(["gocor", "verify", str(report.path), "--sha256", report.index_sha256])
    stdout.print(f"To check it: {command}", soft_wrap=True, markup=False)  # one line, to be copied
