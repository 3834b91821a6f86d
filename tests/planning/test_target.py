"""The compute that a target loss takes."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.laws.law import Law
from tutelage.planning.optimum import allocate, compute_optimal
from tutelage.planning.scenarios import BOTH, HIGHEST
from tutelage.planning.target import cheapest_training, compute_for

# The search ends at 1e-4 of a natural logarithm and interpolates the rest.
SEARCH = 1e-8
# A loss near its flat minimum, through two searches.
AGREEMENT = 1e-6


def test_the_smallest_budget_reaches_the_target(law: Law) -> None:
    def spend(compute: np.ndarray) -> np.ndarray:
        return allocate(law.require_distillation(), law.forward, BOTH, 1e9, compute).student_loss

    compute, floor = compute_for(spend, 2.15, 1e15)
    assert compute is not None
    assert spend(np.array([compute]))[0] == pytest.approx(2.15, rel=SEARCH)
    assert floor < 2.15
    nothing, same_floor = compute_for(spend, 2.05, 1e15)
    assert nothing is None
    assert same_floor == floor
    _, least = law.require_distillation().best_teacher_loss(1e9, HIGHEST)
    assert floor == pytest.approx(least, rel=AGREEMENT)


def test_a_known_curve_is_inverted() -> None:
    compute, floor = compute_for(lambda budgets: 2.0 + 1e3 * budgets**-0.2, 2.1, 1e10)
    assert compute == pytest.approx(1e20, rel=1e-7)
    # The curve at the largest budget that is looked at.
    assert floor == pytest.approx(2.0 + 1e3 * (1e36) ** -0.2)


def test_a_target_that_the_smallest_budget_reaches() -> None:
    compute, _ = compute_for(lambda budgets: np.ones_like(budgets), 2.0, 1e10)
    assert compute == pytest.approx(1e10)


def test_the_cheapest_training_is_compute_optimal(law: Law) -> None:
    params, tokens = (float(part[0]) for part in cheapest_training(law.supervised, law.forward, 2.15))
    assert law.supervised.predict(params, tokens) == pytest.approx(2.15, rel=SEARCH)
    compute = law.forward.training_per_token(params) * tokens
    size, data = compute_optimal(law.supervised, law.forward, np.array([compute]))
    assert law.supervised.predict(size[0], data[0]) == pytest.approx(2.15, rel=AGREEMENT)
    assert np.isnan(cheapest_training(law.supervised, law.forward, law.supervised.E)).all()
