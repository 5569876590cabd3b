"""What a user can get wrong, through every command: one line, exit code 2, and nothing half-written."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from full_disk import files_up_to
from toy_models import save_toy

from gocor.runtime.images import save_image

Invoke = Callable[..., tuple[int, str, str]]


class Intruder:
    """A pickle that would run code where it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("intruder-was-here"),)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, exported) -> SimpleNamespace:
    """Paths of good and bad files by name."""
    import onnx
    import torch

    folder = tmp_path_factory.mktemp("files")
    paths = SimpleNamespace(
        model=save_toy(folder / "toy.onnx"), checkpoint=exported.checkpoint, real_model=exported.model,
        image=folder / "image.png", folder=folder, missing=folder / "missing.pth",
    )  # fmt: skip

    def add(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        setattr(paths, name.replace(".", "_"), folder / name)

    image = np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8)
    save_image(paths.image, image)
    add("half.png", paths.image.read_bytes()[:2000])
    add("text.png", b"this is not an image")
    add("half.pth", exported.checkpoint.read_bytes()[:100_000])
    add("text.pth", b"this is not a checkpoint")
    add("half.onnx", paths.model.read_bytes()[:300])
    add("empty.onnx", b"")
    torch.save({"encoder.weight": torch.zeros(3, 3)}, folder / "other.pth")
    torch.save({"state_dict": Intruder()}, folder / "code.pth")
    foreign = onnx.load(paths.model)
    del foreign.metadata_props[:]
    onnx.save(foreign, folder / "foreign.onnx")
    paths.other_pth, paths.code_pth = folder / "other.pth", folder / "code.pth"
    paths.foreign_onnx = folder / "foreign.onnx"
    return paths


