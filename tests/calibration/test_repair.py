"""The repair on networks whose errors are known in closed form, so that the best answer is known, too."""

import math
import random

import pytest

from gocor.calibration.cost import Cost, Costs
from gocor.calibration.drift import Drift
from gocor.calibration.repair import Measured, Members, Part, Trials, repair, sensitivities
from gocor.core.errors import ConfigError

Errors = dict[str, float]


def drift(error: float) -> Drift:
    figure = error if math.isfinite(error) else None
    return Drift(("p",), True, figure, figure, figure)


def trials_of(errors: Errors, weights: dict[str, int] | None = None, meeting: tuple[str, ...] = ()) -> Trials:
    """Members are a1, a2, b1, …, of parts a, b, …; squared errors add up.

    Args:
        errors: of each member alone.
        weights: of each member, and its multiply-adds; 1 if not given.
        meeting: members that cause an error of 8 more when all of them are in lower precision.
    """
    weights = weights or dict.fromkeys(errors, 1)
    names = dict.fromkeys(member[0] for member in errors)
    parts = [Part(name, tuple(member for member in errors if member[0] == name)) for name in names]

    def measure(lowered: Members) -> Measured:
        together = 8.0 if meeting and lowered.issuperset(meeting) else 0.0
        error = math.sqrt(sum(errors[member] ** 2 for member in lowered) + together**2)
        return Measured(drift(error), 4 * sum(weights.values()) - 3 * sum(weights[m] for m in lowered))

    costs = Costs({member: Cost(weight, weight) for member, weight in weights.items()})
    return Trials(parts, 4 * sum(weights.values()), measure, costs)


def kept(trials: Trials, budget: float) -> tuple[str, ...]:
    found = repair(trials, budget)
    assert found.after.error <= budget
    return found.kept


def test_parts_are_measured_alone_and_the_worst_comes_first() -> None:
    found = sensitivities(trials_of({"a1": 1, "b1": 3, "b2": 4, "c1": 2}))
    assert [(part.part, part.members, part.aepe) for part in found.parts] == [
        ("b", ("b1", "b2"), 5), ("c", ("c1",), 2), ("a", ("a1",), 1),
    ]  # fmt: skip
    assert [(part.saved_bytes, part.work) for part in found.parts] == [(6, 0.5), (3, 0.25), (3, 0.25)]
    assert found.together.aepe == pytest.approx(math.sqrt(30))
    assert found.saved_bytes == 12


def test_a_part_whose_flow_is_not_finite_is_the_worst_and_is_returned() -> None:
    trials = trials_of({"a1": 1, "b1": math.inf, "c1": 2})
    assert [(part.part, part.aepe) for part in sensitivities(trials).parts] == [
        ("b", None), ("c", 2), ("a", 1),
    ]  # fmt: skip
    assert repair(trials, 3).before.aepe is None
    assert kept(trials, 3) == ("b1",)


def test_a_budget_that_is_met_keeps_nothing_and_measures_once() -> None:
    trials = trials_of({"a1": 3, "b1": 4})
    found = repair(trials, 5)
    assert (found.kept, found.weight_bytes, found.work, found.measured) == ((), 0, 0, 1)


def test_only_what_the_budget_takes_is_returned_and_its_cost_is_said() -> None:
    found = repair(trials_of({"a1": 1, "b1": 6, "c1": 1, "d1": 8}, {"a1": 1, "b1": 2, "c1": 3, "d1": 4}), 2)
    assert found.kept == ("b1", "d1")
    assert (found.before.aepe, found.after.aepe) == pytest.approx((math.sqrt(102), math.sqrt(2)))
    assert found.weight_bytes == 3 * (2 + 4)
    assert found.work == pytest.approx(0.6)


def test_what_is_cheap_is_returned_rather_than_the_worst() -> None:
    """b is worse, but a and c do as well and are next to nothing."""
    errors, weights = {"a1": 4, "b1": 5, "c1": 4}, {"a1": 1, "b1": 100, "c1": 1}
    assert kept(trials_of(errors, weights), 5.1) == ("a1", "c1")
    assert kept(trials_of(errors), 5.7) == ("b1",)


def test_single_members_of_a_returned_part_go_back() -> None:
    assert kept(trials_of({"a1": 1, "a2": 9, "a3": 1, "b1": 1}), 2) == ("a2",)


def test_whole_parts_go_back_where_the_last_one_made_them_needless() -> None:
    errors = {"a1": 3, "b1": 1, "c1": 10}
    weights = {"a1": 1, "b1": 1, "c1": 20}  # a does more harm for its size, and then c has to go anyway
    assert kept(trials_of(errors, weights), 4) == ("c1",)


def test_combinations_are_measured_and_not_added_up() -> None:
    """Alone c is the worst; it is a and b together that make the flow bad, which no part alone tells."""
    trials = trials_of({"a1": 1.1, "b1": 1, "c1": 1.5}, meeting=("a1", "b1"))
    assert [part.part for part in sensitivities(trials).parts] == ["c", "a", "b"]
    assert kept(trials, 2) == ("a1",)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_can_be_put_back(seed: int) -> None:
    source = random.Random(seed)
    members = [f"{part}{number}" for part in "abcdef" for number in range(source.randint(1, 4))]
    errors = {member: 10 ** source.uniform(-2, 1) for member in members}
    weights = {member: source.randint(1, 50) for member in members}
    trials = trials_of(errors, weights)
    budget = trials.of(trials.everything).drift.error * source.uniform(0.05, 0.9)
    try:
        found = repair(trials, budget)
    except ConfigError:
        return
    lowered = trials.everything - set(found.kept)
    assert found.kept
    assert trials.of(lowered).drift.error <= budget
    assert all(trials.of(lowered | {member}).drift.error > budget for member in found.kept)
    assert found.measured <= 1 + 3 * 6 + len(members)


def test_a_budget_that_cannot_be_met_says_the_best() -> None:
    with pytest.raises(ConfigError) as error:
        repair(trials_of({"a1": 1, "b1": 6, "c1": 0.5}), 0.2)
    assert str(error.value) == (
        "--budget: 0.2 px cannot be met; the best is 0.5 px, with c in lower precision; allow more, or leave "
        "the model as it is"
    )


def test_every_measurement_is_told() -> None:
    told: list[str] = []
    trials = trials_of({"a1": 1, "a2": 6, "b1": 1})
    trials.progress = lambda done, total, what: told.append(f"{done}/{total} {what}")
    repair(trials, 2)
    assert told == [
        *("0/1 all parts", "0/3 a alone", "1/3 b alone", "2/3 all parts", "0/1 without a", "0/3 a again"),
        *("1/3 a1 again", "2/3 a2 again"),
    ]
    assert trials.count == 4  # with b alone in it once, whichever way that came about
