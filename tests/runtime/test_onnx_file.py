"""ONNX files that want something from other files, which no library may see."""

import contextlib
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzz.damage import BYTES
from toy_models import save_toy

import gocor
from gocor.core.errors import ModelError
from gocor.runtime.onnx_file import check_self_contained

onnx = pytest.importorskip("onnx")
DecodeError = pytest.importorskip("google.protobuf.message").DecodeError
HINT = "a model in one file, as gocor export writes it"


def external(location: str) -> "onnx.TensorProto":
    tensor = onnx.TensorProto(name="weights", data_type=onnx.TensorProto.FLOAT, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def node(name: str = "Identity", **attributes: object) -> "onnx.NodeProto":
    made = onnx.NodeProto(op_type=name, output=["unused"])
    made.attribute.extend(onnx.AttributeProto(name=n, **{n: v}) for n, v in attributes.items())
    return made


def in_graph(model: "onnx.ModelProto", tensor: "onnx.TensorProto") -> None:
    model.graph.initializer.append(tensor)


def in_constant(model: "onnx.ModelProto", tensor: "onnx.TensorProto") -> None:
    model.graph.node.append(node("Constant", t=tensor))


def in_list(model: "onnx.ModelProto", tensor: "onnx.TensorProto") -> None:
    model.graph.node.append(node("Constant", tensors=[tensor]))


def in_branch(model: "onnx.ModelProto", tensor: "onnx.TensorProto") -> None:
    inner = onnx.GraphProto(node=[node("Constant", t=tensor)])
    model.graph.node.append(node("If", graphs=[onnx.GraphProto(node=[node("If", g=inner)])]))


def in_function(model: "onnx.ModelProto", tensor: "onnx.TensorProto") -> None:
    model.functions.append(onnx.FunctionProto(name="f", node=[node("Constant", t=tensor)]))


def in_default(model: "onnx.ModelProto", tensor: "onnx.TensorProto") -> None:
    attribute = onnx.AttributeProto(name="t", t=tensor)
    model.functions.append(onnx.FunctionProto(name="f", attribute_proto=[attribute]))


def in_sparse(model: "onnx.ModelProto", tensor: "onnx.TensorProto") -> None:
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor))


def in_indices(model: "onnx.ModelProto", tensor: "onnx.TensorProto") -> None:
    sparse = onnx.SparseTensorProto(indices=tensor)
    model.graph.node.append(node("Constant", sparse_tensor=sparse))


def in_training(model: "onnx.ModelProto", tensor: "onnx.TensorProto") -> None:
    model.training_info.add().algorithm.initializer.append(tensor)


PLACES = [
    in_graph, in_constant, in_list, in_branch, in_function, in_default, in_sparse, in_indices, in_training,
]  # fmt: skip
LOCATIONS = ("/etc/passwd", "../secret", "link", "weights.bin", "*/_ORT_MEM_ADDR_/*")


