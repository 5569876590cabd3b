from pathlib import Path

import pytest
from packages import make_package

from gocor.core.errors import ConfigError, ProviderError
from gocor.core.files import sha256
from gocor.runtime import package_choice
from gocor.runtime.package import Package
from gocor.runtime.package_inspection import inspect_package

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "package", precisions=("fp32", "fp16"))


def test_without_sizes_it_is_about_those_of_the_pairs(package: Package) -> None:
    found = inspect_package(package.folder)
    assert (found.precision, found.provider, found.why_none) == ("fp32", "cpu", "")
    assert found.index_sha256 == sha256(package.index)
    assert [(choice.height, choice.width, choice.exact) for choice in found.choices] == [
        (32, 64, True),
        (64, 64, True),
    ]
    assert set(found.obstacles.values()) == {""}


def test_of_sizes_and_a_precision_that_are_asked_for(package: Package) -> None:
    found = inspect_package(package.folder, [(30, 70)], "fp16")
    (choice,) = found.choices
    assert (choice.model.path, choice.exact) == ("models/32x64.fp16.onnx", False)
    with pytest.raises(ConfigError, match="precision: 'int8' is not in "):
        inspect_package(package.folder, precision="int8")


def test_nothing_is_opened(package: Package) -> None:
    for model in package.models:
        (package.folder / model.path).write_bytes(b"no model")
    assert inspect_package(package.folder).choices


def test_a_package_of_which_nothing_runs_is_shown_with_the_reasons(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ProviderError("provider", "is not here", "see gocor doctor")

    monkeypatch.setattr(package_choice, "check_runs_here", fail)
    found = inspect_package(package.folder)
    assert (found.provider, found.choices) == ("", ())
    assert found.why_none.endswith(
        "package: has no fp32 model that runs here (cpu: is not here; see gocor doctor); see gocor doctor"
    )
    assert set(found.obstacles.values()) == {"is not here; see gocor doctor"}
    with pytest.raises(ProviderError, match="provider: 'openvino' runs no fp32 model of "):
        inspect_package(package.folder, provider="openvino")
