"""What this machine has and what works on it, found out without importing anything heavy."""

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gocor.core.version import __version__

DISTRIBUTION = "gocor-deploy"
GROUPS = ("all", "dev")  # extras that bring nothing a user's command needs
# What serves as well as the distribution that an extra names.
ALTERNATIVES = {
    "onnxruntime": ("onnxruntime-gpu",),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
}
REPORTED = (
    "numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "onnx", "polygraphy",
    "tensorrt", "tensorrt-rtx", "cuda-python",
)  # fmt: skip
# Those that change which kernels run, as Linux calls them.
INSTRUCTION_SETS = (
    "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver describes it."""

    name: str
    memory: str
    driver: str
    compute_capability: str


@dataclass(frozen=True)
class Machine:
    """Where a figure comes from.

    Attributes:
        platform: operating system and architecture.
        python: version of the interpreter.
        cpu: name of the processor.
        cores: logical cores that this process may use.
        instruction_sets: those that change which kernels run; empty where the system does not tell.
        memory_gib: of the machine; None where the system does not tell.
        gpus: those that ``nvidia-smi`` lists.
        versions: of this package and the libraries that do the work, where installed.
    """

    platform: str
    python: str
    cpu: str
    cores: int
    instruction_sets: tuple[str, ...]
    memory_gib: float | None
    gpus: tuple[Gpu, ...]
    versions: dict[str, str]


@dataclass(frozen=True)
class Package:
    """A distribution that an extra of this one asks for.

    Attributes:
        extra: the first extra that asks for it.
        requirement: its name and versions, as ``torch>=2.9``.
        installed: name and version of what serves; empty if nothing does.
        fits: what is installed has a version that was asked for.
    """

    extra: str
    requirement: str
    installed: str
    fits: bool


def machine() -> Machine:
    """Describes this machine."""
    return Machine(
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        instruction_sets=instruction_sets(),
        memory_gib=_memory_gib(),
        gpus=gpus(),
        versions={DISTRIBUTION: __version__} | {n: v for n in REPORTED if (v := version(n))},
    )


def version(distribution: str) -> str:
    """Version of an installed distribution; empty if it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def packages() -> list[Package]:
    """Every package of every extra, as this distribution itself declares them."""
    found: dict[str, Package] = {}
    for line in importlib.metadata.requires(DISTRIBUTION) or []:
        if match := re.fullmatch(r"([\w.-]+)([^;]*?)\s*;.*extra == [\"']([\w-]+)[\"'].*", line):
            name, versions, extra = match.groups()
            if extra not in GROUPS and name not in found:
                found[name] = _package(extra, name, versions)
    return list(found.values())


def _package(extra: str, name: str, versions: str) -> Package:
    for candidate in (name, *ALTERNATIVES.get(name, ())):
        if installed := version(candidate):
            return Package(extra, name + versions, f"{candidate} {installed}", satisfies(installed, versions))
    return Package(extra, name + versions, "", False)


def satisfies(installed: str, versions: str) -> bool:
    """Whether ``2.13.0+cpu`` is in ``>=2.9,<3``; knows the two comparisons that our requirements use."""
    for operator, bound in re.findall(r"(>=|<)\s*([\d.]+)", versions):
        if (_numbers(installed) >= _numbers(bound)) != (operator == ">="):
            return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    release = re.match(r"[\d.]*\d", text)
    numbers = [int(part) for part in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def gpus() -> tuple[Gpu, ...]:
    """NVIDIA GPUs that the driver shows to this process."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = "--query-gpu=name,memory.total,driver_version,compute_cap"
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [[field.strip() for field in line.split(",")] for line in done.stdout.splitlines()]
    return tuple(Gpu(*row) for row in rows if len(row) == 4)


def _cpu_name() -> str:
    name = _cpuinfo("model name")
    if not name and sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return name or platform.processor() or platform.machine()


def instruction_sets() -> tuple[str, ...]:
    """Those of this processor that change which kernels run; empty where the system does not tell."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


def _cpuinfo(field: str) -> str:
    """A field of the first processor in Linux's list; empty elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    return ""


def _memory_gib() -> float | None:
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return None