EXPORT = "export {checkpoint} -o out.onnx"
CASES = {
    # files that are missing, unreadable, truncated or something else
    "export missing": ("export {missing} -o out.onnx --size 64x64", "missing.pth: no such file; give a"),
    "export folder": ("export {folder} -o out.onnx --size 64x64", "is a folder; give a checkpoint file"),
    "export half": ("export {half_pth} -o out.onnx --size 64x64", "half.pth: is damaged or no checkpoint"),
    "export text": ("export {text_pth} -o out.onnx --size 64x64", "text.pth: is no checkpoint; a .pth"),
    "export code": ("export {code_pth} -o out.onnx --size 64x64", "code.pth: holds pickled code"),
    "export other": ("export {other_pth} -o out.onnx --size 64x64", "other.pth: is no checkpoint of a"),
    "export wrong network": (EXPORT + " --size 64x64 --network GLUNet", "does not fit GLUNet (missing: "),
    "export image": ("export {image} -o out.onnx --size 64x64", "image.png: is no checkpoint"),
    "run missing model": ("run missing.onnx {image} {image} -o out", "missing.onnx: no such file; give"),
    "run half model": ("run {half_onnx} {image} {image} -o out", "half.onnx: "),
    "run empty model": ("run {empty_onnx} {image} {image} -o out", "empty.onnx: is empty; give a model"),
    "run foreign model": ("run {foreign_onnx} {image} {image} -o out", "foreign.onnx: was not made by gocor"),
    "run checkpoint": ("run {checkpoint} {image} {image} -o out", "is a checkpoint; make a model of it"),
    "run missing image": ("run {model} missing.png {image} -o out", "missing.png: "),
    "run half image": ("run {model} {image} {half_png} -o out", "half.png: "),
    "run text image": ("run {model} {image} {text_png} -o out", "text.png: "),
    "run one image": ("run {model} {image} -o out", "QUERY: is missing; a second image or folder"),
    "run missing table": ("run {model} --pairs missing.csv -o out", "missing.csv: cannot be read"),
    "run image as table": ("run {model} --pairs {image} -o out", "image.png: is no CSV file"),
    "inspect missing": ("inspect missing.onnx", "missing.onnx: no such file"),
    "inspect half": ("inspect {half_onnx}", "half.onnx: "),
    "inspect code": ("inspect {code_pth}", "code.pth: holds pickled code, which is never run"),
    "bench missing": ("bench missing.onnx", "missing.onnx: no such file; give a model"),
    "bench foreign": ("bench {model} {foreign_onnx}", "foreign.onnx: was not made by gocor"),
    "verify missing model": ("verify missing.onnx {checkpoint}", "missing.onnx: no such file"),
    "verify missing checkpoint": ("verify {real_model} missing.pth", "missing.pth: no such file"),
    "verify foreign": ("verify {foreign_onnx} {checkpoint}", "foreign.onnx: was not made by gocor"),
    "verify code": ("verify {real_model} {code_pth}", "code.pth: holds pickled code, which is never run"),
    "verify exchanged": ("verify {checkpoint} {real_model}", "seeded.pth: is a checkpoint"),
    "verify other checkpoint": ("verify {model} {checkpoint}", "toy.onnx: "),
    # values that make no sense
    "size": (EXPORT + " --size 64", "--size: is '64'; height x width in pixels, as 384x512"),
    "size zero": (EXPORT + " --size 0x64", "--size: is 0x64; height and width from 1"),
    "size no multiple": (EXPORT + " --size 65x128 --io tensors", "is 65x128; with --io tensors PWCNet_GOCor"),
    "iterations": (EXPORT + " --size 64x64 --iterations -1", "-1"),
    "local iterations": (EXPORT + " --size 64x64 --local-iterations -1", "-1"),
    "batch": (EXPORT + " --size 64x64 --batch 0", "--batch: is 0; at least 1"),
    "io": (EXPORT + " --size 64x64 --io pictures", "--io: is 'pictures'; images or tensors"),
    "network": (EXPORT + " --size 64x64 --network RAFT", "unknown name 'RAFT'; one of PWCNet"),
    "provider of run": ("run {model} {image} {image} -o out --provider npu", "unknown name 'npu'; one of"),
    "provider of bench": ("bench {model} --provider npu", "unknown name 'npu'; one of"),
    "format": ("run {model} {image} {image} -o out --format exr", "'exr'"),
    "threads": ("run {model} {image} {image} -o out --threads 0", "threads: is 0; at least 1"),
    # outputs that cannot be written: taken is a file
    "export into a file": (
        "export {checkpoint} -o taken/out.onnx --size 64x64", "out.onnx: cannot be written (a folder",
    ),
    "run into a file": ("run {model} {image} {image} -o taken", "taken"),
    "bench into a file": ("bench {model} --rounds 2 --json taken/b.json", "b.json: cannot be written (a"),
    "verify into a file": ("verify {real_model} {checkpoint} --json taken/v.json", "v.json: cannot be"),
}  # fmt: skip


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a file ``taken`` and an earlier result ``out.onnx``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "out.onnx").write_text("earlier")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("line", "text"), CASES.values(), ids=CASES)
def test_one_line_and_2_and_nothing_written(
    line: str,
    text: str,
    files: SimpleNamespace,
    workplace: Path,
    invoke: Invoke,
    request: pytest.FixtureRequest,
) -> None:
    before = content(workplace)
    if line.startswith("export {checkpoint} -o taken"):
        request.getfixturevalue("no_tracing")
    code, _, err = invoke(*line.format(**vars(files)).split())
    lines = [line for line in err.splitlines() if not line.startswith(("note: ", "warning: "))]
    assert code == 2, err
    assert len(lines) == 1, err
    assert re.match("error: .*" + re.escape(text), lines[0])
    assert content(workplace) == before


@pytest.fixture
def no_tracing(exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports write the model that is there already, which saves the seconds that tracing takes."""
    import onnx

    model = onnx.load(exported.model)
    del model.functions[:]
    monkeypatch.setattr("gocor.export.onnx_export._trace", lambda *_: model)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can grow beyond 1 KiB."""
    with files_up_to(1024):
        yield


@pytest.mark.parametrize(
    "line",
    [
        "export {checkpoint} -o out.onnx --size 64x64",
        "run {model} {image} {image} -o out",
        "bench {model} --rounds 2 --warmup 1 --json out.json",
        "verify {real_model} {checkpoint} --json out.json",
    ],
    ids=lambda line: line.split()[0],
)
@pytest.mark.usefixtures("no_tracing")
def test_a_full_disk_keeps_what_was_there(
    line: str, files: SimpleNamespace, workplace: Path, invoke: Invoke, request: pytest.FixtureRequest
) -> None:
    before = content(workplace)
    request.getfixturevalue("full_disk")
    code, _, err = invoke(*line.format(**vars(files)).split())
    assert code == 2, err
    assert re.search(r"^error: \S+: cannot be written \(File too large\)", err, re.MULTILINE), err
    assert content(workplace) == before
