"""Curves along compute and the U in the teacher's loss: they agree with the plan at the plan's own point."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tutelage.laws.law import Law
from tutelage.planning.plan import plan
from tutelage.planning.question import Question
from tutelage.planning.scenarios import Teacher
from tutelage.planning.spread import Spread
from tutelage.planning.teacher_curve import bend

SEVEN = Teacher("7B", 7.7e9, 2.02)
# Nats: between two budgets of a curve the loss is a line to this.
LINE = 1e-3


@pytest.fixture(scope="module")
def document(fitted: Law) -> Any:
    """The JSON document of a plan with draws."""
    return json.loads(plan(Question(1e9, compute=1e21, teachers=(SEVEN,)), fitted).document().to_json())


def test_a_curve_passes_through_the_plan(document: Any) -> None:
    curves, logs = document["curves"], np.log(document["curves"]["compute"])
    for name, scenario in document["scenarios"].items():
        curve = curves["scenarios"][name]
        for key, part, end in (
            ("loss", "student_loss", "value"),
            ("low", "student_loss", "low"),
            ("high", "student_loss", "high"),
            ("gain", "gain", "value"),
            ("gain_low", "gain", "low"),
            ("gain_high", "gain", "high"),
        ):
            along = np.interp(np.log(1e21), logs, curve[key])
            assert along == pytest.approx(scenario[part][end], abs=LINE), (name, key)
        shares = np.array([curve["shares"][part] for part in ("student", "logits", "teacher")])
        assert shares.sum(axis=0) == pytest.approx(np.ones(len(logs)))
        assert np.interp(np.log(1e21), logs, shares[0]) == pytest.approx(
            scenario["shares"]["student"]["value"], abs=0.01
        )
    ordinary = document["supervised"]
    for key, end in (("loss", "value"), ("low", "low"), ("high", "high")):
        along = np.interp(np.log(1e21), logs, curves["supervised"][key])
        assert along == pytest.approx(ordinary["loss"][end], abs=LINE)
    free = curves["compute_optimal"]
    assert np.interp(np.log(1e21), logs, free["loss"]) == pytest.approx(
        ordinary["compute_optimal"]["loss"]["value"], abs=LINE
    )
    products = np.array(free["params"]) * np.array(free["tokens"])
    assert np.all(np.diff(products) > 0)


def test_a_crossover_ends_where_half_and_a_twentieth_of_the_draws_gain(document: Any, fitted: Law) -> None:
    ends = document["crossover"]["existing"]["ends"]
    for compute, share in ((ends["low"], 0.95), (ends["high"], 0.05)):
        found = plan(Question(1e9, compute=compute, teachers=(SEVEN,)), fitted).scenarios["existing"]
        assert found is not None
        assert found.probability == pytest.approx(share, abs=0.02)
    assert (ends["level"], ends["method"]) == (0.9, "bootstrap, 1000 draws")
    assert "90 % interval" in document["crossover"]["existing"]["text"]


def test_a_budget_that_pays_for_no_student_is_null(law: Law) -> None:
    # Smallest students: one token a parameter is fewer tokens than a plan chooses from.
    answer: Any = plan(Question(1e6, compute=1e17, teachers=(Teacher("7B", 7.7e9, 2.02),)), law).to_dict()
    curve = answer["curves"]["scenarios"]["existing"]
    assert curve["loss"][0] is curve["low"][0] is curve["gain"][0] is curve["shares"]["student"][0] is None
    assert curve["loss"][-1] is not None


def test_the_u_has_its_bottom_at_the_best_teacher(law: Law, document: Any) -> None:
    found = document["teacher_curve"]
    losses = np.array(found["teacher_loss"])
    sizes = [student["params"] for student in found["students"]]
    assert sizes == pytest.approx([1e9, 1e9 / 3, 3e9])
    equation = law.require_distillation()
    for student in found["students"]:
        curve = np.array(student["loss"])
        assert np.all(np.array(student["low"]) <= curve)
        assert np.all(curve <= np.array(student["high"]))
        bottom = minimize_scalar(
            lambda teacher, student=student: float(equation.predict(student["params"], student["tokens"], teacher)),
            bounds=(1.3, 2.6),
            method="bounded",
        )
        assert student["best_student_loss"] == pytest.approx(bottom.fun, abs=1e-9)
        assert losses[0] < student["best_teacher_loss"] < losses[-1]
        assert abs(losses[int(np.argmin(curve))] - student["best_teacher_loss"]) <= losses[1] - losses[0]
        # Both arms are there: the capacity gap to the left, a weak teacher to the right.
        assert min(curve[0], curve[-1]) > student["best_student_loss"]
        assert student["supervised_loss"] == pytest.approx(law.supervised.predict(student["params"], student["tokens"]))
    (teacher,) = found["teachers"]
    existing = document["scenarios"]["existing"]
    assert teacher["student_loss"] == pytest.approx(existing["student_loss"]["value"])
    assert found["students"][0]["tokens"] == existing["student_tokens"]["value"]


def test_the_sizes_beside_the_smallest_student_stay_within_bounds(law: Law) -> None:
    found = bend(Spread.of(law), 1e6, 1e9, ())
    assert [student.params for student in found.students] == [1e6, 1e6, 3e6]
    assert found.teachers == ()
