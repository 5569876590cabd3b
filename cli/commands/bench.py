"""``gocor bench``: latency, throughput and memory of models side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gocor.console import examples, print_figures, print_line, progress
from gocor.core.files import check_writable

if TYPE_CHECKING:
    from rich.table import Table

    from gocor.runtime.benchmark import BenchmarkReport

EPILOG = examples(
    "gocor bench model.onnx",
    "gocor bench plain.onnx gocor.onnx --rounds 50 --json bench.json --plot bench.png",
    "gocor bench model.onnx --provider cpu --provider cuda",
    "gocor bench model.engine model.onnx --provider cuda",
    "gocor bench model.onnx model.xml --throughput",
)


def bench(
    models: Annotated[list[Path], typer.Argument(help="Models; the others are compared with the first.")],
    provider: Annotated[
        list[str] | None,
        typer.Option(help="cpu (default), cuda or tensorrt; may be repeated. Engines and .xml know."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Timed runs of each, interleaved.")] = 20,
    warmup: Annotated[int, typer.Option(help="Runs of each before that.")] = 3,
    threads: Annotated[int | None, typer.Option(help="Of models on the CPU; default one per core.")] = None,
    throughput: Annotated[
        bool, typer.Option("--throughput", help="Time .xml models also with several pairs side by side.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write every timed run here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw every timed run here, .png, .svg or .pdf.")] = None,
) -> None:
    """Time models and providers side by side.

    Measures whole calls on the built-in pair, from uint8 images in memory to the flow in pixels, in
    interleaved rounds, so that a busy moment of the machine hits all of them.
    """
    from gocor.runtime import benchmark
    from gocor.runtime.report import write_json

    if plot:
        benchmark.check_plot(plot)
    if json:
        check_writable(json)
    with progress("bench") as show:
        report = benchmark.benchmark_models(
            models, provider or [None],
            rounds=rounds, warmup=warmup, threads=threads, throughput=throughput, progress=show,
        )  # fmt: skip
    print_figures(report_table(report))
    if json:
        write_json(json, report)
        print_line("written", json, "green")
    if plot:
        benchmark.plot(report, plot)
        print_line("written", plot, "green")


def report_table(report: "BenchmarkReport") -> "Table":
    """One row for each candidate; times in milliseconds."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    machine = report.machine
    title = f"{report.rounds} interleaved rounds on {machine.cpu}, {machine.cores} cores; ms for one call"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)  # fits into 80 columns
    table.add_column("model · provider\npairs of size", overflow="fold")
    for name in ("median", "IQR", "p95", "p99", "pairs/s", "peak\nMiB", "time/\nfirst"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in report.results:
        times = (result.median_ms, result.spread_ms, result.p95_ms, result.p99_ms)
        memory = "-" if result.peak_memory_mib is None else f"{result.peak_memory_mib:.0f}"
        table.add_row(
            Text(f"{result.name}\n{result.pairs} × {result.facts['size']}"),
            *map(_milliseconds, times),
            f"{result.pairs_per_second:.1f}",
            memory,
            f"{result.time_ratio:.2f}",
        )
    return table


def _milliseconds(value: float) -> str:
    """Four digits, and never more than a hundredth."""
    return f"{value:.{2 if value < 100 else 1 if value < 1000 else 0}f}"
