import importlib
import logging
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_models import metadata, save_toy

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("polygraphy")
import onnx  # noqa: E402
from golden import golden_network  # noqa: E402

import gocor  # noqa: E402
from gocor.core.errors import ConfigError, DependencyError, ImageError, ModelError, ShapeError  # noqa: E402
from gocor.export.checkpoint import seeded_network, weights_sha256  # noqa: E402
from gocor.export.onnx_export import export_onnx  # noqa: E402
from gocor.export.verify import VerifyReport, verify  # noqa: E402
from gocor.runtime.report import to_json  # noqa: E402
from gocor.runtime.sample_pair import sample_pair  # noqa: E402
from gocor.runtime.spec import SPECS  # noqa: E402


class ToyNetwork(torch.nn.Module):
    """What the toy models compute, as a network; at one pixel of the flow it may be off."""

    spec, info = SPECS["PWCNet_GOCor"], None
    global_iterations, local_iterations = None, 3

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.off = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.error = off
        self.pixels = False  # io="tensors": the toy's flow counts tensor values

    def forward(self, reference: torch.Tensor, query: torch.Tensor) -> tuple[torch.Tensor, ...]:
        means = torch.stack((reference.mean((1, 2, 3)), query.mean((1, 2, 3))), dim=1)
        if not self.pixels:
            means = means * 255 / self.spec.flow_unit
        grid = (reference.shape[2] // 4, reference.shape[3] // 4)
        flow = means[:, :, None, None].repeat(1, 1, *grid)
        flow[:, 1, 2, 5] += self.error
        zeros = torch.zeros_like(flow)
        return zeros, zeros, zeros, zeros, flow


def toy(folder: Path, network: ToyNetwork, **changes: object) -> Path:
    described = metadata(weights_sha256=weights_sha256(network), height=64, width=128, **changes)
    return save_toy(folder / "toy.onnx", described)


def images(number: int, height: int = 64, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    return sample_pair(height, width, seed=number)[:2]


def verify_toy(folder: Path, network: ToyNetwork, pairs: Any = None, **changes: object) -> VerifyReport:
    return verify(toy(folder, network, **changes), network, pairs)


def test_images(tmp_path: Path) -> None:
    report = verify_toy(tmp_path, ToyNetwork())
    assert report.passed
    (pair,) = report.pairs
    assert (pair.name, pair.height, pair.width) == ("built-in 0", 64, 128)
    (output,) = pair.outputs
    assert output.name == "flow"
    assert output.aepe < 1e-3
    assert output.elements["max_absdiff"] < 1e-3
    assert report.metadata.weights_sha256 == weights_sha256(ToyNetwork())
    assert report.machine.versions.keys() >= {"torch", "onnxruntime", "gocor-deploy", "polygraphy"}


def test_tensors_in_pixels_of_the_network_s_input(tmp_path: Path) -> None:
    network = ToyNetwork(off=0.1)
    network.pixels = True
    report = verify_toy(tmp_path, network, io="tensors")
    assert not report.passed
    names = [entry.output.name for entry in report.worst]
    assert names == ["flow6", "flow5", "flow4", "flow3", "flow2"]
    assert [entry.output.passed for entry in report.worst] == [True] * 4 + [False]
    last = report.worst[-1].output
    assert last.maximum == pytest.approx(0.1 * 20, rel=1e-4)
    assert (last.place.x, last.place.y) == (5, 2)
    assert last.elements["max_absdiff"] == pytest.approx(0.1, rel=1e-4)


def test_the_worst_pair_is_reported_and_the_batch_is_filled_with_different_ones(tmp_path: Path) -> None:
    # A model that mixed up its batch would pass with the same pair in every place.
    built_in = verify_toy(tmp_path, ToyNetwork(), batch=2)
    assert [pair.name for pair in built_in.pairs] == ["built-in 0", "built-in 1"]
    assert built_in.pairs[0].outputs[0].place.truth != built_in.pairs[1].outputs[0].place.truth

    report = verify_toy(tmp_path, ToyNetwork(), [images(0), images(1), images(2)], batch=2)
    assert report.passed
    assert [pair.name for pair in report.pairs] == ["pair 0", "pair 1", "pair 2"]
    worst = max(report.pairs, key=lambda pair: pair.outputs[0].aepe)
    assert report.worst[0].pair == worst.name
    assert report.worst[0].output is worst.outputs[0]


def test_other_sizes_are_resized_for_both_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gocor")
    report = verify_toy(tmp_path, ToyNetwork(), [images(0, 50, 70), images(1, 90, 40)])
    assert report.passed
    assert [(pair.height, pair.width) for pair in report.pairs] == [(50, 70), (90, 40)]
    assert [record.message for record in caplog.records] == [
        "images of 50x70 are resized to the model's 64x128, for PyTorch and the model alike"
    ]


def test_progress_and_tables(tmp_path: Path) -> None:
    from gocor.runtime.images import save_image

    for name, image in zip("ab", images(0), strict=True):
        save_image(tmp_path / f"{name}.png", image)
    (tmp_path / "pairs.csv").write_text("reference,query,name\na.png,b.png,there\nb.png,a.png,back\n")
    calls: list[tuple[int, int | None, str]] = []
    model = toy(tmp_path, ToyNetwork())
    verify(model, ToyNetwork(), tmp_path / "pairs.csv", progress=lambda *call: calls.append(call))
    assert calls == [(0, 2, "there"), (1, 2, "back")]


def test_two_sizes_in_a_pair(tmp_path: Path) -> None:
    pair = images(0)[0], images(0, 50, 70)[1]
    with pytest.raises(ImageError, match="pair 0: the reference has 128×64 pixels and the query 70×50"):
        verify_toy(tmp_path, ToyNetwork(), [pair])
    assert verify(tmp_path / "toy.onnx", ToyNetwork(), [pair], pad=True).passed


def test_images_of_another_dtype(tmp_path: Path) -> None:
    reference, query = images(0)
    with pytest.raises(ShapeError, match="reference: has dtype float64; uint8, values 0 to 255"):
        verify_toy(tmp_path, ToyNetwork(), [(reference / 255, query)])


def test_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pairs: there are none; at least one"):
        verify_toy(tmp_path, ToyNetwork(), [])


def test_nan_in_the_model_fails_and_does_not_crash(tmp_path: Path) -> None:
    path = toy(tmp_path, ToyNetwork())
    model = onnx.load(path)
    means = next(node for node in model.graph.node if node.op_type == "Concat")
    means.output[0] = "sum"
    model.graph.node.insert(
        list(model.graph.node).index(means) + 1, onnx.helper.make_node("Log", ["minus"], ["means"])
    )
    model.graph.node.insert(
        list(model.graph.node).index(means) + 1, onnx.helper.make_node("Neg", ["sum"], ["minus"])
    )
    onnx.save(model, path)
    report = verify(path, ToyNetwork())
    assert not report.passed
    assert report.worst[0].output.reason == f"{2 * 64 * 128} of {2 * 64 * 128} values NaN or infinite"
    assert "NaN" not in to_json(report).replace("values NaN", "")


def test_nan_in_pytorch_fails(tmp_path: Path) -> None:
    report = verify_toy(tmp_path, ToyNetwork(off=math.nan))
    assert "expected values NaN" in report.worst[0].output.reason


def test_other_weights_are_refused_by_both_hashes(tmp_path: Path) -> None:
    other = ToyNetwork()
    other.off.data += 1
    with pytest.raises(ModelError) as caught:
        verify(toy(tmp_path, ToyNetwork()), other)
    hashes = weights_sha256(ToyNetwork())[:12], weights_sha256(other)[:12]
    assert str(caught.value).endswith(
        f"toy.onnx: was made from weights {hashes[0]} (toy.pth), those of the network are {hashes[1]}; "
        "give the checkpoint it was made from, or export again"
    )


def test_another_network_is_refused(tmp_path: Path) -> None:
    model = save_toy(tmp_path / "toy.onnx", metadata(network="PWCNet", local_iterations=None))
    with pytest.raises(ModelError, match=r"is a PWCNet, and the network a PWCNet_GOCor; give the checkpoint"):
        verify(model, ToyNetwork())


def test_other_iterations_in_memory_are_refused(tmp_path: Path) -> None:
    model = toy(tmp_path, ToyNetwork(), local_iterations=5)
    with pytest.raises(ModelError, match="runs 5 local iterations, the network 3 local; export again"):
        verify(model, ToyNetwork())


def test_polygraphy_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "gocor.export.polygraphy_runners"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    with pytest.raises(
        DependencyError, match=r'polygraphy: is not installed; pip install "gocor-deploy\[ver'
    ):
        importlib.import_module(name)


def test_a_checkpoint_runs_the_model_s_iterations_without_a_word(
    exported: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    report = gocor.verify(exported.model, exported.checkpoint)
    assert report.metadata.local_iterations == 1  # the checkpoint itself would run 3
    assert report.passed
    assert report.worst[0].output.aepe < 1e-3
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_changed_convolution_is_found(exported: Any, tmp_path: Path) -> None:
    model = onnx.load(exported.model)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.dims) == 4 and np.prod(tensor.dims))
    values = onnx.numpy_helper.to_array(weights).copy()
    values *= np.float32(1.01)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save(model, tmp_path / "changed.onnx")
    report = verify(tmp_path / "changed.onnx", exported.checkpoint)
    assert not report.passed
    output = report.worst[0].output
    assert output.reason.startswith("AEPE ") or output.reason.startswith("relative L2 ")
    assert 0 <= output.place.x < 64
    assert "worst at x=" in output.explain()


def test_trained_counts_are_no_reason_to_warn(
    exported: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = {"state_dict": torch.load(exported.checkpoint), "iterations": 7}
    torch.save(checkpoint, tmp_path / "trained.pth")
    assert verify(exported.model, tmp_path / "trained.pth").passed
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("PWCNet", {"height": 60, "width": 100, "batch": 2, "io": "images"}),
        ("PWCNet_GOCor", {"height": 64, "width": 128, "io": "tensors"}),
        ("GLUNet", {"height": 256, "width": 256, "batch": 2, "io": "tensors"}),
        ("GLUNet_GOCor", {"height": 120, "width": 130, "io": "images"}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["io"],
)
def test_every_network_with_the_recorded_weights(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    network = golden_network(name)
    export_onnx(network, tmp_path / "model.onnx", **options)
    report = verify(tmp_path / "model.onnx", network)
    assert report.passed, [entry.output.explain() for entry in report.worst]
    assert [entry.output.name for entry in report.worst] == list(report.metadata.output_names)


def test_a_seeded_network_without_a_checkpoint(exported: Any) -> None:
    network = seeded_network("PWCNet_GOCor", iterations=1)
    report = verify(exported.model, network)
    assert (report.checkpoint, report.checkpoint_sha256) == ("", "")


@pytest.fixture(scope="module")
def low(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A PWC-Net in each low precision."""
    folder = tmp_path_factory.mktemp("low")
    for precision in ("fp16", "bf16"):
        export_onnx(
            golden_network("PWCNet"), folder / f"{precision}.onnx", height=64, width=128, precision=precision
        )
    return {precision: folder / f"{precision}.onnx" for precision in ("fp16", "bf16")}


def test_the_oracle_rounds_and_a_cpu_does_not(low: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gocor")
    network = golden_network("PWCNet")
    rounded = verify(low["fp16"], network, oracle=True, tolerance=1)
    assert not caplog.records
    unrounded = verify(low["fp16"], network, tolerance=1)
    assert [record.message for record in caplog.records] == [
        "fp16.onnx: ONNX Runtime computes fp16 in fp32 on the CPU; --oracle rounds as a GPU does"
    ]
    assert (rounded.oracle, rounded.model, rounded.provider) == (True, low["fp16"], "cpu")
    assert rounded.model_sha256 == unrounded.model_sha256
    assert rounded.passed
    assert rounded.worst[0].output.aepe > 0
    assert rounded.worst[0].output.aepe != unrounded.worst[0].output.aepe


def test_limits_are_those_of_the_precision(low: dict[str, Path]) -> None:
    network = golden_network("PWCNet")
    reports = {precision: verify(path, network, oracle=True) for precision, path in low.items()}
    assert {precision: report.tolerance.aepe for precision, report in reports.items()} == {
        "fp16": 0.02, "bf16": 0.16,
    }  # fmt: skip
    errors = {precision: report.worst[0].output.aepe for precision, report in reports.items()}
    assert errors["bf16"] > 3 * errors["fp16"] > 0


def test_bf16_is_for_engines(low: dict[str, Path]) -> None:
    text = (
        r"bf16\.onnx: computes in bf16, which ONNX Runtime does not; build an engine: gocor build .*or export"
    )
    with pytest.raises(ModelError, match=text):
        verify(low["bf16"], golden_network("PWCNet"))


@pytest.mark.parametrize(
    ("name", "provider", "text"),
    [
        ("m.engine", None, r"--oracle: is for \.onnx models, and m\.engine is none; leave it out"),
        ("m.onnx", "cuda", "--oracle: runs on the CPU, not on 'cuda'; leave one of them out"),
    ],
)
def test_what_has_no_oracle(name: str, provider: str | None, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        verify(name, ToyNetwork(), provider=provider, oracle=True)
