"""Half precision within a budget, on a small network in which one convolution was spoiled on purpose."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import gocor
from gocor.calibration.half import HalfConfig, export_within, parts_of
from gocor.calibration.pairs import to_compare
from gocor.calibration.selection import select
from gocor.core.errors import ConfigError
from gocor.export.onnx_export import ExportConfig
from gocor.export.precision import POLICIES, scope_of, value_types
from gocor.runtime.metadata import Repair
from gocor.runtime.pairs import FilePairs, Pair
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.spec import SPECS

pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

WHOLE = dict(POLICIES)  # before a fixture changes it
CONFIG = ExportConfig(64, 64, precision="fp16")


def pairs(count: int = 1) -> FilePairs:
    images = sample_pair(64, 64)[:2]
    return FilePairs([Pair(f"p{i}", (), None, lambda: images) for i in range(count)])


@pytest.fixture(scope="module")
def spoiled() -> Iterator[Any]:
    """PWC-Net whose conv3b adds and subtracts numbers that half precision cannot hold beside the others.

    Only some of it may run low, and it is traced once, both to save time.
    """
    from gocor.export import onnx_export, precision
    from gocor.export.checkpoint import seeded_network

    network = seeded_network("PWCNet")
    with torch.no_grad():
        made, read = network.conv3aa[0].weight, network.conv3b[0].weight
        made[1] = made[0]
        read[:, 0], read[:, 1] = 1e4, -1e4
        network.conv3b[0].weight[:, 0, :, :1] *= 1 + 2**-12  # which is 1 in half precision
    traced = onnx_export.trace_export(network, "m.onnx", CONFIG)

    def copy(*_: object) -> Any:
        model = onnx.ModelProto()
        model.CopyFrom(traced[0])
        return model, traced[1]

    few = precision.PrecisionPolicy(low=("conv3*", "conv6_*", "entry"), keep=("conv3_*",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_export, "trace_export", copy)
        patch.setitem(precision.POLICIES, "PWCNet", few)
        yield network


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What progress said."""
    return []


