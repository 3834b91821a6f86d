"""A plan under the law's joint draws: intervals of outcomes and of choices, probabilities, targets at risk."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tutelage.laws.law import Law, make_equation
from tutelage.planning.optimum import Allocations, allocate, allocate_given, allocate_tokens, compute_optimal
from tutelage.planning.plan import Plan, plan
from tutelage.planning.question import Question
from tutelage.planning.scenarios import BEST, BOTH, INFERENCE, PRETRAINING, Scenario, Teacher, scenarios_for
from tutelage.planning.target import compute_for, compute_under_draws
from tutelage.planning.words import in_words, rows
from tutelage.records.document import Status

SEVEN = Teacher("7B", 7.7e9, 2.02)
# Nats: two searches of one smooth problem, the shorter one ending at a hundredth of a grid cell.
LOSS = 1e-7
# Natural logarithm: a choice at a flat optimum, likewise.
CHOICE = 2e-3
# Of a budget, along the law's own allocations with one correction: the interval is hundreds of times wider.
BUDGET = 2e-3
# The whole of a plan with 1,000 draws, on a busy machine; a quiet one takes a quarter.
CPU_SECONDS = 4.0


def single(law: Law, draw: int) -> Law:
    """The law that one draw is."""
    assert law.draws is not None
    coefficients = {name: column[draw] for name, column in law.draws.items()}
    return replace(law, equation=make_equation(coefficients), draws=None)


@pytest.fixture(scope="module")
def realistic(fitted: Law) -> Plan:
    """A 1B student, an existing 7B teacher of loss 2.02, 1e21 FLOPs, a thousand draws."""
    return plan(Question(1e9, compute=1e21, teachers=(SEVEN,)), fitted)


@pytest.mark.parametrize("scenario", scenarios_for(4), ids=lambda scenario: scenario.name)
@pytest.mark.parametrize(("params", "compute"), [(3e8, 1e20), (1e9, 1e22), (1e10, 1e24)])
def test_a_start_near_the_optimum_finds_what_the_full_grid_finds(
    law: Law, few: Law, scenario: Scenario, params: float, compute: float
) -> None:
    ensemble, budget = few.ensemble(), np.array([compute])
    point = allocate(law.require_distillation(), law.forward, scenario, params, budget)
    near = allocate(ensemble, law.forward, scenario, params, budget, point)  # type: ignore[arg-type]
    for draw in range(12):
        alone = single(few, draw)
        full = allocate(alone.require_distillation(), law.forward, scenario, params, budget)
        assert near.student_loss[draw] == pytest.approx(full.student_loss[0], abs=LOSS)
        for name in ("student_tokens", "teacher_params", "teacher_tokens", "teacher_loss"):
            here, there = getattr(near, name)[draw], getattr(full, name)[0]
            assert np.log(here) == pytest.approx(np.log(there), abs=CHOICE, nan_ok=True), name


@pytest.mark.parametrize("scenario", [BEST, PRETRAINING, BOTH], ids=lambda scenario: scenario.name)
def test_given_tokens_under_draws(law: Law, few: Law, scenario: Scenario) -> None:
    point = allocate_tokens(law.require_distillation(), law.forward, scenario, 1e9, 2e10)
    near = allocate_tokens(few.ensemble(), law.forward, scenario, 1e9, 2e10, point)  # type: ignore[arg-type]
    for draw in range(12):
        full = allocate_tokens(single(few, draw).require_distillation(), law.forward, scenario, 1e9, 2e10)
        assert near.student_loss[draw] == pytest.approx(full.student_loss[0], abs=LOSS)
        assert np.log(near.costs.total[draw]) == pytest.approx(np.log(full.costs.total[0]), abs=CHOICE)


def test_compute_optimal_training_under_draws(law: Law, few: Law) -> None:
    budget, ensemble = np.array([1e21]), few.ensemble()
    assert ensemble is not None
    params, tokens = compute_optimal(ensemble.supervised, law.forward, budget, near=3e9)
    for draw in range(12):
        alone = compute_optimal(single(few, draw).supervised, law.forward, budget)
        assert np.log([params[draw], tokens[draw]]) == pytest.approx(np.log(alone).ravel(), abs=CHOICE)


@pytest.mark.parametrize("params", [3e8, 1e10])
def test_the_scenarios_are_ordered_under_every_draw(few: Law, params: float) -> None:
    ensemble = few.ensemble()
    for compute in float(few.forward.training_per_token(params)) * np.geomspace(1e8, 1e14, 7):
        losses = {
            scenario.name: allocate(ensemble, few.forward, scenario, params, np.array([compute])).student_loss  # type: ignore[arg-type]
            for scenario in scenarios_for(4)
        }
        for cheaper, dearer in (
            ("best", "inference"),
            ("best", "pretraining"),
            ("pretraining", "both"),
            ("inference", "both"),
        ):
            with np.errstate(invalid="ignore"):
                assert np.all(losses[cheaper] <= losses[dearer] + LOSS), (cheaper, dearer, compute)


def test_choices_and_outcomes_have_intervals(realistic: Plan) -> None:
    both, best, existing = (realistic.scenarios[name] for name in ("both", "best", "existing"))
    assert both is not None
    assert best is not None
    assert existing is not None
    for estimate in (
        both.student_loss,
        both.gain,
        both.student_tokens,
        both.teacher_params,
        both.teacher_tokens,
        both.teacher_loss,
    ):
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < estimate.value < estimate.high
        assert (estimate.level, estimate.method) == (0.9, "bootstrap, 1000 draws")
    assert both.shares["teacher"].low is not None
    # What the budget or the user decides depends on no law.
    assert (
        best.student_tokens.low is existing.student_tokens.low is existing.teacher_loss.low is both.compute.low is None
    )
    assert best.teacher_loss.low is not None
    ordinary = realistic.supervised
    assert ordinary is not None
    assert ordinary.compute_optimal is not None
    for estimate in (ordinary.loss, ordinary.compute_optimal.params, ordinary.compute_optimal.tokens):
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < estimate.value < estimate.high


def test_the_intervals_of_a_choice_are_those_of_separate_plans(law: Law, few: Law) -> None:
    found = plan(Question(1e9, compute=1e22), few).scenarios["both"]
    alone = [plan(Question(1e9, compute=1e22), single(few, draw)).scenarios["both"] for draw in range(12)]
    assert found is not None
    sizes = [one.teacher_params.value for one in alone if one and one.teacher_params]
    assert found.teacher_params is not None
    ends = (found.teacher_params.low, found.teacher_params.high)
    assert ends == pytest.approx(tuple(np.quantile(sizes, [0.05, 0.95])), rel=CHOICE)
    # The planned allocation is never better than the draw's own best, and worse by the second order alone.
    planned = allocate(law.require_distillation(), law.forward, BOTH, 1e9, np.array([1e22]))
    ensemble = few.ensemble()
    assert ensemble is not None
    lost = planned.student_loss_under(ensemble).ravel() - [one.student_loss.value for one in alone if one]
    assert lost.min() >= -LOSS
    assert lost.max() < 2e-4


def test_the_verdict_is_right_in_a_share_of_the_draws(fitted: Law, realistic: Plan) -> None:
    existing, verdict = realistic.scenarios["existing"], realistic.verdict
    assert existing is not None
    tokens = existing.student_tokens.value
    ensemble: Any = fitted.ensemble()
    own = 1e21 / fitted.forward.training_per_token(1e9)
    gains = ensemble.supervised.predict(1e9, own) - ensemble.predict(1e9, tokens, 2.02)
    assert verdict.choice == "train"
    assert verdict.probability == pytest.approx(np.mean(gains < 0))
    assert existing.probability == pytest.approx(np.mean(gains > 0))
    assert verdict.reason == ""
    assert "Ordinary training is better in over 99.9 % of 1000 draws" in verdict.text
    assert "No probability" not in in_words(realistic)


def test_a_close_choice_has_the_probability_that_distilling_is_better(fitted: Law) -> None:
    verdict = plan(Question(1e9, compute=3.3e20, teachers=(SEVEN,)), fitted).verdict
    assert verdict.choice == "either"
    assert verdict.probability is not None
    assert 0.05 < verdict.probability < 0.95
    assert f"Distilling is better in {100 * verdict.probability:.3g} % of 1000 draws" in verdict.text


def test_few_draws_are_told(few: Law) -> None:
    text = plan(Question(1e9, compute=1e21, teachers=(SEVEN,)), few).verdict.text
    assert "over 91.7 % of 12 draws of the law; 12 draws are few" in text


def test_compute_for_a_target_under_each_draw(few: Law) -> None:
    answer = plan(Question(1e9, target_loss=2.15, teachers=(SEVEN,)), few)
    spenders: dict[str, Any] = {
        "both": lambda law, compute: allocate(law.equation, law.forward, BOTH, 1e9, compute),
        "existing": lambda law, compute: allocate_given(law.equation, law.forward, SEVEN, 1e9, compute),
    }
    for name, spend in spenders.items():
        found = answer.scenarios[name]
        assert found is not None
        assert found.reachable == 1.0
        alone = []
        for draw in range(12):
            law = single(few, draw)
            alone.append(
                compute_for(lambda compute, law=law, spend=spend: spend(law, compute).student_loss, 2.15, 1e15)[0]
            )
        ends = tuple(np.quantile(alone, [0.05, 0.95]))
        assert (found.compute.low, found.compute.high) == pytest.approx(ends, rel=BUDGET), name
        assert found.student_loss.low is not None
        assert found.student_loss.low < 2.15
    ordinary = answer.supervised
    assert ordinary is not None
    tokens = [float(single(few, draw).supervised.tokens_for(1e9, 2.15)) for draw in range(12)]
    assert (ordinary.tokens.low, ordinary.tokens.high) == pytest.approx(tuple(np.quantile(tokens, [0.05, 0.95])))


def test_a_target_that_some_draws_do_not_reach_is_at_risk(noisy: Law) -> None:
    # Just above the point law's floor for this student, 2.0883 with the best teacher.
    answer = plan(Question(1e9, target_loss=2.0895), noisy)
    best = answer.scenarios["best"]
    assert best is not None
    assert best.reachable is not None
    assert 0.1 < best.reachable < 0.9
    codes = {caution.input: caution.text for caution in answer.warnings if caution.code == "target-at-risk"}
    assert f"in {1 - best.reachable:.0%} of the law's draws" in codes["best.target_loss"]


def test_budgets_of_known_curves() -> None:
    compute = np.geomspace(1e18, 1e26, 200)
    powers = 2.0 + np.array([[1.0], [2.0], [0.5]]) * (compute / 1e20) ** -0.2
    found, slope = compute_under_draws(compute, powers, 2.3)
    assert found == pytest.approx(1e20 * (np.array([1.0, 2.0, 0.5]) / 0.3) ** 5.0, rel=1e-3)
    assert slope == pytest.approx(np.full(3, 0.2 * 0.3), rel=0.05)
    assert np.isnan(compute_under_draws(compute, powers, 1.9)[0]).all()


def test_a_plan_reproduces_itself(law: Law) -> None:
    first = plan(Question(1e9, compute=1e22)).scenarios["both"]
    assert first is not None
    again = plan(Question(1e9, target_loss=first.student_loss.value)).scenarios["both"]
    assert again is not None
    assert again.compute.value == pytest.approx(1e22, rel=1e-6)
    for name in ("student_tokens", "teacher_params", "teacher_tokens"):
        assert getattr(again, name).value == pytest.approx(getattr(first, name).value, rel=CHOICE)
    # From its own optimum, without a grid, the search stays where it is.
    planned = allocate(law.require_distillation(), law.forward, BOTH, 1e9, np.array([1e22]))
    stayed: Allocations = allocate(law.require_distillation(), law.forward, BOTH, 1e9, np.array([1e22]), planned)
    assert np.log(stayed.teacher_params[0]) == pytest.approx(np.log(planned.teacher_params[0]), abs=1e-4)


def test_another_valley_may_become_the_deeper_one(law: Law, fitted: Law) -> None:
    # The best queried teacher of this student jumps between draws from under 1B to several B.
    found = plan(Question(3e8, compute=1e20), fitted).scenarios["inference"]
    assert found is not None
    assert found.teacher_params is not None
    assert found.teacher_params.low is not None
    assert found.teacher_params.high is not None
    assert found.teacher_params.high / found.teacher_params.low > 4
    point = allocate(law.require_distillation(), law.forward, INFERENCE, 3e8, np.array([1e20]))
    assert found.teacher_params.value == pytest.approx(point.teacher_params[0])


def test_a_weakly_identified_law_is_told(fitted: Law) -> None:
    weak = replace(fitted, status=Status("weakly-identified", "c0 and gamma_prime move together.", "Add runs."))
    answer = plan(Question(1e9, compute=1e21), weak)
    caution = answer.warnings[0]
    assert (caution.code, caution.value) == ("law-status", "weakly-identified")
    assert "c0 and gamma_prime move together. Add runs." in caution.text
    document: Any = answer.to_dict()
    assert document["law_status"] == {
        "kind": "weakly-identified",
        "text": "c0 and gamma_prime move together.",
        "remedy": "Add runs.",
    }
    fine = plan(Question(1e9, compute=1e21), replace(fitted, status=Status("converged")))
    assert not [caution for caution in fine.warnings if caution.code == "law-status"]


def test_a_plan_with_a_thousand_draws_is_quick(fitted: Law) -> None:
    start = time.process_time()
    plan(Question(1e9, compute=1e21, students=4, teachers=(SEVEN,)), fitted)
    assert time.process_time() - start < CPU_SECONDS


def test_the_compute_of_a_target_is_found_from_any_curve() -> None:
    found, _ = compute_for(lambda budgets: np.where(budgets < 1e19, np.inf, 2.0 + (budgets / 1e20) ** -0.3), 2.5, 1e15)
    assert found == pytest.approx(1e20 * 0.5 ** (-1 / 0.3), rel=1e-7)


def test_the_table_has_the_ranges_below_the_points(realistic: Plan) -> None:
    table = {row[0].partition("\n")[0]: row for row in rows(realistic)}
    both, plain = realistic.scenarios["both"], table["existing (7B)"]
    assert both is not None
    assert both.student_loss.low is not None
    assert table["both"][1].splitlines()[1].startswith(f"{both.student_loss.low:.3f}-")
    for column in (2, 3, 4):
        point, ends = table["both"][column].splitlines()
        assert "-" in ends
        assert point.endswith("B")
    assert "\n" not in plain[3]
    assert "0.5 % of the best loss" in in_words(realistic)
    assert realistic.teachers_text in in_words(realistic)


def test_an_easy_target_takes_a_token_a_parameter(fitted: Law) -> None:
    # By the law alone, a free teacher brings a 10B student to 2.3 in a few million tokens.
    answer = plan(Question(1e10, target_loss=2.3), fitted)
    best = answer.scenarios["best"]
    assert best is not None
    assert best.student_tokens.value == pytest.approx(1e10)
    assert best.student_loss.value < 2.3
    assert "best.compute" in {caution.input for caution in answer.warnings if caution.code == "at-bound"}
    both = answer.scenarios["both"]
    assert both is not None
    assert both.student_loss.value == pytest.approx(2.3)
    assert "both.compute" not in {caution.input for caution in answer.warnings}
