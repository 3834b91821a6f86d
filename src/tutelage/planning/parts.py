"""The values that a plan is made of, each with its JSON form.

Covers: what a scenario, ordinary training, a ranked teacher and a verdict hold. Does not cover: making them (`plan`).
Quantities that a scenario leaves free or that are given rather than chosen are None.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

from tutelage.laws.numbers import FloatArray
from tutelage.planning.scenarios import Teacher
from tutelage.records.estimate import Estimate

Ends: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class NearOptimal:
    """The choices whose student is within a share of the best loss, at the same cost.

    Each range is of one choice while the others make the best of it. An existing or a free teacher leaves all of the
    budget to the student: the range of tokens then says how few would do.

    Args:
        within: Share of the best loss.
        student_tokens: D_S; both ends the same where the tokens are given.
        teacher_params: N_T; None where the teacher is free or exists.
        teacher_tokens: D_T; None likewise, and where its training costs nothing.
        teacher_loss: L_T, nats per token; None where the teacher exists.
    """

    within: float
    student_tokens: Ends
    teacher_params: Ends | None = None
    teacher_tokens: Ends | None = None
    teacher_loss: Ends | None = None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


@dataclass(frozen=True)
class NearOptimalTraining:
    """Sizes, and the tokens that the budget leaves them, within a share of the best loss of ordinary training."""

    within: float
    params: Ends
    tokens: Ends

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


@dataclass(frozen=True)
class ScenarioPlan:
    """The best allocation in one scenario.

    Losses and the gain have the interval of this allocation's outcome; choices have that of the best choice (see
    `tutelage.planning.spread`).

    Args:
        text: The scenario in words.
        student_loss: L_S, nats per token.
        student_tokens: D_S.
        teacher_params: N_T; None where the teacher is free.
        teacher_tokens: D_T; None where the teacher is free or exists.
        teacher_loss: L_T, nats per token.
        compute: What one student costs, FLOPs.
        shares: The parts of `compute`: student, logits, teacher.
        gain: Loss of ordinary training of the same size, at the same cost (at the same tokens where tokens are the
            budget), minus `student_loss`; positive where distilling is better.
        teacher: Name of the teacher, where it exists.
        probability: Share of the draws in which `gain` is positive; None without draws.
        reachable: Share of the draws in which some budget reaches the target loss; None without draws or target.
        near_optimal: The choices within half a per cent of the best loss.
    """

    text: str
    student_loss: Estimate
    student_tokens: Estimate
    teacher_params: Estimate | None
    teacher_tokens: Estimate | None
    teacher_loss: Estimate
    compute: Estimate
    shares: dict[str, Estimate]
    gain: Estimate
    teacher: str | None = None
    probability: float | None = None
    reachable: float | None = None
    near_optimal: NearOptimal | None = None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


@dataclass(frozen=True)
class ComputeOptimal:
    """Ordinary training of the size that suits the budget best, its FLOPs, and what is nearly best."""

    params: Estimate
    tokens: Estimate
    loss: Estimate
    compute: Estimate
    near_optimal: NearOptimalTraining | None = None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


@dataclass(frozen=True)
class SupervisedPlan:
    """Ordinary training of the student's size with the whole budget.

    Args:
        loss: Nats per token.
        tokens: Training tokens.
        tokens_per_param: Their ratio to the student's size; above 20 or so the model is over-trained, as a model that
            is served a lot should be.
        compute: FLOPs.
        compute_optimal: The same budget (the same target) with the size left free.
        reachable: Share of the draws in which this size reaches the target loss; None without draws or target.
    """

    loss: Estimate
    tokens: Estimate
    tokens_per_param: Estimate
    compute: Estimate
    compute_optimal: ComputeOptimal | None
    reachable: float | None = None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


@dataclass(frozen=True)
class RankedTeacher:
    """What one existing teacher would make of the student.

    Args:
        teacher: The teacher.
        student_loss: L_S, nats per token; None where this teacher cannot serve the question.
        student_tokens: D_S; None likewise.
        compute: FLOPs of one student; None likewise.
        best_teacher_loss: Loss of the teacher that would serve these student tokens best.
        lost: How much more the student loses than with that teacher, nats per token.
        side: "too strong" where a weaker teacher would serve better, else "too weak".
        behind: Loss beyond that with the first of the list, nats per token; compute beyond it, FLOPs, where a target
            loss is asked for. None for the first.
        probability: Share of the draws in which this teacher is the best of the list; None without draws.
    """

    teacher: Teacher
    student_loss: Estimate | None = None
    student_tokens: Estimate | None = None
    compute: Estimate | None = None
    best_teacher_loss: Estimate | None = None
    lost: Estimate | None = None
    side: str | None = None
    behind: Estimate | None = None
    probability: float | None = None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        rest = as_document(self)
        del rest["teacher"]
        return {"name": self.teacher.name, "params": self.teacher.params, "loss": self.teacher.loss, **rest}


@dataclass(frozen=True)
class Verdict:
    """Distil or train?

    Args:
        choice: "distil", "train", "either" where the interval of the gain spans 0; None where the law cannot say.
        probability: Share of the joint draws in which the choice is right; in which distilling is better where the
            choice is "either". None where there are no draws.
        text: The choice and its reason, in a sentence or a few.
        reason: Why there is no probability.
        way: The scenario that the choice is about.
    """

    choice: str | None
    probability: float | None
    text: str
    reason: str
    way: str | None = None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


def as_document(value: object) -> dict[str, object]:
    """The fields of a frozen part by name; what they hold is made plain by the document that holds the part."""
    return {item.name: getattr(value, item.name) for item in fields(value)}  # type: ignore[arg-type]


def point(value: FloatArray | float) -> Estimate | None:
    """A number without an interval; None where it is not a number (free or given)."""
    number = float(value)
    return Estimate(number) if number == number else None


def known(value: FloatArray | float) -> Estimate:
    """A number without an interval that is always there."""
    return Estimate(float(value))
