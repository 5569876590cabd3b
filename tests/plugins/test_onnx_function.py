"""The function bodies as ONNX; that they compute the right numbers is in test_operators.py, too."""

from collections import Counter

import numpy as np
import onnx
import onnx.inliner
import pytest
from golden import relative_l2
from operator_models import FUNCTIONS, Call, Dims, first_shape, model_of, random_inputs

from gocor.plugins.onnx_tiles import OPSET
from gocor.plugins.references import REFERENCES
from gocor.plugins.registry import CORRELATIONS
from gocor.plugins.schema import DOMAIN, displacements

OPERATOR = pytest.mark.parametrize("operator", CORRELATIONS)

# Two sizes and two radii of each operator: one body has to serve all of them.
SHAPES = {
    "LocalCorrelation": (((1, 6, 9, 14), 4), ((2, 3, 10, 5), 2)),
    "LocalCorrelationTranspose": (((2, 4, 3, 12), 1), ((1, 5, 17, 8), 3)),
}
SIZES = [(operator, *case) for operator, cases in SHAPES.items() for case in cases]


def four_calls(symbolic: bool) -> list[Call]:
    """Two differently sized calls of each operator, with numbers or with a name for every size."""
    calls = []
    for i, (operator, shape, radius) in enumerate(SIZES):
        first: Dims = first_shape(operator, shape, radius)
        query: Dims = shape
        if symbolic:
            query = [f"{letter}{i}" for letter in "NCHW"]
            first = query if operator == "LocalCorrelation" else [query[0], displacements(radius), *query[2:]]
        calls.append(Call(operator, radius, first, query))
    return calls


@pytest.mark.parametrize("symbolic", [False, True], ids=["fixed", "symbolic"])
def test_one_body_serves_calls_of_all_sizes(symbolic: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = model_of(four_calls(symbolic))
    assert [function.name for function in model.functions] == list(CORRELATIONS)
    feeds, expected = {}, []
    for i, (operator, shape, radius) in enumerate(SIZES):
        first, query = random_inputs(operator, shape, radius)
        feeds |= {f"first{i}": first, f"query{i}": query}
        expected.append(REFERENCES[operator](first, query, radius))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for actual, wanted, (operator, *_) in zip(session.run(None, feeds), expected, SIZES, strict=True):
        assert relative_l2(actual, wanted) <= CORRELATIONS[operator].tolerances["float32"]


@pytest.mark.parametrize("symbolic", [False, True], ids=["fixed", "symbolic"])
def test_onnx_accepts_it(symbolic: bool) -> None:
    onnx.checker.check_model(model_of(four_calls(symbolic)), full_check=True)


@OPERATOR
def test_signature_is_the_schema(operator: str) -> None:
    function, schema = FUNCTIONS[operator](), CORRELATIONS[operator]
    assert (function.domain, function.name) == (DOMAIN, schema.name)
    assert tuple(function.input) == schema.inputs
    assert tuple(function.output) == (schema.output,)
    assert tuple(function.attribute) == tuple(attribute.name for attribute in schema.attributes)
    assert {opset.domain: opset.version for opset in function.opset_import} == {"": OPSET}
    assert not function.attribute_proto


def test_names_are_unique_and_without_overload() -> None:
    """TensorRT takes one body for all functions of a name, whatever their domain or overload."""
    functions = [make() for make in FUNCTIONS.values()]
    assert list(FUNCTIONS) == list(CORRELATIONS)
    assert len({function.name for function in functions}) == len(functions)
    assert not any(function.overload for function in functions)
    assert not any(node.overload for node in model_of(four_calls(symbolic=False)).graph.node)


def test_nodes_carry_what_tensorrt_reads_and_nothing_else() -> None:
    for node in model_of(four_calls(symbolic=False)).graph.node:
        kinds = {a.name: a.type for a in node.attribute}
        assert kinds == {
            "radius": onnx.AttributeProto.INT,
            "plugin_namespace": onnx.AttributeProto.STRING,
            "plugin_version": onnx.AttributeProto.STRING,
            "aot": onnx.AttributeProto.INT,
        }


@OPERATOR
def test_body_is_small_and_in_standard_operators(operator: str) -> None:
    nodes = FUNCTIONS[operator]().node
    assert {node.domain for node in nodes} == {""}
    assert all(onnx.defs.has(node.op_type, OPSET) for node in nodes)
    assert len(nodes) <= 110
    kinds = Counter(node.op_type for node in nodes)
    assert kinds["MatMul"] == 1  # the tile product, and not one product for each displacement
    forbidden = {"GridSample", "Loop", "Scan", "If", "Einsum", "GatherND", "GatherElements", "ScatterND"}
    assert not kinds.keys() & forbidden


@OPERATOR
def test_every_value_of_the_body_is_used(operator: str) -> None:
    function = FUNCTIONS[operator]()
    used = {name for node in function.node for name in node.input} | set(function.output)
    made = {name for node in function.node for name in node.output}
    assert not made - used


@OPERATOR
def test_size_of_the_graph_does_not_depend_on_the_radius(operator: str) -> None:
    counts = set()
    for radius in (1, 8):
        shape = (1, 4, 20, 20)
        model = model_of([Call(operator, radius, first_shape(operator, shape, radius), shape)])
        inlined = onnx.inliner.inline_local_functions(model)
        assert not inlined.functions
        counts.add(len(inlined.graph.node))
    assert len(counts) == 1


@OPERATOR
def test_the_same_bytes_every_time(operator: str) -> None:
    assert FUNCTIONS[operator]().SerializeToString() == FUNCTIONS[operator]().SerializeToString()


def test_not_a_number_stays_where_it_is() -> None:
    """What lies outside a pixel's window must not reach it, not even multiplied by zero."""
    onnxruntime = pytest.importorskip("onnxruntime")
    shape, radius = (1, 3, 9, 9), 1
    model = model_of([Call("LocalCorrelation", radius, shape, shape)]).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    reference, query = random_inputs("LocalCorrelation", shape, radius)
    query[..., 4, 4] = np.nan
    (volume,) = session.run(None, {"first0": reference, "query0": query})
    touched = np.isnan(volume).any(axis=1)[0]
    expected = np.zeros((9, 9), bool)
    expected[3:6, 3:6] = True
    assert np.array_equal(touched, expected)
