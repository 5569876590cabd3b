import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packages import add_model, add_pair, make_package, replace_models
from toy_models import metadata, save_toy

from gocor.core.errors import ConfigError, ModelError, ProviderError
from gocor.core.files import sha256
from gocor.runtime import package_check
from gocor.runtime.compare import Tolerance
from gocor.runtime.flow import read_flow, write_flow
from gocor.runtime.metadata import Range
from gocor.runtime.package import Package, seal
from gocor.runtime.package_check import ModelCheck, check_package
from gocor.runtime.report import to_json

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "package")


def sealed_again(package: Package) -> Package:
    """The package after its files were changed, as if they had always been so."""
    package.index.unlink()
    return seal(package.folder, package.models, package.pairs, package.licence)


def test_a_package_as_it_was_made(package: Package) -> None:
    seen: list[tuple[int, int | None, str]] = []
    report = check_package(package.folder, progress=lambda *what: seen.append(what))
    assert report.passed
    assert (report.files, report.differences) == (8, {})
    assert report.index_sha256 == sha256(package.index)
    assert [(check.path, check.result, check.provider) for check in report.models] == [
        ("models/32x64.fp32.onnx", "passed", "cpu"),
        ("models/64x64.fp32.onnx", "passed", "cpu"),
    ]
    worst = report.models[0].worst
    assert worst is not None
    assert worst.aepe < 1e-4
    assert [pair.name for pair in report.models[0].pairs] == ["built-in"]
    assert seen == [
        (0, 3, "hashes of 8 files"),
        (1, 3, "models/32x64.fp32.onnx"),
        (2, 3, "models/64x64.fp32.onnx"),
    ]
    assert '"passed": true' in to_json(report)


