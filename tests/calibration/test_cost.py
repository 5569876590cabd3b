import onnx
import pytest
from onnx.parser import parse_model

from gocor.calibration.cost import Cost, Costs, convolution_costs
from gocor.runtime.metadata import ModelMetadata


def test_multiply_adds_are_those_of_the_definition() -> None:
    model = parse_model("""<ir_version: 9, opset_import: ["" : 19]>
    net (float[2,3,8,10] x, float[5,3,3,3] w, float[5,1,3,3] depth, float[5,4,2,2] up)
    => (float[2,4,8,10] y) {
        a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)
        b = Conv<pads=[1,1,1,1], group=5>(a, depth)
        y = ConvTranspose<strides=[2,2]>(b, up)
    }""")
    for node, name in zip(model.graph.node, "abc", strict=True):
        node.name = name
    assert convolution_costs(model) == {
        "a": Cost(2 * 4 * 5 * 5 * 3 * 9, 5 * 3 * 9),
        "b": Cost(2 * 4 * 5 * 5 * 9, 5 * 9),
        "c": Cost(2 * 4 * 5 * 5 * 4 * 4, 5 * 4 * 4),
    }


def test_every_convolution_of_a_network_has_its_cost(exported) -> None:  # type: ignore[no-untyped-def]
    """Those behind our operators, too, whose shapes come from function bodies."""
    model = onnx.load(exported.model)
    costs = convolution_costs(model)
    assert len(costs) == 72
    assert all(cost.multiply_adds >= cost.weights > 0 for cost in costs.values())
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert ModelMetadata.from_properties(properties, "m").size == (64, 64)
    assert costs["conv6_4.0/Conv"].multiply_adds == costs["conv6_4.0/Conv"].weights  # one pixel is left
    assert costs["conv2_4.0/Conv"].multiply_adds == 16 * 16 * costs["conv2_4.0/Conv"].weights


def test_shares_are_of_all() -> None:
    costs = Costs({"a": Cost(10, 3), "b": Cost(30, 1)})
    assert costs.work(["a", "unknown"]) == 0.25
    assert costs.both(["b"]) == pytest.approx(0.75 + 0.25)
    assert Costs({}).both(["a"]) == 0
