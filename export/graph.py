"""What an exported graph still needs: function bodies, names that say where a node comes from, and checks."""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import onnx

from gocor.core.errors import ModelError
from gocor.plugins.local_correlation.onnx_function import onnx_function as local_correlation
from gocor.plugins.local_correlation_transpose.onnx_function import (
    onnx_function as local_correlation_transpose,
)
from gocor.plugins.local_gocor.onnx_function import onnx_function as local_gocor
from gocor.plugins.registry import OPERATORS
from gocor.plugins.schema import DOMAIN

STANDARD_DOMAINS = ("", "ai.onnx")
SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's record of a node's module path


def attach_functions(model: onnx.ModelProto) -> dict[str, int]:
    """Adds the function body of each of our operators that the graph uses.

    Returns:
        Their versions by name.

    Raises:
        ModelError: nodes of one operator would need different bodies, which one name cannot have.
    """
    used = sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
    for name in used:
        nodes = [node for node in model.graph.node if node.domain == DOMAIN and node.op_type == name]
        model.functions.append(_body(name, nodes))
    return {name: OPERATORS[name].version for name in used}


def _body(name: str, nodes: Sequence[onnx.NodeProto]) -> onnx.FunctionProto:
    if name == "LocalCorrelation":
        return local_correlation()
    if name == "LocalCorrelationTranspose":
        return local_correlation_transpose()
    counts = {a.i for node in nodes for a in node.attribute if a.name == "iterations"}
    if len(counts) > 1:
        numbers = " and ".join(map(str, sorted(counts)))
        raise ModelError(nodes[0].name, f"and others run {numbers} iterations", "one number for all of them")
    return local_gocor(*counts)


def name_nodes(model: onnx.ModelProto, prefix: str) -> None:
    """Names every node after its module, such as ``conv2a.0/Conv``, and drops the exporter's own notes.

    Those hold stack traces with paths of this machine; without them equal inputs give equal bytes.

    Args:
        prefix: of module paths, to be left out.
    """
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        scope = _scope(node, prefix)
        name = f"{scope}/{node.op_type}" if scope else node.op_type
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        node.doc_string = ""
        del node.metadata_props[:]
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    del graph.metadata_props[:], graph.value_info[:], model.metadata_props[:]
    graph.doc_string = model.doc_string = ""


def set_properties(model: onnx.ModelProto, properties: Mapping[str, str]) -> None:
    """Sets the model's string properties, in the order of their names."""
    del model.metadata_props[:]
    for key, value in sorted(properties.items()):
        model.metadata_props.add(key=key, value=value)


def check_portable(model: onnx.ModelProto, where: object) -> None:
    """Refuses a model that ONNX Runtime or TensorRT would not run, or run wrongly without a word.

    Raises:
        ModelError: the model is invalid, has an operator that is neither standard nor defined in it, or a
            GridSample of opset 20 or later, whose "linear" TensorRT samples as nearest.
    """
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:  # the latter for its own message
        raise ModelError(
            where, f"is no valid ONNX model ({str(error).splitlines()[0]})", "export again"
        ) from error
    defined = {(function.domain, function.name) for function in model.functions}
    opset = next((o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), 0)
    for node in all_nodes(model):
        if node.domain not in STANDARD_DOMAINS and (node.domain, node.op_type) not in defined:
            operator = f"{node.domain}::{node.op_type}"
            name = node.name or node.output[0]
            raise ModelError(where, f"node {name} is a {operator} without a function body", "export again")
        if node.op_type == "GridSample" and opset >= 20:
            got = f"has GridSample of opset {opset}, which TensorRT samples as nearest"
            raise ModelError(where, got, "export at opset 19")


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the graph and of all functions."""
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def _scope(node: onnx.NodeProto, prefix: str) -> str:
    text = next((prop.value for prop in node.metadata_props if prop.key == SCOPES), "[]")
    scopes = ast.literal_eval(
        text
    )  # ['', 'network.conv1a', 'network.conv1a.0', 'conv2d']: the last is no module
    return scopes[-2].removeprefix(prefix).removeprefix(".") if len(scopes) > 1 else ""
