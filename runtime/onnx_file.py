"""A look into an ONNX file before any library loads it: it must need no other file.

Weights can stand in other files, which an ONNX file names by their paths: a model from a stranger could so
read any file of yours, or point ONNX Runtime to an address in memory. Nodes ``EPContext`` name, or hold,
compiled engines. What ``gocor export`` writes has neither, and its hash covers all of it.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gocor.core.errors import ModelError

_EXPECTED = "a model in one file, as gocor export writes it"
_DEEPEST = 100  # messages in messages; protobuf's own limit
_WORDS = (b"location", b"EPContext")

# Numbers of the fields that lead to tensors and nodes; onnx.proto keeps them for ever.
_PATHS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_OPERATOR, _KEY, _VALUE = 4, 1, 2  # fields of a node, and of an entry about external data


class _Field(NamedTuple):
    number: int
    start: int
    end: int


def check_self_contained(path: Path) -> None:
    """Refuses an ONNX file that takes weights or compiled code from anywhere else.

    Raises:
        ModelError: naming what it wants to read.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if all(content.find(word) < 0 for word in _WORDS):
            return  # there is nothing to find, and the library says better what may be wrong
        try:
            for kind, start, end in _messages(content, "model", 0, len(content), 0):
                _check(path, content, kind, start, end)
        except ValueError as error:
            raise ModelError(path, f"is damaged or no ONNX model ({error})", _EXPECTED) from error


def _check(path: Path, content: mmap.mmap, kind: str, start: int, end: int) -> None:
    texts = {field.number: content[field.start : field.end] for field in _fields(content, start, end)
             if field.number <= _OPERATOR and field.end - field.start < 1 << 16}  # fmt: skip
    if kind == "node" and texts.get(_OPERATOR) == b"EPContext":
        raise ModelError(path, "holds a compiled engine (a node EPContext), which is code", _EXPECTED)
    if kind == "entry" and texts.get(_KEY) == b"location":
        where = texts.get(_VALUE, b"").decode("utf-8", "replace")
        raise ModelError(path, f"takes weights from another file ({where[:200]!r})", _EXPECTED)


def _messages(
    content: mmap.mmap, kind: str, start: int, end: int, depth: int
) -> Iterator[tuple[str, int, int]]:
    """Nodes and entries about external data, at any depth."""
    if depth > _DEEPEST:
        raise ValueError("too deep a nesting")
    if kind in ("node", "entry"):
        yield kind, start, end
    inner = _PATHS.get(kind, {})
    for field in _fields(content, start, end):
        if field.number in inner:
            yield from _messages(content, inner[field.number], field.start, field.end, depth + 1)


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """Texts and messages in a message of protobuf; numbers are passed over."""
    while start < end:
        tag, start = _varint(content, start, end)
        if tag >> 32:  # protobuf in C++, which ONNX Runtime reads with, would cut that off
            raise ValueError("a field whose number has more than 32 bits")
        kind = tag & 7
        if kind == 0:
            _, start = _varint(content, start, end)
        elif kind in (1, 5):
            start += 8 if kind == 1 else 4
        elif kind == 2:
            length, start = _varint(content, start, end)
            if start + length > end:
                raise ValueError("a field that is longer than its message")
            yield _Field(tag >> 3, start, start + length)
            start += length
        elif kind not in (3, 4):  # begin and end of a group, whose fields are in between
            raise ValueError(f"a field of kind {kind}")


def _varint(content: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if start >= end:
            break
        byte, start = content[start], start + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
    raise ValueError("a number without end")
