"""The ways to distil that a plan compares, and what each answers to a question.

Covers: the scenarios and the existing teachers as ways to spend a budget, the best allocation of each as a value with
intervals. Does not cover: the search (`optimum`), ordinary training (`ordinary`), the ranking of teachers (`ranking`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tutelage.laws.compute import Costs
from tutelage.laws.families.distillation import as_distillation
from tutelage.laws.family import Equation
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray, Numbers
from tutelage.planning.curves import Curve, trace
from tutelage.planning.near_optimal import near_optimal
from tutelage.planning.optimum import Allocations, allocate, allocate_given, allocate_tokens, given_tokens
from tutelage.planning.parts import ScenarioPlan, known, point
from tutelage.planning.question import Question
from tutelage.planning.scenarios import LOWEST, Scenario, Teacher, scenarios_for
from tutelage.planning.spread import Spread
from tutelage.planning.target import compute_for, compute_under_draws
from tutelage.records.document import Caution
from tutelage.records.estimate import Estimate


@dataclass(frozen=True)
class Way:
    """One way to distil a student: how it spends compute, and what it does with given tokens.

    Args:
        text: The way in words.
        law: The law that it is planned with.
        scenario: What the student pays for; None where its teacher exists.
        teacher: The teacher that exists, else None.
        students: How many students share the teacher's logits.
    """

    text: str
    law: Law
    scenario: Scenario | None
    teacher: Teacher | None = None
    students: int = 1

    def spend(
        self, size: Numbers, compute: FloatArray, equation: Equation | None = None, near: Allocations | None = None
    ) -> Allocations:
        """The best allocations of budgets in FLOPs, shape (n,), for students of `size`.

        Under the law itself, or under another `equation` (an ensemble), near allocations that are optimal already.
        """
        law, forward = as_distillation(equation or self.law.equation), self.law.forward
        if self.teacher is not None:
            return allocate_given(law, forward, self.teacher, size, compute, self.students)
        assert self.scenario is not None
        return allocate(law, forward, self.scenario, size, compute, near)

    def with_tokens(
        self, size: float, tokens: float, equation: Equation | None = None, near: Allocations | None = None
    ) -> Allocations:
        """The best allocation where the student's tokens are given instead of a budget."""
        law, forward = as_distillation(equation or self.law.equation), self.law.forward
        if self.teacher is not None:
            return given_tokens(law, forward, self.teacher, size, tokens, self.students)
        assert self.scenario is not None
        return allocate_tokens(law, forward, self.scenario, size, tokens, near)

    def along_compute(self, spread: Spread, size: float) -> Curve:
        """The way's curve."""
        return trace(spread, size, lambda compute: self.spend(size, compute))


def scenario_ways(question: Question, law: Law) -> dict[str, Way]:
    """The scenarios of a question by name, as ways to spend."""
    law.require_distillation()
    return {scenario.name: Way(scenario.text, law, scenario) for scenario in scenarios_for(question.students)}


def given_way(question: Question, law: Law, teacher: Teacher) -> Way:
    """Distilling from a teacher that exists."""
    text = f"{teacher.name} exists; pay for its logits" + (", shared" if question.students > 1 else "")
    return Way(text, law, None, teacher, question.students)


@dataclass(frozen=True)
class Answered:
    """What one way answers to a question.

    Args:
        way: The way to distil.
        curve: Its curve along compute.
        plan: Its best allocation; None where the budget does not pay for it or no budget reaches the target.
    """

    way: Way
    curve: Curve
    plan: ScenarioPlan | None

    @property
    def at_beginning(self) -> bool:
        """Whether the plan costs no more than one token a parameter, the least that is looked at for a target."""
        return self.plan is not None and self.plan.compute.value <= self.curve.compute[0] * (1.0 + 1e-9)


def answer(question: Question, spread: Spread, way: Way) -> Answered:
    """What `way` makes of the question, whose student's size is known."""
    curve = way.along_compute(spread, question.size)
    return Answered(way, curve, _best(question, spread, way, curve))


def _best(question: Question, spread: Spread, way: Way, curve: Curve) -> ScenarioPlan | None:
    size = question.size
    if question.tokens is not None:
        allocations = way.with_tokens(size, question.tokens)
        drawn = (
            None if spread.ensemble is None else way.with_tokens(size, question.tokens, spread.ensemble, allocations)
        )
        return _scenario_plan(question, spread, way, allocations, drawn)
    compute = question.compute if question.compute is not None else _reach(question, way)[0]
    if compute is None:
        return None
    if question.target_loss is not None:
        # A target that less than one token a parameter reaches is the law's absurdity, not a plan.
        compute = max(compute, float(curve.compute[0]))
    allocations = way.spend(size, np.array([compute]))
    if not np.isfinite(allocations.student_loss[0]):
        return None
    if spread.ensemble is None:
        return _scenario_plan(question, spread, way, allocations, None)
    if question.target_loss is None:
        drawn = way.spend(size, np.array([compute]), spread.ensemble, allocations)
        return _scenario_plan(question, spread, way, allocations, drawn)
    needed = _needed(question.target_loss, spread.ensemble, way, curve, allocations)
    drawn = way.spend(size, np.where(np.isfinite(needed), needed, compute), spread.ensemble, allocations)
    return _scenario_plan(question, spread, way, allocations, drawn, needed)


