import json
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packages import make_package, rewrite_index

from gocor.core.errors import GocorError, ModelError
from gocor.core.files import sha256
from gocor.runtime import package as package_module
from gocor.runtime.package import Package, PackagedModel, seal

pytest.importorskip("onnx")
Values = dict[str, Any]


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "package", precisions=("fp32", "int8"))


def text_of(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Package.read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder}/", "").replace(str(folder), "FOLDER")


def test_an_index_reads_back(package: Package) -> None:
    read = Package.read(package.folder)
    assert read == package
    assert (read.sizes, read.precisions) == (["32x64", "64x64"], ["fp32", "int8"])
    assert read.described.network == "PWCNet_GOCor"
    assert dict(read.differences()) == {}
    read.check_files([file.path for file in read.files])


def test_the_index_is_plain_to_read_and_has_the_hash_of_every_file(package: Package) -> None:
    values = json.loads(package.index.read_text())
    assert values["format"] == 1
    assert values["licence"] == "a licence"
    hashes = {file["path"]: file["sha256"] for file in values["files"]}
    found = {
        path.relative_to(package.folder).as_posix() for path in package.folder.rglob("*") if path.is_file()
    }
    assert hashes.keys() == found - {"package.json"}
    for path, digest in hashes.items():
        assert sha256(package.folder / path) == digest
    assert values["models"][0]["metadata"]["gocor.network"] == "PWCNet_GOCor"


def test_it_may_be_moved(package: Package, tmp_path: Path) -> None:
    package.folder.rename(tmp_path / "elsewhere")
    assert dict(Package.read(tmp_path / "elsewhere").differences()) == {}


def test_a_changed_byte_of_the_index_is_found(package: Package) -> None:
    text = package.index.read_text()
    last = text.rindex('"sha256": "') + len('"sha256": "')
    for before, after in (
        ('"aepe": 0.01', '"aepe": 9.01'),
        ("a licence", "o licence"),
        ('{\n  "format"', '{\n   "format"'),
        (text[last : last + 8], "0" * 8),
    ):
        package.index.write_text(text.replace(before, after))
        assert text_of(package.folder) == (
            "package.json: was changed since it was written (its own hash is another); copy the package "
            "again, or make it again: gocor package"
        )


def test_every_kind_of_change_is_found(package: Package) -> None:
    folder = package.folder
    (folder / "models/32x64.fp32.onnx").write_bytes((folder / "models/64x64.fp32.onnx").read_bytes())
    image = folder / "pairs/32x64/1/reference.png"
    image.write_bytes(image.read_bytes()[:-1] + b"!")
    (folder / "pairs/64x64/1/flow.npy").unlink()
    os.mkfifo(folder / "pairs/pipe")
    (folder / "pairs/64x64/1/query.png").rename(folder / "query.png")
    (folder / "pairs/64x64/1/query.png").symlink_to(folder / "query.png")
    (folder / ".hidden").touch()
    found = dict(package.differences())
    assert found.pop("pairs/32x64/1/reference.png").startswith(
        f"is not the file that was packaged (SHA-256 {sha256(image)[:12]}…, not "
    )
    assert found.pop("models/32x64.fp32.onnx").startswith(("has ", "is not the file that was packaged"))
    assert found == {
        "pairs/64x64/1/flow.npy": "is missing",
        "pairs/64x64/1/query.png": "is, or lies behind, a link",
        "pairs/pipe": "is a device, pipe or socket that is not in package.json",
        "query.png": "is a file that is not in package.json",
        ".hidden": "is a file that is not in package.json",
    }
    with pytest.raises(ModelError, match=r"flow\.npy: is missing; copy the package again"):
        package.check_files(["pairs/64x64/1/flow.npy"])


def test_a_folder_that_is_a_link_is_not_followed(package: Package, tmp_path: Path) -> None:
    (package.folder / "models").rename(tmp_path / "models")
    (package.folder / "models").symlink_to(tmp_path / "models")
    found = dict(package.differences())
    assert found["models"] == "is a link that is not in package.json"
    assert found["models/32x64.fp32.onnx"] == "is, or lies behind, a link"


