"""The parts that packages are made of."""

import dataclasses
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _package in ("torch", "onnx", "onnxruntime"):
    pytest.importorskip(_package)

import torch  # noqa: E402
from packages import TOLERANCE, make_package  # noqa: E402
from toy_models import metadata  # noqa: E402

from gocor.calibration.packaging import build, reports  # noqa: E402
from gocor.calibration.packaging.config import PackageConfig  # noqa: E402
from gocor.calibration.packaging.guide import DEMO_REMARK, REMARK, remark, requirements  # noqa: E402
from gocor.calibration.packaging.models import Made, Planned, plan_models  # noqa: E402
from gocor.calibration.packaging.script import line  # noqa: E402
from gocor.calibration.packaging.truth import write_truth  # noqa: E402
from gocor.core.errors import ConfigError, ModelError, OutputError  # noqa: E402
from gocor.core.files import sha256  # noqa: E402
from gocor.export.checkpoint import load_network, seeded_network  # noqa: E402
from gocor.export.verify import Worst  # noqa: E402
from gocor.export.weights import checkpoint_path  # noqa: E402
from gocor.runtime.compare import compare_flows  # noqa: E402
from gocor.runtime.flow import read_flow  # noqa: E402
from gocor.runtime.images import load_image, save_image  # noqa: E402
from gocor.runtime.pairs import find_pairs  # noqa: E402
from gocor.runtime.preprocess import resize_images  # noqa: E402
from gocor.runtime.sample_pair import sample_pair  # noqa: E402


@pytest.fixture(scope="module")
def network() -> Any:
    return seeded_network("PWCNet_GOCor", 1)


def test_every_model_is_planned_after_the_one_that_it_is_made_from(network: Any) -> None:
    config = PackageConfig(
        ((64, 64), (64, 128)),
        ("int8",),
        ("openvino", "tensorrt-rtx"),
        batch=2,
        synthetic=9,
        dynamic=("height",),
    )
    plans = plan_models(config, network)
    assert [plan.path.removeprefix("models/") for plan in plans] == [
        *(f"{size}.{name}" for size in ("64x64", "64x128") for name in (
            "fp32.onnx", "fp32.xml", "fp32.rtx.engine",
            "int8.onnx", "int8.xml", "int8-tensorrt.onnx", "int8.rtx.engine",
        )), "any.fp32.onnx",
    ]  # fmt: skip
    made: set[str] = {""}
    for plan in plans:
        assert plan.source in made
        made.add(plan.path)
    commands = {plan.path: line(plan.command) for plan in plans}
    assert commands["models/64x128.fp32.onnx"] == (
        'gocor export "$CHECKPOINT" -o models/64x128.fp32.onnx --size 64x128 --local-iterations 1 --batch 2'
    )
    assert commands["models/64x64.int8-tensorrt.onnx"] == (
        "gocor calibrate models/64x64.fp32.onnx -o models/64x64.int8-tensorrt.onnx --target tensorrt "
        '--ranges "$PACKAGE/models/64x64.int8-tensorrt.onnx.ranges.json"'
    )
    assert commands["models/64x64.int8.rtx.engine"] == (
        "gocor build models/64x64.int8-tensorrt.onnx -o models/64x64.int8.rtx.engine --backend tensorrt-rtx"
    )
    assert commands["models/any.fp32.onnx"].endswith("--io tensors --dynamic height")
    config = PackageConfig(((70, 100), (32, 32)), dynamic=("width",))
    _, _, dynamic = plan_models(config, network)
    assert line(dynamic.command).endswith("--size 128x128 --local-iterations 1 --io tensors --dynamic width")
    assert dynamic.pairs == "pairs/70x100/pairs.csv"  # of its own size there are none


