"""What a call costs in Python and through libgocor, with one model, in one process, taking turns.

    cmake -S runtime/cpp -B build/cpp … && cmake --build build/cpp
    python benchmarks/cpp_overhead.py model.xml model.onnx --library build/cpp/libgocor.so --size 480x640

Both are whole calls: uint8 images in memory, flow in pixels of the images. The library is called through
ctypes, whose own cost is that of the empty call. Each has threads of its own, which sleep while others work.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from gocor.commands.export import parse_size
from gocor.console import print_line, progress
from gocor.core.errors import GocorError
from gocor.runtime.benchmark import BenchmarkReport, Candidate, benchmark
from gocor.runtime.report import write_json
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.session import load


class _Image(ctypes.Structure):
    _fields_ = (
        ("pixels", ctypes.c_void_p), ("height", ctypes.c_int32), ("width", ctypes.c_int32),
        ("row_stride", ctypes.c_ssize_t), ("order", ctypes.c_int),
    )  # fmt: skip


class LibGocor:
    """A model in ``libgocor``, for pairs of images of one size.

    Args:
        library: path of ``libgocor.so``.
        model: path of the model.
    """

    def __init__(self, library: Path, model: Path) -> None:
        self._library = ctypes.CDLL(str(library.absolute()))
        self._library.gocor_last_error.restype = ctypes.c_char_p
        self._library.gocor_estimate.argtypes = [
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
            *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
        ]
        self._estimator = ctypes.c_void_p()
        self._check(self._library.gocor_create(str(model).encode(), None, ctypes.byref(self._estimator)))

    def estimator_of(self, reference: np.ndarray, query: np.ndarray) -> Callable[[int], np.ndarray]:
        """A function that estimates the pair, or with 0 pairs nothing, into memory that is there already."""
        flow = np.empty((2, *reference.shape[:2]), np.float32)
        pair = [_Image(image.ctypes.data, *image.shape[:2], 0, 0) for image in (reference, query)]
        addresses = [ctypes.addressof(image) for image in pair]

        def estimate(count: int = 1, _images: object = (pair, reference, query)) -> np.ndarray:
            self._check(
                self._library.gocor_estimate(
                    self._estimator, *addresses, count, flow.ctypes.data, flow.size, None
                )
            )
            return flow

        return estimate

    def _check(self, status: int) -> None:
        if status:
            raise SystemExit(self._library.gocor_last_error().decode())


def measure(models: list[Path], library: Path, size: tuple[int, int] | None, rounds: int) -> BenchmarkReport:
    """Times every model in both ways; refuses a library whose flow is another.

    Args:
        models: ``.xml``, ``.onnx`` or ``.engine`` files whose batch is 1.
        library: path of ``libgocor.so``.
        size: of the images; the model's own when None.
        rounds: timed calls of each.
    """
    candidates: dict[str, Candidate] = {}
    for model in models:
        python = load(model)
        python.note_no_size()
        reference, query = (np.ascontiguousarray(i) for i in sample_pair(*(size or python.metadata.size))[:2])
        native = LibGocor(library, model).estimator_of(reference, query)
        expected = python(reference, query)
        difference = float(np.abs(native(1) - expected).max() / np.abs(expected).max())
        if difference > 1e-5:
            raise SystemExit(f"{model}: the flows differ by {difference:.1e} of the largest")
        facts: dict[str, Any] = {"model": str(model), "size": "x".join(map(str, reference.shape[:2]))}
        facts |= {"model_size": "x".join(map(str, python.metadata.size)), "difference": difference}
        for name, call in (
            ("Python", partial(python, reference, query)),
            ("libgocor", partial(native, 1)),
            ("empty call", partial(native, 0)),
        ):
            candidates[f"{model} · {name}"] = Candidate(call, facts=facts)
    with progress("timing") as shown:
        return benchmark(candidates, rounds, progress=shown)


def main(
    models: list[Path],
    library: Annotated[Path, typer.Option(help="libgocor.so with the models' backends.")],
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of the images; the models' own by default.")] = "",
    rounds: Annotated[int, typer.Option(help="Timed calls of each.")] = 30,
    json: Annotated[Path | None, typer.Option(help="Where to write every timed call.")] = None,
) -> None:
    """Times models in Python and through libgocor."""
    report = measure(models, library, parse_size(size) if size else None, rounds)
    for result in report.results:
        typer.echo(f"{result.name:<40} {result.median_ms:9.3f} ms ± {result.spread_ms / 2:.3f}")
    if json:
        write_json(json, report)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (GocorError, OSError) as error:  # OSError: the library cannot be loaded
        print_line("error", error, "red")
        sys.exit(2)
