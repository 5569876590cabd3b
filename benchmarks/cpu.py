"""How fast the networks and operators are on this CPU, in all the ways there are, side by side.

    python benchmarks/cpu.py --json results.json         # everything: about 25 minutes on two cores
    python benchmarks/cpu.py --quick                     # does it all work here?
    python benchmarks/cpu.py --show results.json

What is timed are networks alone, from preprocessed tensors to all flows, and single operators, with the same
number of threads pinned to the same cores. The weights are seeded: time does not depend on them. Everything
is checked against PyTorch or NumPy before it is timed. The exit code is 2 if something is wrong.
"""

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from on_cpu import show as shown
from on_cpu.results import PARTS, Results, load

from gocor.console import print_line, progress, stdout
from gocor.core.errors import ConfigError, GocorError
from gocor.core.files import check_writable
from gocor.runtime.environment import machine

if TYPE_CHECKING:
    from on_cpu.plan import Plan

TRACKED = Path(__file__).parent / "results" / "cpu.json"
REFUSED = 2


def main(
    json: Annotated[
        Path | None, typer.Option(help="Write every timed call here; groups that were there stay.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(PARTS)}; repeatable. All if none.")
    ] = None,
    only: Annotated[str, typer.Option(help="Groups with this in their name, such as 'GLU-Net 384'.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="A sample of everything, small.")] = False,
    rounds: Annotated[
        int | None, typer.Option(help="Timed calls of each; fitting each group if none.")
    ] = None,
    threads: Annotated[int, typer.Option(help="For every library, each on a core of its own.")] = 2,
    models: Annotated[Path | None, typer.Option(help="Keep models here, and take those that are.")] = None,
    prepare: Annotated[bool, typer.Option("--prepare", help="Fill --models, and time nothing.")] = False,
    show: Annotated[Path | None, typer.Option(help="Print this file as Markdown, and do no more.")] = None,
    update_docs: Annotated[
        bool, typer.Option("--update-docs", help=f"Put results/{TRACKED.name} into the documentation.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw into this folder.")] = None,
) -> None:
    """Time networks and operators on this machine's CPU."""
    if show or update_docs:
        results = load(show or TRACKED)
        if update_docs:
            _print_written(shown.update_docs(results))
    else:
        results = run(part or list(PARTS), only, json, models, quick, rounds, threads, prepare)
    if show or not (update_docs or prepare):
        print(shown.markdown(results), end="")
        for line in shown.verdicts(results):
            stdout.print(line, markup=False)
    if plot:
        _print_written(shown.plots(results, plot))


def run(
    parts: list[str], only: str, json: Path | None, models: Path | None,
    quick: bool, rounds: int | None, threads: int, prepare: bool,
) -> Results:  # fmt: skip
    """Measures group after group; each is saved as soon as it is there."""
    cores = pin(threads)
    results = Results(vars(machine()), cores, threads, {})
    if json:
        check_writable(json)
        results = results.after(load(json), json) if json.exists() else results
    with ExitStack() as stack:
        folder = models or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Before PyTorch is imported, which reads it.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.resolve() / "compiled"))
        for plan in _plans(parts, only, quick, rounds):
            results = measure(results, plan, folder, prepare)
            if json and not prepare:
                results.save(json)
    if json and not prepare:
        print_line("written", json, "green")
    return results


def measure(results: Results, plan: "Plan", folder: Path, prepare: bool) -> Results:
    """One more group."""
    import torch
    from on_cpu import plan as plans
    from on_cpu.workshop import Workshop
    from source_tree import commit

    torch.set_num_threads(results.threads)
    name = f"{plan.part}: {plan.name}"
    with progress(name) as report:
        report(0, None, "preparing")
        made = plan.make(Workshop(folder, results.threads))
        for missing, reason in made.failed.items():
            print_line("left out", f"{missing}: {reason}", "yellow")
        if prepare:
            print_line("prepared", name, "dim")
            return results
        group = plans.measure(plan, made, commit(), report)
    print_line(name, f"{group.rounds} rounds in {group.seconds:.0f} s", "dim")
    return results.with_group(name, group)


def pin(threads: int) -> tuple[int, ...]:
    """Keeps this process and all its threads on as many cores.

    Raises:
        ConfigError: there are fewer.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError("benchmark", "cannot pin threads to cores on this system", "run it on Linux")
    available = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(available):
        raise ConfigError("--threads", f"is {threads}", f"1 to {len(available)}, the cores of this process")
    os.sched_setaffinity(0, available[:threads])
    return tuple(available[:threads])


def _plans(parts: list[str], only: str, quick: bool, rounds: int | None) -> "list[Plan]":
    if unknown := [name for name in parts if name not in PARTS]:
        raise ConfigError("--part", f"is {unknown[0]}", f"one of {', '.join(PARTS)}")
    from on_cpu import growth, networks, operators, sessions

    modules = {"networks": networks, "operators": operators, "growth": growth, "sessions": sessions}
    plans = [plan for name in PARTS if name in parts for plan in modules[name].plans(quick, rounds)]
    if not (chosen := [plan for plan in plans if only in plan.name]):
        names = ", ".join(plan.name for plan in plans)
        raise ConfigError("--only", f"{only!r} is in no name of a group", f"part of one of {names}")
    return chosen


def _print_written(paths: list[Path]) -> None:
    for path in paths:
        print_line("written", path, "green")


if __name__ == "__main__":
    try:
        typer.run(main)
    except GocorError as error:
        print_line("error", error, "red")
        sys.exit(REFUSED)
