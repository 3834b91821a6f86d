"""The teacher choice of a plan as a figure: the U of the planned student with the given teachers on it.

Covers: drawing `teacher_curve`, and the range of teachers that are as good as the best. Does not cover: the teachers'
ranking under a budget, which counts what their logits cost (`plan_tables`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tutelage.laws.numbers import FloatArray
from tutelage.reports import words
from tutelage.reports.canvas import Canvas
from tutelage.reports.content import Figure, Table
from tutelage.reports.palette import HUES, MARKERS, colour
from tutelage.reports.plan_document import Part

_NEAR = 0.005
"""Relative: teachers whose student loses this little more than the best are as good."""


@dataclass(frozen=True)
class Student:
    """One U.

    Args:
        params: N_S.
        tokens: D_S.
        supervised: Its loss without a teacher, nats per token.
        loss: Its loss over the teacher's, shape (teachers,), NaN where unknown.
        band: Lower and upper ends.
        best: The best teacher's loss and the student's with it.
    """

    params: float
    tokens: float
    supervised: float
    loss: FloatArray
    band: tuple[FloatArray, FloatArray]
    best: tuple[float, float]


def teacher_figure(document: Part) -> Figure | None:
    """The U of each student of the document, the given teachers on that of the planned one; None without curves."""
    if not document.has("teacher_curve"):
        return None
    found = document.part("teacher_curve")
    losses = found.series("teacher_loss")
    students = [_student(part, len(losses)) for part in found.rows("students")]
    if not students:
        return None
    teachers = [
        (each.text("name"), each.number("loss"), each.number("student_loss")) for each in found.rows("teachers")
    ]
    planned = students[0]
    near = losses[planned.loss <= planned.best[1] * (1 + _NEAR)]

    def draw(canvas: Canvas) -> None:
        _draw(canvas, losses, students, teachers, near)

    size = words.count(planned.params)
    rows = [
        ("best", words.count(each.params), words.nats(each.best[0]), words.nats(each.best[1], 4)) for each in students
    ]
    rows += [(name, size, words.nats(at), words.nats(loss, 4)) for name, at, loss in teachers]
    rows += [("none", words.count(each.params), words.NONE, words.nats(each.supervised, 4)) for each in students]
    title = f"Losses in nats per token, on {words.count(planned.tokens)} tokens"
    reading = (
        "One curve a size of the student, all on the same tokens; the large mark is its best teacher, the thick part "
        "loses less than 0.5 % more. Dotted: the planned student without a teacher."
    )
    table = Table(("teacher", "student", "teacher's loss", "student's loss"), tuple(rows), title)
    finding = _finding(planned, teachers, near)
    return Figure("teachers", "Loss of the student over loss of the teacher", finding, reading, table, draw, 0.56)


def _student(part: Part, length: int) -> Student:
    return Student(
        part.number("params"),
        part.number("tokens"),
        part.number("supervised_loss"),
        part.series("loss", length),
        (part.series("low", length), part.series("high", length)),
        (part.number("best_teacher_loss"), part.number("best_student_loss")),
    )


def _finding(planned: Student, teachers: list[tuple[str, float, float]], near: FloatArray) -> str:
    text = (
        f"On {words.count(planned.tokens)} tokens a student of {words.count(planned.params)} parameters learns most "
        f"from a teacher of loss {words.nats(planned.best[0])}"
    )
    if len(near) > 1:
        text += f"; any of {words.nats(float(near[0]))} to {words.nats(float(near[-1]))} is within 0.5 %"
    if teachers:
        name, loss, reached = min(teachers, key=lambda teacher: teacher[2])
        side = "stronger" if loss < planned.best[0] else "weaker"
        text += (
            f". Of those at hand {name} comes closest: {side} than the best, it leaves the student "
            f"{words.nats(max(0.0, reached - planned.best[1]), 4)} nats above it"
        )
    return f"{text}."


def _draw(
    canvas: Canvas,
    losses: FloatArray,
    students: list[Student],
    teachers: list[tuple[str, float, float]],
    near: FloatArray,
) -> None:
    axes, planned = canvas.axes, students[0]
    axes.set_xlim(float(losses[0]), float(losses[-1]))
    axes.axhline(planned.supervised, color=colour(HUES[0]), linewidth=1.1, linestyle=(0, (1.5, 2.0)))
    for index, student in enumerate(students):
        hue = HUES[index % len(HUES)]
        canvas.band(losses, *student.band, hue)
        canvas.curve(losses, student.loss, hue, dash=index, width=2.2 if index == 0 else 1.6)
        canvas.points(np.array([student.best[0]]), np.array([student.best[1]]), hue, marker=index, size=9.0)
        canvas.say(losses[1], student.loss[1], words.count(student.params), ("left", "bottom"), hue)
    if len(near) > 1:
        chosen = (losses >= near[0]) & (losses <= near[-1])
        canvas.curve(losses[chosen], planned.loss[chosen], HUES[0], width=4.5)
    canvas.few_x()
    canvas.few_y()
    canvas.label("Loss of the teacher, nats per token", "Loss of the student, nats per token")
    canvas.below([(at, loss, name) for name, at, loss in teachers], len(MARKERS) - 1)
