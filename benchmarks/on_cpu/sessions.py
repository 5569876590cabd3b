"""What ONNX Runtime's session options are worth, and pairs side by side; needs no torch."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gocor.runtime.benchmark import peak_memory_mib
from gocor.runtime.onnxruntime_session import import_onnxruntime, session_options
from gocor.runtime.preprocess import preprocess
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.session import load
from gocor.runtime.spec import SPECS
from on_cpu.plan import OPENVINO, ORT, Entries, Entry, Plan
from on_cpu.processes import CALLS

if TYPE_CHECKING:
    from on_cpu.workshop import Size, Workshop

Tensors = dict[str, np.ndarray]
NAME = "PWCNet_GOCor"
AT: "Size" = (384, 512)
ROUNDS = 15
OURS = "as the package sets them"


def _extended(options: Any) -> None:
    options.graph_optimization_level = import_onnxruntime().GraphOptimizationLevel.ORT_ENABLE_EXTENDED


def _without_arena(options: Any) -> None:
    options.enable_cpu_mem_arena = False


def _with_pattern(options: Any) -> None:
    options.enable_mem_pattern = True  # ONNX Runtime's default


def _without_prepacking(options: Any) -> None:
    options.add_session_config_entry("session.disable_prepacking", "1")


def _spinning_on(options: Any) -> None:
    options.add_session_config_entry("session.force_spinning_stop", "0")  # ONNX Runtime's default


def _never_spinning(options: Any) -> None:
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def _one_thread(options: Any) -> None:
    options.intra_op_num_threads = 1


OPTIONS: dict[str, Callable[[Any], None]] = {
    OURS: lambda options: None,
    "no layout optimisation (level extended)": _extended,
    "no memory arena": _without_arena,
    "memory pattern": _with_pattern,
    "weights not pre-packed": _without_prepacking,
    "threads spin on after a call": _spinning_on,
    "threads never spin": _never_spinning,
    "one thread": _one_thread,
}


def plans(quick: bool, rounds: int | None) -> Iterator[Plan]:
    """Options of one session; then two pairs at a time."""
    size = (128, 192) if quick else AT
    about, count = f"{size[0]}×{size[1]}", rounds or (2 if quick else ROUNDS)
    yield Plan(f"options at {about}", "sessions", count, 2, partial(by_option, size))
    yield Plan(f"two pairs at {about}", "sessions", count, 2, partial(by_callers, size))


def by_option(size: "Size", workshop: "Workshop") -> Entries:
    """One call of PWC-Net-GOCor in sessions that differ by an option each."""
    model = workshop.onnx(NAME, size)
    tensors = _tensors(size)
    made = Entries()
    for name in OPTIONS:
        session = open_with(name, model, workshop.threads)
        memory = peak_memory_mib(run_with, name, model, workshop.threads, size)
        made.ready.append(Entry(NAME, name, partial(session.run, None, tensors), peak_memory_mib=memory))
    return made


def open_with(name: str, model: Path, threads: int) -> Any:
    """A session of the package's options but one."""
    options = session_options("cpu", threads)
    OPTIONS[name](options)
    return import_onnxruntime().InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def run_with(name: str, model: Path, threads: int, size: "Size") -> None:
    """What a fresh process does when its memory is measured."""
    session = open_with(name, model, threads)
    tensors = _tensors(size)
    for _ in range(CALLS):
        session.run(None, tensors)


def _tensors(size: "Size") -> Tensors:
    return preprocess(SPECS[NAME], *sample_pair(*size)[:2])


def by_callers(size: "Size", workshop: "Workshop") -> Entries:
    """Two pairs, one after the other or side by side."""
    model = workshop.onnx(NAME, size)
    made = Entries(notes=["Time of two pairs."])
    for library, path in ((ORT, model), (OPENVINO, workshop.openvino(model))):
        one, single, other = (load(path, threads=count) for count in (workshop.threads, 1, 1))
        tensors = _tensors(size)
        for way, first, second, callers in (
            ("one after the other", one, one, 1),
            ("two callers of a session", one, one, 2),
            ("two sessions of one thread", single, other, 2),
        ):
            pool = ThreadPoolExecutor(callers)
            call = partial(_both, pool, partial(first.run, tensors), partial(second.run, tensors))
            made.ready.append(Entry(library, way, call))
    return made


def _both(pool: ThreadPoolExecutor, *calls: Callable[[], Tensors]) -> None:
    for future in [pool.submit(call) for call in calls]:
        future.result()
