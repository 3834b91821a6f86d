"""Which of the given teachers serves a question best, how close the next one is, and whether a stronger one would hurt.

Covers: the teachers in order with the interval of what lies between them, and the answer in a few sentences. Does not
cover: teachers that do not exist yet, which the scenarios choose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from tutelage.laws.families.distillation import as_distillation
from tutelage.laws.family import Equation
from tutelage.laws.numbers import FloatArray
from tutelage.planning.curves import Curve
from tutelage.planning.parts import RankedTeacher, ScenarioPlan
from tutelage.planning.question import Question
from tutelage.planning.scenarios import Teacher
from tutelage.planning.spread import Spread
from tutelage.planning.target import compute_under_draws
from tutelage.planning.ways import Answered
from tutelage.records.estimate import Estimate
from tutelage.units import format_quantity

_Score = Callable[[Equation], FloatArray]
"""What a teacher is ranked by, lowest first: the student's loss, or the compute for a target; (draws, 1) for draws."""


def rank(question: Question, spread: Spread, answers: Mapping[str, Answered]) -> tuple[RankedTeacher, ...]:
    """The given teachers, the one that serves the question best first; those that cannot serve it last.

    Args:
        question: The question.
        spread: The law.
        answers: What distilling from each teacher answers, by the teacher's name.
    """
    served: list[tuple[Teacher, ScenarioPlan, _Score]] = []
    others = []
    for teacher in question.teachers:
        answered = answers[teacher.name]
        if answered.plan is None:
            others.append(RankedTeacher(teacher))
        else:
            served.append((teacher, answered.plan, _score(question, teacher, answered.plan, answered.curve)))
    equation = spread.law.equation
    served.sort(key=lambda entry: (float(np.ravel(entry[2](equation))[0]), entry[1].compute.value))
    chances = _chances(spread, [score for _, _, score in served])
    ranked: list[RankedTeacher] = []
    for (teacher, plan, score), probability in zip(served, chances, strict=True):
        behind = spread.estimate(_difference(score, served[0][2])) if ranked else None
        entry = RankedTeacher(teacher, plan.student_loss, plan.student_tokens, plan.compute)
        ranked.append(replace(_compare(question, spread, entry), behind=behind, probability=probability))
    return (*ranked, *others)


def _score(question: Question, teacher: Teacher, plan: ScenarioPlan, curve: Curve) -> _Score:
    target = question.target_loss
    if target is None:
        tokens = plan.student_tokens.value
        return lambda equation: as_distillation(equation).predict(question.size, tokens, teacher.loss)

    def needed(equation: Equation) -> FloatArray:
        if curve.drawn is None or np.ndim(equation.supervised.E) == 0:
            return np.array([plan.compute.value])
        return compute_under_draws(curve.compute, curve.drawn, target)[0][:, None]

    return needed


def _difference(score: _Score, first: _Score) -> _Score:
    return lambda equation: score(equation) - first(equation)


def _chances(spread: Spread, scores: list[_Score]) -> list[float | None]:
    """In which share of the draws each is the lowest; a draw without an answer counts for none."""
    if spread.ensemble is None or not scores:
        return [None] * len(scores)
    columns = np.column_stack([score(spread.ensemble).ravel() for score in scores])
    least = np.argmin(np.where(np.isfinite(columns), columns, np.inf), axis=1)
    some = np.isfinite(columns).any(axis=1)
    return [float(np.mean((least == place) & some)) for place in range(len(scores))]


def _compare(question: Question, spread: Spread, entry: RankedTeacher) -> RankedTeacher:
    """The entry beside the best teacher that there could be for its tokens."""
    assert entry.student_tokens is not None
    size, tokens, loss = question.size, entry.student_tokens.value, entry.teacher.loss

    def beside_best(equation: Equation) -> tuple[FloatArray, FloatArray]:
        law = as_distillation(equation)
        teacher, student = law.best_teacher_loss(size, tokens)
        return teacher, law.predict(size, tokens, loss) - student

    wanted, lost = beside_best(spread.law.equation)
    drawn = (np.empty(0), np.empty(0)) if spread.ensemble is None else beside_best(spread.ensemble)
    return replace(
        entry,
        best_teacher_loss=spread.around(wanted, drawn[0]),
        lost=spread.around(lost, drawn[1]),
        side="too strong" if loss < wanted else "too weak",
    )


def teachers_in_words(question: Question, ranked: tuple[RankedTeacher, ...]) -> str:
    """Which teacher, how close the second is, and whether a stronger one would hurt; empty without teachers."""
    served = [entry for entry in ranked if entry.student_loss is not None]
    if not served:
        return "None of the given teachers can serve this question." if ranked else ""
    first = served[0]
    assert first.student_loss is not None
    assert first.best_teacher_loss is not None
    text = f"{first.teacher.name} {'serves best' if len(served) > 1 else 'is the only one that serves this question'}"
    if first.probability is not None and len(served) > 1:
        text += f" (in {first.probability:.0%} of the draws)"
    text += _second(question, served) + "."
    for entry in served[1:]:
        if entry.teacher.loss < first.teacher.loss:
            text += f" {entry.teacher.name} is stronger and serves worse: {_why(question, entry)}."
    return (
        f"{text} On {format_quantity(_value(first.student_tokens))} tokens a teacher stronger than a loss of "
        f"{_with_ends(first.best_teacher_loss)} hurts (the capacity gap); {first.teacher.name} is {first.side} by "
        f"{_value(first.lost):.4f} nats."
    )


def _second(question: Question, served: list[RankedTeacher]) -> str:
    if len(served) == 1:
        return ""
    second = served[1]
    assert second.behind is not None
    if question.budget == "target_loss":
        return f"; {second.teacher.name} takes {format_quantity(second.behind.value)} FLOPs more"
    return f"; {second.teacher.name} is {_with_ends(second.behind)} nats behind"


def _why(question: Question, entry: RankedTeacher) -> str:
    if entry.side == "too strong":
        gap = (
            f"it is too strong (the best teacher's loss is {_value(entry.best_teacher_loss):.3f}), which costs the "
            f"student {_value(entry.lost):.4f} nats"
        )
        # With a budget of compute, the rest of what it is behind is the price of its logits.
        if question.budget == "compute" and _value(entry.lost) < 0.5 * _value(entry.behind):
            return f"mostly because its logits leave fewer tokens; for those that they leave, {gap}"
        return gap
    return "not because it is too strong, but because its logits leave fewer tokens"


def _with_ends(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _value(estimate: Estimate | None) -> float:
    return float("nan") if estimate is None else estimate.value
