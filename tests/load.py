"""Many estimates with one model, in a process of its own: what they are and how much memory they take.

    python -m load MODEL --count 10000 --threads 8

Prints JSON: how many flows were other than the first of their pair, and the process's memory as it went on.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import gocor

PAIRS, SAMPLES = 4, 100
PAGE = os.sysconf("SC_PAGE_SIZE")

Estimate = Callable[[np.ndarray, np.ndarray], np.ndarray]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m load", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1, help="that call the one estimator")
    options = parser.parse_args()
    with gocor.load(options.model, threads=1) as estimator:
        print(json.dumps(load(estimator, options.count, options.threads)))


def load(estimate: Estimate, count: int, threads: int) -> dict[str, object]:
    """Estimates ``count`` times in ``threads`` threads at once."""
    random = np.random.default_rng(0)
    pairs = random.integers(0, 256, (PAIRS, 2, 64, 64, 3), np.uint8)
    expected = [estimate(*pair).copy() for pair in pairs]
    memory: list[int] = []
    different = [0] * threads
    start = time.monotonic()

    def run(thread: int) -> None:
        for number in range(thread, count, threads):
            index = number % PAIRS
            different[thread] += not np.array_equal(estimate(*pairs[index]), expected[index])
            if number % max(count // SAMPLES, 1) == 0:
                memory.append(resident())

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(threads)))
    return {
        "different": sum(different), "distinct": len({flow.tobytes() for flow in expected}),
        "memory": memory, "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def resident() -> int:
    """Bytes of RAM that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


if __name__ == "__main__":
    main()
