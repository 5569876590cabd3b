"""How an operator of the domain ``gocor`` is described: once, as data that every binding reads."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gocor.core.errors import ConfigError, ShapeError

DOMAIN = "gocor"
Shape = Sequence[int]

PARSER_ATTRIBUTES = ("plugin_namespace", "plugin_version", "aot")  # read by TensorRT's parser itself
MAX_KERNEL_RADIUS = 8  # of the CUDA kernels; function bodies and PyTorch go on to the schema's maximum
MAX_KERNEL_BATCH = 65535  # CUDA's largest grid.z
MAX_KERNEL_ELEMENTS = 2**31 - 1  # of an image's features or volume: offsets in it are 32 bits


@dataclass(frozen=True)
class Attribute:
    """One attribute of an operator's ONNX node and of its plugins.

    Attributes:
        name: as in the node.
        default: value of a node that does not say otherwise; its type is the attribute's type.
        doc: what it means.
        minimum: smallest allowed value of an integer.
        maximum: largest allowed value of an integer.
    """

    name: str
    default: int | str
    doc: str
    minimum: int | None = None
    maximum: int | None = None

    def check(self, value: int) -> None:
        """Raises ConfigError unless ``value`` is an integer in range."""
        low, high = self.minimum or 0, self.maximum
        if not isinstance(value, int) or value < low or (high is not None and value > high):
            raise ConfigError(self.name, f"is {value!r}", f"a whole number from {low} to {high}")


@dataclass(frozen=True)
class OpSchema:
    """Definition of an operator with tensor inputs, one tensor output and a search radius.

    Attributes:
        name: ONNX and plugin name; unique over all domains, since TensorRT's parser ignores the domain.
        version: raised when the meaning changes.
        inputs: names of the features and volumes, in order; they and the output have one dtype.
        output: name.
        attributes: of the ONNX node, in order; those that a caller chooses come first.
        tolerances: relative L2 error against the NumPy reference that an implementation may have, for
            each dtype that the operator takes. Sums are always accumulated in float32.
        output_shape: shape rule ``(input shapes…, radius=…) -> output shape``; raises ShapeError.
        parameters: names of the inputs that come after the others and are float32 whatever their dtype.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    output: str
    attributes: tuple[Attribute, ...]
    tolerances: Mapping[str, float]
    output_shape: Callable[..., tuple[int, ...]]
    parameters: tuple[str, ...] = ()

    @property
    def torch_name(self) -> str:
        """Name of the PyTorch operator, such as ``local_correlation``."""
        return re.sub("(?<=[a-z])(?=[A-Z])", "_", self.name).lower()

    @property
    def plugin_fields(self) -> tuple[Attribute, ...]:
        """Attributes that a TensorRT plugin takes; the others tell the parser which plugin to look for."""
        return tuple(a for a in self.attributes if a.name not in PARSER_ATTRIBUTES)

    def attribute(self, name: str) -> Attribute:
        """The attribute called ``name``."""
        return next(a for a in self.attributes if a.name == name)

    def node_attributes(self, **values: int) -> Mapping[str, int | str]:
        """All attributes of a node with these values, such as ``radius=4``."""
        return {a.name: a.default for a in self.attributes} | values

    def check(self, *shapes: Shape, **values: int) -> tuple[int, ...]:
        """Shape of the output.

        Args:
            shapes: of all inputs.
            values: of all attributes that a caller chooses, such as ``radius=4``.

        Raises:
            ConfigError: an attribute is out of range.
            ShapeError: the shapes do not fit.
        """
        for name, value in values.items():
            self.attribute(name).check(value)
        return self.output_shape(*map(tuple, shapes), **values)

    def check_kernel_radius(self, radius: int) -> None:
        """Raises ConfigError unless there is a CUDA kernel for ``radius``."""
        self.attribute("radius").check(radius)
        if radius > MAX_KERNEL_RADIUS:
            raise ConfigError(
                f"radius of {self.name}",
                f"is {radius}, and CUDA kernels go up to {MAX_KERNEL_RADIUS}",
                "build with --plugins none, which takes the function body of the model",
            )

    def check_kernel_size(self, query: Shape, radius: int) -> None:
        """Raises ShapeError unless the CUDA kernels can count the elements of a query ``(N, C, H, W)``."""
        batch, channels, height, width = query
        elements = max(channels, displacements(radius)) * height * width
        if batch > MAX_KERNEL_BATCH or elements > MAX_KERNEL_ELEMENTS:
            raise ShapeError(
                self.name,
                f"a query of shape {list(query)}",
                f"CUDA kernels take {MAX_KERNEL_BATCH} images of {MAX_KERNEL_ELEMENTS} elements at most, "
                "the volume's included",
            )


def displacements(radius: int) -> int:
    """Number of displacements of a search window, ``(2 * radius + 1) ** 2``."""
    return (2 * radius + 1) ** 2


def plugin_attributes(version: int) -> tuple[Attribute, ...]:
    """Attributes that every node of ours has.

    From 10.15 on TensorRT's parser prefers a model-local function over a plugin of the same name unless the
    node says ``plugin_namespace``; ``aot`` makes it take the ahead-of-time form of a Python plugin.
    """
    return (
        Attribute("radius", 4, "search radius in feature pixels", minimum=1, maximum=16),
        Attribute("plugin_namespace", DOMAIN, "namespace of the TensorRT plugin"),
        Attribute("plugin_version", str(version), "version of the TensorRT plugin"),
        Attribute("aot", 1, "1: ahead-of-time form of a Python plugin", minimum=0, maximum=1),
    )


def fail_shapes(schema_name: str, *shapes: Shape, expected: str) -> ShapeError:
    """The error for input shapes that do not fit."""
    *others, last = (str(list(shape)) for shape in shapes)
    return ShapeError(schema_name, f"inputs of shapes {', '.join(others)} and {last}", expected)
