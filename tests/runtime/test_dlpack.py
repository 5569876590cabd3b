"""Capsules are exchanged with NumPy and PyTorch, which have their own implementations of DLPack."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from gocor.runtime import dlpack
from gocor.runtime.dlpack import CPU, make_capsule, read_capsule


class Exported:
    """Owner of some memory, as a CUDA array is of the GPU's."""

    def __init__(self, values: np.ndarray, versioned: bool) -> None:
        self.values, self.versioned = values, versioned

    def __dlpack__(self, **_: object) -> Any:
        pointer = self.values.__array_interface__["data"][0]
        return make_capsule(self, pointer, self.values.shape, (CPU, 0), versioned=self.versioned)

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0


def values(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), (1, 2, 5, 1)])
def test_numpy_reads_our_capsules_without_a_copy(shape: tuple[int, ...], versioned: bool) -> None:
    memory = values(*shape)
    array = np.from_dlpack(Exported(memory, versioned))
    np.testing.assert_array_equal(array, memory)
    assert np.shares_memory(array, memory)


@pytest.mark.parametrize("versioned", [False, True])
def test_torch_reads_our_capsules_without_a_copy(versioned: bool) -> None:
    torch = pytest.importorskip("torch")
    memory = values(2, 3, 4)
    tensor = torch.from_dlpack(Exported(memory, versioned))
    memory[1, 2, 3] = -1
    assert tensor.shape == (2, 3, 4)
    assert tensor[1, 2, 3] == -1


@pytest.mark.parametrize("versioned", [False, True])
def test_memory_lives_as_long_as_somebody_uses_it(versioned: bool) -> None:
    owner = Exported(values(4), versioned)
    alive = weakref.ref(owner)
    array = np.from_dlpack(owner)
    del owner
    gc.collect()
    assert alive() is not None
    assert array[3] == 3
    del array
    gc.collect()
    assert alive() is None
    assert not dlpack._exported


@pytest.mark.parametrize("versioned", [False, True])
def test_a_capsule_that_nobody_took_frees_its_memory(versioned: bool) -> None:
    owner = Exported(values(4), versioned)
    alive = weakref.ref(owner)
    capsule = owner.__dlpack__()
    del owner
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None


def test_numpys_capsules_are_read() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for keywords in ({}, {"max_version": (1, 0)}):
        capsule = array.__dlpack__(**keywords)
        view = read_capsule(capsule)
        assert view.pointer == array.__array_interface__["data"][0]
        assert (view.dtype, view.shape, view.device) == ("uint8", (2, 3, 4), (CPU, 0))
        assert view.contiguous
        assert not view.read_only


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bool", "int64", "complex64"])
def test_dtypes_have_numpys_names(dtype: str) -> None:
    capsule = np.zeros(3, dtype).__dlpack__()
    assert read_capsule(capsule).dtype == dtype


def test_torchs_bfloat16_has_a_name() -> None:
    torch = pytest.importorskip("torch")
    capsule = torch.zeros(3, dtype=torch.bfloat16).__dlpack__()
    assert read_capsule(capsule).dtype == "bfloat16"


def test_what_is_contiguous() -> None:
    array = values(2, 3, 4)
    cases = {
        "all of it": (array, True),
        "an axis of one": (array[:, :1, :], False),
        "one of the first": (array[1:], True),
        "turned": (array.transpose(0, 2, 1), False),
        "every second": (array[:, :, ::2], False),
        "one value": (array[:1, :1, :1], True),
        "backwards": (array[::-1], False),
    }
    for name, (part, expected) in cases.items():
        capsule = part.__dlpack__()
        assert read_capsule(capsule).contiguous is expected, name


def test_read_only_memory_says_so() -> None:
    array = values(3)
    array.flags.writeable = False
    assert read_capsule(array.__dlpack__(max_version=(1, 0))).read_only


def test_other_objects_are_refused() -> None:
    for thing in (object(), 3, None):
        with pytest.raises(ValueError, match="is no unused DLPack capsule"):
            read_capsule(thing)
