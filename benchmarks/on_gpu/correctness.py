"""All kernels over a table of cases, on memory whose surroundings would betray them."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from shift_correlation import shift_correlation, shift_correlation_transpose, shift_correlations
from torch import Tensor

from gocor.plugins.references import REFERENCES
from gocor.plugins.registry import KERNELS
from gocor.plugins.schema import MAX_KERNEL_RADIUS
from gocor.plugins.torch_ops import local_gocor
from on_gpu.kernels import Kernels
from on_gpu.levels import BYTES, ITERATIONS, RADIUS, attributes, random_inputs, works
from on_gpu.results import CheckRow

# Of the query. The kernels' tiles are up to 32 pixels wide and 16 channels deep: below, at and above both.
# Widths that 8 does not divide take the path of unaligned rows, even where the address is aligned.
SHAPES = (
    (1, 1, 1, 1),
    (1, 3, 1, 1),
    (2, 5, 7, 9),
    (1, 33, 1, 40),
    (1, 6, 26, 1),
    (1, 16, 8, 8),
    (2, 13, 17, 23),
    (1, 196, 6, 8),
    (1, 40, 19, 64),
    (3, 17, 33, 72),
)
QUICK_SHAPES = SHAPES[-3:]
OFFSETS = (0, 1)
GUARD = 64  # elements before and behind each tensor


def shift_gocor(*inputs: Tensor | int) -> Tensor:
    """``LocalGOCor`` step by step, with shifted products."""
    with shift_correlations():
        return local_gocor(*inputs, ITERATIONS)  # type: ignore[arg-type, call-arg]


# Of all inputs and the radius.
SHIFTS: dict[str, Callable[..., Tensor]] = {
    "LocalCorrelation": shift_correlation,
    "LocalCorrelationTranspose": shift_correlation_transpose,
    "LocalGOCor": shift_gocor,
}


@dataclass(frozen=True)
class Case:
    """One call of an operator, whose inputs are random."""

    operator: str
    dtype: str
    radius: int
    shape: tuple[int, ...]

    def inputs(self) -> tuple[np.ndarray, ...]:
        """Reproducible normal numbers as features, rounded to the dtype, and parameters."""
        return random_inputs(self.operator, self.shape, self.radius, self.dtype)


def cases(shapes: tuple[tuple[int, ...], ...] = SHAPES, radii: tuple[int, ...] = ()) -> Iterator[Case]:
    """Every operator, dtype and radius that has a kernel, with every shape."""
    radii = radii or tuple(range(1, MAX_KERNEL_RADIUS + 1))
    for operator, dtype, radius, shape in itertools.product(KERNELS, BYTES, radii, shapes):
        yield Case(operator, dtype, radius, shape)


def level_cases() -> Iterator[Case]:
    """The sizes that are timed."""
    for work in works():
        yield Case(work.operator, work.dtype, RADIUS, work.level.shape)


def check(kernels: Kernels, case: Case, device: torch.device) -> Iterator[CheckRow]:
    """A case at aligned and at unaligned addresses."""
    inputs = case.inputs()
    expected = _expected(case, inputs, device)
    for offset in OFFSETS:
        yield _check(kernels, case, offset, inputs, expected)


def _expected(case: Case, inputs: tuple[np.ndarray, ...], device: torch.device) -> Tensor:
    """In float64; the large ones on the GPU, by shifted products."""
    exact = [array.astype(np.float64) for array in inputs]
    if inputs[1].size < 1e5:
        result = REFERENCES[case.operator](*exact, **attributes(case.operator, case.radius))
        return torch.from_numpy(result).to(device)
    return SHIFTS[case.operator](*(torch.from_numpy(array).to(device) for array in exact), case.radius)


def _check(
    kernels: Kernels, case: Case, offset: int, inputs: tuple[np.ndarray, ...], expected: Tensor
) -> CheckRow:
    # A kernel that reads beside its inputs or leaves an element of its output unwritten gets a NaN.
    placed = [_place(torch.from_numpy(array), offset, expected.device, float("nan")) for array in inputs]
    empty = torch.full(expected.shape, float("nan"), dtype=placed[0][1].dtype)
    buffer, output = _place(empty, offset, expected.device, 777.0)
    addresses = [tensor.data_ptr() for _, tensor in placed] + [output.data_ptr()]
    stream = current_stream(output)
    kernels.launch(case.operator, case.dtype, case.radius, case.shape, addresses, stream)
    start = GUARD + offset
    outside = bool((buffer[:start] != 777).any() or (buffer[start + output.numel() :] != 777).any())
    relative, worst = errors(output, expected)
    tolerance = KERNELS[case.operator].tolerances[case.dtype]
    passed = relative <= tolerance and worst <= tolerance and not outside
    figures = (_or_none(relative), _or_none(worst), outside, passed)
    return CheckRow(case.operator, case.dtype, case.radius, case.shape, offset, *figures)


def _place(values: Tensor, offset: int, device: torch.device, around: float) -> tuple[Tensor, Tensor]:
    """A buffer and, somewhere in it, a copy of ``values``."""
    start, size = GUARD + offset, values.numel()
    buffer = torch.full((start + size + GUARD,), around, dtype=values.dtype, device=device)
    inner = buffer[start : start + size].view(values.shape)
    inner.copy_(values)
    return buffer, inner


def errors(actual: Tensor, expected: Tensor) -> tuple[float, float]:
    """Relative L2 error, and the worst element over the largest magnitude."""
    difference = actual.double() - expected
    relative = torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(expected)
    return relative.item(), (difference.abs().max() / expected.abs().max()).item()


def current_stream(tensor: Tensor) -> int:
    """The driver's handle of the stream that PyTorch uses now; host memory has none."""
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else 0


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None  # JSON has no NaN
