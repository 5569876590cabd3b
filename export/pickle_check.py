"""What a checkpoint's pickle would do, found out before PyTorch reads it.

``torch.load(weights_only=True)`` calls none but a list of harmless functions. Harmless is meant for code:
``bytearray(10**11)`` is on that list, a few bytes of archive may unpack to gigabytes, and the hash of a tuple
that is nested deeply enough ends the process, or takes until the end of days. What a ``state_dict`` needs is
far less, and here is the list.
"""

import io
import pickle
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gocor.core.errors import CheckpointError
from gocor.core.reading import CHECKPOINT, MIB

ZIP = b"PK\x03\x04"  # what a file of torch.save begins with, since 1.6
_LARGEST_PICKLE = 2 * MIB  # without the tensors, which are files of their own; its operations take seconds
_LARGEST_TUPLE = 2000  # values, each as often as it is there; the state of Python's random numbers has 628
_LEGACY_PICKLES = 5  # before the tensors of a file that PyTorch wrote before 1.6
_ALLOWED = re.compile(
    r"collections (OrderedDict|Counter)|torch \w+Storage|torch\.storage UntypedStorage"
    r"|torch\._utils _rebuild_(tensor|tensor_v[23]|parameter)"
    r"|torch (Size|device|bool|(b?float|u?int|complex)\w*)"
    r"|_codecs encode|(builtins|__builtin__) (set|complex)"
    r"|numpy\._?core\.multiarray scalar|numpy dtype"
)
_UNUSED = ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4")  # operations that PyTorch neither writes nor reads

_Operation = tuple[pickletools.OpcodeInfo, Any, int | None]


class _Value(NamedTuple):
    """What is known of a value on a pickle's stack.

    Attributes:
        text: of a text; of a function or class its module and name.
        size: of a tuple, how many values it has, with those of the tuples in it.
        texts: of a tuple, those of its values.
    """

    text: str = ""
    size: int = 0
    texts: tuple[str, ...] = ()


_MARK = _Value("MARK")
_OTHER = _Value()


