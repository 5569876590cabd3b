"""Forms of a model in which only some of its convolutions are in 8 bits, and how their flow differs."""

import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from gocor.calibration.collect import Progress
from gocor.calibration.cost import Costs, convolution_costs
from gocor.calibration.drift import DriftMeter
from gocor.calibration.quantize import QUANTIZED, weight_bytes
from gocor.calibration.repair import Measured, Members, Part, Repaired, Trials
from gocor.calibration.selection import Convolution

if TYPE_CHECKING:
    import onnx

RETURNED = "returned for the budget"


def trials_of(
    model: "onnx.ModelProto",
    convolutions: Sequence[Convolution],
    form: Callable[[Sequence[Convolution]], "onnx.ModelProto"],
    meter: DriftMeter,
    progress: Progress | None,
) -> Trials:
    """Trials of the convolutions that are not kept.

    Args:
        model: that ``meter`` compares with.
        convolutions: of ``select``.
        form: quantises the model's convolutions, those that are not kept, always with the same ranges.
        meter: for the flow.
        progress: told about every form.
    """
    free = [convolution for convolution in convolutions if not convolution.kept]
    parts = [
        Part(name, tuple(c.name for c in free if c.part == name))
        for name in dict.fromkeys(convolution.part for convolution in free)
    ]

    def measure(lowered: Members) -> Measured:
        made = form(without(convolutions, {c.name for c in free} - lowered))
        return Measured(meter.measure_model(made), weight_bytes(made))

    return Trials(parts, weight_bytes(model), measure, Costs(convolution_costs(model)), progress)


def without(convolutions: Sequence[Convolution], names: Collection[str]) -> tuple[Convolution, ...]:
    """The convolutions, those with these names kept, too."""
    return tuple(dataclasses.replace(c, kept=RETURNED) if c.name in names else c for c in convolutions)


def record(quantized: "onnx.ModelProto", repaired: Repaired) -> None:
    """Adds to what an 8-bit model says about itself how it came into its budget."""
    entry = next(entry for entry in quantized.metadata_props if entry.key == QUANTIZED)
    facts = {"repair": dataclasses.asdict(repaired.facts)}
    entry.value = json.dumps(json.loads(entry.value) | facts)
