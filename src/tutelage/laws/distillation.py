"""The distillation law: the loss of a student from its size, its tokens and its teacher's loss.

Covers: the law of `busbridge2025` Eq. 8 on a frozen supervised law, its best teacher, its knee. Does not cover: how the
teacher came to its loss (any teacher, trained or measured, enters through its loss alone), cost, nor fitting.

Computed in log space: the law's own exponents (c1 * f1 = 47 and 1 / f1 = 11 in the published instance) overflow float64
when they are evaluated as printed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from tutelage.laws.minimum import minimise
from tutelage.laws.supervised import FloatArray, Numbers, SupervisedLaw


@dataclass(frozen=True)
class DistillationLaw:
    """L_S = L_T + L_T^(-c0) [1 + (L_T / (Lsup_S d1))^(1/f1)]^(-c1 f1) (A' / N_S^alpha' + B' / D_S^beta')^gamma'.

    Lsup_S is the supervised law at the student's own size and tokens. The law has L_S > L_T always: it cannot express a
    student that beats its teacher.

    Args:
        supervised: The supervised law, frozen inside this one.
        c0: Exponent of the teacher's loss.
        c1: Strength of the capacity gap.
        f1: Width of its transition, in log loss.
        d1: Place of its transition, as L_T / Lsup_S; the knee of the curve is elsewhere, see `knee`.
        A_prime: Scale of the term in student parameters.
        B_prime: Scale of the term in student tokens.
        alpha_prime: Exponent of the student parameters.
        beta_prime: Exponent of the student tokens.
        gamma_prime: Outer exponent.

    Source: `busbridge2025` Eq. 8.
    """

    supervised: SupervisedLaw
    c0: float
    c1: float
    f1: float
    d1: float
    A_prime: float
    B_prime: float
    alpha_prime: float
    beta_prime: float
    gamma_prime: float

    family: ClassVar[str] = "distillation"
    units: ClassVar[dict[str, str]] = {"L_S": "nats per token", "L_T": "nats per token", "N_S": "parameters"}

    @property
    def knee(self) -> float:
        """x0 = d1 (c1 f1)^(-f1), the ratio L_T / Lsup_S at which a weaker teacher begins to cost the student.

        Below it the bracket is close to 1, far above it the student is no better than its teacher. Unlike c1 and d1,
        it is well determined by data.
        """
        return float(self.d1 * (self.c1 * self.f1) ** -self.f1)

    def coefficients(self) -> dict[str, float]:
        """The coefficients of this law and of the supervised law inside it, by name (primes as `_prime`)."""
        own = asdict(self)
        return {**own.pop("supervised"), **own}

    def log_predict(self, student_params: Numbers, student_tokens: Numbers, teacher_loss: Numbers) -> FloatArray:
        """Log of the student's loss; see `predict`."""
        teacher = np.log(np.asarray(teacher_loss, dtype=np.float64))
        log_loss: FloatArray = np.logaddexp(teacher, self._log_excess(student_params, student_tokens, teacher))
        return log_loss

    def _log_excess(self, student_params: Numbers, student_tokens: Numbers, log_teacher: FloatArray) -> FloatArray:
        """Log of what the student loses beyond its teacher, L_S - L_T."""
        supervised = self.supervised.log_predict(student_params, student_tokens)
        with np.errstate(divide="ignore"):
            size = np.log(self.A_prime) - self.alpha_prime * np.log(np.asarray(student_params, dtype=np.float64))
            data = np.log(self.B_prime) - self.beta_prime * np.log(np.asarray(student_tokens, dtype=np.float64))
        gap = np.logaddexp(0.0, (log_teacher - supervised - np.log(self.d1)) / self.f1)
        capacity = self.gamma_prime * np.logaddexp(size, data)
        log_excess: FloatArray = -self.c0 * log_teacher - self.c1 * self.f1 * gap + capacity
        return log_excess

    def predict(self, student_params: Numbers, student_tokens: Numbers, teacher_loss: Numbers) -> FloatArray:
        """Loss of the student in nats per token.

        Args:
            student_params: N_S, greater than 0.
            student_tokens: D_S, greater than 0; infinity is allowed.
            teacher_loss: L_T in nats per token, greater than 0; predicted or measured.

        Returns:
            Nats per token, at or above `teacher_loss`, with the broadcast shape of the three.
        """
        teacher = np.asarray(teacher_loss, dtype=np.float64)
        # A sum, so that rounding never puts the student below its teacher.
        loss: FloatArray = teacher + np.exp(self._log_excess(student_params, student_tokens, np.log(teacher)))
        return loss

    def best_teacher_loss(self, student_params: Numbers, student_tokens: Numbers) -> tuple[FloatArray, FloatArray]:
        """The teacher's loss that serves this student best, and what the student then reaches.

        A teacher of lower loss than this hurts (the capacity gap), one of higher loss holds the student back. Looked
        for between the irreducible loss E, below which no teacher of this law can be, and twice the student's own
        supervised loss.

        Args:
            student_params: N_S, greater than 0.
            student_tokens: D_S, greater than 0; infinity is allowed.

        Returns:
            The teacher's loss and the student's loss, nats per token, each of the broadcast shape.
        """
        params, tokens = np.broadcast_arrays(
            np.asarray(student_params, dtype=np.float64), np.asarray(student_tokens, dtype=np.float64)
        )
        row_params, row_tokens = params.reshape(-1, 1), tokens.reshape(-1, 1)
        high = np.log(2.0) + self.supervised.log_predict(row_params, row_tokens)
        low = np.full_like(high, np.log(self.supervised.E))

        def log_student_loss(log_teacher: FloatArray) -> FloatArray:
            return self.log_predict(row_params, row_tokens, np.exp(log_teacher[..., 0]))

        best, least = minimise(log_student_loss, low, high)
        return np.exp(best[:, 0]).reshape(params.shape)[()], np.exp(least).reshape(params.shape)[()]
