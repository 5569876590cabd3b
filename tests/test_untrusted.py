"""Files of strangers: what fuzzing found, one test each, and calls that must not be in the source."""

import ast
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_models import METADATA, metadata, save_toy

import gocor
from gocor.core.errors import ConfigError, GocorError, ImageError, ModelError, OutputError
from gocor.core.reading import LIMITS
from gocor.runtime.flow import read_flow
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.pairs import find_pairs

ROOT = Path(__file__).parent.parent
LAYERS = ("core", "plugins", "runtime", "export", "evaluation", "calibration", "cli")
SOURCES = [
    path for layer in (*LAYERS, "examples", "benchmarks") for path in sorted((ROOT / layer).rglob("*.py"))
]


# ── no code of a file is run


def calls() -> Iterator[tuple[str, str, dict[str, str]]]:
    """File, name and keywords of every call in the source."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                keywords = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
                yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), keywords


CALLS = list(calls())
# Functions that run what they are given, and who may call them with what: text of our own only.
NEVER = {
    "eval",
    "exec",
    "compile",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.loads",
    "shelve.open",
    "joblib.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "torch.hub.load",
    "yaml.load",
    "dill.load",
    "runpy.run_path",
    "os.system",
    "os.popen",
    "register_custom_ops_library",
    "np.fromfile",
    "core.add_extension",
}
LIBRARIES = {  # modules that load some by a path: our own, NVIDIA's, or one that the user names
    "plugins/nvrtc.py",
    "plugins/plugin_library.py",
    "export/engine_plugins.py",
    "runtime/tensorrt_session.py",
}


def test_nothing_runs_what_a_file_says() -> None:
    endings = (".register_custom_ops_library", ".add_extension")
    found = {(file, name) for file, name, _ in CALLS if name in NEVER or name.endswith(endings)}
    # What Ray's workers tell each other is pickled by Ray in any case.
    assert found <= {("runtime/batch/ray_data.py", "pickle.loads")}


@pytest.mark.parametrize(
    ("name", "keyword", "value"),
    [
        ("torch.load", "weights_only", "True"),
        ("np.load", "allow_pickle", "False"),
        ("onnx.load", "load_external_data", "False"),
    ],
)
def test_loaders_that_could_are_told_not_to(name: str, keyword: str, value: str) -> None:
    of_strangers = [
        (file, words) for file, called, words in CALLS if called == name and file.split("/")[0] in LAYERS
    ]
    assert of_strangers
    assert all(words.get(keyword) == value for _, words in of_strangers), of_strangers


def test_no_command_line_goes_through_a_shell() -> None:
    assert [file for file, _, words in CALLS if words.get("shell", "False") != "False"] == []


def test_shared_libraries_are_loaded_in_few_places() -> None:
    loads = {
        file
        for file, name, _ in CALLS
        if name.endswith(("CDLL", ".load_library")) and file.split("/")[0] in LAYERS
    }
    assert loads <= LIBRARIES


def test_json_of_files_is_read_by_one_function() -> None:
    """``json.loads`` overflows the stack on deep nesting, with an error that nobody expects of a parser."""
    ours = {"core/reading.py"}  # and those that read what a library or we ourselves just wrote:
    ours |= {"runtime/package.py"}
    just_written = {"plugins/ptx.py", "runtime/doctor.py", "export/engine_layers.py", "calibration/forms.py"}
    readers = {
        file
        for file, name, _ in CALLS
        if name in ("json.load", "json.loads") and file.split("/")[0] in LAYERS
    }
    assert readers <= ours | just_written


def test_the_page_tells_of_every_limit() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    for limit in LIMITS:
        assert f"| {limit.mebibytes} MiB | `{limit.variable}` |" in page


# ── metadata and manifests


def metadata_with(**changes: Any) -> None:
    values = METADATA.to_properties()
    ModelMetadata.from_properties(values | {f"gocor.{n}": v for n, v in changes.items()}, "model.onnx")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"int8": "[]"}, "int8 []"),
        ({"int8": '{"method": "x", "samples": 1e999, "convolutions": 1}'}, "int8 {"),
        ({"repair": '{"budget": "nan", "aepe": 0, "kept": []}'}, "repair {"),
        ({"checkpoint": ["a"]}, "checkpoint ['a']"),
        ({"height": "[" * 100_000}, "nested too deeply"),
        ({"height": "NaN"}, "NaN is no number of JSON"),
        ({"height": "65537"}, "height 65537"),
        ({"local_iterations": "true"}, "local_iterations True"),
        ({"local_iterations": "-1"}, "local_iterations -1"),
        ({"operators": '{"LocalGOCor": "x"}'}, "operators {'LocalGOCor': 'x'}"),
    ],
)
def test_metadata(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        metadata_with(**changes)
    assert str(caught.value).startswith(f"model.onnx: has damaged gocor metadata ({reason}")


@pytest.fixture
def manifest(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A manifest of an engine, and what it says."""
    from fuzz.readers import engine_manifests

    path = next(engine_manifests(tmp_path))
    return path, json.loads(path.read_text())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "../../etc/passwd"}, "model '../../etc/passwd', which is no name of a file"),
        ({"model": "/etc/passwd"}, "model '/etc/passwd', which is no name of a file"),
        ({"model": ".."}, "model '..', which is no name of a file"),
        ({"model": ""}, "model '', which is no name of a file"),
        ({"model": "a\\b"}, "which is no name of a file"),
        ({"targets": ["sm_" + "9" * 5000]}, "targets ['sm_999"),
        ({"targets": ["sm_٩٩"]}, "targets ['sm_٩٩']"),
        ({"metadata": {**METADATA.to_properties(), "gocor.weights_sha256": 5}}, "weights_sha256 5"),
        ({"metadata": []}, "was not made by gocor"),
    ],
)
def test_manifests(changes: dict[str, Any], reason: str, manifest: tuple[Path, dict[str, Any]]) -> None:
    from gocor.runtime.manifest import EngineManifest

    path, values = manifest
    path.write_text(json.dumps(values | changes))
    with pytest.raises(ModelError) as caught:
        EngineManifest.of(path.with_suffix(""))
    assert "is a damaged engine manifest (" in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": NaN}', '{"a":' * 50_000])
