"""The U of a distillation law: a student's loss over its teacher's, with the best teacher of several students.

Covers: the figure, with the band of the law's uncertainty and the extrapolation shaded. Does not cover: teachers that
exist, which a plan has (`plan_teachers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.laws.families.distillation import DistillationLaw
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray
from tutelage.laws.uncertainty import interval
from tutelage.reports import words
from tutelage.reports.canvas import Canvas
from tutelage.reports.content import Figure, Table
from tutelage.reports.law_curves import POINTS, TOKENS, shown_sizes

_TOKENS_PER_PARAM = 20.0


@dataclass(frozen=True)
class Taught:
    """One student under teachers of every loss.

    Args:
        params: N_S.
        tokens: D_S.
        own: Its supervised loss, nats per token.
        best: The best teacher's loss and what the student reaches with it.
        loss: L_S, shape (teachers,).
        low: Lower end of its interval.
        high: Upper end.
    """

    params: float
    tokens: float
    own: float
    best: tuple[float, float]
    loss: FloatArray
    low: FloatArray
    high: FloatArray


def teacher_figure(law: Law, distillation: DistillationLaw) -> Figure:
    """The loss of four students over their teacher's loss, the best teacher of each marked."""
    fitted = law.fitted.get("teacher_loss")
    floor = float(law.supervised.E)
    low, high = fitted or (floor * 1.05, 2.0 * floor)
    teachers = np.linspace(max(floor * 1.01, low - 0.4 * (high - low)), high + 0.1 * (high - low), POINTS)
    bounds = law.fitted.get("student_tokens", TOKENS)
    sizes = [shown_sizes(law)[index] for index in (0, 1, 3, 4)]
    students = [
        _teach(law, distillation, size, float(np.clip(_TOKENS_PER_PARAM * size, *bounds)), teachers) for size in sizes
    ]
    rows = tuple(
        (
            words.count(student.params),
            words.count(student.tokens),
            words.nats(student.own),
            words.nats(student.best[0]),
            f"{student.best[0] / student.own:.3f}",
            words.nats(student.best[1]),
        )
        for student in students
    )
    headers = ("student", "tokens", "supervised loss", "best teacher's loss", "ratio", "student's loss with it")
    reading = (
        "One curve a student, at 20 tokens a parameter as far as these were fitted; the mark is its best teacher. "
        "Bands are the law's uncertainty. Shaded: outside the fitted range."
    )
    return Figure(
        "teacher",
        "Loss of the student over loss of the teacher",
        _finding(distillation, students[1], float(teachers[0])),
        reading,
        Table(headers, rows, "The best teacher of each student; losses in nats per token"),
        lambda canvas: _draw(canvas, teachers, students, fitted),
    )


def _teach(law: Law, distillation: DistillationLaw, params: float, tokens: float, teachers: FloatArray) -> Taught:
    def loss(equation: Any) -> FloatArray:
        predicted: FloatArray = equation.predict(params, tokens, teachers)
        return predicted

    teacher, student = distillation.best_teacher_loss(params, tokens)
    own = float(law.supervised.predict(params, tokens))
    return Taught(params, tokens, own, (float(teacher), float(student)), loss(law.equation), *interval(law, loss))


def _finding(distillation: DistillationLaw, student: Taught, strong: float) -> str:
    best, reached = student.best
    text = (
        f"A student of {words.count(student.params)} parameters on {words.count(student.tokens)} tokens learns most "
        f"from a teacher of loss {words.nats(best)} ({best / student.own:.2f} of its own supervised loss)"
    )
    lost = float(distillation.predict(student.params, student.tokens, strong)) - reached
    if strong >= best:
        return f"{text}; no teacher that is drawn here is too strong for it."
    return (
        f"{text}; a stronger one, of loss {words.nats(strong)}, leaves it {words.nats(lost)} nats higher: the capacity "
        "gap."
    )


def _draw(canvas: Canvas, teachers: FloatArray, students: list[Taught], fitted: tuple[float, float] | None) -> None:
    canvas.axes.set_xlim(float(teachers[0]), float(teachers[-1]))
    for index, student in enumerate(students):
        hue = f"hue{index + 1}"
        canvas.band(teachers, student.low, student.high, hue)
        canvas.curve(teachers, student.loss, hue, dash=index)
        canvas.points(np.array([student.best[0]]), np.array([student.best[1]]), hue, marker=index, size=8.0)
        canvas.say(float(teachers[2]), float(student.loss[2]), words.count(student.params), ("left", "bottom"), hue)
    canvas.few_x()
    canvas.few_y()
    canvas.label("Loss of the teacher, nats per token", "Loss of the student, nats per token")
    canvas.outside(fitted)
