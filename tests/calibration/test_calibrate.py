"""The whole way from a model to its 8-bit form, on small networks with seeded weights."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from calibration_tools import build_with_rtx, pairs, refusal
from onnx import TensorProto, numpy_helper
from toy_models import save_toy

import gocor
from gocor.calibration.calibrate import CalibrationConfig, calibrate
from gocor.calibration.ranges import RangeTable
from gocor.core.errors import ConfigError, ImageError, ModelError
from gocor.export.checkpoint import seeded_network
from gocor.export.onnx_export import export_onnx
from gocor.runtime.images import save_image
from gocor.runtime.metadata import Int8
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.spec import SPECS

pytest.importorskip("onnxruntime")

REAL = {"pwcnet": (384, 512), "glunet": (480, 640)}


@pytest.fixture(scope="module")
def made(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    return calibrate(exported.model, output, pairs(10))


def test_the_8_bit_model_is_loaded_and_close_to_the_model(made: Any, exported: Any) -> None:
    reference, query, _ = sample_pair(64, 64)
    with gocor.load(exported.model) as before, gocor.load(made.path) as after:
        first, second = before(reference, query), after(reference, query)
        assert after.metadata == dataclasses.replace(
            before.metadata, int8=Int8("tensorrt", "percentile", 8, 43)
        )
    error = np.hypot(*(first - second)).mean()
    assert 0 < error < 0.1 * np.hypot(*first).mean()


def test_the_report_says_what_was_done(made: Any, exported: Any) -> None:
    assert [made.ranges.method, made.ranges.samples, made.ranges.model] == ["percentile", 8, "model.onnx"]
    assert made.source == exported.model
    assert sum(not c.kept for c in made.convolutions) == 43
    assert len(made.convolutions) == 72
    assert made.quantized_weight_bytes < 0.3 * made.weight_bytes
    assert made.quantized_bytes == made.path.stat().st_size < 0.3 * made.bytes
    assert made.notes == ()
    drift = made.drift
    assert (drift.pairs, drift.apart) == (("p2", "p7"), True)
    assert 0 < drift.aepe < drift.p99 < drift.maximum


def test_the_table_is_what_the_model_was_made_of(made: Any, exported: Any) -> None:
    table = RangeTable.load(made.table)
    assert table == made.ranges
    assert made.table.name == "model.int8.onnx.ranges.json"
    assert list(table.ranges) == list(dict.fromkeys(c.tensor for c in made.convolutions if not c.kept))
    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load(made.path).graph.initializer}
    for name, entry in table.ranges.items():
        assert entry.minimum <= entry.low < entry.high <= entry.maximum
        scale = max(abs(entry.low), abs(entry.high)) / 127
        assert constants[f"{name}_scale"] == pytest.approx(scale, rel=1e-5)


def test_the_table_makes_the_same_model_again_without_pairs(made: Any, exported: Any, tmp_path: Path) -> None:
    again = calibrate(exported.model, tmp_path / "a.onnx", config=CalibrationConfig(ranges=made.table))
    assert (tmp_path / "a.onnx").read_bytes() == made.path.read_bytes()
    assert again.drift is None
    assert again.ranges == made.ranges
    fewer = CalibrationConfig(ranges=made.table, keep=("decoder *",))
    kept = calibrate(exported.model, tmp_path / "b.onnx", pairs(2), fewer)
    assert sum(not c.kept for c in kept.convolutions) == 43 - 25
    assert kept.drift is not None
    assert not kept.drift.apart


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_other_methods_choose_other_ranges(method: str, made: Any, exported: Any, tmp_path: Path) -> None:
    config = CalibrationConfig(method=method, keep=("decoder [3-6]", "context*"))  # type: ignore[arg-type]
    report = calibrate(exported.model, tmp_path / "m.onnx", pairs(10), config)
    assert report.ranges.pairs_sha256 == made.ranges.pairs_sha256
    everything = []
    for name, entry in report.ranges.ranges.items():
        assert entry.minimum <= entry.low <= entry.high <= entry.maximum, name
        everything.append((entry.low, entry.high) == (entry.minimum, entry.maximum))
    assert all(everything) == (method == "minmax")


def test_ranges_that_cut_much_off_are_noticed(exported: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("gocor.calibration.histogram.PERCENTILE", 95)
    report = calibrate(exported.model, tmp_path / "m.onnx", pairs(10))
    assert len(report.notes) == 1
    assert report.notes[0].startswith("43 of 43 ranges cut off more than 0.5 % of their values, ")
    assert report.notes[0].endswith(" %; --method minmax cuts off none")


def test_a_tensor_that_is_not_finite_is_named(exported: Any, tmp_path: Path) -> None:
    model = onnx.load(exported.model)
    weight = next(t for t in model.graph.initializer if t.name == "network.conv3a.0.weight")
    values = numpy_helper.to_array(weight).copy()
    values[7] = np.inf
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "inf.onnx")
    node = next(node for node in model.graph.node if node.name == "conv3aa.0/Conv")
    text = refusal(ModelError, tmp_path / "inf.onnx", tmp_path / "m.onnx", pairs(10))
    assert text == (
        f"{tmp_path / 'inf.onnx'}: tensor {node.input[0]} (input of conv3aa.0/Conv) holds NaN or infinity in "
        "128 of 8,192 values for pair p0; look at its weights and at the pair"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["inf.onnx"]


def test_pairs_that_cannot_be_read_are_refused(exported: Any, tmp_path: Path) -> None:
    from gocor.runtime.pairs import find_pairs

    for folder in ("l", "r"):
        save_image(tmp_path / folder / "a.png", sample_pair(64, 64)[0])
        (tmp_path / folder / "b.png").write_bytes(b"damaged")
    text = refusal(
        ImageError, exported.model, tmp_path / "m.onnx", find_pairs(tmp_path / "l", tmp_path / "r")
    )
    assert text.startswith(f"{tmp_path / 'l' / 'b.png'}: ")
    assert not (tmp_path / "m.onnx").exists()


def test_an_8_bit_model_is_refused(made: Any, tmp_path: Path) -> None:
    assert refusal(ModelError, made.path, tmp_path / "m.onnx", pairs(2)) == (
        f"{made.path}: is already quantised (129 nodes of 8-bit arithmetic); give the float32 model that it "
        "was made from"
    )


def test_a_bfloat16_model_is_refused(exported: Any, tmp_path: Path) -> None:
    model = onnx.load(exported.model)
    next(p for p in model.metadata_props if p.key == "gocor.precision").value = "bf16"
    onnx.save(model, tmp_path / "b.onnx")
    assert refusal(ModelError, tmp_path / "b.onnx", tmp_path / "m.onnx", pairs(2)) == (
        f"{tmp_path / 'b.onnx'}: computes in bfloat16, which ONNX Runtime does not run on the CPU; give the "
        "model of gocor export --precision fp16 or fp32"
    )


def test_a_float16_model_keeps_what_is_not_in_8_bits_in_float16(made: Any, tmp_path: Path) -> None:
    half, output = tmp_path / "half.onnx", tmp_path / "m.onnx"
    network = seeded_network("PWCNet_GOCor", iterations=1)
    export_onnx(network, half, height=64, width=64, precision="fp16")
    report = calibrate(half, output, pairs(10))
    assert [c.name for c in report.convolutions if not c.kept] == [
        c.name for c in made.convolutions if not c.kept
    ]
    for name, entry in report.ranges.ranges.items():
        assert entry.maximum == pytest.approx(made.ranges.ranges[name].maximum, rel=0.05, abs=1e-3)
    model = onnx.load(output)
    onnx.checker.check_model(model, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    scales = {types[node.input[1]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert scales == {TensorProto.FLOAT16}
    assert report.drift is not None
    assert 0 < report.drift.aepe < 3 * made.drift.aepe
    outcome = build_with_rtx(output)
    # ONNX wants float16 scales for float16 values; the library says that it widens them.
    assert all(text.endswith(" scales to fp32.") for text in outcome["warnings"])
    assert outcome["layers"]["quantize int8"] >= 43


def test_what_is_no_model_to_quantise_is_refused(exported: Any, tmp_path: Path) -> None:
    (tmp_path / "m.engine").write_bytes(b"x")
    assert refusal(ModelError, tmp_path / "m.engine", tmp_path / "m.onnx", pairs(2)) == (
        f"{tmp_path / 'm.engine'}: is an engine; give the model that it was built from"
    )
    toy = save_toy(tmp_path / "toy.onnx")
    text = refusal(ModelError, toy, tmp_path / "m.onnx", pairs(2))
    assert text == f"{toy}: has no convolution to quantise among its 0; see gocor inspect"
    assert "no such file" in refusal(ModelError, tmp_path / "none.onnx", tmp_path / "m.onnx", pairs(2))


@pytest.mark.parametrize(
    ("settings", "given", "text"),
    [
        (
            {},
            None,
            "--pairs: is missing; --pairs pairs.csv, a video or two folders; or --synthetic 64; or --ranges",
        ),
        ({"synthetic": 5}, 3, "--synthetic: was given with --pairs; one or the other"),
        ({"method": "best"}, 3, "--method: is 'best'; one of minmax, percentile, entropy"),
        ({"samples": 0}, 3, "--samples: is 0; at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, Any], given: int | None, text: str, exported: Any, tmp_path: Path
) -> None:
    source = pairs(given) if given else None
    assert refusal(ConfigError, exported.model, tmp_path / "m.onnx", source, **settings) == text


def test_outputs_that_make_no_sense_are_refused(exported: Any, tmp_path: Path) -> None:
    text = refusal(ConfigError, exported.model, tmp_path / "m.engine", pairs(2))
    assert text == f"{tmp_path / 'm.engine'}: has suffix '.engine'; a name that ends in .onnx"
    text = refusal(ConfigError, exported.model, exported.model, pairs(2))
    assert text == f"{exported.model}: is the model itself; another name, such as model.int8.onnx"


def test_ranges_and_another_method_are_refused(made: Any, exported: Any, tmp_path: Path) -> None:
    text = refusal(ConfigError, exported.model, tmp_path / "m.onnx", None, ranges=made.table, method="minmax")
    assert text == f"--method: is minmax, and {made.table} was made with percentile; leave one of both out"


def test_ranges_of_evened_channels_cannot_be_had_without(made: Any, exported: Any, tmp_path: Path) -> None:
    text = refusal(ConfigError, exported.model, tmp_path / "m.onnx", None, ranges=made.table, equalize=False)
    assert text.startswith("--no-equalize: was given, and the ranges of ")
    assert text.endswith("are of evened channels; leave one of both out")


def test_tensorrt_rtx_builds_the_8_bit_model(made: Any) -> None:
    outcome = build_with_rtx(made.path)
    assert outcome["warnings"] == []
    assert outcome["layers"]["quantize int8"] >= 43
    assert outcome["layers"]["grid_sample float32"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("io", ["images", "tensors"])
def test_tensorrt_rtx_builds_all_networks(name: str, io: Any, tmp_path: Path) -> None:
    height, width = REAL[SPECS[name].family]
    export_onnx(seeded_network(name), tmp_path / "m.onnx", height=height, width=width, io=io)
    report = calibrate(tmp_path / "m.onnx", tmp_path / "q.onnx", pairs(2, 256))
    share = 0.32 if name == "GLUNet_GOCor" else 0.3  # the matrix of its 4D regulariser, 4 MB, stays as it is
    assert report.quantized_weight_bytes < share * report.weight_bytes
    assert dataclasses.asdict(report)["drift"]["apart"] is False
    assert build_with_rtx(report.path)["warnings"] == []
