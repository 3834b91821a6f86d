"""The span of compute in which distilling beats ordinary training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tutelage.laws.family import Equation
from tutelage.laws.law import Law, with_coefficients
from tutelage.laws.rounding import rounding_band
from tutelage.planning.crossover import Crossover
from tutelage.planning.crossover import find_crossover as find_in_curve
from tutelage.planning.curves import trace
from tutelage.planning.optimum import Allocations, allocate, allocate_given
from tutelage.planning.scenarios import BEST, BOTH, INFERENCE, PRETRAINING, Scenario, Teacher
from tutelage.planning.spread import Spread

# Nats: what a line between two budgets misses of the curve.
TOUCH = 1e-4

SEVEN = Teacher("7B", 7.7e9, 2.02)


def spend(law: Law, scenario: Scenario, params: float) -> Callable[[np.ndarray], Allocations]:
    return lambda compute: allocate(law.require_distillation(), law.forward, scenario, params, compute)


def find_crossover(law: Law, params: float, spending: Callable[[np.ndarray], Allocations]) -> Crossover:
    spread = Spread.of(law)
    return find_in_curve(trace(spread, params, spending), spread)


def gain(law: Law, params: float, allocations: Allocations, compute: float) -> float:
    own = law.forward.training_per_token(params)
    return float(law.supervised.predict(params, compute / own) - allocations.student_loss[0])


@pytest.mark.parametrize("scenario", [BEST, INFERENCE], ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("params", [3e8, 1e9, 1e10])
def test_the_gain_changes_sign_at_the_crossover(law: Law, scenario: Scenario, params: float) -> None:
    crossover = find_crossover(law, params, spend(law, scenario, params))
    assert crossover.ever
    assert crossover.begins is None
    assert crossover.ends is not None
    compute = crossover.ends.value
    # A line between two budgets a third of a decade apart: the crossing is known to a few per cent.
    below, above = (spend(law, scenario, params)(np.array([factor * compute])) for factor in (0.8, 1.25))
    assert gain(law, params, below, 0.8 * compute) > 0 > gain(law, params, above, 1.25 * compute)


def test_training_a_teacher_for_one_student_never_pays(law: Law) -> None:
    crossover = find_crossover(law, 1e9, spend(law, BOTH, 1e9))
    assert not crossover.ever
    assert crossover.begins is crossover.ends is None
    assert "ordinary training of the same size is better at every budget" in crossover.text


def test_a_span_can_begin_as_well_as_end(law: Law) -> None:
    crossover = find_crossover(law, 3e8, spend(law, PRETRAINING, 3e8))
    assert crossover.begins is not None
    assert crossover.ends is not None
    assert crossover.looked_at[0] < crossover.begins.value < crossover.ends.value < crossover.looked_at[1]
    middle = float(np.sqrt(crossover.begins.value * crossover.ends.value))
    assert gain(law, 3e8, spend(law, PRETRAINING, 3e8)(np.array([middle])), middle) > 0
    assert crossover.text.startswith("distilling is better above")


@pytest.mark.parametrize("params", [3e8, 1e9, 1e10])
def test_rounding_alone_moves_the_crossover_by_an_order_of_magnitude(law: Law, params: float) -> None:
    ends = find_crossover(law, params, spend(law, BEST, params)).ends
    assert ends is not None
    assert ends.low is not None
    assert ends.high is not None
    assert ends.method == "rounding band"
    assert ends.level is None
    assert ends.low < ends.value < ends.high
    assert ends.high / ends.low > 5


@pytest.mark.parametrize(("params", "side"), [(3e8, 0), (1e9, 0), (1e9, 1), (1e10, 0), (1e10, 1)])
def test_at_an_end_of_the_band_the_gain_just_touches_0(law: Law, params: float, side: int) -> None:
    ends = find_crossover(law, params, spend(law, INFERENCE, params)).ends
    assert ends is not None
    compute = (ends.low, ends.high)[side]
    assert compute is not None
    allocations = spend(law, INFERENCE, params)(np.array([compute]))
    tokens = compute / law.forward.training_per_token(params)

    def gains(equation: Equation) -> np.ndarray:
        return equation.supervised.predict(params, tokens) - allocations.student_loss_under(equation)

    assert rounding_band(law, gains)[side][0] == pytest.approx(0.0, abs=TOUCH)


def test_the_band_of_the_printed_allocation_is_that_of_the_new_optimum(law: Law) -> None:
    # To first order both are the same; that the second order is small is what this measures.
    crossover = find_crossover(law, 1e9, spend(law, INFERENCE, 1e9))
    assert crossover.ends is not None
    assert crossover.ends.low is not None
    assert crossover.ends.high is not None
    moved = []
    rng = np.random.default_rng(0)
    for _ in range(12):
        signs = dict(zip(law.rounding, rng.choice([-1.0, 1.0], len(law.rounding)), strict=True))
        coefficients = law.equation.coefficients()
        changed = with_coefficients(
            law, {name: coefficients[name] + sign * law.rounding[name] for name, sign in signs.items()}
        )
        again = find_crossover(replace(changed, rounding={}), 1e9, spend(changed, INFERENCE, 1e9))
        assert again.ends is not None
        moved.append(again.ends.value)
    assert crossover.ends.low <= min(moved)
    assert max(moved) <= crossover.ends.high


def test_an_existing_teacher_stops_paying_early(law: Law) -> None:
    def given(compute: np.ndarray) -> Allocations:
        return allocate_given(law.require_distillation(), law.forward, SEVEN, 1e9, compute)

    crossover = find_crossover(law, 1e9, given)
    assert crossover.ends is not None
    assert 2e20 < crossover.ends.value < 5e20
    assert crossover.to_dict()["text"] == crossover.text


def test_a_law_without_printed_digits_gives_no_band(law: Law) -> None:
    crossover = find_crossover(replace(law, rounding={}), 1e9, spend(law, BEST, 1e9))
    assert crossover.ends is not None
    assert (crossover.ends.low, crossover.ends.method) == (None, "point")
