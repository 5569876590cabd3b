"""Names, function bodies and the last check of an exported graph."""

import onnx
import pytest
from onnx import TensorProto, helper

from gocor.core.errors import ModelError
from gocor.export.graph import SCOPES, attach_functions, check_portable, name_nodes, set_properties


def graph_of(*nodes: onnx.NodeProto, opset: int = 19) -> onnx.ModelProto:
    names = {name for node in nodes for name in node.output}
    images = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2, 8, 8))
        for name in sorted({name for node in nodes for name in node.input} - names)
    ]
    last = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, (None,) * 4)
    graph = helper.make_graph(list(nodes), "test", images, [last])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("gocor", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def correlation(name: str = "LocalCorrelation", output: str = "y") -> onnx.NodeProto:
    return helper.make_node(name, ["a", "b"], [output], domain="gocor", radius=4)


def test_bodies_are_attached_for_the_operators_in_use_once_each() -> None:
    model = graph_of(correlation(output="x"), helper.make_node("Relu", ["x"], ["z"]), correlation())
    assert attach_functions(model) == {"LocalCorrelation": 1}
    assert [function.name for function in model.functions] == ["LocalCorrelation"]
    check_portable(model, "model.onnx")


def test_one_name_has_one_number_of_iterations() -> None:
    """TensorRT's parser keeps one body for each name, silently."""
    names = ["a", "b", "y", "v", "m", "s"]
    first, second = (
        helper.make_node("LocalGOCor", names, [f"out{n}"], f"level{n}", domain="gocor", iterations=n)
        for n in (3, 2)
    )
    model = graph_of(first, first)
    assert attach_functions(model) == {"LocalGOCor": 1}
    with pytest.raises(ModelError) as caught:
        attach_functions(graph_of(first, second))
    text = "level3: and others run 2 and 3 iterations; one number for all of them"
    assert str(caught.value) == text


def test_an_operator_without_a_body_is_refused() -> None:
    model = graph_of(correlation())
    with pytest.raises(
        ModelError, match=r"^model\.onnx: node y is a gocor::LocalCorrelation without a function"
    ):
        check_portable(model, "model.onnx")


@pytest.mark.parametrize(("opset", "mode"), [(20, "linear"), (21, "linear")])
def test_grid_sample_from_opset_20_on_is_refused(opset: int, mode: str) -> None:
    model = graph_of(helper.make_node("GridSample", ["a", "b"], ["y"], mode=mode), opset=opset)
    with pytest.raises(ModelError, match=f"GridSample of opset {opset}, which TensorRT samples as nearest"):
        check_portable(model, "model.onnx")


def test_grid_sample_of_opset_19_is_fine() -> None:
    check_portable(graph_of(helper.make_node("GridSample", ["a", "b"], ["y"], mode="bilinear")), "model.onnx")


def test_an_invalid_model_is_refused_in_one_line() -> None:
    model = graph_of(helper.make_node("Relu", ["a"], ["y"]))
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="is no valid ONNX model") as caught:
        check_portable(model, "model.onnx")
    assert "\n" not in str(caught.value)


def test_nodes_are_named_after_their_module_and_notes_are_dropped() -> None:
    nodes = [helper.make_node("Relu", ["a"], ["x"]), helper.make_node("Relu", ["x"], ["y"])]
    nodes.append(helper.make_node("Neg", ["y"], ["z"], doc_string="from /home/somebody"))
    for node in nodes[:2]:
        node.metadata_props.add(key=SCOPES, value="['', 'network.conv1a', 'network.conv1a.0', 'relu']")
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value='File "/home/somebody/x.py"')
    model = graph_of(*nodes)
    name_nodes(model, prefix="network")
    assert [node.name for node in model.graph.node] == ["conv1a.0/Relu", "conv1a.0/Relu_2", "Neg"]
    assert b"somebody" not in model.SerializeToString()


def test_properties_replace_earlier_ones_in_order() -> None:
    model = graph_of(helper.make_node("Relu", ["a"], ["y"]))
    model.metadata_props.add(key="old", value="1")
    set_properties(model, {"b": "2", "a": "1"})
    assert [(prop.key, prop.value) for prop in model.metadata_props] == [("a", "1"), ("b", "2")]