def test_manifests_that_a_parser_dies_of(text: str, manifest: tuple[Path, dict[str, Any]]) -> None:
    from gocor.runtime.manifest import EngineManifest

    manifest[0].write_text(text)
    with pytest.raises(ModelError, match="is a damaged engine manifest"):
        EngineManifest.of(manifest[0].with_suffix(""))


def test_a_manifest_without_end(manifest: tuple[Path, dict[str, Any]]) -> None:
    from gocor.runtime.manifest import EngineManifest

    os.truncate(manifest[0], 2 << 20)
    with pytest.raises(ModelError, match=r"is too large for a manifest \(2 MiB, and 1 are read\)"):
        EngineManifest.of(manifest[0].with_suffix(""))


def test_a_version_of_five_thousand_digits() -> None:
    from gocor.runtime.manifest import release

    assert release("9" * 5000) > (1,)


# ── models


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx: is no regular file; give a model file"):
        gocor.load(tmp_path / "model.onnx")


def test_a_model_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_toy(tmp_path / "model.onnx")
    os.truncate(tmp_path / "model.onnx", 3 << 30)  # takes no room on the disk
    with pytest.raises(ModelError, match=r"too large for a model \(3072 MiB, .* GOCOR_MAX_MODEL_MIB=3072"):
        gocor.load(tmp_path / "model.onnx")


@pytest.mark.parametrize("read", ["load", "inspect"])
@pytest.mark.parametrize("word", [b"PWCNet_GOCor", b"reference", b"flow", b"gocor.io"])
def test_names_and_properties_that_are_no_text(word: bytes, read: str, tmp_path: Path) -> None:
    from gocor.export.inspection import _read_with_onnxruntime

    path = save_toy(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes().replace(word, word[:-3] + b"\xff\xfe\xfd"))
    with pytest.raises(ModelError, match=r"no text|no valid ONNX|not made by gocor|damaged"):
        {"load": gocor.load, "inspect": _read_with_onnxruntime}[read](path)


def test_a_source_with_properties_that_are_no_text(tmp_path: Path) -> None:
    from gocor.export.engine_source import read_source

    path = save_toy(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes().replace(b"PWCNet_GOCor", b"PWCNet_GO\xff\xfe\xfd"))
    with pytest.raises(ModelError):
        read_source(path)


