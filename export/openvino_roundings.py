"""Roundings to 8 bits that ONNX Runtime asks for and OpenVINO is slowed by.

ONNX Runtime computes a node in 8 bits only between a DequantizeLinear and a QuantizeLinear. OpenVINO finds
out for itself how far 8-bit numbers reach, and takes every pair of the two for work: where the parts of a
concatenation are rounded already, it would put them together in FP32 to round them once more.
"""

from collections import defaultdict

import onnx
from onnx import numpy_helper

ACTIVATIONS = {"LeakyRelu", "Relu"}
Grid = tuple[tuple[str, bytes], ...]  # types and values of scale and zero point
_INPUT = onnx.NodeProto()  # stands for the maker of what no node makes


def drop_roundings(model: onnx.ModelProto) -> None:
    """Takes out, in place, pairs of QuantizeLinear and DequantizeLinear that OpenVINO does better without.

    Those behind a concatenation whose parts are on the same grid, which change nothing; and those between a
    convolution and its activation, which only cost accuracy, as the activation's result is rounded.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, set[str]] = defaultdict(set)
    for node in graph.node:
        for name in node.input:
            readers[name].add(node.op_type)
    grids = _grids(graph)
    sources: dict[str, str] = {}
    for name, grid in grids.items():
        unrounded = makers[makers[name].input[0]].input[0]
        maker = makers.get(unrounded, _INPUT)
        joined = maker.op_type == "Concat" and all(grids.get(part) == grid for part in maker.input)
        if joined or (maker.op_type == "Conv" and readers[name] <= ACTIVATIONS):
            sources[name] = unrounded
    for node in graph.node:
        node.input[:] = [sources.get(name, name) for name in node.input]
    _drop_unused(graph)


def _grids(graph: onnx.GraphProto) -> dict[str, Grid]:
    """Of every tensor that was rounded to 8 bits and widened again, by name; the graph's results are none."""
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    rounded = {node.output[0] for node in pairs if node.op_type == "QuantizeLinear"}
    named = {name for node in pairs for name in node.input[1:]}
    constants = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in named
    }
    results = {output.name for output in graph.output}
    return {
        node.output[0]: tuple((str(constants[key].dtype), constants[key].tobytes()) for key in node.input[1:])
        for node in pairs
        if node.input[0] in rounded and node.output[0] not in results
        if constants.keys() >= set(node.input[1:])
    }


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Removes nodes that nothing reads; nodes are in topological order."""
    needed = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
