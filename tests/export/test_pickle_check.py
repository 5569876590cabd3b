"""Pickles that PyTorch would unpack without running code, and still should not."""

import io
import os
import re
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from gocor.core.errors import CheckpointError
from gocor.export.checkpoint import load_network, read_checkpoint, seeded_network
from gocor.export.pickle_check import check_pickle

CALL = "holds pickled code, which is never run ({}); where you trust it: load it, torch.save(its state_dict"
BILLION = (2_000_000_000).to_bytes(4, "little", signed=True)
TUPLES = "has a tuple of more than 2000 values, with those of the tuples in it; a state_dict alone"
ODD = "is no checkpoint; a .pth, .pth.tar or .safetensors file"


def archive(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED, **more: bytes) -> Path:
    """A file of torch.save with another pickle in it."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    with zipfile.ZipFile(buffer) as good, zipfile.ZipFile(path, "w", compression) as bad:
        for name in good.namelist():
            bad.writestr(name, pickled if name.endswith("data.pkl") else good.read(name))
        for name, content in more.items():
            bad.writestr(f"archive/data/{name}", content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("save", ["zip", "legacy"])
@pytest.mark.parametrize(
    ("pickled", "name"),
    [
        (b"cposix\nsystem\nX\x02\0\0\0ls\x85R.", "posix.system"),
        (b"cbuiltins\nbytearray\nJ" + BILLION + b"\x85R.", "builtins.bytearray"),
        (b"ctorch\nTensor\nJ" + BILLION + b"\x85R.", "torch.Tensor"),
        (
            b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n.",
            "torch._utils._rebuild_meta_tensor_no_storage",
        ),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n.", "torch._utils._rebuild_sparse_tensor"),
        (b"ctorch._tensor\n_rebuild_from_type_v2\n.", "torch._tensor._rebuild_from_type_v2"),
        (b"(cos\nsystem\nios\nsystem\n.", "os.system"),
    ],
)
def test_what_a_state_dict_does_not_need(pickled: bytes, name: str, save: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    if save == "zip":
        archive(path, b"\x80\x02" + pickled)
    else:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        good = path.read_bytes()
        path.write_bytes(good.replace(b"\x80\x02}q\x00.\x80\x02]", b"\x80\x02" + pickled + b"\x80\x02]"))
    assert refusal(path).startswith(CALL.format(name))


def test_tuples_so_deep_that_their_hash_ends_the_process(tmp_path: Path) -> None:
    """The stack of C has room for some hundred thousand calls; 300,000 bytes of pickle are enough."""
    path = archive(tmp_path / "a.pth", b"\x80\x02}K\x01" + b"\x85" * 300_000 + b"K\x01s.")
    assert refusal(path) == TUPLES


def test_tuples_that_grow_through_the_memo(tmp_path: Path) -> None:
    nested = b"K\x01q\x00" + b"0h\x00\x85q\x00" * 3000
    path = archive(tmp_path / "a.pth", b"\x80\x02}" + nested + b"K\x01s.")
    assert refusal(path) == TUPLES


def test_tuples_that_double(tmp_path: Path) -> None:
    """Sixty are a few hundred bytes of pickle, and their hash takes 2⁶⁰ steps that nothing interrupts."""
    path = archive(tmp_path / "a.pth", b"\x80\x02}K\x01" + b"q\x00h\x00\x86" * 60 + b"K\x01s.")
    assert refusal(path) == TUPLES


@pytest.mark.parametrize(
    "call",
    [
        b"c_codecs\nencode\nU\x01aX\x03\0\0\0hex\x86R",  # doubles what it is given, which may be itself
        b"c_codecs\nencode\nU\x01aX\x03\0\0\0hexX\x06\0\0\0latin1\x87R",
        b"c_codecs\nencode\n](U\x01aX\x06\0\0\0latin1eR",
        b"ctorch.storage\nUntypedStorage\nJ" + BILLION + b"\x85R",
        b"ctorch.storage\nUntypedStorage\nJ" + BILLION + b"\x85\x81",
    ],
)
@pytest.mark.parametrize("save", ["zip", "legacy"])
def test_functions_that_are_allowed_and_not_called_like_that(call: bytes, save: str, tmp_path: Path) -> None:
    if save == "zip":
        archive(tmp_path / "a.pth", b"\x80\x02" + call + b".")
    else:
        (tmp_path / "a.pth").write_bytes(b"\x80\x02" + call + b".")
    assert refusal(tmp_path / "a.pth") == ODD


@pytest.mark.parametrize(
    ("name", "read"), [(b"X\x01\0\0\x000", True), (b"X\x01\0\0\0A", False), (b"K\x00", False)]
)
def test_names_of_tensors_are_numbers(name: bytes, read: bool, tmp_path: Path) -> None:
    """By names such as A and a, or by tensors that are written 0, one member was read again and again."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\n" + name + b"X\x03\0\0\0cpuK\x01tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x01\x85K\x01\x85\x89}tR"
    path = archive(tmp_path / "a.pth", b"\x80\x02}X\x01\0\0\0a" + tensor + b"s.", a=bytes(4))
    if read:
        assert read_checkpoint(path).tensors["a"].tolist() == [0.0]
    else:
        assert refusal(path) == ODD