@pytest.fixture(scope="module")
def exported_half(spoiled: Any, told: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("half") / "m.onnx"
    asked = HalfConfig(budget=0.5, sensitivity=True, pairs=pairs())
    return export_within(spoiled, path, CONFIG, asked, lambda done, total, what: told.append(what))


def test_the_spoiled_part_is_the_worst(exported_half: Any) -> None:
    found = exported_half.sensitivities
    worst, *others = found.parts
    assert worst.part == "pyramid 3"
    assert worst.aepe > 1 > 10 * max(part.aepe for part in others)
    assert {part.part for part in others} == {"correlations", "decoder 6", "decoders' entries"}
    assert found.together.pairs == ("p0",)
    saved = {part.part: part.saved_bytes for part in found.parts}
    assert saved["correlations"] == saved["decoders' entries"] == 0
    assert sum(saved.values()) == found.saved_bytes
    assert saved["pyramid 3"] == 2 * 9 * (32 * 64 + 2 * 64 * 64)


def test_the_repair_keeps_exactly_the_spoiled_module(exported_half: Any, told: list[str]) -> None:
    repaired, path = exported_half.repaired, exported_half.export.path
    assert repaired.kept == ("conv3b.*",)
    assert repaired.before == exported_half.sensitivities.together
    assert repaired.after.error <= 0.5 < repaired.before.error
    assert repaired.weight_bytes == 2 * 64 * 64 * 9
    assert {"pyramid 3 alone", "without pyramid 3", "conv3a.* again"} <= set(told)
    with gocor.load(path) as estimator:
        described = estimator.metadata
    assert described.precision == "fp16"
    assert described.repair == Repair(0.5, repaired.after.error, ("conv3b.*",))
    model = onnx.load(path)
    types = value_types(model)
    half = {scope_of(n) for n in model.graph.node if n.op_type == "Conv" and types[n.input[1]] == 10}
    assert half == {"conv3a.0", "conv3aa.0", *(f"conv6_{index}.0" for index in range(5))}


def test_pairs_are_spread_and_few() -> None:
    chosen = to_compare(pairs(20), 64, 64)
    assert [pair.name for pair in chosen.held_out] == [f"p{n}" for n in (1, 3, 6, 8, 11, 13, 16, 18)]
    assert len(to_compare(pairs(3), 64, 64).held_out) == 3


def test_bfloat16_is_measured_likewise(exported_half: Any, spoiled: Any, tmp_path: Path) -> None:
    """A part without weights, too, whose form has no constant in that precision."""
    config = dataclasses.replace(CONFIG, precision="bf16")
    report = export_within(spoiled, tmp_path / "m.onnx", config, HalfConfig(sensitivity=True, pairs=pairs()))
    assert report.sensitivities is not None
    coarse = {part.part: part.aepe for part in report.sensitivities.parts}
    fine = {part.part: part.aepe for part in exported_half.sensitivities.parts}
    assert coarse.keys() == fine.keys() - {"correlations"}
    assert coarse["decoders' entries"] > 4 * fine["decoders' entries"]  # 8 bits of mantissa, not 11
    assert report.export.metadata.precision == "bf16"


def test_a_budget_that_cannot_be_met_leaves_earlier_files(
    spoiled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def repair(*_: object) -> None:  # as in tests/calibration/test_repair.py, which saves its measurements
        raise ConfigError("--budget", "cannot be met")

    monkeypatch.setattr("gocor.calibration.half.repair", repair)
    (tmp_path / "m.onnx").write_text("earlier")
    with pytest.raises(ConfigError, match="--budget: cannot be met"):
        export_within(spoiled, tmp_path / "m.onnx", CONFIG, HalfConfig(1e-9, pairs=pairs()))
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "earlier"


@pytest.mark.parametrize(
    ("settings", "precision", "text"),
    [
        ({"budget": 0.1}, "fp32", "--budget: is for lower precision, and this is fp32; add --precision fp16"),
        (
            {"sensitivity": True},
            "fp32",
            "--sensitivity: is for lower precision, and this is fp32; add --precision fp16",
        ),
        ({"budget": -0.5}, "fp16", "--budget: is -0.5 px; a number above 0, as 0.02px"),
        (
            {"pairs": pairs()},
            "fp16",
            "--pairs: are to compare flows on; add --budget 0.02px or --sensitivity",
        ),
        ({"budget": 0.1, "pairs": pairs(0)}, "fp16", "--pairs: holds no pair; at least one"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, Any], precision: Any, text: str, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, precision=precision)
    with pytest.raises(ConfigError) as error:
        export_within(None, tmp_path / "m.onnx", config, HalfConfig(**settings))  # type: ignore[arg-type]
    assert str(error.value) == text


@pytest.mark.parametrize("name", SPECS)
def test_every_module_is_in_a_part_and_in_that_of_8_bits(name: str) -> None:
    from gocor.export.checkpoint import seeded_network

    model = modules_of(seeded_network(name))
    policy = WHOLE[name]
    parts = parts_of(model, policy, "fp16")
    members = [member for part in parts for member in part.members]
    assert len(members) == len(set(members)) > 15
    known = {convolution.name: convolution.part for convolution in select(model, SPECS[name].family)}
    found = {part.name for part in parts}
    assert {known[node.name] for node in model.graph.node if policy.allows(node, "fp16")} <= found
    returned = dataclasses.replace(policy, returned=tuple(members))
    assert not any(returned.allows(node, "fp16") for node in model.graph.node)


def modules_of(network: Any) -> onnx.ModelProto:
    """A chain of the network's convolutions, named as an export names them."""
    nodes, weights = [], []
    for path, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            kind = "Conv" if isinstance(module, torch.nn.Conv2d) else "ConvTranspose"
            count = len(nodes)
            inputs = [f"x{count}", f"w{count}"]
            nodes.append(onnx.helper.make_node(kind, inputs, [f"x{count + 1}"], f"{path}/{kind}"))
            weights.append(onnx.numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), f"w{count}"))
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "chain", [], [], weights))
