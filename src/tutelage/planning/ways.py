"""The ways to distil that a plan compares, and what each answers to a question.

Covers: the scenarios and the existing teachers as ways to spend a budget, the best allocation of each as a value with
bands, the ranking of teachers. Does not cover: the search (`optimum`), ordinary training (`ordinary`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from tutelage.laws.family import Equation
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray
from tutelage.laws.rounding import banded
from tutelage.planning.optimum import Allocations, allocate, allocate_given, allocate_tokens, given_tokens
from tutelage.planning.parts import RankedTeacher, ScenarioPlan, known, point
from tutelage.planning.question import Question
from tutelage.planning.scenarios import LOWEST, Teacher, scenarios_for
from tutelage.planning.target import compute_for
from tutelage.records.document import Caution


@dataclass(frozen=True)
class Way:
    """One way to distil: how it spends compute, and what it does with given tokens."""

    text: str
    spend: Callable[[FloatArray], Allocations]
    with_tokens: Callable[[float], Allocations]
    teacher: Teacher | None = None


def scenario_ways(question: Question, law: Law) -> dict[str, Way]:
    """The scenarios of a question by name, as ways to spend."""
    equation, size = law.require_distillation(), question.student_params
    return {
        scenario.name: Way(
            scenario.text,
            partial(allocate, equation, law.forward, scenario, size),
            partial(allocate_tokens, equation, law.forward, scenario, size),
        )
        for scenario in scenarios_for(question.students)
    }


def given_way(question: Question, law: Law, teacher: Teacher) -> Way:
    """Distilling from a teacher that exists."""
    equation, size = law.require_distillation(), question.student_params
    return Way(
        f"{teacher.name} exists; pay for its logits" + (", shared" if question.students > 1 else ""),
        partial(allocate_given, equation, law.forward, teacher, size, students=question.students),
        partial(given_tokens, equation, law.forward, teacher, size, students=question.students),
        teacher,
    )


def answer(question: Question, law: Law, way: Way) -> ScenarioPlan | None:
    """The best allocation of one way; None where the budget does not pay for it or no budget reaches the target."""
    if question.tokens is not None:
        return _scenario_plan(question, law, way, way.with_tokens(question.tokens))
    compute = question.compute if question.compute is not None else _reach(question, law, way)[0]
    if compute is None:
        return None
    allocations = way.spend(np.array([compute]))
    return _scenario_plan(question, law, way, allocations) if np.isfinite(allocations.student_loss[0]) else None


def _reach(question: Question, law: Law, way: Way) -> tuple[float | None, float]:
    target = question.target_loss or 0.0
    least = 0.5 * LOWEST * float(law.forward.training_per_token(question.student_params))
    return compute_for(lambda compute: way.spend(compute).student_loss, target, least)


def unreachable(question: Question, law: Law, way: Way, name: str) -> Caution:
    """Why a way has no answer: what the budget is too small for, or the floor that the target lies below."""
    if question.compute is not None:
        least = LOWEST * float(law.forward.training_per_token(question.student_params))
        text = f"{name}: {question.compute:.3g} FLOPs do not pay for {LOWEST:.0g} student tokens ({least:.2g} at least)"
        return Caution("unaffordable", f"{name}.compute", question.compute, (least, np.inf), text)
    _, floor = _reach(question, law, way)
    text = (
        f"{name}: the loss {question.target_loss:.4g} cannot be reached; with unlimited compute this size goes down "
        f"to {floor:.4f} and no further"
    )
    return Caution("infeasible-target", f"{name}.target_loss", question.target_loss, (floor, np.inf), text)


def _scenario_plan(question: Question, law: Law, way: Way, allocations: Allocations) -> ScenarioPlan:
    own = float(law.forward.training_per_token(question.student_params))
    total = float(allocations.costs.total[0])
    ordinary_tokens = question.tokens if question.tokens is not None else total / own

    def student_loss(equation: Equation) -> FloatArray:
        return np.asarray(allocations.student_loss_under(equation)[0])

    def gain(equation: Equation) -> FloatArray:
        ordinary = equation.supervised.predict(question.student_params, ordinary_tokens)
        return np.asarray(ordinary - student_loss(equation))

    costs = allocations.costs
    parts = {"student": costs.student, "logits": costs.logits, "teacher": costs.teacher}
    return ScenarioPlan(
        text=way.text,
        student_loss=banded(law, student_loss),
        student_tokens=known(allocations.student_tokens[0]),
        teacher_params=point(allocations.teacher_params[0]),
        teacher_tokens=point(allocations.teacher_tokens[0]),
        teacher_loss=known(allocations.teacher_loss[0]),
        compute=known(total),
        shares={name: known(part[0] / total) for name, part in parts.items()},
        gain=banded(law, gain),
        teacher=way.teacher.name if way.teacher else None,
    )


def rank(question: Question, law: Law) -> tuple[RankedTeacher, ...]:
    """The given teachers, the one that serves the question best first."""
    equation, ranked = law.require_distillation(), []
    for teacher in question.teachers:
        answered = answer(question, law, given_way(question, law, teacher))
        if answered is None:
            ranked.append(RankedTeacher(teacher))
            continue
        wanted, reached = equation.best_teacher_loss(question.student_params, answered.student_tokens.value)
        ranked.append(
            RankedTeacher(
                teacher,
                answered.student_loss,
                answered.student_tokens,
                answered.compute,
                known(wanted),
                known(answered.student_loss.value - reached),
                "too strong" if teacher.loss < wanted else "too weak",
            )
        )

    def order(entry: RankedTeacher) -> tuple[float, float]:
        if entry.student_loss is None or entry.compute is None:
            return np.inf, np.inf
        pair = entry.student_loss.value, entry.compute.value
        return pair if question.budget != "target_loss" else pair[::-1]

    return tuple(sorted(ranked, key=order))
