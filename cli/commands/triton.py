"""``gocor triton``: a model repository for NVIDIA's Triton Inference Server."""

from pathlib import Path
from typing import Annotated

import typer

from gocor.console import examples, facts_table, print_json, print_line, stdout

EPILOG = examples(
    "gocor triton model.onnx -o models/",
    "gocor triton gpu.engine cpu.xml -o models/ --instances 2",
    "gocor triton model.onnx -o models/ --provider cuda --name flow",
    "gocor triton better/flow.onnx -o models/ --provider cuda --update  # version 2",
)


def triton(
    models: Annotated[
        list[Path], typer.Argument(help="Models, engines or .xml files; each is served by its file's name.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the repository.")],
    name: Annotated[
        str | None, typer.Option(help="To serve the only model by, in place of its file's.")
    ] = None,
    instances: Annotated[int, typer.Option(help="Copies of each model that run side by side.")] = 1,
    provider: Annotated[
        str | None, typer.Option(help="cpu or cuda, for .onnx files; cpu if not given.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Of each instance on the CPU; the server's choice if not given.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Add a version of each model to a repository that is there.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server.

    Beside the models and their configurations lie README.md, which says how to serve them, and client.py,
    which sends two images and saves their flow. Nothing is run: models are checked by their hashes.
    """
    from gocor.export.triton import triton_repository
    from gocor.export.triton_config import TritonConfig

    config = TritonConfig(name, instances, provider, threads)  # type: ignore[arg-type]
    report = triton_repository(models, output, config, update)
    for note in report.notes:
        print_line("note", note, style="cyan")
    if json:
        print_json(report)
        return
    facts: dict[str, object] = {"repository": report.path}
    facts |= {e.model: f"version {e.version}, {e.backend}, {e.network}" for e in report.added}
    stdout.print(facts_table(facts | {"to serve it": report.path / "README.md"}))