def _reach(question: Question, way: Way) -> tuple[float | None, float]:
    target = question.target_loss or 0.0
    least = 0.5 * LOWEST * float(way.law.forward.training_per_token(question.size))
    return compute_for(lambda compute: way.spend(question.size, compute).student_loss, target, least)


def _needed(target: float, ensemble: Equation, way: Way, curve: Curve, allocations: Allocations) -> FloatArray:
    """FLOPs that reach the target under each draw, NaN where none do: along the law's own allocations, then corrected
    once by what each draw's own optimum reaches with them.
    """
    assert curve.drawn is not None
    needed, slope = compute_under_draws(curve.compute, curve.drawn, target)
    possible = np.isfinite(needed) & (slope > 0) & (needed > curve.compute[0])
    spent = np.where(possible, needed, allocations.costs.total)
    reached = way.spend(allocations.student_params, spent, ensemble, allocations).student_loss
    correction = np.where(possible, reached - target, 0.0) / np.where(possible, slope, 1.0)
    corrected: FloatArray = np.maximum(needed * np.exp(correction), curve.compute[0])
    return corrected


def unreachable(question: Question, way: Way, name: str) -> Caution:
    """Why a way has no answer: what the budget is too small for, or the floor that the target lies below."""
    if question.compute is not None:
        least = LOWEST * float(way.law.forward.training_per_token(question.size))
        text = f"{name}: {question.compute:.3g} FLOPs do not pay for {LOWEST:.0g} student tokens ({least:.2g} at least)"
        return Caution("unaffordable", f"{name}.compute", question.compute, (least, np.inf), text)
    _, floor = _reach(question, way)
    text = (
        f"{name}: the loss {question.target_loss:.4g} cannot be reached; with unlimited compute this size goes down "
        f"to {floor:.4f} and no further"
    )
    return Caution("infeasible-target", f"{name}.target_loss", question.target_loss, (floor, np.inf), text)


def _scenario_plan(
    question: Question,
    spread: Spread,
    way: Way,
    allocations: Allocations,
    drawn: Allocations | None,
    needed: FloatArray | None = None,
) -> ScenarioPlan:
    """The plan of an allocation; `drawn` are the best ones under each draw, `needed` their compute for a target."""
    own = float(spread.law.forward.training_per_token(question.size))
    total = float(allocations.costs.total[0])
    ordinary_tokens = question.tokens if question.tokens is not None else total / own

    def student_loss(equation: Equation) -> FloatArray:
        return allocations.student_loss_under(equation)

    def gain(equation: Equation) -> FloatArray:
        return spread.ordinary(equation).predict(question.size, ordinary_tokens) - student_loss(equation)

    possible = True if needed is None else np.isfinite(needed)

    def around(value: FloatArray, of: Callable[[Allocations], FloatArray]) -> Estimate:
        if drawn is None:
            return known(value[0])
        return spread.around(value[0], np.where(possible, of(drawn), np.nan))

    def choice(of: Callable[[Allocations], FloatArray]) -> Estimate | None:
        value = of(allocations)
        return None if point(value[0]) is None else around(value, of)

    def share(of: Callable[[Costs], FloatArray]) -> Estimate:
        def ratio(found: Allocations) -> FloatArray:
            return of(found.costs) / found.costs.total

        return around(ratio(allocations), ratio)

    return ScenarioPlan(
        text=way.text,
        student_loss=spread.estimate(student_loss),
        student_tokens=around(allocations.student_tokens, lambda found: found.student_tokens),
        teacher_params=choice(lambda found: found.teacher_params),
        teacher_tokens=choice(lambda found: found.teacher_tokens),
        teacher_loss=around(allocations.teacher_loss, lambda found: found.teacher_loss),
        compute=around(allocations.costs.total, lambda found: found.costs.total),
        shares={
            "student": share(lambda costs: costs.student),
            "logits": share(lambda costs: costs.logits),
            "teacher": share(lambda costs: costs.teacher),
        },
        gain=spread.estimate(gain),
        teacher=way.teacher.name if way.teacher else None,
        probability=spread.share(lambda equation: gain(equation) > 0),
        reachable=None if needed is None else float(np.mean(np.isfinite(needed))),
        near_optimal=near_optimal(spread.law, way.scenario, allocations, question.tokens is not None),
    )