def test_a_size_is_compared_before_a_hash(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    path = package.folder / "models/32x64.fp32.onnx"
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a sparse file
    monkeypatch.setattr("gocor.runtime.package.sha256", lambda path: pytest.fail("read"))
    with pytest.raises(ModelError, match=r"has 1,099,511,627,776 bytes, not "):
        package.check_files(["models/32x64.fp32.onnx"])


BAD_PATHS = (
    "../model.onnx", "/etc/passwd", "models/../../x.onnx", "models//x.onnx", "C:/x.onnx", "a\\b.onnx",
    ".x.onnx", "models/", "", "x" * 101, "a/" * 300 + "x", "x\n.onnx", "~/x.onnx", "-x", 3, None,
)  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS, ids=repr)
def test_paths_that_leave_the_folder_or_surprise_are_refused(package: Package, path: object) -> None:
    def change(values: Values) -> None:
        values["files"][0]["path"] = path

    rewrite_index(package.folder, change)
    assert text_of(package.folder).startswith("package.json: is a damaged index (path ")


def _set(*keys: str | int, to: object) -> Callable[[Values], None]:
    def change(values: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = to

    return change


def _twice(values: Values) -> None:
    values["files"].append(values["files"][0] | {"path": values["files"][0]["path"].upper()})


def _other_weights(values: Values) -> None:
    values["models"][1]["metadata"]["gocor.weights_sha256"] = "ee" * 32


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("format", to=2), "is of format 2; this gocor reads format 1"),
        (_set("models", to=[]), "0 models, 10 files"),
        (_set("models", to={}), "models is no list"),
        (_set("models", 0, "command", to="rm"), "unknown 'command'"),
        (_set("run_me", to="rm"), "unknown 'run_me'"),
        (_set("licence", to=7), "licence 7"),
        (_set("licence", to="x" * 2001), "licence 'xxx"),
        (_set("models", 0, "backend", to="python"), "backend 'python'"),
        (_set("models", 0, "backend", to="openvino"), "model models/32x64.fp32.onnx"),
        (_set("models", 0, "ran", to=1), "ran 1"),
        (_set("models", 0, "files", to=["models/absent.onnx"]), "no hash of models/absent.onnx"),
        (_set("models", 0, "files", to=["models/64x64.fp32.onnx"]), "model models/32x64.fp32.onnx"),
        (_set("models", 0, "files", to="models/32x64.fp32.onnx"), "files is no list"),
        (_set("models", 0, "metadata", "gocor.height", to=32), "metadata"),
        (_set("models", 0, "metadata", "gocor.height", to="-1"), "a model: has damaged gocor metadata"),
        (_set("models", 0, "tolerance", "aepe", to=0), "tolerance aepe 0"),
        (_set("models", 0, "tolerance", "aepe", to=True), "tolerance aepe True"),
        (_set("models", 0, "tolerance", "more", to=1), "tolerance"),
        (_set("models", 0, to=None), "no object"),
        (_set("models", 1, "path", to="models/32x64.fp32.onnx"), "model models/32x64.fp32.onnx"),
        (_set("pairs", 0, "height", to=0), "pair 'built-in' of 0x64"),
        (_set("pairs", 0, "width", to=1 << 20), "pair 'built-in' of 32x1048576"),
        (_set("pairs", 0, "orientation_score", to=1), "orientation_score 1"),
        (_set("files", 0, "bytes", to=-1), "file models/"),
        (_set("files", 0, "bytes", to=1.5), "bytes 1.5"),
        (_set("files", 0, "sha256", to="AB" * 32), "file models/"),
        (_set("files", 0, to={}), "no 'path'"),
        (_twice, "a path stands twice"),
        (_set("files", 0, "path", to="package.json"), "a path stands twice"),
        (_other_weights, "is of another network"),
    ],
)  # fmt: skip
def test_an_index_that_says_what_it_must_not_is_refused(
    package: Package, change: Callable[[Values], None], reason: str
) -> None:
    rewrite_index(package.folder, change)
    text = text_of(package.folder)
    assert text.startswith("package.json: is ")
    assert reason in text


