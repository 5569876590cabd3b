"""Tensors in memory, passed between libraries without a copy: reading and making DLPack capsules.

cuda.core has this, too, but asks the driver about every pointer and only its newest versions do it all; this
needs neither, and so is tested with NumPy and PyTorch on main memory.

Source: github.com/dmlc/dlpack, include/dlpack/dlpack.h, versions 0.8 and 1.x.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

CPU, CUDA = 1, 2  # kinds of devices
VERSION = (1, 0)  # of the structures below with a version; those without one are older and known everywhere

_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}
_READ_ONLY = 1
# What consumers and garbage collection compare with; a capsule keeps a pointer to its name.
_NAME, _NAME_WITH_VERSION = b"dltensor", b"dltensor_versioned"


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("index", ctypes.c_int32))


class _Dtype(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Dtype),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


class _ManagedWithVersion(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
# With addresses instead of objects: in its destructor a capsule must not be referenced any more.
_capsule_is = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_pointer_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(
    ("PyCapsule_New", ctypes.pythonapi)
)


@dataclass(frozen=True)
class TensorView:
    """What a capsule says; the memory is the producer's and stays as long as the capsule.

    Attributes:
        pointer: address of the first element.
        dtype: NumPy's name of it, as ``uint8`` or ``float32``.
        shape: sizes.
        strides: in elements; None for a contiguous tensor.
        device: kind and index.
        read_only: it must not be written to.
    """

    pointer: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    device: tuple[int, int]
    read_only: bool

    @property
    def contiguous(self) -> bool:
        """The elements lie one behind the other, the last axis fastest."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides or ()), strict=False):
            if size > 1 and stride != expected:
                return False
            expected *= size
        return True


def read_capsule(capsule: object) -> TensorView:
    """What a ``__dlpack__`` method returned. The capsule stays unused, and must be kept for the memory.

    Raises:
        ValueError: it is no such capsule, or was used already.
    """
    address = id(capsule)
    if _capsule_is(address, _NAME_WITH_VERSION):
        managed = _ManagedWithVersion.from_address(_pointer_in(address, _NAME_WITH_VERSION))
        return _view(managed.tensor, bool(managed.flags & _READ_ONLY))
    if _capsule_is(address, _NAME):
        return _view(_Managed.from_address(_pointer_in(address, _NAME)).tensor, False)
    raise ValueError(f"{capsule!r} is no unused DLPack capsule")


def _view(tensor: _Tensor, read_only: bool) -> TensorView:
    kind = _KINDS.get(tensor.dtype.kind, f"kind{tensor.dtype.kind}_")
    bits = tensor.dtype.bits * tensor.dtype.lanes
    return TensorView(
        pointer=(tensor.data or 0) + tensor.byte_offset,
        dtype="bool" if kind == "bool" else f"{kind}{bits}",
        shape=tuple(tensor.shape[: tensor.ndim]),
        strides=tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None,
        device=(tensor.device.kind, tensor.device.index),
        read_only=read_only,
    )


def make_capsule(
    owner: object, pointer: int, shape: tuple[int, ...], device: tuple[int, int], *, versioned: bool
) -> Any:
    """A capsule for contiguous float32 values that belong to ``owner``, which lives as long as it is used.

    Args:
        owner: of the memory.
        pointer: address of the first element.
        shape: sizes.
        device: kind and index.
        versioned: as consumers of DLPack 1.0 want it; older ones cannot read that.
    """
    strides = [1]
    for size in shape[:0:-1]:
        strides.append(strides[-1] * size)
    axes = ctypes.c_int64 * len(shape)
    sizes, steps = axes(*shape), axes(*reversed(strides))
    managed = _ManagedWithVersion(*VERSION) if versioned else _Managed()
    managed.deleter = _forget
    managed.tensor = _Tensor(pointer, _Device(*device), len(shape), _Dtype(2, 32, 1), sizes, steps, 0)
    address = ctypes.addressof(managed)
    _exported[address] = (managed, sizes, steps, owner)
    name, destructor = (_NAME_WITH_VERSION, _drop_versioned) if versioned else (_NAME, _drop)
    return _new_capsule(address, name, destructor)


# Structures that others hold pointers to, each with all it points to.
_exported: dict[int, tuple[object, ...]] = {}


@_Deleter
def _forget(address: int) -> None:
    """Called by the consumer when it is done, in any thread."""
    _exported.pop(address, None)


def _destructor(name: bytes) -> Any:
    @_Destructor
    def drop(capsule: int) -> None:
        """Frees what nobody took out; a consumer gives the capsule another name."""
        if _capsule_is(capsule, name):
            _exported.pop(_pointer_in(capsule, name), None)

    return drop


_drop, _drop_versioned = _destructor(_NAME), _destructor(_NAME_WITH_VERSION)
# Tensors may outlive this module when the interpreter ends, and then still call these.
for _callback in (_forget, _drop, _drop_versioned):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_callback))
