"""The sizes that an engine of a model of varying sizes is built for: TensorRT's optimisation profile."""

import re
from pathlib import Path

from gocor.core.errors import ConfigError, ShapeError
from gocor.runtime.manifest import Shapes
from gocor.runtime.metadata import AXES, ModelMetadata

OPTION = "--shapes"
EXAMPLE = "least/usual/most as batch x height x width: 1x256x256/1x384x512/4x768x1024"


def parse_shapes(text: str) -> Shapes:
    """The sizes of ``1x256x256/1x384x512/4x768x1024``.

    Raises:
        ConfigError: the text is something else, or an axis does not grow from the left to the right.
    """
    size = r"(\d{1,5})[xX×](\d{1,5})[xX×](\d{1,5})"
    if not (found := re.fullmatch(rf"{size}/{size}/{size}", text.strip())):
        raise ConfigError(OPTION, f"is {text!r}", EXAMPLE)
    numbers = [int(number) for number in found.groups()]
    for axis, sizes in zip(AXES, zip(numbers[:3], numbers[3:6], numbers[6:], strict=True), strict=True):
        if list(sizes) != sorted(sizes) or sizes[0] < 1:
            raise ConfigError(
                OPTION, f"has the {axis} {'/'.join(map(str, sizes))}", "least/usual/most, from 1"
            )
    least, usual, most = numbers[:3], numbers[3:6], numbers[6:]
    return Shapes((least[0], least[1], least[2]), (usual[0], usual[1], usual[2]), (most[0], most[1], most[2]))


def check_shapes(metadata: ModelMetadata, shapes: Shapes | None, model: Path) -> None:
    """Finds out whether sizes are those of a model.

    Raises:
        ConfigError: there are none, and the model needs some, or the other way round; or it cannot have one.
    """
    if not metadata.dynamic:
        if shapes is not None:
            got = f"was given, and {model} has one size, {metadata.height}x{metadata.width}"
            raise ConfigError(OPTION, got, "leave it out, or export with --dynamic")
        return
    if shapes is None:
        raise ConfigError(
            OPTION, f"is missing, and {model} has sizes that vary ({metadata.varying})", EXAMPLE
        )
    for sizes in shapes:
        try:
            metadata.at(*sizes)
        except ShapeError as error:
            raise ConfigError(OPTION, f"has a {error.where} that {model} cannot have", str(error)) from error
        for axis, size in zip(AXES, sizes, strict=True):
            if not metadata.varies(axis) and size != getattr(metadata, axis):
                fixed = f"{getattr(metadata, axis)}, which does not vary"
                raise ConfigError(OPTION, f"has the {axis} {size}", f"that of {model} is {fixed}")