def test_a_model_stands_once(package: Package) -> None:
    rewrite_index(package.folder, lambda values: values["models"].append(values["models"][0]))
    assert "a model stands twice" in text_of(package.folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is a damaged index (Expecting value"),
        (b"[]", "is a damaged index (no object)"),
        (b'{"format": NaN}', "is a damaged index (NaN is no number)"),
        (b'{"format": 1, "format": 1}', "is a damaged index (a name stands twice)"),
        (b"[" * 100_000, "is a damaged index (maximum recursion depth"),
        (b"1" * 10_000, "is a damaged index (Exceeds the limit"),
        (b"\xff", "is a damaged index ('utf-8' codec"),
        (b'{"format": 1e999}', "was changed since it was written"),
        (b" " * ((4 << 20) + 1), "has 4,194,305 bytes; at most 4,194,304"),
    ],
    ids=range(9),
)
def test_what_is_no_index_is_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "package.json").write_bytes(content)
    assert text_of(tmp_path).startswith(f"package.json: {reason}")


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    expected = "FOLDER: holds no package.json; a model file, or a folder of gocor package"
    assert text_of(tmp_path) == expected
    (tmp_path / "elsewhere.json").write_text("{}")
    (tmp_path / "package.json").symlink_to("elsewhere.json")
    assert text_of(tmp_path).startswith("package.json: is no regular file; copy the package again")
    (tmp_path / "package.json").unlink()
    (tmp_path / "package.json").mkdir()
    assert text_of(tmp_path).startswith("package.json: is no regular file; copy the package again")


def test_what_must_not_be_packaged(package: Package) -> None:
    models: list[PackagedModel] = list(package.models)
    package.index.unlink()
    (package.folder / "link").symlink_to("models")
    with pytest.raises(ModelError, match="link: is a link and cannot be packaged; a folder without it"):
        seal(package.folder, models, package.pairs, "")
    (package.folder / "link").unlink()
    (package.folder / ".hidden").touch()
    with pytest.raises(ModelError, match=r"path '\.hidden'"):
        seal(package.folder, models, package.pairs, "")


def test_any_other_content_is_an_error_of_ours(package: Package) -> None:
    """Indexes with one value replaced, sealed again as if it was meant so."""
    original, chance, refused = package.index.read_text(), random.Random(0), 0
    strange = [None, True, 0, -1, 1e300, 2**70, "", "..", "\ud800", "x" * 3000, [], [[]], {}, {"a": []}]

    def change(values: Any) -> None:
        while isinstance(values, dict | list) and values:
            key = chance.choice(list(values) if isinstance(values, dict) else range(len(values)))
            if chance.random() < 0.3 or not isinstance(values[key], dict | list):
                values[key] = chance.choice(strange)
                return
            values = values[key]

    for _ in range(200):
        package.index.write_text(original)
        rewrite_index(package.folder, change)
        try:
            Package.read(package.folder)
        except GocorError as error:
            text, refused = str(error), refused + 1
            assert "\n" not in text and len(text) < 1000  # noqa: PT018
    assert refused > 150


def test_a_nested_index_takes_no_more_memory_than_its_text(package: Package) -> None:
    """Written anew with its indentation this one would have 80 MB, and one of the allowed size gigabytes."""
    deep = '{\n  "format": ' + "[" * 400 + ",".join("1" * 100_000) + "]" * 400 + "\n}"
    package.index.write_text(package_module._with_seal(deep))
    tracemalloc.start()
    assert text_of(package.folder).startswith("package.json: is of format none; ")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["licence", "format", "models", "unknown"])
def test_nesting_of_any_depth_is_one_line(package: Package, name: str) -> None:
    values = json.loads(package.index.read_text()) | {name: "here"}
    del values["sha256"]
    for depth in range(50, 1100, 10):
        text = json.dumps(values, indent=2).replace('"here"', "[" * depth + "]" * depth)
        package.index.write_text(package_module._with_seal(text))
        assert text_of(package.folder).startswith("package.json: is ")


def test_strangers_are_what_the_index_does_not_name(package: Package) -> None:
    assert list(package.strangers()) == []
    (package.folder / "models/64x64.fp32.onnx").unlink()
    (package.folder / "notes.txt").touch()
    assert list(package.strangers()) == [("notes.txt", "is a file that is not in package.json")]
