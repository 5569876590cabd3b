"""``gocor run``: the flow of image pairs, as files and pictures."""

from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.text import Text

from gocor.console import examples, facts_table, print_line, progress, stdout
from gocor.core.errors import GocorError
from gocor.runtime.pairs import find_pairs
from gocor.runtime.run import PairResult, RunConfig, RunReport, run_pairs
from gocor.runtime.session import load

EPILOG = examples(
    "gocor run model.onnx left.png right.png -o out",
    "gocor run model.onnx clip.mp4 -o out --consistency",
    "gocor run model.engine left/ right/ -o out",
    "gocor run package/ left.png right.png -o out --precision int8",
    "gocor run model.onnx --pairs pairs.csv -o out --format kitti",
)


def run(
    model: Annotated[
        Path, typer.Argument(help="Model of gocor export, what gocor build made of it, or a package.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    reference: Annotated[Path | None, typer.Argument(help="Image, folder of images, or video.")] = None,
    query: Annotated[Path | None, typer.Argument(help="Image or folder; not for a video.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="CSV file with columns reference, query and, if wanted, name.")
    ] = None,
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
    format: Annotated[str, typer.Option(help="Flow file: flo, kitti (16-bit PNG) or npy.")] = "flo",
    pad: Annotated[bool, typer.Option("--pad", help="Pad two images of different sizes with black.")] = False,
    flip_check: Annotated[
        bool, typer.Option("--flip-check", help="Try the reference mirrored, too (GLU-Net family).")
    ] = False,
    consistency: Annotated[
        bool, typer.Option("--consistency", help="Estimate the flow back, too, and show where both disagree.")
    ] = False,
    points: Annotated[
        Path | None, typer.Option(help="CSV file with columns x and y: points to write the flow at.")
    ] = None,
    max_flow: Annotated[
        float | None, typer.Option(help="Pixels of full colour; each flow's largest if not given.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Compute again what is done.")] = False,
) -> None:
    """Estimate the flow of image pairs.

    Writes the flow, its picture, the query warped onto the reference, and all of it side by side. Of folders,
    tables and videos every pair gets a folder of its own, and what is done already is skipped.
    """
    config = RunConfig(output, format, pad, flip_check, consistency, points, max_flow, overwrite)  # type: ignore[arg-type]
    source = find_pairs(reference, query, pairs)
    with load(model, provider, threads, precision) as estimator, progress("pairs") as report:
        done = run_pairs(estimator, source, config, report)
    print_report(done, config, estimator.provider, source.single)
    if done.failures:
        count = len(done.failures) + len(done.results)
        raise GocorError(f"{len(done.failures)} of {count} pairs", "failed", "the lines above say why")


def print_report(report: RunReport, config: RunConfig, provider: str, single: bool) -> None:
    """Prints where the results are and what they say."""
    fresh = [result for result in report.results if not result.skipped]
    facts = _pair_facts(report.results[0]) if single else _run_facts(report)
    if fresh:
        facts["time"] = f"{1000 * median(r.seconds for r in fresh):.0f} ms per pair on {provider}"
    stdout.print(facts_table(facts))
    folder = config.output if single else config.output / "<pair>"
    stdout.print(Text(f"{folder}: {' '.join(config.file_names())}"), soft_wrap=True)
    for name, error in report.failures:
        print_line(name, error, style="red")


def _pair_facts(result: PairResult) -> dict[str, object]:
    return {
        "size": f"{result.width}×{result.height}",
        "flow": f"mean {result.mean_flow:.3g} px, largest {result.max_flow:.3g} px",
        "consistent": None if result.consistent is None else f"{result.consistent:.1%} of the pixels",
        "mirrored": None if result.flipped is None else "yes" if result.flipped else "no",
        "done": "before; --overwrite computes it again" if result.skipped else None,
    }


def _run_facts(report: RunReport) -> dict[str, object]:
    results = report.results
    facts: dict[str, object] = {"pairs": f"{len(results)} done, {len(report.failures)} failed"}
    if skipped := sum(result.skipped for result in results):
        facts["skipped"] = f"{skipped} were done before; --overwrite computes them again"
    if results:
        mean = sum(result.mean_flow for result in results) / len(results)
        facts["flow"] = f"mean {mean:.3g} px, largest {max(result.max_flow for result in results):.3g} px"
    shares = [result.consistent for result in results if result.consistent is not None]
    facts["consistent"] = f"{sum(shares) / len(shares):.1%} of the pixels" if shares else None
    flips = [result.flipped for result in results if result.flipped is not None]
    facts["mirrored"] = f"{sum(flips)} of {len(flips)}" if flips else None
    return facts