def check_pickle(path: Path) -> None:
    """Refuses a file of ``torch.save`` that holds more than tensors and plain values.

    Raises:
        CheckpointError: it would call something, has tuples without end, or unpacks to more than the limit.
        Exception: it is damaged, in any of the ways that ``zipfile`` and ``pickletools`` know.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST_PICKLE + 1)
    if not content.startswith(ZIP):  # PyTorch, too, tells by these bytes
        _check_legacy(path, content)
        return
    with zipfile.ZipFile(path) as archive:
        _check_sizes(path, archive)
        for member in archive.infolist():
            # The name as it stands there, as PyTorch takes it: another field may say another to zipfile.
            if member.orig_filename.lower().endswith(".pkl"):
                member.CRC = None  # type: ignore[assignment]  # PyTorch asks for none, and need not write one
                _check(path, io.BytesIO(archive.read(member)))


def _check_legacy(path: Path, content: bytes) -> None:
    """Looks at the pickles that such a file begins with."""
    if tarfile.is_tarfile(path):  # the oldest form of all, which PyTorch tries first
        raise pickle.UnpicklingError("a tar archive")
    pickles = io.BytesIO(content)
    try:
        for _ in range(_LEGACY_PICKLES):
            _check(path, pickles)
    except ValueError as error:
        if len(content) <= _LARGEST_PICKLE:
            raise
        got = f"has pickles of more than {_LARGEST_PICKLE // MIB} MiB, without the tensors"
        raise CheckpointError(path, got, "a state_dict alone") from error


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    tensors = others = 0
    for member in archive.infolist():
        if re.search(r"/data/\d+$", member.orig_filename):
            tensors += member.file_size
        else:  # goes into messages, or is worked through byte by byte
            others += member.file_size
    if tensors + others > CHECKPOINT.bytes:
        raise CHECKPOINT.exceeded(path, tensors + others, CheckpointError)
    if others > _LARGEST_PICKLE:
        got = f"has {others / MIB:.1f} MiB besides the tensors"
        raise CheckpointError(path, got, f"at most {_LARGEST_PICKLE // MIB} MiB, as a state_dict alone has")


def _check(path: Path, file: io.BytesIO) -> None:
    """Follows a pickle, as far as names, texts and tuples go."""
    stack: list[_Value] = []
    memo: dict[Any, _Value] = {}
    for code, argument, _ in _operations(file):
        name = code.name
        if name in ("GLOBAL", "INST"):
            _check_name(path, argument)
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        else:
            taken = _taken(code, stack)
            made = _made(path, name, argument, taken)
            stack += taken * 2 if name == "DUP" else [made] * len(code.stack_after)


def _operations(file: io.BytesIO) -> Iterator[_Operation]:
    try:
        for operation in pickletools.genops(file):
            if operation[0].name in _UNUSED:
                raise pickle.UnpicklingError(f"an operation {operation[0].name}")
            yield operation
    except ValueError as error:
        if "opcode" in str(error):  # the bytes are something else; what ends too early is damaged
            raise pickle.UnpicklingError("no pickle") from error
        raise


def _check_name(path: Path, name: str) -> None:
    if not _ALLOWED.fullmatch(name):
        raise CheckpointError(
            path, f"holds pickled code, which is never run ({name.replace(' ', '.')})",
            "where you trust it: load it, torch.save(its state_dict, 'weights.pth') and use that",
        )  # fmt: skip


def _taken(code: pickletools.OpcodeInfo, stack: list[_Value]) -> list[_Value]:
    """Takes from the stack what an operation does, and gives it, from a mark on where there is one."""
    before = code.stack_before
    if pickletools.markobject not in before:
        return [stack.pop() for _ in before][::-1]
    taken = []
    while (value := stack.pop()) is not _MARK:
        taken.append(value)
    for _ in range(before.index(pickletools.markobject)):
        stack.pop()
    return taken[::-1]


def _made(path: Path, name: str, argument: Any, taken: list[_Value]) -> _Value:
    """What an operation makes of what it takes; refuses what ``torch.save`` makes of nothing."""
    if name == "MARK":
        return _MARK
    if name.startswith("TUPLE"):
        size = len(taken) + sum(value.size for value in taken)
        if size > _LARGEST_TUPLE:  # a hash goes through all of it, and each time anew
            got = f"has a tuple of more than {_LARGEST_TUPLE} values, with those of the tuples in it"
            raise CheckpointError(path, got, "a state_dict alone")
        return _Value(size=size, texts=tuple(value.text for value in taken))
    if name in ("REDUCE", "NEWOBJ"):
        _check_call(*taken)
    elif name == "BINPERSID" and not re.fullmatch("[0-9]+", taken[0].texts[2]):
        # ("storage", its type, its name, …): by other names it would be read again and again.
        raise pickle.UnpicklingError("a tensor whose name is no number")
    return _Value(argument) if isinstance(argument, str) else _OTHER


def _check_call(function: _Value, arguments: _Value) -> None:
    """Refuses memory without end: of no content, or by ``encode(encode(…, "hex"), "hex")`` and so on."""
    encodes = function.text == "_codecs encode" and arguments.texts[1:] != ("latin1",)
    if encodes or function.text.endswith("Storage"):
        raise pickle.UnpicklingError(f"a call of {function.text}")


class _NumberType:
    """Stands in for a ``numpy.dtype``, which a pickle could make as large as it likes."""

    def __init__(self, name: str, *_: object) -> None:
        if not re.fullmatch(r"[biuf][1248]", name):
            raise pickle.UnpicklingError(f"a NumPy dtype {name[:20]!r}")
        self.name = name

    def __setstate__(self, state: tuple[object, str]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="


def _number(kind: _NumberType, data: bytes) -> Any:
    """A NumPy number, such as the best error that a training script keeps."""
    return np.frombuffer(data, np.dtype(kind.name).newbyteorder(getattr(kind, "order", "=")), 1)[0]


# By the names of NumPy before 2 and since; for torch.serialization.safe_globals.
NUMPY_NUMBERS: list[Any] = [
    (_number, "numpy.core.multiarray.scalar"), (_number, "numpy._core.multiarray.scalar"),
    (_NumberType, "numpy.dtype"), _NumberType,
]  # fmt: skip
