"""Everything that reads a file, each with valid files to damage."""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from toy_models import METADATA, metadata, save_toy

from fuzz import damage
from fuzz.damage import BYTES, JSON, ONNX, TEXT, Damage
from gocor.core.errors import CheckpointError, ModelError
from gocor.runtime.metadata import Int8, ModelMetadata, Range, Repair, TensorSpec


@dataclass(frozen=True)
class Reader:
    """A function that reads a file.

    Attributes:
        name: of what it reads.
        suffix: of such files.
        samples: makes valid files in a folder, each under its own name.
        damages: ways to damage them.
        read: reads a damaged file, and uses what it gave as the commands do.
        library: most of the work is in somebody else's code, written in C: inputs take long, and what they
            find is not for us to mend.
    """

    name: str
    suffix: str
    samples: Callable[[Path], Iterator[Path]]
    damages: tuple[Damage, ...]
    read: Callable[[Path], object]
    library: bool = False

    def damaged(self, samples: list[bytes], number: int) -> bytes:
        """The input of a number, the same each time."""
        random = Random(f"{self.name} {number}")
        data = random.choice(samples)
        for _ in range(random.choice((1, 1, 2, 3))):
            data = random.choice(self.damages)(data, random)
        return data


READERS: dict[str, Reader] = {}


