from collections import Counter

import onnx
import pytest
from onnx import TensorProto, helper

from gocor.calibration.selection import ASKED, COMPUTED, UNKNOWN, select
from gocor.core.errors import ConfigError, ModelError
from gocor.export.checkpoint import seeded_network
from gocor.runtime.spec import SPECS, Family


def model_of(names: list[str], stored: bool = True) -> onnx.ModelProto:
    """Convolutions of 1×1 pixels in a chain, with these names."""
    nodes, weights = [], []
    for index, name in enumerate(names):
        operator = name.rpartition("/")[2].split("_")[0]
        nodes.append(helper.make_node(operator, [f"x{index}", f"w{index}"], [f"x{index + 1}"], name))
        weights.append(helper.make_tensor(f"w{index}", TensorProto.FLOAT, (1, 1, 1, 1), [1.0]))
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, (1, 1, 4, 4)) for i in (0, len(names))]
    return helper.make_model(helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights if stored else []))


def chosen(names: list[str], family: Family = "pwcnet", keep: tuple[str, ...] = ()) -> list[str]:
    return [c.name for c in select(model_of(names), family, keep) if not c.kept]


def test_features_are_quantised_and_what_gives_the_flow_is_not() -> None:
    quantised = ["conv3aa.0/Conv", "conv6aa.0/Conv", "conv4_2.0/Conv", "dc_conv1.0/Conv"]
    kept = [
        "conv1a.0/Conv",
        "conv1aa.0/Conv",
        "conv2b.0/Conv",
        "predict_flow4.0/Conv",
        "predict_flow4.1/Conv",
        "dc_conv7/Conv",
    ]
    kept += [
        "deconv4/ConvTranspose",
        "upfeat4.0/Conv",
        "upfeat4.1/ConvTranspose",
        "local_corr_4.filter_optimizer/Conv",
    ]
    assert chosen([*quantised, *kept]) == quantised


def test_of_the_other_family_likewise() -> None:
    quantised = ["pyramid.level_1.0/Conv", "pyramid.level_4.4/Conv_2", "decoder4.conv0.0/Conv"]
    quantised += ["decoder2.conv_3.0/Conv_3", "dc_conv2.0/Conv", "l_dc_conv6.0/Conv"]
    kept = [
        "pyramid.level_0.0/Conv",
        "decoder4.final/Conv",
        "decoder1.predict_flow.0/Conv",
        "l_dc_conv7/Conv",
    ]
    kept += [
        "deconv2/ConvTranspose",
        "upfeat2.0/Conv",
        "upfeat2.1/ConvTranspose",
        "corr.corr_module.filter_optimizer/Conv",
    ]
    kept += ["corr.corr_module.filter_optimizer.reg_layer/Conv"]
    assert chosen([*quantised, *kept], "glunet") == quantised


@pytest.mark.parametrize("name", SPECS)
def test_every_convolution_of_the_networks_has_a_rule(name: str) -> None:
    """So that a renamed module does not stay in float32 unnoticed."""
    network = seeded_network(name)
    kinds = {"Conv2d": "Conv", "ConvTranspose2d": "ConvTranspose"}
    modules = [
        f"{path}/{kinds[type(module).__name__]}"
        for path, module in network.named_modules()
        if type(module).__name__ in kinds
    ]
    found = select(model_of(modules), network.spec.family)
    assert len(found) == len(modules) > 40
    assert not [c.name for c in found if c.kept == UNKNOWN]
    parts = Counter(c.part for c in found if not c.kept)
    assert parts["context network"] == 6
    assert {"pyramid 3", "decoder 3", "decoder 2"} <= parts.keys()


def test_an_unknown_scope_stays() -> None:
    found = select(model_of(["conv3a.0/Conv", "new_part.0/Conv", "Conv"]), "pwcnet")
    assert [c.kept for c in found] == ["", UNKNOWN, UNKNOWN]
    assert [c.part for c in found] == ["pyramid 3", "new_part.0", "pipeline"]


def test_computed_weights_stay() -> None:
    model = model_of(["conv3a.0/Conv", "conv3b.0/Conv"])
    del model.graph.initializer[1]
    assert [c.kept for c in select(model, "pwcnet")] == ["", COMPUTED]


@pytest.mark.parametrize("pattern", ["conv4_*", "conv4_0.0/Conv", "decoder 4", "conv4_?.0"])
def test_patterns_keep_nodes_scopes_and_parts(pattern: str) -> None:
    names = ["conv4a.0/Conv", "conv4_0.0/Conv"]
    assert chosen(names, keep=(pattern,)) == ["conv4a.0/Conv"]
    assert select(model_of(names), "pwcnet", (pattern,))[1].kept == ASKED


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        chosen(["conv4a.0/Conv", "conv4_0.0/Conv", "predict_flow4.0/Conv"], keep=("decoder 4", "predict_*"))
    assert str(error.value) == (
        "--keep: 'predict_*' matches none of the 2 convolutions that would be quantised; a node, a scope "
        "such as conv4a.0, or one of the parts pyramid 4, decoder 4"
    )


def test_patterns_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        chosen(["conv4a.0/Conv", "conv4_0.0/Conv"], keep=("conv4a*", "conv4_*"))
    assert str(error.value) == "--keep: leaves none of the 2 convolutions to quantise; keep fewer"


def test_a_model_without_such_convolutions_is_refused() -> None:
    with pytest.raises(ModelError) as error:
        select(model_of(["other/Conv"]), "pwcnet", where="m.onnx")
    assert str(error.value) == "m.onnx: has no convolution to quantise among its 1; see gocor inspect"
