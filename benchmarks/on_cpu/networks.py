"""Whole networks: the same tensors through PyTorch, ONNX Runtime and OpenVINO."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from shift_correlation import shift_correlations
from torch import Tensor

from gocor.core.errors import GocorError
from gocor.export.checkpoint import seeded_network
from gocor.export.networks import Network
from gocor.runtime.preprocess import preprocess
from gocor.runtime.sample_pair import sample_pair
from gocor.runtime.session import load
from gocor.runtime.spec import NetworkSpec
from on_cpu.plan import (
    COMPILED,
    OPENVINO,
    OPENVINO_INT8,
    ORT,
    ORT_INT8,
    SHIFTS,
    TILES,
    Entries,
    Entry,
    Plan,
)
from on_cpu.processes import run_model, run_pytorch
from on_cpu.workshop import Size, Workshop

Tensors = dict[str, np.ndarray]
FAMILIES = {"PWC-Net": ("PWCNet", "PWCNet_GOCor"), "GLU-Net": ("GLUNet", "GLUNet_GOCor")}
SIZES: tuple[Size, ...] = ((384, 512), (480, 640))
ROUNDS = 15  # of 4 s with PWC-Net at 384×512, and of 23 s with GLU-Net at 480×640
WARM_UP = 3  # virtual machines were seen to be slow as long as memory is new to them
# Relative L2 of the last flow against PyTorch's: what sums in another order may differ by.
TOLERANCE = 1e-3


class MismatchError(GocorError):
    """A candidate computes something else than PyTorch."""


def plans(quick: bool, rounds: int | None) -> Iterator[Plan]:
    """A group for each family and size."""
    if quick:
        make = partial(make_entries, FAMILIES["PWC-Net"], (128, 192))
        yield Plan("PWC-Net 128×192", "networks", rounds or 2, 1, make)
        return
    for family, names in FAMILIES.items():
        for size in SIZES:
            name = f"{family} {size[0]}×{size[1]}"
            yield Plan(name, "networks", rounds or ROUNDS, WARM_UP, partial(make_entries, names, size))


def make_entries(names: tuple[str, ...], size: Size, workshop: Workshop) -> Entries:
    """All ways of some networks, each checked against PyTorch with the operators of this package."""
    made = Entries()
    torch.compiler.reset()
    for name in names:
        network = seeded_network(name)
        tensors = tensors_of(network.spec, size)
        expected = forward(network, tensors, shifts=False)[-1].numpy()
        for entry in (
            *_eager(network, tensors),
            *_compiled(network, tensors, made),
            *_models(workshop, name, size),
        ):
            flow, memory = entry.call(), _memory(workshop, name, size, entry.way)
            error = relative_l2(_last(flow, network.spec), expected)
            if error > TOLERANCE and "INT8" not in entry.way:
                got = f"differs from PyTorch by {error:.1e}"
                raise MismatchError(f"{name} · {entry.way}", got, f"at most {TOLERANCE:.0e}")
            made.ready.append(Entry(name, entry.way, entry.call, error, memory))
    made.notes = _notes(network.spec, size)
    return made


def _eager(network: Network, tensors: Tensors) -> Iterator[Entry]:
    for way in (SHIFTS, TILES):
        yield Entry(network.spec.name, way, partial(forward, network, tensors, shifts=way == SHIFTS))


def _compiled(network: Network, tensors: Tensors, made: Entries) -> Iterator[Entry]:
    name = network.spec.name
    try:
        if shutil.which("g++") is None:
            raise RuntimeError("no g++ on this machine")
        call = partial(forward, torch.compile(network, dynamic=False), tensors, shifts=False)
        call()
    except Exception as error:  # whatever Dynamo, Inductor or the compiler raise
        made.failed[f"{name} · {COMPILED}"] = " ".join(str(error).split())[:200]
    else:
        yield Entry(name, COMPILED, call)


def _models(workshop: Workshop, name: str, size: Size) -> Iterator[Entry]:
    for way in (ORT, ORT_INT8, OPENVINO, OPENVINO_INT8):
        estimator = load(_model(workshop, name, size, way), threads=workshop.threads)
        described = estimator.metadata
        tensors = preprocess(described.spec, *sample_pair(*size)[:2], described.size)
        yield Entry(name, way, partial(estimator.run, tensors))


def _model(workshop: Workshop, name: str, size: Size, way: str) -> str:
    model = workshop.onnx(name, size)
    if way in (ORT_INT8, OPENVINO_INT8):
        model = workshop.int8(model)
    if way in (OPENVINO, OPENVINO_INT8):
        model = workshop.openvino(model)
    return str(model)


def _memory(workshop: Workshop, name: str, size: Size, way: str) -> float | None:
    key = f"{name} {size[0]}×{size[1]} · {way}"
    if way == COMPILED:
        return None  # it would be the compiler's
    if way in (SHIFTS, TILES):
        return workshop.memory(key, run_pytorch, name, size, workshop.threads, way == SHIFTS)
    return workshop.memory(key, run_model, _model(workshop, name, size, way), workshop.threads)


def _last(outputs: object, spec: NetworkSpec) -> np.ndarray:
    if isinstance(outputs, dict):
        flow: np.ndarray = outputs[spec.outputs[-1]]
        return flow
    assert isinstance(outputs, list)
    return outputs[-1].numpy()


def _notes(spec: NetworkSpec, size: Size) -> list[str]:
    working = spec.working_size(*size)
    return [] if working == size else [f"The network sees {working[0]}×{working[1]}, multiples of 64."]


def tensors_of(spec: NetworkSpec, size: Size) -> Tensors:
    """Preprocessed tensors of the built-in pair at its own size."""
    return preprocess(spec, *sample_pair(*size)[:2])


def forward(network: Callable[..., object], tensors: Tensors, shifts: bool) -> list[Tensor]:
    """One pass in PyTorch, to all flows."""
    inputs = [torch.from_numpy(tensor) for tensor in tensors.values()]
    with torch.inference_mode(), shift_correlations() if shifts else nullcontext():
        outputs = network(*inputs)
    return _flows(network, outputs)


def _flows(network: Callable[..., object], outputs: object) -> list[Tensor]:
    spec: NetworkSpec = network.spec  # type: ignore[attr-defined]
    return list(outputs)[: len(spec.outputs)]  # type: ignore[call-overload]


def relative_l2(actual: np.ndarray, expected: np.ndarray) -> float:
    """L2 norm of the difference over that of what was expected; computed in float64."""
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