def reader(
    name: str,
    suffix: str,
    damages: tuple[Damage, ...],
    samples: Callable[[Path], Iterator[Path]],
    library: bool = False,
) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Puts a function into the table."""

    def add(read: Callable[[Path], object]) -> Callable[[Path], object]:
        READERS[name] = Reader(name, suffix, samples, damages, read, library)
        return read

    return add


# ── manifests and metadata

LOWERED = dataclasses.replace(
    METADATA,
    precision="fp16",
    repair=Repair(0.1, 0.05, ("encoder.*", "decoder.0")),
    int8=Int8("cpu", "entropy", 16, 40, Repair(0.2, 0.1, ("a",))),
)


DESCRIBED = (
    METADATA,
    LOWERED,
    metadata(network="GLUNet_GOCor", io="tensors"),
    metadata(
        io="tensors", height=64, dynamic={"batch": Range(1, 8), "height": Range(64), "width": Range(64)}
    ),
)


def engine_manifests(folder: Path) -> Iterator[Path]:
    from gocor.runtime.manifest import EngineManifest, manifest_path

    for index, described in enumerate(DESCRIBED):
        manifest = EngineManifest(
            path=folder / f"{index}.engine",
            model="toy.onnx",
            model_sha256="ab" * 32,
            library_version="11.4.0.106",
            inputs=described.inputs,
            outputs=(described.flow,),
            metadata=described,
            gocor_version="0.1.0",
            engine_sha256="cd" * 32,
            backend=("tensorrt", "tensorrt-rtx")[index % 2],
            targets=("sm_90", "sm_100"),
            shapes=((1, 64, 64), (2, 128, 192), (8, 256, 320)) if described.dynamic else None,
            gpu="NVIDIA H100",
            hardware_compatible=index == 1,
            version_compatible=index == 2,
            tf32=False,
            plugins="quick",
            plugin_sha256="ef" * 32,
        )
        path = manifest_path(manifest.path)
        path.write_text(manifest.to_json())
        yield path


@reader("engine manifest", ".engine.json", JSON, engine_manifests)
def read_engine_manifest(path: Path) -> object:
    from gocor.runtime.openvino_manifest import read_manifest

    manifest = read_manifest(path.with_suffix(""))
    use_metadata(manifest.metadata)
    with contextlib.suppress(ModelError):
        manifest.check_runs_on("11.4.0.106", "sm_90")  # type: ignore[call-arg]
    return manifest.rebuild, manifest.library, manifest.to_json(), repr(manifest)


def openvino_files(folder: Path) -> Iterator[Path]:
    from openvino_models import save_xml

    path = save_xml(folder / "toy.xml")
    yield path.with_name("toy.xml.json")


@reader("OpenVINO manifest", ".xml.json", JSON, openvino_files)
def read_openvino_manifest(path: Path) -> object:
    from gocor.runtime.openvino_manifest import OpenVINOManifest

    manifest = OpenVINOManifest.of(path.with_suffix(""))
    use_metadata(manifest.metadata)
    with contextlib.suppress(ModelError):
        manifest.check_runs_on("2026.4.1")
    return manifest.rebuild, manifest.library, manifest.to_json(), repr(manifest)


def properties(folder: Path) -> Iterator[Path]:
    for index, described in enumerate(DESCRIBED):
        path = folder / f"{index}.json"
        path.write_text(json.dumps(described.to_properties()))
        yield path


@reader("metadata", ".json", JSON, properties)
def read_metadata(path: Path) -> object:
    """As of an ONNX file, whose properties are strings in any case."""
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(path, "is for the parser of manifests") from error
    if not isinstance(values, dict):
        raise ModelError(path, "is for the parser of manifests")
    strings = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return use_metadata(ModelMetadata.from_properties(strings, path))


def use_metadata(described: ModelMetadata) -> object:
    """Asks for everything that it can be asked for."""
    described.spec, described.size, described.gocor, described.output_names, str(described)
    assert all(isinstance(spec, TensorSpec) for spec in (*described.inputs, described.flow))
    again = ModelMetadata.from_properties(described.to_properties(), "again")
    assert again == described or "nan" in repr(described).lower(), (again, described)
    return again


# ── models


def onnx_files(folder: Path) -> Iterator[Path]:
    yield save_toy(folder / "toy.onnx")
    yield save_toy(folder / "tensors.onnx", metadata(network="GLUNet_GOCor", io="tensors", height=64))


def onnx_sources(folder: Path) -> Iterator[Path]:
    from engine_models import save_with_operators

    yield save_toy(folder / "toy.onnx")
    yield save_with_operators(folder / "operators.onnx")


@reader("ONNX file, inspected", ".onnx", ONNX, onnx_files)
def inspect_onnx(path: Path) -> object:
    from gocor.export.inspection import inspect_file

    return repr(inspect_file(path))


@reader("ONNX file, to build from", ".onnx", ONNX, onnx_sources)
def read_onnx_source(path: Path) -> object:
    from gocor.export.engine_source import read_source

    source = read_source(path)
    return source.sha256, use_metadata(source.metadata), repr(source.calls)


@reader("ONNX file, links to other files", ".onnx", ONNX, onnx_files)
def check_onnx_links(path: Path) -> object:
    from gocor.runtime.onnx_file import check_self_contained

    path.write_bytes(path.read_bytes() + b"\x12\x08location")  # so that damage is not left to the library
    return check_self_contained(path)


@reader("ONNX file, in ONNX Runtime", ".onnx", ONNX, onnx_files, library=True)
def load_onnx(path: Path) -> object:
    import gocor

    with gocor.load(path, threads=1) as estimator:
        return repr(estimator)


# ── flow files


def flows(suffix: str) -> Callable[[Path], Iterator[Path]]:
    def samples(folder: Path) -> Iterator[Path]:
        from gocor.runtime.flow import write_flow

        random = np.random.default_rng(0)
        for index, size in enumerate(((3, 5), (16, 24))):
            flow = random.normal(size=(2, *size)).astype(np.float32) * 20
            path = folder / f"{index}{suffix}"
            if suffix == ".pfm":
                planes = np.concatenate([flow, flow[:1]]) if index else flow[:1]
                kind = "PF" if index else "Pf"
                header = f"{kind}\n{size[1]} {size[0]}\n-1.0\n".encode()
                path.write_bytes(header + planes.transpose(1, 2, 0).astype("<f4").tobytes())
            else:
                write_flow(path, flow, valid=flow[0] > -20)
            yield path

    return samples


def read_flow_file(path: Path) -> object:
    from gocor.runtime.flow import read_flow

    flow, valid = read_flow(path)
    assert flow.dtype == np.float32, flow.dtype
    assert flow.shape == (2, *valid.shape), (flow.shape, valid.shape)
    assert np.isfinite(flow).all()
    return flow


PNG = (damage.png_chunks, damage.png_chunks, *BYTES)
for _suffix, _damages in (
    (".flo", BYTES),
    (".png", PNG),
    (".npy", (damage.npy_header, *BYTES)),
    (".pfm", (damage.words, damage.lines, *BYTES)),
):
    reader(f"flow {_suffix}", _suffix, _damages, flows(_suffix))(read_flow_file)


# ── images


def images(suffix: str) -> Callable[[Path], Iterator[Path]]:
    def samples(folder: Path) -> Iterator[Path]:
        from PIL import Image

        random = np.random.default_rng(0)
        for index, mode in enumerate(("RGB", "L", "P", "RGBA")):
            if mode not in ("RGB", "L") and suffix in (".jpg", ".ppm"):
                continue
            image = Image.fromarray(random.integers(0, 256, (12, 9, 3), np.uint8)).convert(mode)
            path = folder / f"{index}{suffix}"
            compression = {"compression": "tiff_deflate"} if suffix == ".tif" and index % 2 else {}
            image.save(path, **compression)
            yield path

    return samples


def read_image(path: Path) -> object:
    from gocor.runtime.images import load_image

    image = load_image(path)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    return image


for _suffix, _damages in (
    (".png", PNG),
    (".jpg", BYTES),
    (".tif", BYTES),
    (".webp", BYTES),
    (".bmp", BYTES),
    (".ppm", (damage.words, *BYTES)),
):
    reader(f"image {_suffix}", _suffix, _damages, images(_suffix))(read_image)


# ── tables and texts


def texts(*contents: str) -> Callable[[Path], Iterator[Path]]:
    def samples(folder: Path) -> Iterator[Path]:
        for index, content in enumerate(contents):
            path = folder / f"{index}.txt"
            path.write_text(content)
            yield path

    return samples


PAIRS = texts(
    "reference,query,name\na.png,b.png,first\nb.png,a.png,second\na.png,a.png,\n",
    '\ufeffreference , query\r\n"a.png","b.png"\r\n\r\n',
    "query,reference,flow\na.png,b.png,a.flo\n",
)


@reader("table of pairs", ".csv", TEXT, PAIRS)
def read_pairs(path: Path) -> object:
    from gocor.runtime.pairs import find_pairs

    for name in ("a.png", "b.png"):
        if not (file := path.with_name(name)).exists():
            from PIL import Image

            Image.new("RGB", (4, 4)).save(file)
    pairs = list(find_pairs(table=path))
    assert len({pair.name for pair in pairs}) == len(pairs)
    return [pair.fingerprint() for pair in pairs]


@reader(
    "table of ground truth",
    ".csv",
    TEXT,
    texts("reference,query,flow,homography\na.png,a.png,a.png,\na.png,a.png,,a.png\n"),
)
def read_truth(path: Path) -> object:
    from gocor.evaluation.datasets.manifest import manifest

    path.with_name("a.png").touch()
    return manifest(path).samples


@reader("table of points", ".csv", TEXT, texts("x,y\n1,2\n3.5,0\n", "name,y,x\na,1e0,2\n"))
def read_points(path: Path) -> object:
    from gocor.runtime.run import _Points

    return _Points(path).table(np.zeros((2, 8, 8), np.float32))


@reader("homography", ".txt", TEXT, texts("1 0 0\n0 1 0\n0 0 1\n", "0.9,0.1,3,-0.1,1.1,2,1e-4,1e-5,1"))
def read_homography(path: Path) -> object:
    from gocor.evaluation.homography import homography_flow, read_homography

    flow, valid = homography_flow(read_homography(path), (6, 8), (6, 8))
    assert np.isfinite(flow).all()
    return flow, valid


@reader("mark of a mirrored pair", ".txt", TEXT, texts("0\n", "1"))
def read_mirrored(path: Path) -> object:
    from gocor.evaluation.datasets.tss import _flipped

    return _flipped(path)


# ── checkpoints


@cache
def tiny_state() -> dict[str, Any]:
    import torch

    return {"module.weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(4, dtype=torch.float16)}


def pth_files(folder: Path) -> Iterator[Path]:
    import torch

    rich = {
        "state_dict": tiny_state(),
        "epoch": 3,
        "best": np.float64(0.25),
        "iterations": 5,
        "args": [{"lr": 1e-4}],
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"betas": (0.9, 0.999)}]},
    }
    one_tensor = {**rich, "state_dict": {"weight": torch.ones(2, 3)}}
    for name, content, options in (
        ("plain", tiny_state(), {}),
        ("rich", rich, {}),
        ("legacy", one_tensor, {"_use_new_zipfile_serialization": False}),
        ("parameter", {"weight": torch.nn.Parameter(torch.ones(2))}, {}),
    ):
        path = folder / f"{name}.pth"
        torch.save(content, path, **options)
        # Names of tensors before PyTorch 1.6 are their addresses, which are others in every process.
        path.write_bytes(re.sub(rb"X[\x06-\x14]\0\0\0\d{6,20}", b"X\x01\x00\x00\x000", path.read_bytes()))
        yield path


def safetensors_files(folder: Path) -> Iterator[Path]:
    from safetensors.torch import save_file

    save_file(tiny_state(), folder / "tiny.safetensors", {"iterations": "3"})
    yield folder / "tiny.safetensors"


def read_checkpoint_file(path: Path) -> object:
    import torch

    from gocor.export.checkpoint import read_checkpoint, recognize

    checkpoint = read_checkpoint(path)
    for value in checkpoint.tensors.values():
        assert type(value) in (torch.Tensor, torch.nn.Parameter)
        assert value.layout == torch.strided
    with contextlib.suppress(CheckpointError):
        recognize(checkpoint)
    return checkpoint


reader("checkpoint .pth", ".pth", (damage.zip_members,) * 3 + (damage.pickle_opcodes, *BYTES), pth_files)(
    read_checkpoint_file
)
reader(
    "checkpoint .safetensors", ".safetensors", (damage.safetensors_header,) * 3 + BYTES, safetensors_files
)(read_checkpoint_file)


# ── what commands leave for later ones


def range_tables(folder: Path) -> Iterator[Path]:
    from gocor.calibration.ranges import Range, RangeTable

    table = RangeTable(
        method="entropy",
        samples=3,
        pairs_sha256="ab" * 32,
        model="toy.onnx",
        model_sha256="cd" * 32,
        ranges={"a": Range(-1.0, 2.0, -0.9, 1.9, 0.01), "b": Range(0.0, 1.0, 0.0, 1.0, 0.0)},
        channel_scales={"a": (0.5, 2.0)},
    )
    table.save(folder / "table.json")
    yield folder / "table.json"


@reader("table of ranges", ".ranges.json", JSON, range_tables)
def read_ranges(path: Path) -> object:
    from gocor.calibration.ranges import RangeTable
    from gocor.core.errors import ConfigError

    table = RangeTable.load(path)
    with contextlib.suppress(ConfigError):
        table.check_fits("cd" * 32, {"a", "b"}, path)
    table.save(path.with_name("again.json"))
    return table


def repository_indices(folder: Path) -> Iterator[Path]:
    from gocor.export.triton import INDEX, triton_repository

    triton_repository([save_toy(folder / "toy.onnx")], folder / "models")
    yield folder / "models" / INDEX


@reader("index of a model repository", ".json", JSON, repository_indices)
def read_index(path: Path) -> object:
    from gocor.export.triton import _read_index
    from gocor.export.triton_guide import guide

    return guide(_read_index(path))


RECORD = {
    "identity": {"model": "ab", "files": [["a.png", 1, 2]]},
    "files": ["flow.flo"],
    "result": {"aepe": 0.5, "flipped": None},
}


@reader("record of an estimated pair", ".json", JSON, texts(json.dumps(RECORD)))
def read_record(path: Path) -> object:
    from gocor.runtime import run

    shutil.copy(path, path.with_name(run.RECORD))
    path.with_name("flow.flo").touch()
    record = run._read_record(path.parent)
    return run._done(record, RECORD["identity"], "pair", path.parent)


# ── batches, packages, videos


def shard_files(folder: Path, format: str) -> Iterator[Path]:
    from gocor.runtime.batch.index import failed
    from gocor.runtime.batch.shards import open_shard
    from gocor.runtime.pairs import file_pair

    pairs = [file_pair(name, Path("a.png"), Path(f"{name}.png")) for name in ("first", "second, too", "ü")]
    shard = open_shard(folder, 0, format, "float32")  # type: ignore[arg-type]
    shard.begin()
    outcomes = [shard.add(pair, np.ones((2, 3, 4), np.float32), 0.25) for pair in pairs[:2]]
    shard.finish([*outcomes, failed(pairs[2], "is truncated\nor so")])
    yield shard.final / "index.csv" if format == "flo" else shard.final


@reader("shard of flow files", ".csv", TEXT, partial(shard_files, format="flo"))
def read_file_shard(path: Path) -> object:
    folder = path.with_name("000000")
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "index.csv")
    return read_outcomes(folder)


@reader("shard in Parquet", ".parquet", BYTES, partial(shard_files, format="parquet"))
def read_outcomes(path: Path) -> object:
    from gocor.runtime.batch.index import write_index
    from gocor.runtime.batch.shards import read_shard

    outcomes = read_shard(path)
    return write_index(path.parent, [outcomes], parquet=False)


@reader(
    "record of a batch", ".json", JSON, texts(json.dumps({"format_version": 1, "pairs": 3, "--shard": 100}))
)
def read_job(path: Path) -> object:
    from gocor.runtime.batch import job

    shutil.copy(path, path.with_name(job.JOB))
    recorded = job._read_record(path.parent)
    identity = {"format_version": 1, "pairs": 4, "--shard": 100}
    return None if recorded in (None, identity) else job._difference(recorded, identity)


def parquet_lists(folder: Path) -> Iterator[Path]:
    import pyarrow
    import pyarrow.parquet

    table = {"reference": ["a.png", "b.png"], "query": ["b.png", "a.png"], "name": ["x", None], "n": [1, 2]}
    for index, compression in enumerate(("none", "snappy")):
        path = folder / f"{index}.parquet"
        pyarrow.parquet.write_table(pyarrow.table(table), path, compression=compression)
        yield path


def read_pair_list(path: Path) -> object:
    from gocor.runtime.pairs import PairList

    pairs = PairList(path)
    names = [pair.name for pair in pairs]
    assert len(set(names)) == pairs.expected
    return names


reader("list of pairs, Parquet", ".parquet", BYTES, parquet_lists)(read_pair_list)
reader("list of pairs, CSV", ".csv", TEXT, PAIRS)(read_pair_list)


def package_indices(folder: Path) -> Iterator[Path]:
    from packages import make_package

    yield make_package(folder / "package").index


@reader("index of a package", ".json", JSON, package_indices)
def read_package(path: Path) -> object:
    """With a seal that is right again, where there is one."""
    from gocor.core.reading import parse_json
    from gocor.runtime import package

    with contextlib.suppress(ValueError):
        if isinstance(values := parse_json(path.read_text("utf-8")), dict):
            values.pop("sha256", None)
            path.write_text(package._sealed(values), "utf-8")
    shutil.copy(path, path.with_name(package.INDEX))
    found = package.Package.read(path.parent)
    for model in found.models:
        use_metadata(model.metadata)
        found.pairs_for(model)
    return list(found.differences()), found.sizes, found.to_json()


def videos(folder: Path) -> Iterator[Path]:
    import cv2

    random = np.random.default_rng(0)
    path = folder / "a.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (32, 16))  # type: ignore[attr-defined]
    for _ in range(4):
        video.write(random.integers(0, 256, (16, 32, 3), np.uint8))
    video.release()
    yield path


@reader("video", ".avi", BYTES, videos, library=True)
def read_video(path: Path) -> object:
    from gocor.runtime.pairs import VideoPairs

    return [pair.load()[0].shape for pair in islice(VideoPairs(path), 20)]
