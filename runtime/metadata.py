"""What a model file says about itself. Nothing downstream asks the user for these facts again."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from gocor.core.errors import GocorError, ModelError, ShapeError
from gocor.core.reading import parse_json
from gocor.runtime.spec import GLUNET_COARSE_SIDE, NetworkSpec, network_spec

Io = Literal["images", "tensors"]
Precision = Literal["fp32", "fp16", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
GocorForm = Literal["fused", "unrolled"]
GOCOR_FORMS: tuple[GocorForm, ...] = ("fused", "unrolled")
Axis = Literal["batch", "height", "width"]
AXES: tuple[Axis, ...] = get_args(Axis)
PREFIX = "gocor."
ORIENTATION_SCORE = "orientation_score"  # output of the GLU-Net family, float32 (batch,)
FORMAT = 1  # raised when an older reader would misread the properties
LARGEST = 1 << 16  # of sides and batches, so that no product of them overflows


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of an input or output; a dimension that varies has a name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.shape}"

    @property
    def unnamed(self) -> "TensorSpec":
        """The same with -1 for what varies, as libraries write it that know no names."""
        return TensorSpec(self.name, self.dtype, tuple(-1 if isinstance(n, str) else n for n in self.shape))

    def sized(self, sizes: Mapping[str, int]) -> "TensorSpec":
        """The same for sizes of axes, which dimensions are named after, as ``width`` or ``width/4``."""

        def size(dimension: int | str) -> int:
            if not isinstance(dimension, str):
                return dimension
            axis, _, divisor = dimension.partition("/")
            return sizes[axis] // int(divisor or 1)

        return TensorSpec(self.name, self.dtype, tuple(map(size, self.shape)))


class Range(NamedTuple):
    """Sizes that an axis may have, ends included; any from ``minimum`` on if ``maximum`` is None."""

    minimum: int
    maximum: int | None = None

    def __contains__(self, size: object) -> bool:
        """``size`` is a whole number of the range."""
        if not isinstance(size, int):
            return False
        return self.minimum <= size <= (size if self.maximum is None else self.maximum)

    def __str__(self) -> str:
        return f"from {self.minimum}" + (f" to {self.maximum}" if self.maximum else "")


@dataclass(frozen=True)
class Repair:
    """How a model in lower precision was brought within a budget.

    Attributes:
        budget: mean end-point error that was allowed, px, against the model before on held-out pairs.
        aepe: that was reached, px.
        kept: what was returned to the precision before: convolutions, or patterns of modules.
    """

    budget: float
    aepe: float
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Int8:
    """What ``gocor calibrate`` did to a model.

    Attributes:
        target: where the model is fast: ``tensorrt`` or ``cpu``.
        method: that ranges were chosen by.
        samples: pairs that they were measured on.
        convolutions: that compute with 8-bit numbers.
        repair: None without a budget.
    """

    target: str
    method: str
    samples: int
    convolutions: int
    repair: Repair | None = None


@dataclass(frozen=True)
class ModelMetadata:
    """Facts stored in the model file as string properties ``gocor.<field>``.

    Attributes:
        network: name of the network, a key of ``gocor.runtime.spec.SPECS``.
        weights_sha256: SHA-256 of the weights by content, the same for every file format.
        checkpoint: file name of the checkpoint; empty when the network was exported from memory.
        checkpoint_sha256: SHA-256 of the checkpoint file; empty when there was none.
        global_iterations: unrolled iterations of the global GOCor; None without one.
        local_iterations: unrolled iterations of each local GOCor; None without one.
        height: of the images (``io="images"``) or of the full-size input tensors (``io="tensors"``); where
            it varies, the one that the model is meant for most.
        width: likewise.
        batch: image pairs in a call; likewise.
        io: ``images`` takes uint8 RGB images and gives the flow in pixels; ``tensors`` takes preprocessed
            tensors and gives every level's flow as the network returns it.
        operators: version of every operator of the domain ``gocor`` in the model.
        gocor_version: version of this package that wrote the model.
        precision: that convolutions and correlations compute in; flows are float32 in any case. Files that do
            not say so are fp32.
        repair: how ``precision`` was brought within a budget; None without one.
        int8: what of the model is in 8 bits; None of a model that has nothing in them.
        dynamic: sizes that varying axes may have; None of a model all of whose sizes are fixed. Heights and
            widths are also multiples of the network's ``side_multiple``.
    """

    network: str
    weights_sha256: str
    checkpoint: str
    checkpoint_sha256: str
    global_iterations: int | None
    local_iterations: int | None
    height: int
    width: int
    batch: int
    io: Io
    operators: Mapping[str, int]
    gocor_version: str
    precision: Precision = "fp32"
    repair: Repair | None = None
    int8: Int8 | None = None
    dynamic: Mapping[Axis, Range] | None = None

    @property
    def spec(self) -> NetworkSpec:
        """Facts of the network."""
        return network_spec(self.network)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def gocor(self) -> GocorForm | None:
        """Whether local GOCors are one operator each; None of a network without."""
        if self.local_iterations is None:
            return None
        return "fused" if "LocalGOCor" in self.operators else "unrolled"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the model, in order."""
        batch, *size = map(self._size, AXES)
        if self.io == "images":
            return tuple(TensorSpec(name, "uint8", (batch, *size, 3)) for name in ("reference", "query"))
        coarse = (GLUNET_COARSE_SIDE, GLUNET_COARSE_SIDE)
        return tuple(
            TensorSpec(name, "float32", (batch, 3, *(coarse if name.endswith("_256") else size)))
            for name in self.spec.tensor_inputs
        )

    @property
    def flow(self) -> TensorSpec:
        """The output that results come from: ``flow``, or with ``io="tensors"`` the network's last."""
        batch, *size = map(self._size, AXES)
        if self.io == "images":
            return TensorSpec("flow", "float32", (batch, 2, *size))
        stride = self.spec.flow_stride
        grid = (f"{side}/{stride}" if isinstance(side, str) else side // stride for side in size)
        return TensorSpec(self.spec.outputs[-1], "float32", (batch, 2, *grid))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs, in order."""
        flows = ("flow",) if self.io == "images" else self.spec.outputs
        return (*flows, ORIENTATION_SCORE) if self.spec.family == "glunet" else flows

    def varies(self, *axes: Axis) -> bool:
        """Whether any of these axes does."""
        return any(axis in (self.dynamic or {}) for axis in axes)

    @property
    def varying(self) -> str | None:
        """Axes that vary and their sizes, in words; None of a model of fixed sizes."""
        sides = f" in steps of {self.spec.side_multiple}"
        parts = [f"{axis} {sizes}{sides * (axis != 'batch')}" for axis, sizes in (self.dynamic or {}).items()]
        return ", ".join(parts) or None

    @property
    def images(self) -> str:
        """Size and batch in words; where they vary, those that the model is meant for most, and what else."""
        others = f" (varying: {self.varying})" if self.dynamic else ""
        return f"{self.height}x{self.width}, batch {self.batch}{others}"

    def at(self, batch: int, height: int, width: int) -> "ModelMetadata":
        """The model as one of fixed sizes, for a call: varying axes are given, the others stay.

        Raises:
            ShapeError: a varying axis cannot have that size.
        """
        if not self.dynamic:
            return self
        given: dict[Axis, int] = {"batch": batch, "height": height, "width": width}
        for axis, sizes in self.dynamic.items():
            multiple = 1 if axis == "batch" else self.spec.side_multiple
            if given[axis] not in sizes or given[axis] % multiple:
                steps = f" in steps of {multiple}" * (multiple > 1)
                hint = "" if axis == "batch" else f"; gocor export --size {height}x{width} makes one for this"
                raise ShapeError(
                    axis, f"is {given[axis]} at the network's input", f"this model takes {sizes}{steps}{hint}"
                )
        fixed: dict[str, Any] = {axis: given[axis] for axis in self.dynamic}
        return dataclasses.replace(self, **fixed, dynamic=None)

    def for_images(self, count: int, height: int, width: int) -> "ModelMetadata":
        """The model as it takes up to ``count`` pairs of images of a size, in a call.

        Varying sides are those of the network's official pipeline.

        Raises:
            ShapeError: they are out of the range of the model.
        """
        smallest, largest = (self.dynamic or {}).get("batch", Range(1))
        batch = max(count, smallest) if largest is None else min(max(count, smallest), largest)
        return self.at(batch, *self.spec.working_size(height, width))

    def for_inputs(self, shapes: Mapping[str, tuple[int, ...]]) -> "ModelMetadata":
        """The model at the sizes of its first input, as it is if that has too many dimensions or too few.

        Args:
            shapes: of the inputs, by name.

        Raises:
            ShapeError: a varying axis cannot have that size.
        """
        first = self.inputs[0]
        shape = shapes.get(first.name, ())
        if len(shape) != len(first.shape):
            return self
        batch, height, width = shape[:3] if self.io == "images" else (shape[0], *shape[2:])
        return self.at(batch, height, width)

    @property
    def sizes(self) -> dict[str, int]:
        """Batch, height and width by the names of the axes."""
        return {axis: getattr(self, axis) for axis in AXES}

    def _size(self, axis: Axis) -> int | str:
        return axis if self.varies(axis) else int(getattr(self, axis))

    def to_properties(self) -> dict[str, str]:
        """String properties for the model file."""
        given = dataclasses.asdict(self)
        fields = {n: json.dumps(v) for n, v in given.items() if n not in _READERS or v is not None}
        strings = {n: v for n in fields if isinstance(v := getattr(self, n), str)}
        return {PREFIX + "format": str(FORMAT)} | {PREFIX + n: v for n, v in (fields | strings).items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], where: object) -> "ModelMetadata":
        """Reads the properties of the model file ``where``.

        Raises:
            ModelError: they are missing, incomplete, or of a newer format.
        """
        if PREFIX + "network" not in properties:
            raise ModelError(where, "was not made by gocor (no gocor.network property)", "run gocor export")
        if properties.get(PREFIX + "format") != str(FORMAT):
            got = f"has metadata of format {properties.get(PREFIX + 'format', 'none')}"
            raise ModelError(where, got, f"this gocor reads format {FORMAT}; export again")
        try:
            metadata = cls(**{f.name: _value(f, properties) for f in dataclasses.fields(cls)})
            metadata._check()
        except (ValueError, GocorError) as error:
            raise ModelError(where, f"has damaged gocor metadata ({error})", "export again") from error
        return metadata

    def _check(self) -> None:
        network_spec(self.network)
        if self.io not in ("images", "tensors"):
            raise ValueError(f"io {self.io!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r}")
        for name in ("height", "width", "batch"):
            if type(getattr(self, name)) is not int or not 1 <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} {getattr(self, name)!r}")
        for name in ("global_iterations", "local_iterations"):
            count = getattr(self, name)
            if count is not None and (type(count) is not int or count < 0):
                raise ValueError(f"{name} {getattr(self, name)!r}")
        known = isinstance(self.operators, dict)
        if not known or not all(type(version) is int for version in self.operators.values()):
            raise ValueError(f"operators {self.operators!r}")
        for axis, sizes in (self.dynamic or {}).items():
            if axis not in AXES or getattr(self, axis) not in sizes or sizes.minimum < 1:
                raise ValueError(f"dynamic {axis} {sizes}")
            if self.io == "images" and axis != "batch":
                raise ValueError(f"dynamic {axis} with io images")


def _value(field: "dataclasses.Field[Any]", properties: Mapping[str, str]) -> Any:
    if (text := properties.get(PREFIX + field.name)) is None:
        if field.default is not dataclasses.MISSING:
            return field.default
        raise ValueError(f"no {PREFIX}{field.name}")
    if not isinstance(text, str):  # in a manifest anything may stand here
        raise ValueError(f"{field.name} {text!r}")
    if field.type in (str, Io, Precision):
        return text
    value = parse_json(text)
    if field.name not in _READERS:
        return value
    try:
        return _READERS[field.name](value)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{field.name} {text}") from error


def _repair(values: Mapping[str, Any]) -> Repair:
    budget, aepe = float(values["budget"]), float(values["aepe"])
    if not (math.isfinite(budget) and math.isfinite(aepe)):
        raise ValueError(f"budget {budget}, aepe {aepe}")
    return Repair(budget, aepe, tuple(map(str, values["kept"])))


def _int8(values: Mapping[str, Any]) -> Int8:
    repair = _repair(values["repair"]) if values.get("repair") else None
    target = str(values.get("target", "tensorrt"))
    return Int8(target, str(values["method"]), int(values["samples"]), int(values["convolutions"]), repair)


def _dynamic(values: Mapping[str, Any]) -> dict[str, Range]:
    ranges = {axis: Range(*sizes) for axis, sizes in dict(values).items()}
    if not ranges:  # models of fixed sizes have no such property
        raise ValueError(values)
    for ends in ranges.values():
        if type(ends.minimum) is not int or (ends.maximum is not None and type(ends.maximum) is not int):
            raise ValueError(values)
    return ranges


_READERS: dict[str, Callable[[Any], Any]] = {"repair": _repair, "int8": _int8, "dynamic": _dynamic}
