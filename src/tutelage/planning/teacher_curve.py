"""The student's loss against its teacher's: the U whose left arm is the capacity gap.

Covers: the planned student, one a third and one three times its size, all on the same tokens, with intervals; where the
given teachers stand. Does not cover: what a teacher costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tutelage.laws.families.distillation import as_distillation
from tutelage.laws.family import Equation
from tutelage.laws.numbers import FloatArray
from tutelage.planning.scenarios import HIGHEST, LOWEST, Teacher
from tutelage.planning.spread import Band, Spread

_POINTS = 61
_SIZES = (1.0, 1.0 / 3.0, 3.0)
"""The planned size first; the U moves to the left as the student grows."""
_LEFT, _RIGHT = 0.85, 1.1
"""From this share of the lowest best teacher's loss (never below E) to this multiple of the highest supervised loss."""


@dataclass(frozen=True)
class StudentCurve:
    """The loss of one student with teachers of every loss.

    Args:
        params: N_S.
        tokens: D_S.
        supervised_loss: Its loss by ordinary training on the same tokens.
        loss: L_S, one a teacher.
        best_teacher_loss: L_T at the bottom of the U.
        best_student_loss: L_S there.
    """

    params: float
    tokens: float
    supervised_loss: float
    loss: Band
    best_teacher_loss: float
    best_student_loss: float

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "params": self.params,
            "tokens": self.tokens,
            "supervised_loss": self.supervised_loss,
            "loss": self.loss.value.tolist(),
            "low": self.loss.low.tolist(),
            "high": self.loss.high.tolist(),
            "best_teacher_loss": self.best_teacher_loss,
            "best_student_loss": self.best_student_loss,
        }


@dataclass(frozen=True)
class TeacherCurve:
    """Students against the teacher's loss.

    Args:
        teacher_loss: L_T, nats per token, ascending.
        students: The planned student first.
        teachers: The given teachers, and what the planned student reaches with each on these tokens.
    """

    teacher_loss: FloatArray
    students: tuple[StudentCurve, ...]
    teachers: tuple[tuple[Teacher, float], ...]

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "teacher_loss": self.teacher_loss.tolist(),
            "students": self.students,
            "teachers": [
                {"name": teacher.name, "loss": teacher.loss, "student_loss": student_loss}
                for teacher, student_loss in self.teachers
            ],
        }


def bend(spread: Spread, params: float, tokens: float, teachers: tuple[Teacher, ...]) -> TeacherCurve:
    """The U of a student of `params` parameters on `tokens` tokens, and of its smaller and larger neighbours."""
    law = spread.law.require_distillation()
    sizes = np.clip(params * np.array(_SIZES), LOWEST, HIGHEST)
    best, reached = law.best_teacher_loss(sizes, tokens)
    supervised = law.supervised.predict(sizes, tokens)
    losses = np.linspace(max(_LEFT * best.min(), float(law.supervised.E)), _RIGHT * supervised.max(), _POINTS)

    def every(equation: Equation) -> FloatArray:
        distillation = as_distillation(equation)
        return np.concatenate([distillation.predict(size, tokens, losses) for size in sizes], axis=-1)

    bands = spread.band(every)
    students = tuple(
        StudentCurve(
            float(size),
            tokens,
            float(supervised[index]),
            bands[index * _POINTS : (index + 1) * _POINTS],
            float(best[index]),
            float(reached[index]),
        )
        for index, size in enumerate(sizes)
    )
    placed = tuple((teacher, float(law.predict(params, tokens, teacher.loss))) for teacher in teachers)
    return TeacherCurve(losses, students, placed)
