"""The kernels under NVIDIA's compute-sanitizer, each tool of which first has to find a planted fault."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gocor.core.errors import DependencyError
from on_gpu.results import SanitizerRow
from on_gpu.run_once import NO_BARRIERS, NO_UPLOAD, OUT_OF_BOUNDS

PROGRAM = "compute-sanitizer"
TOOLKIT = Path("/usr/local/cuda/bin")
FOUND = 9  # exit code of the program when a tool has found something
TIMEOUT = 300
# Threads of a block that skip a barrier, which synccheck looks for, would not always come to an end.
PLANTS = {"memcheck": OUT_OF_BOUNDS, "racecheck": NO_BARRIERS, "initcheck": NO_UPLOAD, "synccheck": ""}
QUICK_TOOLS = ("memcheck", "racecheck")


def program() -> str:
    """Path of compute-sanitizer.

    Raises:
        DependencyError: it is not there.
    """
    found = shutil.which(PROGRAM) or shutil.which(PROGRAM, path=str(TOOLKIT))
    if found is None:
        raise DependencyError(
            PROGRAM, "is neither on PATH nor in " + str(TOOLKIT), "it is in the CUDA toolkit"
        )
    return found


def runs(quick: bool) -> Iterator[tuple[str, str]]:
    """Tool and planted fault of every run."""
    for tool in QUICK_TOOLS if quick else PLANTS:
        if PLANTS[tool]:
            yield tool, PLANTS[tool]
        yield tool, ""


def sanitize(tool: str, planted: str, radii: Sequence[int], options: Sequence[str] = ()) -> SanitizerRow:
    """One run.

    Args:
        tool: such as ``racecheck``.
        planted: fault to make, or an empty text.
        radii: to run; all if empty. One is enough to see that a fault is found.
        options: further ones of ``run_once``.

    Raises:
        DependencyError: compute-sanitizer is not there.
    """
    chosen = [f"--radius={radius}" for radius in ((4,) if planted else radii)]
    chosen += [f"--plant={planted}"] if planted else []
    command = [program(), "--tool", tool, "--error-exitcode", str(FOUND)]
    command += [sys.executable, "-m", "on_gpu.run_once", *chosen, *options]
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=TIMEOUT
        )
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        code, said = -1, f"SUMMARY: stopped after {TIMEOUT} s"
    passed = code == (FOUND if planted else 0)
    return SanitizerRow(tool, planted, passed, summary(said), time.monotonic() - start)


def summary(said: str) -> str:
    """The tool's own, otherwise the last line that anybody wrote."""
    lines = [re.sub(r"^=+\s*", "", line).strip() for line in said.splitlines()]
    lines = [line for line in lines if line]
    wanted = [line for line in lines if "SUMMARY" in line]
    return (wanted or lines or ["said nothing"])[-1]
