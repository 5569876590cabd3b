"""``gocor batch``: the flow of any number of pairs."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gocor.batch_progress import batch_progress, duration, rate
from gocor.console import examples, facts_table, print_line, stdout
from gocor.core.errors import ConfigError
from gocor.runtime.batch.index import FAILED
from gocor.runtime.batch.job import BatchConfig, BatchReport
from gocor.runtime.batch.local import run_batch
from gocor.runtime.batch.ray_data import RayConfig, run_batch_on_ray
from gocor.runtime.pairs import PairList

SOME_FAILED = 3

EPILOG = examples(
    "gocor batch --pairs pairs.csv -o out --model model.onnx",
    "gocor batch --pairs pairs.parquet -o out --model model.engine --format parquet --dtype float16",
    "gocor batch --pairs pairs.csv -o out --model model.onnx --ray auto  # all machines of a Ray cluster",
    "gocor batch --pairs out/failed.csv -o again --model model.onnx",
)


def batch(
    pairs: Annotated[
        Path, typer.Option(help="CSV or Parquet file: columns reference, query and, if wanted, name.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    model: Annotated[Path, typer.Option(help="Model, what gocor build made of it, or a package's folder.")],
    provider: Annotated[
        str | None,
        typer.Option(
            help="Where to run: cpu (default), cuda or tensorrt. Engines and .xml know; a package chooses."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; one for each core if not given.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of a package's models: fp32 (default), fp16, int8.")
    ] = None,
    format: Annotated[str, typer.Option(help="flo, kitti (16-bit PNG) or npy files, or parquet.")] = "flo",
    dtype: Annotated[str, typer.Option(help="Of flows in Parquet: float32 or float16.")] = "float32",
    pad: Annotated[bool, typer.Option("--pad", help="Pad two images of different sizes with black.")] = False,
    batch: Annotated[
        int | None, typer.Option(help="Pairs that the model gets at a time; as it was exported if not given.")
    ] = None,
    shard: Annotated[
        int, typer.Option(help="Pairs in a folder or Parquet file; a kill costs those begun.")
    ] = 100,
    workers: Annotated[int | None, typer.Option(help="Threads that read, and as many that write.")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="local|auto|HOST:PORT", help="Run on a Ray cluster.")
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(help="Models on the cluster; one for each GPU or machine if not given.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Remove what is there, and begin anew.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Compute shards again in which pairs failed.")
    ] = False,
) -> None:
    """Estimate the flow of any number of pairs.

    Images are read and flows written while the model computes. Killed or interrupted, the same command goes
    on where it was. Pairs that fail are listed in failed.csv and stop nothing; the exit code is then 3.
    """
    config = BatchConfig(
        model, output, provider, threads, precision, format, dtype, pad, batch, shard, workers,  # type: ignore[arg-type]
        restart, retry_failed,
    )  # fmt: skip
    if ray_workers is not None and ray is None:
        raise ConfigError("--ray-workers", "was given without --ray", "--ray local, auto or HOST:PORT")
    compute = partial(run_batch_on_ray, ray=RayConfig(ray, ray_workers)) if ray is not None else run_batch
    listed = PairList(pairs)
    with batch_progress(config) as show:
        report = compute(listed, config, progress=show)
    print_report(report, config)
    if report.failed:
        raise typer.Exit(SOME_FAILED)


def print_report(report: BatchReport, config: BatchConfig) -> None:
    """Prints what was done, and where it is."""
    tally = report.tally
    fresh = tally.done + tally.failed
    speed = f"{rate(fresh, report.seconds)}, {duration(round(report.seconds))}" if fresh else None
    before = f"{tally.before} of them before; --restart computes them again" if tally.before else None
    facts = {"pairs": f"{report.done} done, {report.failed} failed", "": before, "time": speed}
    stdout.print(facts_table(facts | {"index": report.index}))
    if report.failed:
        print_line("failed", f"{config.output / FAILED} lists them with reasons", "red")
