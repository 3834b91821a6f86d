"""One prediction of a law, with bands and cautions: what `tutelage predict` answers.

Covers: a student with a teacher given by its loss or by its size and tokens; ordinary training, on repeated tokens
where the law knows of them. Does not cover: dividing a budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tutelage.errors import InputError
from tutelage.laws.families.data_constrained import DataConstrainedLaw
from tutelage.laws.families.distillation import DistillationLaw
from tutelage.laws.family import Equation
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray
from tutelage.laws.uncertainty import estimate
from tutelage.laws.validity import cautions, not_positive, status_cautions
from tutelage.records.document import Caution, Document
from tutelage.records.estimate import Estimate
from tutelage.units import Nats, Params, Tokens


@dataclass(frozen=True)
class Prediction:
    """Losses in nats per token; None where the law or the question leaves one open.

    Args:
        student_loss: The student's loss with the given teacher.
        supervised_loss: The loss of ordinary training with the student's size and tokens.
        best_teacher_loss: The loss of the teacher that serves this student best.
        best_student_loss: What the student reaches with that teacher.
        teacher_loss: The teacher's loss, given or predicted.
        law: Name of the law.
        warnings: A law that its runs did not determine, inputs outside the range that it was fitted on.
    """

    student_loss: Estimate | None
    supervised_loss: Estimate
    best_teacher_loss: Estimate | None
    best_student_loss: Estimate | None
    teacher_loss: Estimate | None
    law: str
    warnings: tuple[Caution, ...]

    def document(self) -> Document:
        """The document of `tutelage predict`."""
        return Document("predict", {**dict(self._losses()), "law": self.law}, warnings=self.warnings)

    def rows(self) -> list[tuple[str, tuple[str, ...]]]:
        """The known losses by name, each with value, low end, high end and method, as text."""
        return [(name.replace("_", " "), _row(estimate)) for name, estimate in self._losses() if estimate is not None]

    def _losses(self) -> Iterator[tuple[str, Estimate | None]]:
        for name in ("student_loss", "supervised_loss", "best_teacher_loss", "best_student_loss", "teacher_loss"):
            yield name, getattr(self, name)


def predict(
    law: Law,
    student_params: Params,
    student_tokens: Tokens,
    teacher_loss: Nats | None = None,
    teacher_params: Params | None = None,
    teacher_tokens: Tokens | None = None,
    unique_tokens: Tokens | None = None,
) -> Prediction:
    """What `law` says of one student.

    Args:
        law: The law; a supervised law predicts `supervised_loss` alone.
        student_params: N_S, as the law counts parameters.
        student_tokens: D_S.
        teacher_loss: L_T in nats per token, where it was measured.
        teacher_params: N_T, where L_T is to be predicted.
        teacher_tokens: D_T, likewise.
        unique_tokens: U, how many of the student's tokens are distinct, for a data-constrained law; None for all.

    Returns:
        The losses that the law can tell, each with its interval (see `tutelage.laws.uncertainty`).

    Raises:
        InputError: With every fault: a number that is not finite and greater than 0, two kinds of teacher, half a one.
    """
    _check(student_params, student_tokens, teacher_loss, teacher_params, teacher_tokens, unique_tokens)
    supervised = estimate(law, lambda equation: _supervised(equation, student_params, student_tokens, unique_tokens))
    inputs: dict[str, float | None] = {"student_params": student_params, "student_tokens": student_tokens}
    if isinstance(law.equation, DataConstrainedLaw):
        inputs["unique_tokens"] = unique_tokens
    known = status_cautions(law) + _unused(law, teacher_loss is not None or teacher_params is not None, unique_tokens)
    if law.distillation is None:
        return Prediction(None, supervised, None, None, None, law.name, known + cautions(law, inputs))

    def teacher(equation: Equation) -> FloatArray:
        if teacher_params is not None and teacher_tokens is not None:
            return equation.supervised.predict(np.asarray(teacher_params), teacher_tokens)
        return np.asarray(np.nan if teacher_loss is None else teacher_loss)

    def student(equation: Equation) -> FloatArray:
        return _distillation(equation).predict(student_params, student_tokens, teacher(equation))

    def best(equation: Equation, which: int) -> FloatArray:
        found = _distillation(equation).best_teacher_loss(student_params, student_tokens)
        return np.asarray(found[which])

    teacher_estimate = None
    if teacher_params is not None:
        teacher_estimate = estimate(law, teacher)
    elif teacher_loss is not None:
        teacher_estimate = Estimate(teacher_loss, method="given")
    if teacher_estimate is not None:
        inputs |= {
            "teacher_params": teacher_params,
            "teacher_tokens": teacher_tokens,
            "teacher_loss": teacher_estimate.value,
            "loss_ratio": teacher_estimate.value / supervised.value,
        }
    return Prediction(
        student_loss=None if teacher_estimate is None else estimate(law, student),
        supervised_loss=supervised,
        best_teacher_loss=estimate(law, lambda equation: best(equation, 0)),
        best_student_loss=estimate(law, lambda equation: best(equation, 1)),
        teacher_loss=teacher_estimate,
        law=law.name,
        warnings=known + cautions(law, inputs),
    )


def _check(
    student_params: Params,
    student_tokens: Tokens,
    teacher_loss: Nats | None,
    teacher_params: Params | None,
    teacher_tokens: Tokens | None,
    unique_tokens: Tokens | None,
) -> None:
    faults = not_positive(
        {
            "student_params": student_params,
            "student_tokens": student_tokens,
            "teacher_loss": teacher_loss,
            "teacher_params": teacher_params,
            "teacher_tokens": teacher_tokens,
            "unique_tokens": unique_tokens,
        }
    )
    sized = [size is not None for size in (teacher_params, teacher_tokens)]
    if teacher_loss is not None and any(sized):
        faults.append("teacher_loss and teacher_params/teacher_tokens are both given; give one kind of teacher")
    elif any(sized) and not all(sized):
        faults.append("teacher_params and teacher_tokens belong together; give both, or teacher_loss")
    if faults:
        raise InputError(faults)


def _distillation(equation: Equation) -> DistillationLaw:
    if not isinstance(equation, DistillationLaw):
        raise TypeError("a student's loss needs a distillation law")
    return equation


def _supervised(equation: Equation, params: Params, tokens: Tokens, unique_tokens: Tokens | None) -> FloatArray:
    if isinstance(equation, DataConstrainedLaw):
        return equation.predict(np.asarray(params), tokens, tokens if unique_tokens is None else unique_tokens)
    return equation.supervised.predict(np.asarray(params), tokens)


def _unused(law: Law, teacher: bool, unique_tokens: Tokens | None) -> tuple[Caution, ...]:
    """One caution for each input that this law has no place for."""
    unused = []
    if unique_tokens is not None and not isinstance(law.equation, DataConstrainedLaw):
        unused.append(("unique_tokens", "repeated tokens", "their number"))
    if teacher and law.distillation is None:
        unused.append(("teacher", "distillation", "the teacher"))
    return tuple(
        Caution(
            f"{name.replace('_', '-')}-not-used",
            name,
            None,
            None,
            f"{law.name} is a law of the family {law.equation.family} and says nothing of {matter}; {what} is not used",
        )
        for name, matter, what in unused
    )


def _row(estimate: Estimate) -> tuple[str, ...]:
    ends = ["" if end is None else f"{end:.4f}" for end in (estimate.low, estimate.high)]
    return (f"{estimate.value:.4f}", *ends, "" if estimate.method == "point" else estimate.method)