@pytest.mark.parametrize("put", PLACES)
def test_weights_of_another_file_are_found_wherever_a_tensor_can_be(put: object, tmp_path: Path) -> None:
    model = onnx.load(save_toy(tmp_path / "toy.onnx"))
    put(model, external("../secret"))  # type: ignore[operator]
    (tmp_path / "toy.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        check_self_contained(tmp_path / "toy.onnx")
    assert str(caught.value) == f"{tmp_path}/toy.onnx: takes weights from another file ('../secret'); {HINT}"


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("command", ["load", "inspect", "build", "triton"])
def test_no_command_follows_such_a_path(location: str, command: str, tmp_path: Path) -> None:
    from gocor.export.engine_source import read_source
    from gocor.export.inspection import inspect_file
    from gocor.export.triton import triton_repository

    model = onnx.load(save_toy(tmp_path / "toy.onnx"))
    model.graph.initializer.append(external(location))
    (tmp_path / "toy.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    calls = {
        "load": gocor.load, "inspect": inspect_file, "build": read_source,
        "triton": lambda path: triton_repository([path], tmp_path / "models"),
    }  # fmt: skip
    with pytest.raises(ModelError, match="takes weights from another file"):
        calls[command](tmp_path / "toy.onnx")


def test_a_compiled_engine_in_a_node(tmp_path: Path) -> None:
    model = onnx.load(save_toy(tmp_path / "toy.onnx"))
    model.graph.node.append(node("EPContext"))
    (tmp_path / "toy.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        ModelError, match=r"holds a compiled engine \(a node EPContext\), which is code; a model"
    ):
        check_self_contained(tmp_path / "toy.onnx")


def test_the_words_alone_are_nothing_bad(tmp_path: Path) -> None:
    model = onnx.load(save_toy(tmp_path / "toy.onnx"))
    model.doc_string = model.graph.node[0].name = "location of the EPContext"
    model.graph.node[1].doc_string = "EPContext"
    (tmp_path / "toy.onnx").write_bytes(model.SerializeToString())
    check_self_contained(tmp_path / "toy.onnx")
    with gocor.load(tmp_path / "toy.onnx") as estimator:
        assert estimator.metadata.network == "PWCNet_GOCor"


@pytest.mark.parametrize(
    "key", [b"\x0a\x08location\x08\x01", b"\x08\x01\x0a\x08location", b"\x0a\x88\x00location"]
)
def test_a_path_is_found_however_it_is_encoded(key: bytes, tmp_path: Path) -> None:
    """A number under a text's field is passed over by protobuf; lengths may have needless digits."""
    entry = key + b"\x12\x01x"
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    (tmp_path / "odd.onnx").write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
    parsed = onnx.load(tmp_path / "odd.onnx", load_external_data=False).graph.initializer[0].external_data[0]
    assert (parsed.key, parsed.value) == ("location", "x")
    with pytest.raises(ModelError, match=r"another file \('x'\)"):
        check_self_contained(tmp_path / "odd.onnx")


def test_a_number_that_protobuf_in_cpp_cuts_off(tmp_path: Path) -> None:
    """Field 7 of a model for ONNX Runtime, and one of 2²⁹ and more for others."""
    entry = b"\x0a\x08location\x12\x01x"
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    (tmp_path / "odd.onnx").write_bytes(b"\xba\x80\x80\x80\x10" + bytes([len(graph)]) + graph)
    with pytest.raises(ModelError, match="a field whose number has more than 32 bits"):
        check_self_contained(tmp_path / "odd.onnx")


def has_link(message: Any) -> bool:
    if isinstance(message, onnx.TensorProto):
        return any(entry.key in ("location", b"location") for entry in message.external_data)
    values = [value for field, value in message.ListFields() if field.type == field.TYPE_MESSAGE]
    return any(has_link(inner) for value in values for inner in (value if hasattr(value, "add") else [value]))


def test_damage_hides_no_path_that_protobuf_still_finds(tmp_path: Path) -> None:
    random, path = Random(0), tmp_path / "damaged.onnx"
    passed = 0
    for _ in range(2000):
        model = onnx.ModelProto()
        random.choice(PLACES)(model, external("x"))
        damaged = random.choice(BYTES)(model.SerializeToString(), random)
        path.write_bytes(damaged or b"\0")
        try:
            check_self_contained(path)
        except ModelError:
            continue
        with contextlib.suppress(DecodeError):
            assert not has_link(onnx.ModelProto.FromString(damaged))
            passed += 1
    assert passed > 50


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"location\xff", "is damaged or no ONNX model"),
        (b"\x0a\x7flocation", "a field that is longer than its message"),
        (b"\x12\x08location\x80", "a number without end"),
        (b"\x12\x08location" + b"\xff" * 11, "a number without end"),
        (b"\x12\x08location\x07", "a field of kind 7"),
    ],
)
def test_damaged_files(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        check_self_contained(tmp_path / "a.onnx")


def test_damage_that_hides_nothing_is_left_to_the_library(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x0a\x7fsomething")
    check_self_contained(tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="cannot be loaded by ONNX Runtime"):
        gocor.load(tmp_path / "a.onnx")


def test_graphs_in_graphs_without_end(tmp_path: Path) -> None:
    content = b"\x12\x08location"
    for _ in range(200):  # a node with an attribute with a graph, each with its length
        for tag in (0x32, 0x2A, 0x0A):
            length, digits = len(content), bytearray()
            while length > 127:
                digits.append(0x80 | length & 0x7F)
                length >>= 7
            content = bytes([tag, *digits, length]) + content
    (tmp_path / "deep.onnx").write_bytes(b"\x3a\xff\xff\x03" + content.ljust(0xFFFF, b"\x00"))
    with pytest.raises(ModelError, match="too deep a nesting"):
        check_self_contained(tmp_path / "deep.onnx")
