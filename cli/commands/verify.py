"""``gocor verify``: is a model the network it was made from?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from gocor.console import examples, facts_table, iterations, print_figures, print_line, progress, stdout
from gocor.core.errors import ConfigError
from gocor.core.files import check_writable
from gocor.package_report import refuse, verify_package
from gocor.runtime.pairs import VIDEO_SUFFIXES, PairSource, find_pairs
from gocor.runtime.report import write_json
from gocor.runtime.session import check_model_file

if TYPE_CHECKING:
    from rich.table import Table

    from gocor.export.verify import VerifyReport, Worst

MOVED_BY_8_BITS = (
    "8 bits move the flow, as far as gocor calibrate says; --tolerance allows more, and --budget of that "
    "command keeps it near"
)
EPILOG = examples(
    "gocor verify model.onnx their.pth",
    "gocor verify package/",
    "gocor verify model.onnx their.pth --pairs pairs.csv --json report.json",
    "gocor verify model.onnx their.pth --pairs left/ --pairs right/ --provider cuda",
    "gocor verify model.engine their.pth",
    "gocor verify model.xml their.pth",
    "gocor verify model.fp16.onnx their.pth --oracle",
)


def verify(
    model: Annotated[
        Path, typer.Argument(help="Model of gocor export, what gocor build made of it, or a package.")
    ],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint that it was made from; not for a package.")
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(
            help="CSV file with columns reference and query, or a video; given twice, two images or two "
            "folders. The built-in pair if not given."
        ),
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Where to run the model: cpu (default), cuda or tensorrt.")
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(help="Model that gocor build was given; beside the engine or .xml if not given."),
    ] = None,
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="Round to fp16 or bf16 on the CPU as a GPU does, which takes no GPU."),
    ] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads; one for each core if not given.")] = None,
    pad: Annotated[bool, typer.Option("--pad", help="Pad two images of different sizes with black.")] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="AEPE allowed, px; other limits grow with it. Default 0.005, GLU-Net's 0.02; 0.02 and 0.05 "
            "in fp16, 0.16 and 0.4 in bf16, 0.2 and 0.5 with convolutions in 8 bits."
        ),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="HASH", help="Of a package: what its package.json must have.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything here.")] = None,
) -> None:
    """Compare a model with PyTorch, or a package with what was packaged.

    Runs the official pipeline in PyTorch and the model on the same pairs; for what gocor build made also the
    ONNX model that it was built from, and compares every step. The exit code is 0 when all outputs are within
    the tolerance, 1 when one is not.

    Of a package every file is compared with its hash, and every model that this machine can run with the
    flows of PyTorch in the package; that takes neither PyTorch nor the checkpoint.
    """
    if model.is_dir():
        refuse({"CHECKPOINT": checkpoint, "--pairs": pairs, "--onnx": onnx, "--oracle": oracle, "--pad": pad,
                "--tolerance": tolerance}, "a package")  # fmt: skip
        raise typer.Exit(verify_package(model, provider, threads, sha256, json))
    source = _checked(model, checkpoint, pairs, sha256, json)
    from gocor.export.verify import verify as verify_model

    with progress("verify") as show:
        report = verify_model(
            model, checkpoint, source, provider,  # type: ignore[arg-type]
            onnx=onnx, oracle=oracle, threads=threads, pad=pad, tolerance=tolerance, progress=show,
        )  # fmt: skip
    _print(report)
    if json:
        write_json(json, report)
        print_line("written", json, "green")
    raise typer.Exit(0 if report.passed else 1)


def _checked(
    model: Path, checkpoint: Path | None, pairs: list[Path] | None, sha256: str | None, json: Path | None
) -> PairSource | None:
    """The pairs, once the options of a model go together and its report can be written."""
    refuse({"--sha256": sha256}, "a model")
    if checkpoint is None:
        check_model_file(model)
        raise ConfigError("CHECKPOINT", "is missing", "gocor verify MODEL CHECKPOINT; a package goes without")
    source = pair_source(pairs or [])
    if json:
        check_writable(json)
    return source


def pair_source(paths: list[Path]) -> PairSource | None:
    """Pairs of an option ``--pairs`` that was given so often; None if never."""
    if not paths:
        return None
    if len(paths) > 2:
        raise ConfigError(
            "--pairs", f"was given {len(paths)} times", "once, or twice for reference and query"
        )
    if len(paths) == 2 or paths[0].suffix.lower() in VIDEO_SUFFIXES:
        return find_pairs(*paths)
    if paths[0].is_dir():
        expected = f"a second folder (--pairs {paths[0]} --pairs queries/) or a CSV file"
        raise ConfigError("--pairs", f"{paths[0]} is one folder", expected)
    return find_pairs(table=paths[0])


def _print(report: "VerifyReport") -> None:
    from gocor.export.verify import built_kind

    described = report.metadata
    facts = {
        "network": described.network,
        "iterations": iterations(described.global_iterations, described.local_iterations),
        "images": f"{described.images}, io {described.io}",
        "precision": _precision(report),
        "8 bits": f"{described.int8.convolutions} convolutions" if described.int8 else None,
        "weights": f"{described.weights_sha256[:12]}, the same in both",
        "compared": f"{report.model} on {report.provider} with {report.checkpoint} in PyTorch",
        "built from": report.onnx,
    }
    stdout.print(facts_table(facts), "")
    whole = f"PyTorch ↔ {built_kind(report.provider)}" if report.stages else ""
    stages = [*((stage.name, stage.worst) for stage in report.stages), (whole, report.worst)]
    for name, worst in stages:
        print_figures(_table(name, worst, len(report.pairs) > 1))
    verdict = Text("PASSED", "green") if report.passed else Text("FAILED", "red")
    count, limits = len(report.pairs), report.tolerance
    within = f", 99 % within {limits.p99:g} px" if limits.p99 else ""
    stdout.print(
        verdict,
        f"on {count} pair{'s' * (count > 1)}; allowed are AEPE {limits.aepe:g} px of the final flow{within} "
        f"and relative L2 {limits.relative_l2:g} of every output",
        soft_wrap=True,
    )
    for name, worst in stages:
        for entry in worst:
            if not entry.output.passed:
                where = ", ".join(filter(None, (name, entry.output.name, entry.pair)))
                print_line(where, entry.output.explain(), style="red")
    if described.int8 and not report.passed:
        print_line("note", MOVED_BY_8_BITS, style="cyan")


def _precision(report: "VerifyReport") -> str:
    precision = report.metadata.precision
    if report.oracle:
        return f"{precision}, each operator of the oracle rounds to it"
    if report.precision != precision:
        return f"{precision}, computed in {report.precision}"
    on_cpu = report.provider in ("cpu", "openvino") and precision == "fp16"
    return f"{precision}, computed in fp32" if on_cpu else precision


def _table(name: str, worst: "tuple[Worst, ...]", many: bool) -> "Table":
    from rich.table import Table

    title = "px, the worst pair of each output" if many else "px"
    table = Table(title=f"{name}: {title}" if name else title, title_justify="left")
    table.add_column("output")
    if many:
        table.add_column("pair", overflow="fold")
    for name in ("AEPE", "median", "99 %", "max", "relative L2"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("passed")
    for entry in worst:
        output = entry.output
        pixels = (output.aepe, output.median, output.p99, output.maximum)
        verdict = Text("yes", style="green") if output.passed else Text("no", style="red")
        figures = [*map(_figure, pixels), _figure(output.relative_l2)]
        table.add_row(output.name, *([Text(entry.pair)] if many else []), *figures, verdict)
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
