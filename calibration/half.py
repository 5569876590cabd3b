"""Exports in half precision whose flow is within a budget: parts that it hurts stay in float32.

Half precision is measured with its oracle, which rounds where a GPU does; see ``gocor.export.oracle``.
"""

import dataclasses
import math
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from gocor.calibration.collect import Progress
from gocor.calibration.cost import Cost, Costs, convolution_costs
from gocor.calibration.drift import DriftMeter
from gocor.calibration.pairs import to_compare
from gocor.calibration.quantize import weight_bytes
from gocor.calibration.repair import (
    Measured,
    Members,
    Part,
    Repaired,
    Sensitivities,
    Trials,
    repair,
    sensitivities,
)
from gocor.calibration.selection import scope_of
from gocor.core.errors import ConfigError
from gocor.runtime.metadata import Precision
from gocor.runtime.pairs import PairSource

if TYPE_CHECKING:
    import onnx

    from gocor.export.networks import Network
    from gocor.export.onnx_export import ExportConfig, ExportReport
    from gocor.export.precision import PrecisionPolicy

# The part of a network that a scope belongs to; the first pattern that fits holds.
PARTS = (
    (r"conv(\d)(?:a|aa|b)\..*", "pyramid {}"),
    (r"pyramid\.level_(\d)\..*", "pyramid {}"),
    (r"(?:conv|predict_flow|upfeat|decoder)(\d).*", "decoder {}"),
    (r"l_dc_conv.*", "fine context network"),
    (r"dc_conv.*", "context network"),
    (r"local_corr_(\d).*", "GOCor {}"),
    (r"local_corr.*", "local GOCor"),
    (r"corr.*", "global GOCor"),
    (r"entry", "decoders' entries"),
    (r"", "correlations"),
)


@dataclass(frozen=True)
class HalfConfig:
    """What is asked of the flow.

    Attributes:
        budget: mean end-point error against the FP32 model that is allowed, px; any if None.
        sensitivity: measure what each part does to the flow alone, whether the budget needs it or not.
        pairs: to compare flows on, of which at most 8 are taken, spread evenly; generated ones if None.
    """

    budget: float | None = None
    sensitivity: bool = False
    pairs: PairSource | None = None

    def check(self, precision: Precision) -> None:
        """Raises ConfigError if that makes no sense."""
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise ConfigError("--budget", f"is {self.budget:g} px", "a number above 0, as 0.02px")
        asked = {"--budget": self.budget is not None, "--sensitivity": self.sensitivity}
        for option in (option for option, given in asked.items() if given):
            if precision == "fp32":
                raise ConfigError(option, "is for lower precision, and this is fp32", "add --precision fp16")
        if self.pairs is not None and not any(asked.values()):
            raise ConfigError("--pairs", "are to compare flows on", "add --budget 0.02px or --sensitivity")


@dataclass(frozen=True)
class HalfReport:
    """What was exported.

    Attributes:
        export: as of any export.
        sensitivities: of the network's parts; None if nobody asked and no budget made it necessary.
        repaired: how the model came into the budget; None without one.
    """

    export: "ExportReport"
    sensitivities: Sensitivities | None = None
    repaired: Repaired | None = None


def export_within(
    network: "Network",
    path: str | Path,
    config: "ExportConfig",
    asked: HalfConfig,
    progress: Progress | None = None,
) -> HalfReport:
    """Exports a network in FP16 or BF16, with parts of it in FP32 where a budget needs that.

    Args:
        network: see ``export_onnx``.
        path: likewise.
        config: likewise.
        asked: of the flow.
        progress: called as ``progress(done, total, what)``.

    Raises:
        ConfigError: the settings make no sense, there is no pair, or the budget cannot be met.
        GocorError: what ``export_onnx`` says.
    """
    from gocor.export.onnx_export import trace_export, write_export

    start = time.perf_counter()
    asked.check(config.precision)
    if config.dynamic:
        got = "measures parts at one size, and --dynamic was given"
        raise ConfigError("--budget" if asked.budget else "--sensitivity", got, "leave one of them out")
    held_out = to_compare(asked.pairs, config.height, config.width)
    model, metadata = trace_export(network, path, config, progress)
    with tempfile.TemporaryDirectory(prefix="gocor-") as folder:
        before = Path(folder) / Path(path).name
        before.write_bytes(model.SerializeToString())
        meter = DriftMeter(before, held_out, None, progress)
    trials = trials_of(model, metadata.network, config.precision, meter, progress)
    repaired = repair(trials, asked.budget) if asked.budget else None
    found = sensitivities(trials) if asked.sensitivity or (repaired and repaired.kept) else None
    report = write_export(
        model, metadata, path, config.precision,
        start=start, repair=repaired.facts if repaired else None, progress=progress,
    )  # fmt: skip
    return HalfReport(report, found, repaired)


def trials_of(
    model: "onnx.ModelProto", network: str, precision: Precision, meter: DriftMeter, progress: Progress | None
) -> Trials:
    """Trials of everything that a network's policy lets run low.

    Args:
        model: in FP32.
        network: name of it.
        precision: ``fp16`` or ``bf16``.
        meter: that compares with the model.
        progress: told about every form.
    """
    import onnx

    from gocor.export.oracle import oracle_model
    from gocor.export.precision import POLICIES, lower

    policy = POLICIES[network]
    parts = parts_of(model, policy, precision)
    members = [member for part in parts for member in part.members]

    def measure(lowered: Members) -> Measured:
        form = onnx.ModelProto()
        form.CopyFrom(model)
        kept = tuple(member for member in members if member not in lowered)
        lower(form, dataclasses.replace(policy, returned=kept), precision)
        return Measured(meter.measure_model(oracle_model(form)), weight_bytes(form))

    return Trials(parts, weight_bytes(model), measure, Costs(_costs(model, members)), progress)


def parts_of(model: "onnx.ModelProto", policy: "PrecisionPolicy", precision: Precision) -> list[Part]:
    """What may run low, by parts; their members are patterns of modules."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for node in model.graph.node:
        if policy.allows(node, precision):
            scope = scope_of(node.name)
            found[_part(scope)][_pattern(scope)] = None
    return [Part(name, tuple(patterns)) for name, patterns in found.items()]


def _part(scope: str) -> str:
    for pattern, name in PARTS:
        if match := re.fullmatch(pattern, scope):
            return name.format(*match.groups())
    return scope


def _pattern(scope: str) -> str:
    """Of a scope and its siblings: ``conv2a.0``, a convolution, and ``conv2a.1``, its activation, are one."""
    return re.sub(r"\.\d+$", ".*", scope)


def _costs(model: "onnx.ModelProto", members: Sequence[str]) -> Mapping[str, Cost]:
    """Costs of the members, and of convolutions that are in none."""
    costs: dict[str, Cost] = {}
    for name, cost in convolution_costs(model).items():
        key = next((member for member in members if fnmatchcase(scope_of(name), member)), name)
        there = costs.get(key, Cost(0, 0))
        costs[key] = Cost(there.multiply_adds + cost.multiply_adds, there.weights + cost.weights)
    return costs
