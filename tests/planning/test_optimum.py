"""The division of a budget: reference optima, a dense grid, scipy, and the order of the scenarios."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from tutelage.laws.compute import distillation_cost
from tutelage.laws.law import Law
from tutelage.laws.published import PUBLISHED
from tutelage.planning.optimum import (
    Allocations,
    allocate,
    allocate_given,
    allocate_tokens,
    compute_optimal,
    given_tokens,
)
from tutelage.planning.scenarios import (
    BEST,
    BOTH,
    HIGHEST,
    INFERENCE,
    LOWEST,
    PRETRAINING,
    Scenario,
    Teacher,
    scenarios_for,
    shared,
)

# The references are good to this, as the optimum is flat.
LOSS = 1e-4
ARGUMENT = 0.20
# Shares are arguments of a flat optimum too; a hundredth is the printed precision.
SHARE = 0.01
# Two searches of the same smooth problem.
AGREEMENT = 1e-8
# Nats per natural logarithm of a choice; central differences of float64 resolve 1e-11.
SLOPE = 1e-7
# Sums of costs in float64.
ROUND_OFF = 1e-9

REFERENCE = {
    (3e8, 1e20): {"best": 2.4196, "inference": 2.4418, "pretraining": 2.5421, "both": 2.5633},
    (1e9, 1e22): {"best": 2.1310, "inference": 2.1395, "pretraining": 2.1479, "both": 2.1655},
    (1e10, 1e24): {"best": 1.8130, "inference": 1.8197, "pretraining": 1.8266, "both": 1.8385},
}
FREE_TEACHER = {(3e8, 1e20): 2.073, (1e9, 1e22): 1.980, (1e10, 1e24): 1.687}
SUPERVISED = {(3e8, 1e20): 2.4766, (1e9, 1e22): 2.1348, (1e10, 1e24): 1.8148}
# N_T, D_T, D_S and the shares of student, logits and teacher where the teacher is trained and queried.
TRAINED_TEACHER = {
    (3e8, 1e20): (5.1e8, 1.36e10, 1.18e10, (0.30, 0.16, 0.55)),
    (1e9, 1e22): (3.1e9, 1.8e11, 4.3e11, (0.31, 0.30, 0.38)),
    (1e10, 1e24): (3.4e10, 1.9e12, 4.3e12, (0.28, 0.31, 0.41)),
}


def solve(law: Law, scenario: Scenario, params: float, *compute: float) -> Allocations:
    return allocate(law.require_distillation(), law.forward, scenario, params, np.array(compute))


@pytest.mark.parametrize(("params", "compute"), REFERENCE)
def test_the_reference_losses(law: Law, params: float, compute: float) -> None:
    for scenario in scenarios_for():
        found = solve(law, scenario, params, compute)
        assert found.student_loss[0] == pytest.approx(REFERENCE[params, compute][scenario.name], abs=LOSS)
    tokens = compute / law.forward.training_per_token(params)
    assert law.supervised.predict(params, tokens) == pytest.approx(SUPERVISED[params, compute], abs=LOSS)
    best = solve(law, BEST, params, compute)
    assert best.teacher_loss[0] == pytest.approx(FREE_TEACHER[params, compute], abs=1e-3)


@pytest.mark.parametrize(("params", "compute"), TRAINED_TEACHER)
def test_the_reference_allocations(law: Law, params: float, compute: float) -> None:
    found = solve(law, BOTH, params, compute)
    teacher_params, teacher_tokens, student_tokens, shares = TRAINED_TEACHER[params, compute]
    assert found.teacher_params[0] == pytest.approx(teacher_params, rel=ARGUMENT)
    assert found.teacher_tokens[0] == pytest.approx(teacher_tokens, rel=ARGUMENT)
    assert found.student_tokens[0] == pytest.approx(student_tokens, rel=ARGUMENT)
    costs = found.costs
    parts = [float(part[0] / costs.total[0]) for part in (costs.student, costs.logits, costs.teacher)]
    assert parts == pytest.approx(shares, abs=SHARE)


@pytest.mark.parametrize("scenario", scenarios_for(4), ids=lambda scenario: scenario.name)
def test_the_budget_is_spent_and_the_bounds_hold(law: Law, scenario: Scenario) -> None:
    compute = np.geomspace(1e18, 1e25, 15)
    found = solve(law, scenario, 1e9, *compute)
    assert found.costs.total == pytest.approx(compute, rel=ROUND_OFF)
    expected = law.require_distillation().predict(1e9, found.student_tokens, found.teacher_loss)
    assert found.student_loss == pytest.approx(expected, rel=ROUND_OFF)
    for chosen in (found.student_tokens, found.teacher_params, found.teacher_tokens):
        known = chosen[np.isfinite(chosen)]
        assert np.all((known >= LOWEST) & (known <= HIGHEST))
    if scenario.name == "inference":
        assert np.all(found.teacher_tokens == HIGHEST)
    if scenario.name == "best":
        assert np.all(np.isnan(found.teacher_params) & np.isnan(found.teacher_tokens))


@pytest.mark.parametrize("scenario", [INFERENCE, PRETRAINING, BOTH, shared(4)], ids=lambda scenario: scenario.name)
@pytest.mark.parametrize(("params", "compute"), REFERENCE)
def test_no_point_of_a_dense_grid_is_better(law: Law, scenario: Scenario, params: float, compute: float) -> None:
    equation, forward = law.require_distillation(), law.forward
    size = np.geomspace(LOWEST, HIGHEST, 331)[:, None]
    tokens = np.geomspace(LOWEST, HIGHEST, 331)[None]
    rest = compute - distillation_cost(forward, (params, 0.0), (size, tokens), 0.0, scenario.d_pretrain).teacher
    per_token = forward.training_per_token(params) + scenario.d_logits * forward.per_token(size)
    student_tokens = np.minimum(rest / per_token, HIGHEST)
    allowed = student_tokens >= LOWEST
    losses = equation.predict(params, np.where(allowed, student_tokens, LOWEST), law.supervised.predict(size, tokens))
    densest = np.where(allowed, losses, np.inf).min()
    found = solve(law, scenario, params, compute).student_loss[0]
    assert found <= densest + AGREEMENT
    assert found == pytest.approx(densest, abs=1e-3)


@pytest.mark.parametrize(("params", "compute"), REFERENCE)
def test_scipy_finds_nothing_better_from_any_start(law: Law, params: float, compute: float) -> None:
    equation, forward = law.require_distillation(), law.forward

    def log_cost(logs: np.ndarray) -> float:
        student_tokens, size, tokens = np.exp(logs)
        costs = distillation_cost(forward, (params, student_tokens), (size, tokens), 1.0, 1.0)
        return float(np.log(compute) - np.log(costs.total))

    def loss(logs: np.ndarray) -> float:
        student_tokens, size, tokens = np.exp(logs)
        return float(equation.predict(params, student_tokens, law.supervised.predict(size, tokens)))

    found = solve(law, BOTH, params, compute).student_loss[0]
    bounds = [(np.log(LOWEST), np.log(HIGHEST))] * 3
    ends = []
    for size in (1e8, 3e9, 1e11):
        for tokens in (1e9, 1e11):
            result = minimize(
                loss,
                np.log([1e10, size, tokens]),
                method="SLSQP",
                bounds=bounds,
                constraints={"type": "ineq", "fun": log_cost},
                options={"maxiter": 500, "ftol": 1e-12},
            )
            if log_cost(result.x) > -1e-9:
                ends.append(result.fun)
    assert min(ends) == pytest.approx(found, abs=1e-6)
    assert found <= min(ends) + AGREEMENT


@pytest.mark.parametrize(("params", "compute"), REFERENCE)
def test_the_gradient_is_zero_at_an_interior_optimum(law: Law, params: float, compute: float) -> None:
    equation, forward = law.require_distillation(), law.forward
    found = solve(law, BOTH, params, compute)

    def loss(log_size: float, log_tokens: float) -> float:
        size, tokens = np.exp(log_size), np.exp(log_tokens)
        left = compute - forward.training_per_token(size) * tokens
        student = left / (forward.training_per_token(params) + forward.per_token(size))
        return float(equation.predict(params, student, law.supervised.predict(size, tokens)))

    here = float(np.log(found.teacher_params[0])), float(np.log(found.teacher_tokens[0]))
    step = 1e-4
    slopes = [
        (loss(here[0] + step, here[1]) - loss(here[0] - step, here[1])) / (2 * step),
        (loss(here[0], here[1] + step) - loss(here[0], here[1] - step)) / (2 * step),
    ]
    # A thousandth from the optimum the slope is hundreds of times this.
    assert slopes == pytest.approx([0.0, 0.0], abs=SLOPE)


# Six sizes by 120 budgets in one call; the order must hold at every one.
@pytest.mark.parametrize("params", [1e7, 1e8, 3e8, 1e9, 1e10, 1e11])
def test_the_scenarios_are_ordered_at_every_budget(law: Law, params: float) -> None:
    compute = float(law.forward.training_per_token(params)) * np.geomspace(3e6, 1e16, 120)
    losses = {scenario.name: solve(law, scenario, params, *compute).student_loss for scenario in scenarios_for(4)}
    for cheaper, dearer in (
        ("best", "inference"),
        ("best", "pretraining"),
        ("pretraining", "both"),
        ("inference", "both"),
        ("best", "shared"),
        ("shared", "both"),
    ):
        with np.errstate(invalid="ignore"):
            assert np.all(losses[cheaper] <= losses[dearer] + AGREEMENT), (cheaper, dearer)
    for name, loss in losses.items():
        assert np.all(np.diff(loss[np.isfinite(loss)]) <= AGREEMENT), name


def test_more_students_make_each_cheaper(law: Law) -> None:
    losses = [float(solve(law, shared(students), 1e9, 1e21).student_loss[0]) for students in (1, 2, 4, 16, 256)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(float(solve(law, BOTH, 1e9, 1e21).student_loss[0]))
    assert losses[-1] > float(solve(law, BEST, 1e9, 1e21).student_loss[0])


def test_the_rows_do_not_know_of_each_other(law: Law) -> None:
    compute = [1e19, 1e21, 1e24]
    together = solve(law, BOTH, 1e9, *compute)
    for row, budget in enumerate(compute):
        alone = solve(law, BOTH, 1e9, budget)
        assert together.student_loss[row] == pytest.approx(alone.student_loss[0], rel=AGREEMENT)


def test_a_budget_too_small_for_a_student_has_no_loss(law: Law) -> None:
    for scenario in scenarios_for():
        assert np.isinf(solve(law, scenario, 1e9, 1e10).student_loss[0])


def test_a_given_teacher_is_paid_for_its_logits_alone(law: Law) -> None:
    equation, teacher = law.require_distillation(), Teacher("7B", 7.7e9, 2.02)
    own, logits = float(law.forward.training_per_token(1e9)), float(law.forward.per_token(7.7e9))
    found = allocate_given(equation, law.forward, teacher, 1e9, np.array([1e21]))
    assert found.student_tokens[0] == pytest.approx(1e21 / (own + logits))
    assert found.student_loss[0] == equation.predict(1e9, found.student_tokens[0], 2.02)
    assert found.costs.total[0] == pytest.approx(1e21)
    four = allocate_given(equation, law.forward, teacher, 1e9, np.array([1e21]), students=4)
    assert four.student_tokens[0] == pytest.approx(1e21 / (own + logits / 4))
    assert np.isinf(allocate_given(equation, law.forward, teacher, 1e9, np.array([1e10])).student_loss[0])


@pytest.mark.parametrize("scenario", [INFERENCE, PRETRAINING, BOTH], ids=lambda scenario: scenario.name)
def test_with_given_tokens_the_cheapest_best_teacher_is_found(law: Law, scenario: Scenario) -> None:
    equation = law.require_distillation()
    found = allocate_tokens(equation, law.forward, scenario, 1e9, 2e10)
    teacher, student = equation.best_teacher_loss(1e9, 2e10)
    assert found.student_loss[0] == pytest.approx(student, rel=AGREEMENT)
    assert found.teacher_loss[0] == pytest.approx(teacher, rel=1e-6)
    assert law.supervised.predict(found.teacher_params[0], found.teacher_tokens[0]) == pytest.approx(teacher, rel=1e-6)
    sizes = np.geomspace(1e9, 1e15, 4001)
    tokens = law.supervised.tokens_for(sizes, teacher)
    possible = tokens <= HIGHEST
    costs = distillation_cost(
        law.forward, (1e9, 2e10), (sizes[possible], tokens[possible]), scenario.d_logits, scenario.d_pretrain
    )
    assert found.costs.total[0] == pytest.approx(costs.total.min(), rel=0.01)
    assert found.costs.total[0] <= costs.total.min() * (1 + 1e-6)


def test_with_given_tokens_and_teacher_nothing_is_chosen(law: Law) -> None:
    found = given_tokens(law.require_distillation(), law.forward, Teacher("7B", 7.7e9, 2.02), 1e9, 2e10)
    assert found.student_loss[0] == law.require_distillation().predict(1e9, 2e10, 2.02)
    assert found.student_tokens[0] == 2e10


@settings(max_examples=20)
@given(compute=st.floats(min_value=1e18, max_value=1e26))
def test_compute_optimal_training_is_a_minimum(compute: float) -> None:
    law = PUBLISHED["busbridge2025"]
    params, tokens = compute_optimal(law.supervised, law.forward, np.array([compute]))
    assert law.forward.training_per_token(params[0]) * tokens[0] == pytest.approx(compute)
    least = law.supervised.predict(params[0], tokens[0])
    for factor in (0.8, 0.97, 1.03, 1.25):
        other = params[0] * factor
        assert law.supervised.predict(other, compute / law.forward.training_per_token(other)) >= least


def test_the_hoffmann_optimum_is_the_closed_form() -> None:
    law = PUBLISHED["hoffmann2022"]
    equation = law.supervised
    params, tokens = compute_optimal(equation, law.forward, np.array([5.76e23]))
    # hoffmann2022 Eq. 4: N = G (C / 6)^(beta / (alpha + beta)).
    ratio = equation.alpha * equation.A / (equation.beta * equation.B)
    closed = ratio ** (1 / (equation.alpha + equation.beta))
    closed *= (5.76e23 / 6) ** (equation.beta / (equation.alpha + equation.beta))
    assert params[0] == pytest.approx(closed, rel=1e-5)
    assert 6 * params[0] * tokens[0] == pytest.approx(5.76e23)
