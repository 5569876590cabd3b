"""What of this package works here, and what to install for the rest."""

import base64
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gocor.core.errors import GocorError
from gocor.runtime.environment import Machine, Package, machine, packages, version
from gocor.runtime.manifest import LIBRARY_NAMES, Backend
from gocor.runtime.openvino_manifest import OPENVINO
from gocor.runtime.session import PROVIDERS

TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-rtx")
# Identity of one float, opset 19; made by tests/runtime/test_doctor.py.
TINY_MODEL = base64.b64decode(
    "CAk6PAoSCgF4EgF5IghJZGVudGl0eToAEgR0aW55Wg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQEw=="
)
# What it is about, and whether it needs a GPU.
ENGINE_WORK: dict[str, tuple[Backend, bool]] = {
    "build and run TensorRT engines": ("tensorrt", True),
    "build TensorRT-RTX engines": ("tensorrt-rtx", False),
    "run TensorRT-RTX engines": ("tensorrt-rtx", True),
}
# What it needs, in words and as Linux says; bfloat16 without AMX was seen to be slower than float32.
LOW_PRECISION = (
    ("int8", "VNNI (on Arm: dot products)", ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")),
    ("bf16", "AMX (on Arm: BF16)", ("amx_bf16", "bf16")),
)
_PROBE_SECONDS = 180  # TensorRT builds an engine


@dataclass(frozen=True)
class Capability:
    """Something a user may want to do here.

    Attributes:
        name: as ``run on cuda``.
        works: it does, on this machine, now.
        hint: what stands in its way and what to do about it; empty if it works.
    """

    name: str
    works: bool
    hint: str


@dataclass(frozen=True)
class DoctorReport:
    """Everything the doctor found out.

    Attributes:
        machine: system, processor, GPUs, versions.
        packages: of every extra.
        tensorrt: TensorRT distributions that are installed, with version.
        capabilities: what works.
        notes: what is likely to make trouble later.
    """

    machine: Machine
    packages: Sequence[Package]
    tensorrt: Mapping[str, str]
    capabilities: Sequence[Capability]
    notes: Sequence[str]


def examine() -> DoctorReport:
    """Looks at this machine. Imports nothing heavy; the libraries are tried in processes of their own."""
    found = packages()
    probed = probe_providers()
    runs = [Capability(f"run on {name}", not hint, hint) for name, hint in probed.items()]
    runs += [Capability(f"run on {name}", not hint, hint) for name, hint in probe_openvino().items()]
    engines = [Capability(name, not hint, hint) for name, hint in probe_engines().items()]
    export = _from_extras("export", found, "export")
    verify = _from_extras("verify", found, "verify", "export", "cpu")
    others = [
        _from_extras(name, found, extra)
        for name, extra in (
            ("video files", "video"),
            ("bench --plot", "plot"),
            ("lists and batches in Parquet", "parquet"),
            ("batch --ray", "ray"),
        )
    ]
    here = machine()
    return DoctorReport(
        machine=here,
        packages=found,
        tensorrt={name: v for name in TENSORRT if (v := version(name))},
        capabilities=[export, *runs, *_fast_on_cpu(here.instruction_sets), *engines, verify, *others],
        notes=_notes(),
    )


def _from_extras(name: str, found: Sequence[Package], *extras: str) -> Capability:
    """What works as soon as every package of some extras is there."""
    wanted = [package for package in found if package.extra in extras and not package.fits]
    if not wanted:
        return Capability(name, True, "")
    missing = ", ".join(
        f"{package.requirement} is missing"
        if not package.installed
        else f"{package.installed} is not {package.requirement}"
        for package in wanted
    )
    needed = ",".join(extra for extra in extras if any(package.extra == extra for package in wanted))
    return Capability(name, False, f'{missing}; pip install "gocor-deploy[{needed}]"')


def _fast_on_cpu(found: Sequence[str]) -> list[Capability]:
    """Low precisions that this processor computes faster than float32; none where it does not say."""
    return [
        Capability(f"{name} faster on the CPU", works, "" if works else f"the CPU lacks {needed}")
        for name, needed, sets in LOW_PRECISION
        for works in [any(one in found for one in sets)]
        if found
    ]


def _notes() -> list[str]:
    if version("onnxruntime") and version("onnxruntime-gpu"):
        return [
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; "
            "pip uninstall both, then install one of them"
        ]
    return []


def probe_providers() -> dict[str, str]:
    """Opens a session on every provider, in a process of its own: a broken driver may take a process with it.

    Returns:
        For each provider what stands in its way; empty if it works.
    """
    hints, log = _ask_another_process("print_probe", PROVIDERS, "ONNX Runtime")
    # Which library is missing is nowhere but in ONNX Runtime's log.
    missing = re.search(r"\S+\.so\S*: cannot open shared object file", log)
    return {n: f"{hint} ({missing[0]})" if hint and missing else hint for n, hint in hints.items()}


def probe_openvino() -> dict[str, str]:
    """Computes something with OpenVINO, in a process of its own.

    Returns:
        For ``openvino`` what stands in its way; empty if it works.
    """
    return _ask_another_process("print_openvino_probe", (OPENVINO,), "OpenVINO")[0]


def probe_engines() -> dict[str, str]:
    """Starts TensorRT, TensorRT-RTX and the GPU, in a process of its own.

    Returns:
        For each of ``ENGINE_WORK`` what stands in its way; empty if it works.
    """
    return _ask_another_process("print_engine_probe", ENGINE_WORK, "TensorRT")[0]


def _ask_another_process(function: str, names: Iterable[str], library: str) -> tuple[dict[str, str], str]:
    """Hints that a function of this module prints as JSON, and what it wrote to stderr."""
    code = f"from gocor.runtime.doctor import {function}; {function}()"
    try:
        # In a folder of its own: a json.py or numpy/ in the user's folder would come before the real one.
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-c", code],
                cwd=folder, capture_output=True, text=True, timeout=_PROBE_SECONDS,
            )  # fmt: skip
        return json.loads(done.stdout), done.stderr
    except subprocess.TimeoutExpired:
        hint = f"{library} did not answer within {_PROBE_SECONDS} s"
    except json.JSONDecodeError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        hint = f"{library} fails here (exit code {done.returncode}: {last})"
    return dict.fromkeys(names, hint), ""


