"""``gocor doctor``: what works here, and what to install for the rest."""

from typing import TYPE_CHECKING, Annotated

import typer

from gocor.console import examples, facts_table, print_json, print_line, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from gocor.runtime.doctor import DoctorReport

EPILOG = examples("gocor doctor", "gocor doctor --json    # for a bug report")


def doctor(json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False) -> None:
    """Check what works on this machine, and what to install for the rest.

    Every provider is tried with a real computation, not only looked up.
    """
    from gocor.runtime.doctor import examine

    report = examine()
    if json:
        print_json(report)
        return
    stdout.print(facts_table(_machine_facts(report)), "", _packages(report), "", _capabilities(report))
    for note in report.notes:
        print_line("note", note, "yellow")


def _machine_facts(report: "DoctorReport") -> dict[str, object]:
    machine = report.machine
    gpus = [f"{g.name}, {g.memory}, driver {g.driver}, SM {g.compute_capability}" for g in machine.gpus]
    tensorrt = ", ".join(f"{name} {version}" for name, version in report.tensorrt.items())
    return {
        "gocor": machine.versions["gocor-deploy"],
        "Python": machine.python,
        "platform": machine.platform,
        "processor": f"{machine.cpu}, {machine.cores} cores",
        "instruction sets": ", ".join(machine.instruction_sets) or "unknown",
        "memory": None if machine.memory_gib is None else f"{machine.memory_gib} GiB",
        "GPU": "\n".join(gpus) or "none found (nvidia-smi lists none or is not there)",
        "TensorRT": tensorrt or "not installed",
    }


def _packages(report: "DoctorReport") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table("extra", title="packages", title_justify="left")
    for name in ("asks for", "installed"):
        table.add_column(name, overflow="fold")
    for package in report.packages:
        style = None if package.fits else "yellow"
        missing = f'missing: pip install "gocor-deploy[{package.extra}]"'
        table.add_row(package.extra, package.requirement, Text(package.installed or missing), style=style)
    return table


def _capabilities(report: "DoctorReport") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table("to do", "works", "what to do", title="what works here", title_justify="left")
    for capability in report.capabilities:
        works = Text("yes", style="green") if capability.works else Text("no", style="yellow")
        table.add_row(capability.name, works, Text(capability.hint))
    return table