def test_a_score_is_compared_too(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package", sizes=[(256, 256)], network="GLUNet")
    assert check_package(package.folder).passed
    pair = dataclasses.replace(package.pairs[0], orientation_score=17.0)
    package.index.unlink()
    seal(package.folder, package.models, [pair], "")
    (check,) = check_package(package.folder).models
    assert check.result == "failed"
    assert check.reason.startswith("orientation_score of pair built-in: relative L2 ")


def test_a_flow_outside_of_the_tolerance_has_failed(package: Package) -> None:
    path = package.folder / package.pairs[0].flow
    flow = read_flow(path)[0].copy()
    flow[0] += 0.02
    write_flow(path, flow)
    report = check_package(sealed_again(package).folder)
    assert not report.passed
    assert [check.result for check in report.models] == ["failed", "passed"]
    assert report.models[0].reason.startswith(
        "flow of pair built-in: AEPE 0.02 px, 0.01 allowed; worst at x="
    )
    assert report.models[0].worst.aepe == pytest.approx(0.02, rel=0.01)


def test_what_was_changed_is_listed_and_does_not_run(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_toy(package.folder / "models/32x64.fp32.onnx", metadata(operators={}))
    (package.folder / "extra.py").write_text("print('hello')")
    loaded: list[Path] = []
    load = package_check.load
    monkeypatch.setattr(package_check, "load", lambda path, *rest: loaded.append(path) or load(path, *rest))
    report = check_package(package.folder)
    assert not report.passed
    assert report.differences.keys() == {"models/32x64.fp32.onnx", "extra.py"}
    assert report.models[0].result == "failed"
    assert report.models[0].reason.startswith("models/32x64.fp32.onnx ")
    assert report.models[1].result == "passed"
    assert [path.name for path in loaded] == ["64x64.fp32.onnx"]


def test_an_additional_file_alone_is_a_failure(package: Package) -> None:
    (package.folder / "models/notes.txt").touch()
    report = check_package(package.folder)
    assert (report.passed, {check.result for check in report.models}) == (False, {"passed"})


def test_a_changed_pair_fails_the_models_that_need_it(package: Package) -> None:
    (package.folder / package.pairs[1].flow).unlink()
    report = check_package(package.folder)
    assert [check.result for check in report.models] == ["passed", "failed"]
    assert report.models[1].reason == "pairs/64x64/1/flow.npy is missing"


def test_what_cannot_run_here_is_not_counted_as_passed(package: Package) -> None:
    report = check_package(package.folder, provider="cuda")
    if report.passed:
        pytest.skip("this machine has a GPU")
    assert {check.result for check in report.models} == {"not run"}
    assert report.models[0].reason.startswith("provider: 'cuda' is not in this build of onnxruntime ")
    assert report.differences == {}


def test_one_that_ran_is_enough_beside_one_that_cannot(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = {"models/32x64.fp32.onnx": "not run", "models/64x64.fp32.onnx": "passed"}

    def check(package: Package, model: object, *_: object) -> ModelCheck:
        path = model.path  # type: ignore[attr-defined]
        return ModelCheck(path, "", "fp32", "cpu", checks[path])  # type: ignore[arg-type]

    monkeypatch.setattr(package_check, "_check_model", check)
    assert check_package(package.folder).passed
    checks["models/64x64.fp32.onnx"] = "not run"
    assert not check_package(package.folder).passed


def test_a_model_that_is_damaged_has_failed(package: Package) -> None:
    (package.folder / "models/32x64.fp32.onnx").write_bytes(b"no model")
    check = check_package(sealed_again(package).folder).models[0]
    assert check.result == "failed"
    assert "cannot be loaded by ONNX Runtime" in check.reason


def test_a_model_that_the_index_describes_wrongly_has_failed(package: Package) -> None:
    described = metadata(height=32, width=64, operators={})
    first, second = package.models
    replace_models(package, dataclasses.replace(first, metadata=described), second)
    check = check_package(package.folder).models[0]
    assert (check.result, check.reason) == ("failed", "is not what the index says of it")


def test_a_model_without_a_pair_has_failed(package: Package) -> None:
    package.index.unlink()
    seal(package.folder, package.models, package.pairs[:1], "")
    check = check_package(package.folder).models[1]
    assert (check.result, check.reason) == ("failed", "the package has no pair of its size")


def test_a_flow_of_another_size_has_failed(package: Package) -> None:
    path = package.folder / package.pairs[0].flow
    write_flow(path, np.zeros((2, 8, 8), np.float32))
    check = check_package(sealed_again(package).folder).models[0]
    assert check.result == "failed"
    assert "(2, 8, 8)" in check.reason


def test_the_index_can_be_known_from_elsewhere(package: Package) -> None:
    known = sha256(package.index)
    assert check_package(package.folder, index_sha256=f" {known.upper()}\n").passed
    with pytest.raises(ModelError) as caught:
        check_package(package.folder, index_sha256="ab" * 32)
    assert str(caught.value) == (
        f"{package.index}: is not the index that was meant (SHA-256 {known[:12]}…, not abababababab…); get "
        "the package again"
    )


def test_a_batch_and_sizes_that_vary(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    (folder / "models").mkdir(parents=True)
    pairs = [add_pair(folder, 64, 64), add_pair(folder, 128, 64)]
    dynamic = {"batch": Range(1), "height": Range(64)}
    described = metadata(io="tensors", height=64, width=64, dynamic=dynamic)
    models = [
        add_model(folder, "64x64.fp32.onnx", metadata(height=64, batch=3)),
        dataclasses.replace(add_model(folder, "any.fp32.onnx", described), tolerance=Tolerance(300, 300)),
    ]
    seal(folder, models, pairs, "")
    report = check_package(folder)
    assert [(check.result, len(check.pairs)) for check in report.models] == [("passed", 1), ("passed", 2)]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"provider": "abacus"}, "provider: 'abacus' does not run .onnx models; one of cpu, cuda, tensorrt"),
        ({"provider": "openvino"}, "provider: 'openvino' does not run .onnx models; one of cpu, "),
        ({"threads": 0}, "threads: is 0; at least 1"),
    ],
)
def test_bad_options_are_no_fault_of_the_models(package: Package, options: dict[str, Any], text: str) -> None:
    with pytest.raises((ConfigError, ProviderError)) as caught:
        check_package(package.folder, **options)
    assert str(caught.value).startswith(text)
