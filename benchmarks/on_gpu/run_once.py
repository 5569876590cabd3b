"""The process that compute-sanitizer watches: every kernel once or twice, without torch.

    cd benchmarks && compute-sanitizer --tool racecheck python -m on_gpu.run_once [--radius 4] [--plant …]

Each array is an allocation of its own and of its exact size, so that a step beyond it is noticed. ``--plant``
makes a fault on purpose: a tool that does not find it proves nothing by finding nothing else.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Sequence

import numpy as np

from gocor.core.errors import GocorError
from gocor.plugins.references import REFERENCES
from gocor.plugins.registry import KERNELS
from gocor.plugins.schema import MAX_KERNEL_RADIUS
from on_gpu.driver import LIBRARY, Driver
from on_gpu.kernels import Kernels, Source, packaged
from on_gpu.levels import BYTES, attributes, output_shape, random_inputs

SHAPES = ((2, 5, 7, 9), (1, 40, 9, 72))
OUT_OF_BOUNDS, NO_BARRIERS, NO_UPLOAD = "out-of-bounds", "no-barriers", "no-upload"


def run(kernels: Kernels, radius: int, plant: str) -> list[str]:
    """Runs all operators with both dtypes; gives the calls whose result is wrong."""
    return [
        f"{operator} {dtype} radius {radius} {shape} + {offset}"
        for operator, dtype, shape, offset in itertools.product(KERNELS, BYTES, SHAPES, (0, 1))
        if not _is_right(kernels, (operator, dtype, radius), shape, offset, plant)
    ]


def _is_right(
    kernels: Kernels, which: tuple[str, str, int], shape: tuple[int, ...], offset: int, plant: str
) -> bool:
    operator, dtype, radius = which
    driver, size = kernels.driver, BYTES[dtype]
    inputs = random_inputs(operator, shape, radius, dtype)
    output = np.empty(output_shape(operator, shape, radius), dtype)
    allocations, addresses = [], []
    for array in (*inputs, output):
        short = size if plant == OUT_OF_BOUNDS and array is output else 0
        before = offset * array.itemsize
        allocations.append(driver.allocate(array.nbytes + before - short))
        addresses.append(allocations[-1] + before)
    for address, array in zip(addresses, inputs, strict=False):
        if plant != NO_UPLOAD:
            driver.upload(address, array)
    kernels.launch(operator, dtype, radius, shape, addresses)
    if plant:
        driver.synchronize()
        return True
    driver.download(output, addresses[-1])
    for address in allocations:
        driver.free(address)
    exact = (array.astype(np.float64) for array in inputs)
    expected = REFERENCES[operator](*exact, **attributes(operator, radius))
    error = np.linalg.norm(output - expected) / np.linalg.norm(expected)
    return bool(error <= KERNELS[operator].tolerances[dtype])


def without_barriers(source: Source) -> Source:
    """The same kernels, whose threads do not wait for each other."""

    def read(operator: str, dtype: str, radius: int) -> tuple[str, bytes]:
        name, image = source(operator, dtype, radius)
        text, count = re.subn(rb"(@!?%\w+\s+)?\b(bar|barrier)\.[\w.]*sync[^;]*;", b"", image)
        assert count, f"{name} has no barrier to take out"
        return name, text

    return read


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m on_gpu.run_once")
    parser.add_argument("--radius", type=int, action="append", help="all that there are if not given")
    parser.add_argument("--plant", choices=(OUT_OF_BOUNDS, NO_BARRIERS, NO_UPLOAD), default="")
    parser.add_argument("--driver", default=LIBRARY, help="library to use as the CUDA driver")
    options = parser.parse_args(arguments)
    source = without_barriers(packaged) if options.plant == NO_BARRIERS else packaged
    try:
        kernels = Kernels(Driver(options.driver), source)
        kernels.driver.take_device()
        radii = options.radius or range(1, MAX_KERNEL_RADIUS + 1)
        wrong = [call for radius in radii for call in run(kernels, radius, options.plant)]
    except GocorError as error:
        print(error, file=sys.stderr)
        return 2
    for call in wrong:
        print("wrong result:", call, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
