"""Which parts of a network take lower precision badly, and which to give back for a budget.

Nothing here knows what lower precision is: a callable makes the form of the model in which some members
(convolutions, or modules) are in it, and measures its flow. Errors of parts do not add up, and some cancel,
so that every decision is measured on the combination that it leads to.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gocor.calibration.collect import Progress
from gocor.calibration.cost import Costs
from gocor.calibration.drift import Drift
from gocor.core.errors import ConfigError
from gocor.runtime.metadata import Repair

Members = frozenset[str]
SMALL = 0.005  # cost, as ``Costs.both`` counts, of what has no convolutions, or next to none


@dataclass(frozen=True)
class Part:
    """A part of a network, such as ``decoder 3``.

    Attributes:
        name: of it.
        members: what of it can be in lower precision, each on its own.
    """

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """One form of a model.

    Attributes:
        drift: of its flow.
        weight_bytes: of the network in it.
    """

    drift: Drift
    weight_bytes: int


@dataclass(frozen=True)
class Sensitivity:
    """What becomes of the flow if one part alone is in lower precision.

    Attributes:
        part: of the network.
        members: of the part: convolutions, or patterns of modules.
        aepe: mean end-point error against the model before, px; None where the flow is not finite.
        p99: 99th percentile, px; likewise.
        saved_bytes: of weights.
        work: share of the convolutions' multiply-adds that it computes, 0 to 1.
    """

    part: str
    members: tuple[str, ...]
    aepe: float | None
    p99: float | None
    saved_bytes: int
    work: float


@dataclass(frozen=True)
class Sensitivities:
    """Those of all parts.

    Attributes:
        parts: the worst first.
        together: drift with all of them in lower precision, which is no sum of theirs.
        saved_bytes: of weights, then.
    """

    parts: tuple[Sensitivity, ...]
    together: Drift
    saved_bytes: int


@dataclass(frozen=True)
class Repaired:
    """How a model came into its budget.

    Attributes:
        budget: mean end-point error that is allowed, px.
        before: with everything in lower precision.
        after: with what was kept.
        kept: members that stay in the precision before, in the order of the network.
        weight_bytes: of the network that keeping them costs.
        work: share of the convolutions' multiply-adds that they compute, 0 to 1.
        measured: forms of the model that were run for it and for the sensitivities.
    """

    budget: float
    before: Drift
    after: Drift
    kept: tuple[str, ...]
    weight_bytes: int
    work: float
    measured: int

    @property
    def facts(self) -> Repair:
        """What the model is to say about it."""
        return Repair(self.budget, self.after.error, self.kept)


@dataclass
class Trials:
    """Measures forms of a model, none of them twice.

    Attributes:
        parts: that can be in lower precision, in the order of the network.
        untouched_bytes: of the network's weights with none of them in it.
        measure: makes and measures the form in which these members are.
        costs: of the members.
        progress: told about every measurement.
    """

    parts: Sequence[Part]
    untouched_bytes: int
    measure: Callable[[Members], Measured]
    costs: Costs
    progress: Progress | None = None
    _known: dict[Members, Measured] = field(default_factory=dict)

    @property
    def everything(self) -> Members:
        """All members of all parts."""
        return frozenset(member for part in self.parts for member in part.members)

    @property
    def count(self) -> int:
        """Forms that were measured."""
        return len(self._known)

    def of(self, lowered: Members) -> Measured:
        """The form in which these members are in lower precision."""
        if lowered not in self._known:
            self._known[lowered] = self.measure(lowered)
        return self._known[lowered]

    def tell(self, done: int, total: int, what: str) -> None:
        """Tells the progress."""
        if self.progress:
            self.progress(done, total, what)


def sensitivities(trials: Trials) -> Sensitivities:
    """Measures each part alone, and all together."""
    found = []
    for number, part in enumerate(trials.parts):
        trials.tell(number, len(trials.parts) + 1, f"{part.name} alone")
        members = frozenset(part.members)
        measured = trials.of(members)
        drift, saved = measured.drift, trials.untouched_bytes - measured.weight_bytes
        found.append(
            Sensitivity(part.name, part.members, drift.aepe, drift.p99, saved, trials.costs.work(members))
        )
    trials.tell(len(found), len(found) + 1, "all parts")
    found.sort(key=lambda one: math.inf if one.aepe is None else one.aepe, reverse=True)
    together = trials.of(trials.everything)
    return Sensitivities(tuple(found), together.drift, trials.untouched_bytes - together.weight_bytes)


def repair(trials: Trials, budget: float) -> Repaired:
    """Keeps parts out of lower precision, the worst first, until the mean error is within a budget.

    The worst have the largest squared error for their cost: errors of parts are next to independent, so that
    their squares nearly add up. What was kept is then put back as far as the budget allows, parts and single
    members, the costliest first: in the end no member could be. A budget that is met measures nothing else.

    Args:
        trials: of the model.
        budget: mean end-point error, px.

    Raises:
        ConfigError: it cannot be met with anything left in lower precision; the text says what can.
    """
    trials.tell(0, 1, "all parts")
    lowered, worst = trials.everything, trials.of(trials.everything)
    if worst.drift.error > budget:
        order = sorted(sensitivities(trials).parts, key=lambda part: _harm(trials, part), reverse=True)
        lowered = _put_back(trials, _give_back(trials, order, budget), order, budget)
    kept = trials.everything - lowered
    final = trials.of(lowered)
    return Repaired(
        budget=budget,
        before=worst.drift,
        after=final.drift,
        kept=tuple(member for part in trials.parts for member in part.members if member in kept),
        weight_bytes=final.weight_bytes - worst.weight_bytes,
        work=trials.costs.work(kept),
        measured=trials.count,
    )


def _harm(trials: Trials, part: Sensitivity) -> float:
    if part.aepe is None:
        return math.inf
    return part.aepe**2 / max(trials.costs.both(part.members), SMALL)


def _give_back(trials: Trials, order: Sequence[Sensitivity], budget: float) -> Members:
    """What is left in lower precision once enough parts are out of it."""
    lowered = trials.everything
    errors = {lowered: trials.of(lowered).drift.error}
    for number, worst in enumerate(order[:-1]):
        trials.tell(number, len(order) - 1, f"without {worst.part}")
        lowered -= frozenset(worst.members)
        errors[lowered] = trials.of(lowered).drift.error
        if errors[lowered] <= budget:
            return lowered
    best = min(errors, key=lambda form: errors[form])
    left = ", ".join(part.name for part in trials.parts if not best.isdisjoint(part.members))
    got = f"{budget:g} px cannot be met; the best is {errors[best]:.3g} px, with {left} in lower precision"
    raise ConfigError("--budget", got, "allow more, or leave the model as it is")


def _put_back(trials: Trials, lowered: Members, order: Sequence[Sensitivity], budget: float) -> Members:
    kept = [s for s in order if lowered.isdisjoint(s.members)]
    candidates = [(s.part, frozenset(s.members)) for s in kept]
    candidates += [(member, frozenset([member])) for s in kept for member in s.members]
    candidates.sort(key=lambda entry: trials.costs.both(entry[1]), reverse=True)  # a part before its members
    for number, (name, members) in enumerate(candidates):
        if not lowered.isdisjoint(members):
            continue
        trials.tell(number, len(candidates), f"{name} again")
        if trials.of(lowered | members).drift.error <= budget:
            lowered |= members
    return lowered