def test_given_pairs_are_resized_by_the_networks_rule(network: Any, tmp_path: Path) -> None:
    rows = ["reference,query,name"]
    for seed in range(7):
        for name, image in zip(("r", "q"), sample_pair(70, 90, seed)[:2], strict=True):
            save_image(tmp_path / f"{name}{seed}.png", image)
        rows.append(f"r{seed}.png,q{seed}.png,scene {seed}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    source = find_pairs(table=tmp_path / "pairs.csv")
    (pair,) = write_truth(tmp_path / "package", network, (64, 64), source, 64).pairs
    # A fifth of seven pairs is held out from calibration: that one.
    assert (pair.name, pair.reference) == ("scene 3", "pairs/64x64/1/reference.png")
    expected = resize_images(load_image(tmp_path / "r3.png")[None], 64, 64, "pwcnet")[0]
    np.testing.assert_array_equal(load_image(tmp_path / "package" / pair.reference), expected)
    assert read_flow(tmp_path / "package" / pair.flow)[0].shape == (2, 64, 64)
    again = find_pairs(table=tmp_path / "package/pairs/64x64/pairs.csv")
    assert [pair.name for pair in again] == ["1"]
    pairs = write_truth(tmp_path / "other", network, (64, 64), source, None).pairs
    assert [pair.name for pair in pairs] == [f"scene {n}" for n in (0, 2, 4, 6)]  # nothing is calibrated


def test_pytorchs_flow_must_be_finite(network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gocor.calibration.packaging import truth

    monkeypatch.setattr(truth, "estimate_flow", lambda *_: np.full((2, 64, 64), np.nan, np.float32))
    with pytest.raises(ModelError) as caught:
        write_truth(tmp_path, network, (64, 64), None, 64)
    assert str(caught.value) == (
        "pair built-in 0: its flow holds NaN or infinity in 8,192 of 8,192 values in PyTorch itself; look at "
        "the weights and at the pair"
    )


def test_a_pair_that_pytorch_is_not_sure_of_is_left_out(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from gocor.calibration.packaging import truth

    computed: list[np.ndarray] = []

    def waver(*_: object) -> np.ndarray:
        """The first pair's second flow differs in one pixel, as where a warp meets its edge."""
        flow = np.ones((2, 64, 64), np.float32)
        flow[0, 3, 5] += 3 * (len(computed) == 1)
        computed.append(flow)
        return flow

    monkeypatch.setattr(truth, "estimate_flow", waver)
    with caplog.at_level("INFO", "gocor"):
        written = write_truth(tmp_path, network, (64, 64), None, 64)
    assert [pair.name for pair in written.pairs] == ["built-in 1", "built-in 2"]
    assert [pair.reference for pair in written.pairs] == [
        "pairs/64x64/1/reference.png",
        "pairs/64x64/2/reference.png",
    ]
    (line,) = written.left_out
    assert line.startswith("built-in 0 at 64x64: relative L2 0.033, 5e-05 allowed; worst at x=5 y=3 of 64×64")
    assert f"left out, since PyTorch's own flow depends on its rounding: {line}" in caplog.text
    monkeypatch.setattr(
        truth, "estimate_flow", lambda *_: np.random.default_rng().random((2, 64, 64), np.float32)
    )
    with pytest.raises(
        ModelError, match=r"--pairs: PyTorch's own flow depends on its rounding for all of them"
    ):
        write_truth(tmp_path, network, (64, 64), None, 64)


def test_a_network_from_memory_is_refused(network: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"network: has no checkpoint file to be made again from; load_network"
    ):
        build.build_package(network, tmp_path / "package", PackageConfig(((64, 64),)))
    demo = load_network("pwcnet-gocor-demo")
    with torch.no_grad():
        next(demo.parameters()).add_(1)  # as if it was trained on
    with pytest.raises(ConfigError, match="network: has no checkpoint file to be made again from"):
        build.build_package(demo, tmp_path / "package", PackageConfig(((64, 64),)))
    with pytest.raises(ConfigError, match=r"--size: is missing; at least once, as --size 384x512"):
        build.build_package(network, tmp_path / "package", PackageConfig(()))


def toy(folder: Path) -> tuple[Path, list[Made]]:
    """A package of toy models, as if made."""
    package = make_package(folder, sizes=[(32, 64)])
    model = package.models[0]
    plan = Planned(model.path, (32, 64), "fp32", "onnxruntime", "", "", False, ("gocor", "export"))
    return package.folder, [Made(plan, model, None)]


def test_models_that_are_too_far_off_are_named(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, made = toy(tmp_path / "package")
    far, near = (np.full((2, 32, 64), value, np.float32) for value in (7, 0))
    flows = [Worst("1", compare_flows("flow", *both, TOLERANCE)) for both in ((far, near), (near, near))]
    report: Any = types.SimpleNamespace(worst=flows, stages=())
    check = reports.Verified(made[0].model.path, "32x64", "fp16", report, oracle=report)
    monkeypatch.setattr(reports, "_verify", lambda *_: check)
    with pytest.raises(ModelError) as caught:
        reports.verify_models(root, made, network, 1, lambda *_: None)
    off = "flow, 1: AEPE 9.9 px, 0.01 allowed"
    text = str(caught.value)
    assert text.startswith(f"package: models/32x64.fp32.onnx: {off} and relative L2 inf, ")
    assert text.count(off) == 2
    assert f"; models/32x64.fp32.onnx: its oracle, {off}" in text
    assert text.endswith(
        "; look at the pairs; in lower precision --tolerance allows more, and more pairs calibrate better"
    )


def test_what_could_not_run_is_in_the_report_with_its_reason(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gocor.core.errors import ProviderError

    root, (made,) = toy(tmp_path / "package")
    (root / "pairs/32x64/pairs.csv").write_text("reference,query\n1/reference.png,1/query.png\n")

    def fail(*_: object, **__: object) -> None:
        raise ProviderError(f"{root}/models/32x64.fp32.onnx", "finds no GPU")

    monkeypatch.setattr(reports, "verify", fail)
    engine = dataclasses.replace(made, model=dataclasses.replace(made.model, backend="tensorrt"))
    (check,) = reports.verify_models(root, [engine], network, 1, lambda *_: None)
    assert (check.report, check.reason) == (None, "models/32x64.fp32.onnx: finds no GPU")
    assert check.failures == []
    with pytest.raises(ProviderError, match="finds no GPU"):  # what runs on every machine must run on this
        reports.verify_models(root, [made], network, 1, lambda *_: None)


def test_a_folder_that_does_not_pass_its_own_check_is_refused(tmp_path: Path, network: Any) -> None:
    package = make_package(tmp_path / "package", sizes=[(32, 64)])
    (package.folder / "extra").touch()
    making = build._Build(package.folder, network, PackageConfig(((64, 64),)), None, lambda *_: None)
    with pytest.raises(ModelError) as caught:
        making._check(package)
    assert str(caught.value) == (
        "package: does not pass its own check (extra is a file that is not in package.json); make it again, "
        "and report it if it stays so"
    )


def test_an_installation_without_the_library_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"runtime/cpp: is missing from this installation; install gocor-deploy"
    ):
        list(build._cpp_files(tmp_path))


def test_licence_remarks_and_versions(tmp_path: Path) -> None:
    demo = metadata(checkpoint="pwcnet-gocor-demo.safetensors")
    assert remark(demo) == REMARK  # another file of that name
    digest = sha256(checkpoint_path("pwcnet-gocor-demo"))
    assert remark(dataclasses.replace(demo, checkpoint_sha256=digest)) == DEMO_REMARK
    _, (made,) = toy(tmp_path / "package")
    assert "torch==" in requirements([made.model])
    assert "openvino" not in requirements([made.model])
    built = dataclasses.replace(made.model, backend="openvino")
    assert ("openvino==" in requirements([built])) is bool(pytest.importorskip("openvino"))
