"""Everything about the kernels that only a GPU can tell, in one command: are they right, clean and fast?

    python benchmarks/gpu.py [--quick] [--part kernels] [--out results.json]
    python benchmarks/gpu.py --show results.json

Needs an NVIDIA GPU from Ampere on, PyTorch with CUDA and, for compute-sanitizer, the CUDA toolkit. TensorRT
is used where it is installed. The exit code is 1 if something was found wrong, 2 if there is no GPU.
"""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from on_gpu import facts
from on_gpu.results import PARTS, Results, load
from on_gpu.show import blocks, markdown, rich_table

from gocor.console import print_figures, print_line, progress, stdout
from gocor.core.errors import ConfigError, GocorError
from gocor.core.files import check_writable
from gocor.runtime.environment import machine

FOLDER = Path(__file__).parent / "results"
FOUND_WRONG, REFUSED = 1, 2


def main(
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write, or to add parts to. Default results/<GPU>.json; none with --quick."
        ),
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(PARTS)}; repeatable. All if none.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A sample of everything, to see that it works.")
    ] = False,
    no_sanitizer: Annotated[
        bool, typer.Option("--no-sanitizer", help="Leave compute-sanitizer out.")
    ] = False,
    nvcc: Annotated[
        bool, typer.Option("--nvcc", help="Time the sources as they are now, not the PTX.")
    ] = False,
    show: Annotated[
        Path | None, typer.Option(help="Print this file as Markdown, and do nothing else.")
    ] = None,
) -> None:
    """Check and time the CUDA kernels on this machine's GPU."""
    if show:
        print(markdown(load(show)), end="")
        return
    plan = _plan(part or list(PARTS), no_sanitizer)
    facts.require_gpu()
    gpu = facts.gpu_facts()
    out = out or (None if quick else FOLDER / f"{_slug(gpu['name'])}.json")
    results = Results(gpu, vars(machine()), {})
    if out:
        check_writable(out)
        results = results.added_to(load(out), out) if out.exists() else results
    results = measure(results, plan, out, quick=quick, nvcc=nvcc)
    print_results(results)
    failed = [name for name in plan if not results.parts[name].passed]
    for name in failed:
        print_line("failed", f"{name} {results.parts[name].reason}", "red")
    raise typer.Exit(FOUND_WRONG if failed else 0)


def measure(results: Results, plan: list[str], out: Path | None, *, quick: bool, nvcc: bool) -> Results:
    """Runs the parts; each is saved as soon as it is there."""
    from on_gpu.driver import Driver
    from on_gpu.kernels import Kernels, Nvcc, packaged
    from on_gpu.parts import Setting, run_part

    architecture = "sm_" + results.gpu["compute_capability"].replace(".", "")
    source = Nvcc(architecture) if nvcc else packaged
    origin = f"sources by nvcc for {architecture}" if nvcc else facts.packaged_kernels()
    setting = Setting(Kernels(Driver(), source), origin, quick)
    for name in plan:
        with progress(name) as report:
            part = run_part(name, setting, report)
        results = Results(results.gpu, results.machine, {**results.parts, name: part})
        print_line(name, f"{part.status} in {part.seconds:.0f} s {part.reason}", "dim")
        if out:
            results.save(out)
            print_line("written", out, "green")
    return results


def print_results(results: Results) -> None:
    """All tables, on the terminal."""
    for block in blocks(results):
        if block.columns:
            print_figures(rich_table(block))
        else:
            stdout.print(block.title, style="bold", markup=False)
        for note in block.notes:
            stdout.print(note, markup=False)


def _plan(wanted: list[str], no_sanitizer: bool) -> list[str]:
    for name in wanted:
        if name not in PARTS:
            raise ConfigError("--part", f"is {name}", f"one of {', '.join(PARTS)}")
    return [name for name in PARTS if name in wanted and not (no_sanitizer and name == "sanitizer")]


def _slug(name: Any) -> str:
    return re.sub("[^a-z0-9]+", "-", str(name).lower()).strip("-")


if __name__ == "__main__":
    try:
        typer.run(main)
    except GocorError as error:
        print_line("error", error, "red")
        sys.exit(REFUSED)
