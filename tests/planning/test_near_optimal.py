"""Near-optimal ranges against brute force, and at their own ends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from tutelage.laws.law import Law
from tutelage.planning.near_optimal import WITHIN, near_optimal, near_optimal_training
from tutelage.planning.optimum import allocate, allocate_given, allocate_tokens, compute_optimal
from tutelage.planning.scenarios import BEST, BOTH, INFERENCE, PRETRAINING, Scenario, Teacher

# Natural logarithm: a cell of the second grid of a set that spans one to three.
CELL = 0.04
# Two grids agree on an end to a cell of each.
ROUND_OFF = 1e-6


@pytest.mark.parametrize("scenario", [PRETRAINING, BOTH], ids=lambda scenario: scenario.name)
def test_the_ranges_are_those_of_a_dense_grid(law: Law, scenario: Scenario) -> None:
    params, compute = 1e9, 1e22
    best = allocate(law.require_distillation(), law.forward, scenario, params, np.array([compute]))
    found = near_optimal(law, scenario, best)
    # Every teacher on a grid of its own, with what it leaves of the budget spent on the student.
    size, tokens = np.geomspace(1e8, 1e12, 500)[:, None], np.geomspace(1e9, 1e14, 500)[None]
    left = compute - scenario.d_pretrain * law.forward.training_per_token(size) * tokens
    student = left / (law.forward.training_per_token(params) + scenario.d_logits * law.forward.per_token(size))
    possible = student > 1e6
    loss = law.require_distillation().predict(
        params, np.where(possible, student, 1e6), law.supervised.predict(size, tokens)
    )
    good = possible & (loss <= (1 + WITHIN) * best.student_loss[0])
    for name, values in (
        ("teacher_params", size + 0 * tokens),
        ("teacher_tokens", tokens + 0 * size),
        ("student_tokens", student),
    ):
        ends = getattr(found, name)
        assert np.log(ends) == pytest.approx(np.log([values[good].min(), values[good].max()]), abs=CELL), name
        value = float(getattr(best, name)[0])
        assert ends[0] < value < ends[1]


def test_one_choice_at_its_end_is_on_the_ceiling(law: Law) -> None:
    best = allocate(law.require_distillation(), law.forward, INFERENCE, 3e8, np.array([1e20]))
    found = near_optimal(law, INFERENCE, best)
    assert found.teacher_params is not None
    assert found.teacher_tokens is None
    own = float(law.forward.training_per_token(3e8))
    for size in found.teacher_params:
        tokens = 1e20 / (own + float(law.forward.per_token(size)))
        loss = law.require_distillation().predict(3e8, tokens, law.supervised.predict(size, 1e17))
        assert loss == pytest.approx((1 + WITHIN) * best.student_loss[0], rel=1e-4)


def test_a_free_teacher_has_a_range_of_losses(law: Law) -> None:
    equation = law.require_distillation()
    best = allocate(equation, law.forward, BEST, 1e9, np.array([1e22]))
    found, tokens = near_optimal(law, BEST, best), best.student_tokens[0]
    ceiling = (1 + WITHIN) * best.student_loss[0]
    low = brentq(lambda loss: equation.predict(1e9, tokens, loss) - ceiling, 1.3, best.teacher_loss[0])
    high = brentq(lambda loss: equation.predict(1e9, tokens, loss) - ceiling, best.teacher_loss[0], 2.3)
    assert found.teacher_loss == pytest.approx((low, high), abs=1e-3)
    assert found.teacher_params is found.teacher_tokens is None
    assert found.student_tokens[1] == tokens
    fewer = equation.best_teacher_loss(1e9, found.student_tokens[0])[1]
    assert fewer == pytest.approx(ceiling, rel=1e-5)


def test_a_given_teacher_leaves_how_few_tokens_would_do(law: Law) -> None:
    teacher = Teacher("7B", 7.7e9, 2.02)
    best = allocate_given(law.require_distillation(), law.forward, teacher, 1e9, np.array([1e21]))
    found = near_optimal(law, None, best)
    reached = law.require_distillation().predict(1e9, found.student_tokens[0], 2.02)
    assert reached == pytest.approx((1 + WITHIN) * best.student_loss[0], rel=1e-5)
    assert found.student_tokens[1] == best.student_tokens[0]
    assert found.teacher_params is found.teacher_tokens is found.teacher_loss is None


@pytest.mark.parametrize("scenario", [BEST, INFERENCE, PRETRAINING, BOTH], ids=lambda scenario: scenario.name)
def test_given_tokens_are_not_a_choice(law: Law, scenario: Scenario) -> None:
    equation = law.require_distillation()
    best = allocate_tokens(equation, law.forward, scenario, 1e9, 2e10)
    found = near_optimal(law, scenario, best, tokens_given=True)
    assert found.student_tokens == (2e10, 2e10)
    assert found.teacher_loss is not None
    assert found.teacher_loss[0] <= best.teacher_loss[0] <= found.teacher_loss[1]
    assert equation.predict(1e9, 2e10, found.teacher_loss[1]) <= (1 + WITHIN + ROUND_OFF) * best.student_loss[0]
    if scenario is BOTH:
        assert found.teacher_params is not None
        assert found.teacher_params[0] < best.teacher_params[0] < found.teacher_params[1]


def test_compute_optimal_training_has_a_range_of_sizes(law: Law) -> None:
    params, tokens = (float(part[0]) for part in compute_optimal(law.supervised, law.forward, np.array([1e21])))
    found = near_optimal_training(law.supervised, law.forward, params, tokens)
    assert found.params[0] < params < found.params[1]
    ceiling = (1 + WITHIN) * float(law.supervised.predict(params, tokens))
    for size, data in zip(found.params, reversed(found.tokens), strict=True):
        assert law.forward.training_per_token(size) * data == pytest.approx(1e21, rel=1e-9)
        assert law.supervised.predict(size, data) == pytest.approx(ceiling, rel=1e-4)