@pytest.mark.parametrize("there", [0, 4, 396])
def test_a_tensor_that_is_longer_than_its_member(there: int, tmp_path: Path) -> None:
    """PyTorch before 2.10 read on behind it."""
    buffer, path = io.BytesIO(), tmp_path / "a.pth"
    torch.save({"a": torch.zeros(100)}, buffer)
    with zipfile.ZipFile(buffer) as good, zipfile.ZipFile(path, "w") as bad:
        for member in good.namelist():
            content = good.read(member)
            bad.writestr(member, content[:there] if member.endswith("data/0") else content)
    assert refusal(path).startswith("is damaged or no checkpoint (")


def test_an_archive_without_checksums(tmp_path: Path) -> None:
    """``torch.save`` writes none where it is told not to, and ``torch.load`` does not miss them."""
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(tmp_path / "a.pth") as made:
        assert made.testzip() is not None
    assert read_checkpoint(tmp_path / "a.pth").tensors["a"].tolist() == [1, 1, 1]


def test_a_pickle_under_a_second_name(tmp_path: Path) -> None:
    """Newer versions of zipfile show the name of such a field, and PyTorch takes the one before it."""
    path, pickled = tmp_path / "a.pth", b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."
    with zipfile.ZipFile(path, "w") as bad:
        for name in ("data.pkl", "version"):
            member = zipfile.ZipInfo(f"archive/{name}")
            other = b"\x01" + zlib.crc32(member.filename.encode()).to_bytes(4, "little") + b"archive/data/0"
            member.extra = b"\x75\x70" + len(other).to_bytes(2, "little") + other
            bad.writestr(member, pickled if name == "data.pkl" else b"3")
    assert refusal(path).startswith(CALL.format("os.system"))


def test_a_small_archive_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOCOR_MAX_CHECKPOINT_MIB", "8")
    path = archive(tmp_path / "a.pth", b"\x80\x02}.", zipfile.ZIP_DEFLATED, big=bytes(9 << 20))
    assert path.stat().st_size < 100_000
    text = "is too large for a checkpoint (10 MiB, and 8 are read); where you trust it: "
    assert refusal(path) == text + "GOCOR_MAX_CHECKPOINT_MIB=10"


def test_a_large_file(tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    os.truncate(tmp_path / "a.pth", 5 << 30)  # takes no room on the disk
    assert refusal(tmp_path / "a.pth").startswith(
        "is too large for a checkpoint (5120 MiB, and 4096 are read)"
    )


def test_a_large_pickle(tmp_path: Path) -> None:
    text = b"X" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20) + b"0"
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80\x02" + text * 3 + b"}.")
    assert refusal(path) == "has pickles of more than 2 MiB, without the tensors; a state_dict alone"


@pytest.mark.parametrize("save", ["zip", "legacy"])
def test_a_text_that_is_said_to_be_longer_than_memory(save: str, tmp_path: Path) -> None:
    """Nobody may believe that before it is there."""
    pickled = b"\x80\x02\x8d" + (1 << 60).to_bytes(8, "little") + b"abc"
    path = tmp_path / "a.pth"
    if save == "zip":
        archive(path, pickled)
    else:
        path.write_bytes(pickled)
    with pytest.raises(
        CheckpointError, match=r"is damaged or no checkpoint \(expected 1152921504606846976 bytes"
    ) as e:
        read_checkpoint(path)
    assert not isinstance(e.value.__cause__, MemoryError)


