"""The distillation law: the loss of a student from its size, its tokens and its teacher's loss.

Covers: the law of `busbridge2025` Eq. 8 on a frozen supervised law, the eight-parameter form that data can identify,
their best teacher, their knee. Does not cover: how the teacher came to its loss (any teacher, trained or measured,
enters through its loss alone), cost.

Computed in log space: the law's own exponents (c1 * f1 = 47 and 1 / f1 = 11 in the published instance) overflow float64
when they are evaluated as printed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tutelage.laws.families.supervised import SUPERVISED_NAMES, SupervisedLaw
from tutelage.laws.family import Column, Columns, Equation, Family, Parameter
from tutelage.laws.minimum import minimise
from tutelage.laws.numbers import FloatArray, Numbers

_HIGHEST_EXPONENT = 600.0
"""e to this is far beyond any loss and still finite."""


@dataclass(frozen=True)
class DistillationLaw(ABC):
    """L_S = L_T + L_T^(-c0) gap(L_T / Lsup_S) (A' / N_S^alpha' + B' / D_S^beta')^gamma', the form of both families.

    Lsup_S is the supervised law at the student's own size and tokens. The law has L_S > L_T always: it cannot express a
    student that beats its teacher.

    Args:
        supervised: The supervised law, frozen inside this one.
        c0: Exponent of the teacher's loss.
        f1: Width of the gap's transition, in log loss.
        A_prime: Scale of the term in student parameters.
        B_prime: Scale of the term in student tokens.
        alpha_prime: Exponent of the student parameters.
        beta_prime: Exponent of the student tokens.
        gamma_prime: Outer exponent.

    Source: `busbridge2025` Eq. 8.
    """

    supervised: SupervisedLaw
    c0: float
    f1: float
    A_prime: float
    B_prime: float
    alpha_prime: float
    beta_prime: float
    gamma_prime: float

    family: ClassVar[str]
    own_names: ClassVar[tuple[str, ...]]
    units: ClassVar[dict[str, str]] = {"L_S": "nats per token", "L_T": "nats per token", "N_S": "parameters"}

    @property
    @abstractmethod
    def knee(self) -> float:
        """x0, the ratio L_T / Lsup_S at which a weaker teacher begins to cost the student.

        Below it the gap factor is close to 1, far above it the student is no better than its teacher. It is well
        determined by data.
        """

    @abstractmethod
    def _log_gap(self, log_ratio: FloatArray) -> FloatArray:
        """Log of the gap factor at ln(L_T / Lsup_S); 0 far below the knee, very negative far above it."""

    def coefficients(self) -> dict[str, float]:
        """The coefficients of this law and of the supervised law inside it, by name (primes as `_prime`)."""
        return {**self.supervised.coefficients(), **{name: getattr(self, name) for name in self.own_names}}

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
        capacity = self.gamma_prime * np.logaddexp(size, data)
        log_excess: FloatArray = -self.c0 * log_teacher + self._log_gap(log_teacher - supervised) + capacity
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
            The teacher's loss and the student's loss, nats per token, each of the broadcast shape; of shape (draws,
            points), or (draws, 1) for a single student, where the coefficients are of shape (draws, 1).
        """
        params, tokens = np.broadcast_arrays(
            np.asarray(student_params, dtype=np.float64), np.asarray(student_tokens, dtype=np.float64)
        )
        if np.ndim(self.c0) == 0:
            teacher, student = self._best_teacher(params.reshape(-1, 1), tokens.reshape(-1, 1))
            return teacher.reshape(params.shape)[()], student.reshape(params.shape)[()]
        pairs = zip(params.reshape(-1, 1, 1), tokens.reshape(-1, 1, 1), strict=True)
        found = [self._best_teacher(*pair) for pair in pairs]
        teachers, students = (np.stack(part, axis=-1) for part in zip(*found, strict=True))
        return teachers, students

    def _best_teacher(self, params: FloatArray, tokens: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Of each row, by inputs and coefficients of shape (rows, 1) or (1, 1); each result of shape (rows,)."""
        high = np.log(2.0) + self.supervised.log_predict(params, tokens)
        low = np.full_like(high, np.log(self.supervised.E))

        def log_student_loss(log_teacher: FloatArray) -> FloatArray:
            return self.log_predict(params, tokens, np.exp(log_teacher[..., 0]))

        best, least = minimise(log_student_loss, low, high)
        return np.exp(best[:, 0]), np.exp(least)


def as_distillation(equation: Equation) -> DistillationLaw:
    """The equation as the distillation law that it is.

    Raises:
        TypeError: It is not one.
    """
    if not isinstance(equation, DistillationLaw):
        raise TypeError("a student's loss needs a distillation law")
    return equation


@dataclass(frozen=True)
class KneeLaw(DistillationLaw):
    """The eight-parameter form: gap(x) = exp(-(x / x0)^(1/f1)), the limit of Eq. 8 as c1 grows with its knee kept.

    Runs determine f1 and x0, but neither c1 nor d1 apart from them: this is the form that is fitted.

    Args:
        x0: The knee, as L_T / Lsup_S.

    Source: own algebra on `busbridge2025` Eq. 8; a reconstruction, not printed there.
    """

    x0: float

    family: ClassVar[str] = "distillation"
    own_names: ClassVar[tuple[str, ...]] = (
        "c0", "x0", "f1", "A_prime", "B_prime", "alpha_prime", "beta_prime", "gamma_prime",
    )  # fmt: skip

    @property
    def knee(self) -> float:
        """x0 itself."""
        return self.x0

    def _log_gap(self, log_ratio: FloatArray) -> FloatArray:
        log_gap: FloatArray = -np.exp(np.minimum((log_ratio - np.log(self.x0)) / self.f1, _HIGHEST_EXPONENT))
        return log_gap


@dataclass(frozen=True)
class Eq8Law(DistillationLaw):
    """The printed form with nine parameters: gap(x) = [1 + (x / d1)^(1/f1)]^(-c1 f1).

    Args:
        c1: Strength of the capacity gap.
        d1: Place of its transition, as L_T / Lsup_S; the knee of the curve is elsewhere, see `knee`.

    Source: `busbridge2025` Eq. 8.
    """

    c1: float
    d1: float

    family: ClassVar[str] = "distillation-eq8"
    own_names: ClassVar[tuple[str, ...]] = (
        "c0", "c1", "f1", "d1", "A_prime", "B_prime", "alpha_prime", "beta_prime", "gamma_prime",
    )  # fmt: skip

    @property
    def knee(self) -> float:
        """x0 = d1 (c1 f1)^(-f1): unlike c1 and d1, it is well determined by data."""
        knee: float = self.d1 * (self.c1 * self.f1) ** -self.f1
        return knee

    def _log_gap(self, log_ratio: FloatArray) -> FloatArray:
        transition = np.logaddexp(0.0, (log_ratio - np.log(self.d1)) / self.f1)
        log_gap: FloatArray = -self.c1 * self.f1 * transition
        return log_gap


def _features(columns: Columns, supervised: SupervisedLaw | None) -> FloatArray:
    """Ln N_S, ln D_S, ln L_T and ln Lsup_S of each run, shape (runs, 4)."""
    if supervised is None:
        raise TypeError("a distillation law is fitted on a supervised law")
    own = supervised.log_predict(columns["N_S"], columns["D_S"])
    return np.column_stack([np.log(columns["N_S"]), np.log(columns["D_S"]), np.log(columns["L_T"]), own])


def _predict(equation: Equation, columns: Columns) -> FloatArray:
    return as_distillation(equation).predict(columns["N_S"], columns["D_S"], columns["L_T"])


def _build_knee(coefficients: Mapping[str, float]) -> KneeLaw:
    supervised = SupervisedLaw(**{name: coefficients[name] for name in SUPERVISED_NAMES})
    return KneeLaw(supervised, **{name: coefficients[name] for name in KneeLaw.own_names})


def _build_eq8(coefficients: Mapping[str, float]) -> Eq8Law:
    supervised = SupervisedLaw(**{name: coefficients[name] for name in SUPERVISED_NAMES})
    return Eq8Law(supervised, **{name: coefficients[name] for name in Eq8Law.own_names})


def _knee_kernel(theta: FloatArray, x: FloatArray, slope: FloatArray) -> float:
    size = theta[3] - theta[5] * x[0]
    data = theta[4] - theta[6] * x[1]
    apart = math.exp(-abs(size - data))
    inner = max(size, data) + math.log(1.0 + apart)
    size_share = (1.0 if size > data else apart) / (1.0 + apart)
    data_share = (apart if size > data else 1.0) / (1.0 + apart)
    f1 = math.exp(theta[2])
    place = (x[2] - x[3] - theta[1]) / f1
    bend = math.exp(min(place, 600.0))
    excess = -theta[0] * x[2] - bend + theta[7] * inner
    smaller = math.exp(-abs(excess - x[2]))
    log_loss: float = max(excess, x[2]) + math.log(1.0 + smaller)
    weight = (1.0 if excess > x[2] else smaller) / (1.0 + smaller)
    # Where the student is no better than its teacher, 0 times infinity is 0.
    bent = weight * bend if weight > 0.0 else 0.0
    of_size = weight * theta[7] * size_share
    of_data = weight * theta[7] * data_share
    slope[0] = -weight * x[2]
    slope[1] = bent / f1
    slope[2] = bent * place
    slope[3] = of_size
    slope[4] = of_data
    slope[5] = -of_size * x[0]
    slope[6] = -of_data * x[1]
    slope[7] = weight * inner
    return log_loss


def _eq8_kernel(theta: FloatArray, x: FloatArray, slope: FloatArray) -> float:
    size = theta[4] - theta[6] * x[0]
    data = theta[5] - theta[7] * x[1]
    apart = math.exp(-abs(size - data))
    inner = max(size, data) + math.log(1.0 + apart)
    size_share = (1.0 if size > data else apart) / (1.0 + apart)
    data_share = (apart if size > data else 1.0) / (1.0 + apart)
    f1 = math.exp(theta[2])
    strength = math.exp(theta[1]) * f1
    place = (x[2] - x[3] - theta[3]) / f1
    tail = math.exp(-abs(place))
    transition = max(place, 0.0) + math.log(1.0 + tail)
    share = (1.0 if place > 0.0 else tail) / (1.0 + tail)
    excess = -theta[0] * x[2] - strength * transition + theta[8] * inner
    smaller = math.exp(-abs(excess - x[2]))
    log_loss: float = max(excess, x[2]) + math.log(1.0 + smaller)
    weight = (1.0 if excess > x[2] else smaller) / (1.0 + smaller)
    of_size = weight * theta[8] * size_share
    of_data = weight * theta[8] * data_share
    slope[0] = -weight * x[2]
    slope[1] = -weight * strength * transition
    slope[2] = -weight * strength * (transition - share * place)
    slope[3] = weight * strength * share / f1
    slope[4] = of_size
    slope[5] = of_data
    slope[6] = -of_size * x[0]
    slope[7] = -of_data * x[1]
    slope[8] = weight * inner
    return log_loss


_INPUTS = (
    Column("N_S", "student_params", "parameters"),
    Column("D_S", "student_tokens", "tokens"),
    Column("L_T", "teacher_loss", "nats per token"),
)
_OWN = (
    Parameter("A_prime", -5.0, 40.0, (0.0, 20.0), log=True),
    Parameter("B_prime", -5.0, 40.0, (0.0, 20.0), log=True),
    Parameter("alpha_prime", 0.01, 3.0, (0.05, 1.5)),
    Parameter("beta_prime", 0.01, 3.0, (0.05, 1.5)),
    Parameter("gamma_prime", 0.02, 5.0, (0.1, 1.5)),
)
_C0 = Parameter("c0", -5.0, 20.0, (0.0, 5.0))
# f1 near 0 makes the knee a step, where the loss has no slope to follow.
_F1 = Parameter("f1", math.log(0.01), math.log(2.0), (math.log(0.03), math.log(0.5)), log=True)

FAMILIES = (
    Family(
        name="distillation",
        formula="L_S = L_T + L_T^(-c0) exp(-(L_T / (x0 Lsup_S))^(1/f1)) (A' / N_S^alpha' + B' / D_S^beta')^gamma'",
        source="busbridge2025 Eq. 8, its identified form (a reconstruction)",
        parameters=(_C0, Parameter("x0", math.log(0.2), math.log(5.0), (-0.5, 0.5), log=True), _F1, *_OWN),
        inputs=_INPUTS,
        loss="L_S",
        features=_features,
        kernel=_knee_kernel,
        build=_build_knee,
        predict=_predict,
        frozen=SUPERVISED_NAMES,
    ),
    Family(
        name="distillation-eq8",
        formula="L_S = L_T + L_T^(-c0) [1 + (L_T / (Lsup_S d1))^(1/f1)]^(-c1 f1) "
        "(A' / N_S^alpha' + B' / D_S^beta')^gamma'",
        source="busbridge2025 Eq. 8",
        parameters=(
            _C0,
            Parameter("c1", math.log(1e-2), math.log(1e6), (0.0, 8.0), log=True),
            _F1,
            Parameter("d1", math.log(0.2), math.log(20.0), (-0.5, 1.0), log=True),
            *_OWN,
        ),
        inputs=_INPUTS,
        loss="L_S",
        features=_features,
        kernel=_eq8_kernel,
        build=_build_eq8,
        predict=_predict,
        frozen=SUPERVISED_NAMES,
    ),
)
