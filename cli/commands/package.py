"""``gocor package``: a checkpoint becomes the folder that a team receives."""

from pathlib import Path
from typing import Annotated

import typer

from gocor.commands.export import parse_size
from gocor.commands.verify import pair_source
from gocor.console import examples, progress
from gocor.package_report import print_built

EPILOG = examples(
    "gocor package their.pth -o package/ --size 384x512",
    "gocor package their.pth -o package/ --size 384x512 --size 480x640 --precision fp32,fp16",
    "gocor package their.pth -o package/ --size 384x512 --precision fp32,int8 --pairs pairs.csv",
    "gocor package their.pth -o package/ --size 384x512 --backend openvino --precision int8 --synthetic 64",
    "gocor verify package/",
)


def package(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint: .pth, .pth.tar or .safetensors; or pwcnet-gocor-demo.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    size: Annotated[
        list[str],
        typer.Option(metavar="HxW", help="Height and width of the images, as 384x512; once for each."),
    ],
    precision: Annotated[
        str, typer.Option(metavar="LIST", help="Some of fp32,fp16,int8; fp32 is there in any case.")
    ] = "fp32",
    backend: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Some of onnxruntime,openvino,tensorrt,tensorrt-rtx, which are built here; the first is "
            "there in any case.",
        ),
    ] = "onnxruntime",
    dynamic: Annotated[
        str | None,
        typer.Option(
            metavar="AXES",
            help="One more fp32 model for ONNX Runtime, in which some of batch,height,width vary.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Image pairs in a call.")] = 1,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Pairs to verify and calibrate with: CSV file with columns reference and query, or a video; "
            "given twice, two folders. At most 4 are packaged. The built-in ones if not given."
        ),
    ] = None,
    synthetic: Annotated[
        int | None, typer.Option(metavar="N", help="Calibrate int8 with so many generated pairs.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Calibrate int8 with at most so many of the pairs.")] = 64,
    tolerance: Annotated[
        float | None, typer.Option(help="AEPE allowed in fp16 and int8, px; other limits grow with it.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="GOCor's iterations; the trained count, or 3, if not given.")
    ] = None,
    global_iterations: Annotated[int | None, typer.Option(help="Of the global GOCor alone.")] = None,
    local_iterations: Annotated[int | None, typer.Option(help="Of the local GOCor alone.")] = None,
    network: Annotated[
        str | None, typer.Option(help="PWCNet, PWCNet_GOCor, …; recognised from the checkpoint if not given.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What to say of the checkpoint's licence.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; one for each core if not given.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Take the place of a package that is there.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Make a package of a checkpoint: everything that a team needs to run its flow.

    Models of every size, precision and backend; image pairs with PyTorch's flows, reports, hashes of all of
    it, a script that makes it again, and the C++ library. The folder appears when it is finished and has
    passed its own check. gocor verify, run and inspect take it, and gocor.load.
    """
    sizes = tuple(map(parse_size, size))
    from gocor.calibration.packaging.build import build_package
    from gocor.calibration.packaging.config import PackageConfig
    from gocor.export.checkpoint import load_network

    config = PackageConfig(
        sizes, _list(precision), _list(backend), batch, _list(dynamic),  # type: ignore[arg-type]
        synthetic, samples, tolerance, licence, threads, overwrite,
    )  # fmt: skip
    source = pair_source(pairs or [])
    config.check(source)
    module = load_network(
        checkpoint, iterations, global_iterations=global_iterations, local_iterations=local_iterations,
        network=network,
    )  # fmt: skip
    with progress(f"package {output.name}") as show:
        report = build_package(module, output, config, source, show)
    print_built(report, json)


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",")) if text else ()