@pytest.mark.parametrize("name", ["archive/byteorder", "archive/data.pkl", "archive/version"])
def test_a_large_member_that_is_no_tensor(name: str, tmp_path: Path) -> None:
    """PyTorch tells of an unknown byte order with all of it, four times as long with its escapes."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    with zipfile.ZipFile(buffer) as good, zipfile.ZipFile(tmp_path / "a.pth", "w") as bad:
        for member in good.namelist():
            bad.writestr(member, bytes(3 << 20) if member == name else good.read(member))
    text = r"has 3\.0 MiB besides the tensors; at most 2 MiB, as a state_dict alone has"
    assert re.fullmatch(text, refusal(tmp_path / "a.pth"))


def test_many_small_members_that_are_no_tensors(tmp_path: Path) -> None:
    """Each of them is a pickle that takes seconds to be looked through."""
    path = archive(tmp_path / "a.pth", b"\x80\x02}.")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as more:
        for number in range(5):
            more.writestr(f"archive/{number}.pkl", b"\x80\x02" + b"N0" * 250_000 + b"}.")
    assert refusal(path).startswith("has 2.4 MiB besides the tensors; ")


def test_a_tar_archive_that_begins_as_a_pickle(tmp_path: Path) -> None:
    """PyTorch looks for the oldest form first."""
    path = tmp_path / "a.pth"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("x"))
    content = bytearray(path.read_bytes())
    content[:100] = (b"\x80\x02N." * 5).ljust(100, b"\0")
    checksum = sum(content[:148]) + 8 * 32 + sum(content[156:512])
    content[148:156] = f"{checksum:06o}\0 ".encode()
    path.write_bytes(content)
    assert tarfile.is_tarfile(path)
    assert refusal(path) == ODD


def test_what_training_scripts_keep_besides(tmp_path: Path) -> None:
    content = {
        "state_dict": OrderedDict(a=torch.nn.Parameter(torch.ones(2)), b=torch.zeros(1, dtype=torch.int64)),
        "best": np.float64(0.25), "loss": np.float32(2), "seen": np.int64(7), "flag": np.bool_(True),
        "size": torch.Size([1, 2]), "device": torch.device("cpu"), "dtype": torch.float16, "set": {1, 2},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2), "step": torch.tensor(3.0)}}},
        "betas": (0.9, 0.99), "nothing": None,
        "iterations": np.int64(5),
    }  # fmt: skip
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save(content, tmp_path / "a.pth", **options)
        checkpoint = read_checkpoint(tmp_path / "a.pth")
        assert checkpoint.local_iterations == 5
        assert sorted(checkpoint.tensors) == ["a", "b"]


def test_numpys_numbers_keep_their_byte_order(tmp_path: Path) -> None:
    from gocor.export.pickle_check import NUMPY_NUMBERS

    torch.save({"n": np.dtype(">i4").type(7), "big": np.array(258, ">i2")[()]}, tmp_path / "a.pth")
    check_pickle(tmp_path / "a.pth")
    with torch.serialization.safe_globals(NUMPY_NUMBERS):
        assert torch.load(tmp_path / "a.pth", weights_only=True) == {"n": 7, "big": 258}


def test_a_numpy_dtype_of_gigabytes(tmp_path: Path) -> None:
    pickled = (
        b"\x80\x02cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\nX\x0b\0\0\0V9000000000\x85RX\0\0\0\0\x86R."
    )
    assert refusal(archive(tmp_path / "a.pth", pickled)) == ODD


def test_lists_whose_text_has_no_end(tmp_path: Path) -> None:
    """Each of 60 lists holds the one before twice: 2⁶⁰ words, if anybody wrote them down."""
    nested: list[object] = ["laugh"]
    for _ in range(60):
        nested = [nested, nested]
    torch.save({"state_dict": {"a": torch.zeros(1)}, "iterations": nested}, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth").local_iterations is None


@pytest.mark.parametrize("name", ["get", "keys", "__class__"])
def test_an_ordered_dict_with_methods_of_the_files(name: str, tmp_path: Path) -> None:
    content = OrderedDict(a=torch.zeros(1))
    vars(content)[name] = 5
    torch.save(content, tmp_path / "a.pth")
    assert list(read_checkpoint(tmp_path / "a.pth").tensors) == ["a"]


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (
            torch.zeros(2, dtype=torch.complex64),
            "holds as a a tensor of complex64; dense tensors of 16, 32 or 64 bits",
        ),
        (torch.zeros(2, dtype=torch.float8_e4m3fn), "holds as a a tensor of float8_e4m3fn; dense"),
        (torch.zeros(2, dtype=torch.bool), "holds as a a tensor of bool; dense"),
    ],
)
def test_tensors_that_are_no_weights(tensor: torch.Tensor, text: str, tmp_path: Path) -> None:
    torch.save({"a": tensor}, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth").startswith(text)


def test_a_tensor_that_is_larger_than_its_bytes(tmp_path: Path) -> None:
    """The tensors of a network have to be there, not only be said to be."""
    state = seeded_network("PWCNet").state_dict()
    name, value = next((n, v) for n, v in state.items() if v.ndim == 4)
    torch.save(
        {n: (value[:1, :1, :1, :1].expand(value.shape) if n == name else v) for n, v in state.items()},
        tmp_path / "a.pth",
    )
    assert load_network(tmp_path / "a.pth").state_dict()[name].stride() == value.stride()
