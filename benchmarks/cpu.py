"""ONNX Runtime beside eager PyTorch on this CPU, for PWC-Net and PWC-Net-GOCor, in one run.

    python benchmarks/cpu.py [--rounds 15] [--size 384x512] [--threads 2] [--json cpu.json] [--plot cpu.png]

What is timed is the network alone, from preprocessed tensors to all its flows, with the same number of
threads on either side. The weights are seeded: time does not depend on them.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from shift_correlation import shift_correlations

from gocor.commands.bench import report_table
from gocor.commands.export import parse_size
from gocor.console import print_figures, print_line, progress, stdout
from gocor.export.checkpoint import seeded_network
from gocor.export.networks import Network
from gocor.export.onnx_export import export_onnx
from gocor.runtime.benchmark import BenchmarkReport, Candidate, benchmark, check_plot, peak_memory_mib, plot
from gocor.runtime.preprocess import preprocess
from gocor.runtime.report import write_json
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.session import load

NETWORKS = ("PWCNet", "PWCNet_GOCor")
SHIFTS, TILES, ONNX_RUNTIME = "PyTorch, 81 shifts", "PyTorch, tiles", "ONNX Runtime"
LIMIT = 0.75  # of the shifts' time, for PWC-Net-GOCor in ONNX Runtime


def main(
    rounds: Annotated[int, typer.Option(help="Timed runs of each, interleaved.")] = 15,
    warmup: Annotated[int, typer.Option(help="Runs of each before that.")] = 3,
    size: Annotated[str, typer.Option(metavar="HxW", help="Of the network's input.")] = "384x512",
    threads: Annotated[int, typer.Option(help="For PyTorch and ONNX Runtime alike.")] = 2,
    json: Annotated[Path | None, typer.Option(help="Write every timed run here.")] = None,
    picture: Annotated[Path | None, typer.Option("--plot", help="Draw every timed run here.")] = None,
) -> None:
    """Compare ONNX Runtime with eager PyTorch whose correlations are 81 shifted products."""
    if picture:
        check_plot(picture)
    torch.set_num_threads(threads)
    candidates: dict[str, Candidate] = {}
    with tempfile.TemporaryDirectory() as folder, progress("cpu benchmark") as show:
        for number, name in enumerate(NETWORKS):
            show(number, len(NETWORKS), f"preparing {name}")
            candidates |= make_candidates(name, parse_size(size), threads, Path(folder) / f"{name}.onnx")
        report = benchmark(candidates, rounds, warmup, show)
    print_figures(report_table(report))
    print_ratios(report)
    if json:
        write_json(json, report)
        print_line("written", json, "green")
    if picture:
        plot(report, picture)
        print_line("written", picture, "green")


def make_candidates(name: str, size: tuple[int, int], threads: int, model: Path) -> dict[str, Candidate]:
    """One network three times: PyTorch by shifts, PyTorch by tile products, ONNX Runtime."""
    network = seeded_network(name)
    tensors = make_tensors(network, size)
    export_onnx(network, model, height=size[0], width=size[1], io="tensors")
    estimator = load(model, threads=threads)
    facts = {"network": name, "size": f"{size[0]}x{size[1]}", "threads": threads, "iterations": 3}
    memory = {
        SHIFTS: peak_memory_mib(run_pytorch, name, size, threads, True),
        TILES: peak_memory_mib(run_pytorch, name, size, threads, False),
        ONNX_RUNTIME: peak_memory_mib(run_model, str(model), size, threads),
    }
    calls = {
        SHIFTS: lambda: call(network, tensors, shifts=True),
        TILES: lambda: call(network, tensors, shifts=False),
        ONNX_RUNTIME: lambda: estimator.run(tensors),
    }
    return {
        f"{name} · {kind}": Candidate(calls[kind], facts=facts, peak_memory_mib=memory[kind])
        for kind in calls
    }


def make_tensors(network: Network, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Preprocessed tensors of the built-in pair."""
    return preprocess(network.spec, *sample_pair(*size)[:2])


def call(network: Network, tensors: dict[str, np.ndarray], shifts: bool) -> None:
    """One forward pass in PyTorch."""
    inputs = [torch.from_numpy(tensor) for tensor in tensors.values()]
    with torch.inference_mode():
        if not shifts:
            network(*inputs)
            return
        with shift_correlations():
            network(*inputs)


def run_pytorch(name: str, size: tuple[int, int], threads: int, shifts: bool) -> None:
    """All that a fresh process needs for one estimate in PyTorch, to measure its memory."""
    torch.set_num_threads(threads)
    network = seeded_network(name)
    call(network, make_tensors(network, size), shifts)


def run_model(model: str, size: tuple[int, int], threads: int) -> None:
    """All that a fresh process needs for one estimate in ONNX Runtime, to measure its memory."""
    estimator = load(model, threads=threads)
    estimator.run(preprocess(estimator.metadata.spec, *sample_pair(*size)[:2]))


def print_ratios(report: BenchmarkReport) -> None:
    """ONNX Runtime's median time over that of the shifts, network by network."""
    median = {result.name: result.median_ms for result in report.results}
    for name in NETWORKS:
        ratio = median[f"{name} · {ONNX_RUNTIME}"] / median[f"{name} · {SHIFTS}"]
        stdout.print(f"{name}: ONNX Runtime takes {ratio:.2f} of the time of {SHIFTS}")
    gocor, plain = (median[f"{name} · {ONNX_RUNTIME}"] for name in ("PWCNet_GOCor", "PWCNet"))
    stdout.print(f"GOCor over plain correlation in ONNX Runtime: {gocor / plain:.2f}")
    limit = LIMIT * median[f"PWCNet_GOCor · {SHIFTS}"]
    verdict = "met" if gocor <= limit else "missed"
    stdout.print(f"aim for PWCNet_GOCor, at most {LIMIT} of the shifts' time ({limit:.0f} ms): {verdict}")


if __name__ == "__main__":
    typer.run(main)
