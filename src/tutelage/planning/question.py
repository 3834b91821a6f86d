"""What is asked of a plan: a student, one kind of budget, and the teachers at hand.

Covers: the question as a checked value. Does not cover: reading it from a command line.
"""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.errors import InputError
from tutelage.laws.validity import not_positive
from tutelage.planning.hardware import Hardware
from tutelage.planning.lora import LoraStudent
from tutelage.planning.scenarios import HIGHEST, LOWEST, Teacher
from tutelage.planning.storage import TeacherCache
from tutelage.units import Flops, Nats, Params, Tokens, format_quantity


@dataclass(frozen=True)
class Question:
    """A student and exactly one of a compute budget, a token budget and a target loss.

    Args:
        student_params: N_S, parameters as the law counts them; None where it is to be found for a target loss.
        compute: FLOPs that one student may cost, its share of the teacher included.
        tokens: Tokens that the student is trained on.
        target_loss: Loss that the student should reach, nats per token.
        teachers: Teachers that exist, of different names.
        students: How many students of this kind share a teacher and its logits.
        modality: What the student reads; a law of another modality is not applied.
        hardware: The device that hours, money and energy are counted for.
        serving: The device that serves the student; None for `hardware`.
        served_tokens: Tokens that the finished student will process.
        unique_tokens: U, distinct tokens that there are to train on; None for as many as are asked for.
        lora: Adapters that are trained instead of every weight.
        cache: How the teacher's signal is kept, where it is computed once and read again.
        asked: The budget as the user gave it, where it was not FLOPs, tokens or a loss; a phrase.

    Raises:
        InputError: With every fault.
    """

    student_params: Params | None
    compute: Flops | None = None
    tokens: Tokens | None = None
    target_loss: Nats | None = None
    teachers: tuple[Teacher, ...] = ()
    students: int = 1
    modality: str = "text"
    hardware: Hardware | None = None
    serving: Hardware | None = None
    served_tokens: Tokens | None = None
    unique_tokens: Tokens | None = None
    lora: LoraStudent | None = None
    cache: TeacherCache | None = None
    asked: str = ""

    def __post_init__(self) -> None:
        budgets = {"compute": self.compute, "tokens": self.tokens, "target_loss": self.target_loss}
        given = [name for name, value in budgets.items() if value is not None]
        faults = [] if len(given) == 1 else [_one_budget(given)]
        numbers = {
            "student_params": self.student_params,
            **{name: budgets[name] for name in given},
            "served_tokens": self.served_tokens,
            "unique_tokens": self.unique_tokens,
        }
        for teacher in self.teachers:
            numbers |= {
                f"teacher {teacher.name}: params": teacher.params,
                f"teacher {teacher.name}: loss": teacher.loss,
            }
        faults += not_positive(numbers)
        if self.student_params is None and self.target_loss is None:
            faults.append("no student_params: the student's size is looked for only where a target loss is given")
        if self.student_params is None and self.unique_tokens is not None:
            faults.append("unique_tokens needs student_params: the size for a target is looked for with fresh tokens")
        if self.serving is not None and self.served_tokens is None:
            faults.append("serving hardware is given without served_tokens")
        names = [teacher.name for teacher in self.teachers]
        faults += [f"two teachers are called {name!r}" for name in sorted(set(names)) if names.count(name) > 1]
        if self.students < 1:
            faults.append(f"students is {self.students}; it must be at least 1")
        if faults:
            raise InputError(faults)

    @property
    def size(self) -> Params:
        """N_S, where it is given; a plan without it looks for it first.

        Raises:
            ValueError: It is not given.
        """
        if self.student_params is None:
            raise ValueError("the student's size is not given")
        return self.student_params

    @property
    def budget(self) -> str:
        """The kind of budget: "compute", "tokens" or "target_loss"."""
        if self.compute is not None:
            return "compute"
        return "tokens" if self.tokens is not None else "target_loss"

    def require_within_bounds(self) -> None:
        """Check that the given size and tokens lie in the range that a plan chooses within.

        Raises:
            InputError: With every fault.
        """
        low, high = format_quantity(LOWEST), format_quantity(HIGHEST)
        faults = [
            f"{name} is {format_quantity(value)}; a plan is made within {low} to {high}"
            for name, value in (("student_params", self.student_params), ("tokens", self.tokens))
            if value is not None and not LOWEST <= value <= HIGHEST
        ]
        if faults:
            raise InputError(faults)


def _one_budget(given: list[str]) -> str:
    if not given:
        return "no budget: give one of compute, tokens and target_loss"
    return f"{' and '.join(given)} are given; give one of compute, tokens and target_loss"