# ── flows, images, tables


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, -4), }",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': (2, {10**30}, 4), }}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': (2, {2**62}, {2**62}), }}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3, 4), }",
        "__import__('os').system('touch intruder')",
        "(" * 5000,
        "(" * 180 + ")" * 180,
    ],
)
def test_npy_headers(header: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = header.encode() + b"\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content + bytes(96))
    with pytest.raises(ImageError, match=r"a\.npy: (is truncated or no \.npy file|holds )"):
        read_flow(path)
    assert not (tmp_path / "intruder").exists()


def test_npy_files_with_pickles(tmp_path: Path) -> None:
    class Intruder:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "intruder-was-here",)

    np.save(tmp_path / "a.npy", np.array([Intruder()], object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"a\.npy: is truncated or no \.npy file"):
        read_flow(tmp_path / "a.npy")
    assert not (tmp_path / "intruder-was-here").exists()


def test_flows_and_tables_that_are_too_large(tmp_path: Path) -> None:
    for name, read in (("a.flo", read_flow), ("a.csv", lambda path: find_pairs(table=path))):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 2 << 30)
        with pytest.raises(ImageError, match=r"too large for a (flow|table)"):
            read(tmp_path / name)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["A" * 5000, "a\0b"])
def test_names_that_no_file_has(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"reference,query\n{name},{name}\n")
    with pytest.raises(ImageError, match=r"a\.csv(:2)?: "):
        list(find_pairs(table=tmp_path / "a.csv"))


# ── what commands left


def test_tables_of_ranges(tmp_path: Path) -> None:
    from fuzz.readers import range_tables

    from gocor.calibration.ranges import RangeTable

    path = next(range_tables(tmp_path))
    good = json.loads(path.read_text())
    for changes, reason in (
        ({"model_sha256": 5}, "model_sha256 5"),
        ({"samples": "3"}, "samples '3'"),
        ({"channel_scales": {"a": [0.0]}}, "scales that nothing can be divided by"),
    ):
        path.write_text(json.dumps(good | changes))
        with pytest.raises(ConfigError) as caught:
            RangeTable.load(path)
        assert f"is no table of ranges ({reason})" in str(caught.value)


def test_indices_of_model_repositories(tmp_path: Path) -> None:
    from fuzz.readers import repository_indices

    from gocor.export.triton import triton_repository

    path = next(repository_indices(tmp_path))
    good = json.loads(path.read_text())
    entry = good["models"][0]
    for models, reason in (
        ([], "no models"),
        ([entry | {"interface": [5]}], "interface (5,)"),
        ([entry | {"file": []}], "file []"),
        ([entry | {"model": ".."}], "model '..' version 1"),
        ([entry | {"version": True}], "version True"),
    ):
        path.write_text(json.dumps(good | {"models": models}))
        with pytest.raises(OutputError) as caught:
            triton_repository([save_toy(tmp_path / "toy.onnx")], path.parent, update=True)
        assert f"is damaged ({reason})" in str(caught.value)


@pytest.mark.parametrize(
    "record",
    [
        "{}",
        '{"identity": 5}',
        '{"identity": 1, "files": 3}',
        '{"identity": 1}',
        '{"identity": 1, "files": ["' + "9" * 5000 + '"]}',
        "[" * 9999,
    ],
)
def test_records_of_estimated_pairs(record: str, tmp_path: Path) -> None:
    from gocor.runtime import run

    (tmp_path / run.RECORD).write_text(record)
    found = run._read_record(tmp_path)
    assert run._done(found, {"identity": 1}, "pair", tmp_path) is None
    assert run._done(found, found.get("identity", {}), "pair", tmp_path) is None


# ── messages


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("a\u202eb", r"a\u202eb"),
        ("\ud800", r"\ud800"),
        ("ä×…😀", "ä×…😀"),
    ],
)
def test_messages_do_not_talk_to_the_terminal(text: str, shown: str) -> None:
    assert str(GocorError(text, "is odd")) == f"{shown}: is odd"


def test_reports_do_not_either(tmp_path: Path, invoke: Any) -> None:
    path = save_toy(
        tmp_path / "toy.onnx", metadata(checkpoint="a\x1b]0;owned\x07[red]", gocor_version="\x1b[2J")
    )
    code, out, _ = invoke("inspect", path)
    assert code == 0
    assert r"a\x1b]0;owned\x07[red]" in out
    assert out.replace("\n", "").isprintable()
