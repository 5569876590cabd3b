"""What a checkpoint's pickle would do, found out before PyTorch reads it.

``torch.load(weights_only=True)`` calls none but a list of harmless functions. Harmless is meant for code:
``bytearray(10**11)`` is on that list, a few bytes of archive may unpack to gigabytes, and the hash of a tuple
that is nested deeply enough ends the process. What a ``state_dict`` needs is far less, and here is the list.
"""

import io
import pickle
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gocor.core.errors import CheckpointError
from gocor.core.reading import CHECKPOINT, MIB

ZIP = b"PK\x03\x04"  # what a file of torch.save begins with, since 1.6
_LARGEST_PICKLE = (
    2 * MIB
)  # without the tensors, which are files of their own; as many operations take seconds
_DEEPEST = 100  # tuples in tuples
_LEGACY_PICKLES = 5  # before the tensors of a file that PyTorch wrote before 1.6
_ALLOWED = re.compile(
    r"collections (OrderedDict|Counter)|torch \w+Storage|torch\.storage UntypedStorage"
    r"|torch\._utils _rebuild_(tensor|tensor_v[23]|parameter)"
    r"|torch (Size|device|bool|(b?float|u?int|complex)\w*)"
    r"|_codecs encode|(builtins|__builtin__) (set|complex)"
    r"|numpy\._?core\.multiarray scalar|numpy dtype"
)

_Operation = tuple[pickletools.OpcodeInfo, Any, int | None]


def check_pickle(path: Path) -> None:
    """Refuses a file of ``torch.save`` that holds more than tensors and plain values.

    Raises:
        CheckpointError: it would call something, is nested too deeply, or unpacks to more than the limit.
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
            if member.filename.lower().endswith(".pkl"):
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
    members = archive.infolist()
    if (total := sum(member.file_size for member in members)) > CHECKPOINT.bytes:
        raise CHECKPOINT.exceeded(path, total, CheckpointError)
    for member in members:  # what is no tensor goes into messages, or is worked through byte by byte
        if member.file_size > _LARGEST_PICKLE and not re.search(r"/data/\d+$", member.filename):
            got = f"has a member {member.filename[:80]} of {member.file_size / MIB:.1f} MiB"
            raise CheckpointError(path, got, f"at most {_LARGEST_PICKLE // MIB} MiB besides the tensors")


def _check(path: Path, file: io.BytesIO) -> None:
    for name in _calls(path, _operations(file)):
        if not _ALLOWED.fullmatch(name):
            raise CheckpointError(
                path, f"holds pickled code, which is never run ({name.replace(' ', '.')})",
                "where you trust it: load it, torch.save(its state_dict, 'weights.pth') and use that",
            )  # fmt: skip


def _operations(file: io.BytesIO) -> Iterator[_Operation]:
    try:
        yield from pickletools.genops(file)
    except ValueError as error:
        if "opcode" in str(error):  # the bytes are something else; what ends too early is damaged
            raise pickle.UnpicklingError("no pickle") from error
        raise


def _calls(path: Path, operations: Iterator[_Operation]) -> Iterator[str]:
    """Everything by name that a pickle asks for, while the depth of its tuples is followed."""
    stack: list[int] = []  # depth of each value; -1 is a mark
    memo: dict[Any, int] = {}
    for code, argument, _ in operations:
        name = code.name
        if name in ("GLOBAL", "INST"):
            yield str(argument)
        elif name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):  # neither written nor read by PyTorch
            raise pickle.UnpicklingError(f"an operation {name}")
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        else:
            taken = _taken(code, stack)
            depth = 1 + max(taken, default=0) if name.startswith("TUPLE") else -(name == "MARK")
            if depth > _DEEPEST:
                raise CheckpointError(path, f"nests tuples more than {_DEEPEST} deep", "a state_dict alone")
            stack += taken * 2 if name == "DUP" else [depth] * len(code.stack_after)


def _taken(code: pickletools.OpcodeInfo, stack: list[int]) -> list[int]:
    """Takes from the stack what an operation does, and gives the depths of that."""
    before = code.stack_before
    if pickletools.markobject not in before:
        return [stack.pop() for _ in before]
    taken = []
    while (depth := stack.pop()) >= 0:
        taken.append(depth)
    for _ in range(before.index(pickletools.markobject)):
        stack.pop()
    return taken


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