def print_probe() -> None:
    """Tries every provider and prints what stands in their way as JSON; for ``probe_providers``.

    Writes a model into the working folder.
    """
    path = Path("identity.onnx")
    path.write_bytes(TINY_MODEL)
    print(json.dumps({provider: _hint(path, provider) for provider in PROVIDERS}))


def print_openvino_probe() -> None:
    """Computes something with OpenVINO and prints what stands in its way as JSON; for ``probe_openvino``."""
    from gocor.runtime.openvino_session import openvino_core

    hint = ""
    try:
        core = openvino_core()
        core.compile_model(core.read_model(TINY_MODEL), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except GocorError as error:
        hint = f"{error.got}; {error.expected}"
    except RuntimeError as error:
        hint = f"OpenVINO does not start ({' '.join(str(error).split())[-300:]})"
    print(json.dumps({OPENVINO: hint}))


def print_engine_probe() -> None:
    """Starts what engines need and prints what stands in its way as JSON; for ``probe_engines``."""
    print(json.dumps({name: _engine_hint(*work) for name, work in ENGINE_WORK.items()}))


def _hint(path: Path, provider: str) -> str:
    from gocor.runtime.onnxruntime_session import open_session

    try:
        open_session(path, provider)
    except GocorError as error:
        return f"{error.got}; {error.expected}"
    return ""


def _engine_hint(backend: Backend, needs_gpu: bool) -> str:
    from gocor.runtime import cuda
    from gocor.runtime.tensorrt_library import import_library, library_log

    try:
        library = import_library(backend)
        if needs_gpu:
            cuda.current_device()
            library.Runtime(library_log(library))
    except GocorError as error:
        return f"{error.where}: {error.got}; {error.expected}"
    except TypeError:  # pybind11's word for a null pointer
        reason = library_log(library).take_error() or "it does not say why"
        return f"{LIBRARY_NAMES[backend]} does not start ({reason}); it may need a newer driver"
    return ""
