"""Who pays for the teacher: the scenarios of a distillation plan.

Covers: the shares of the teacher's inference and training that one student pays for. Does not cover: the optimum under
them (`optimum`), nor a teacher that exists already and is given by its size and its measured loss (`Teacher`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.units import Nats, Params

LOWEST, HIGHEST = 1e6, 1e17
"""The range within which sizes and token counts are chosen (`busbridge2025`, its bounds)."""


@dataclass(frozen=True)
class Scenario:
    """What one student pays for.

    Args:
        name: The key in documents.
        d_logits: Share of the teacher's forward passes over the student's tokens.
        d_pretrain: Share of the teacher's training.
        text: The scenario in words.
    """

    name: str
    d_logits: float
    d_pretrain: float
    text: str

    @property
    def free_teacher(self) -> bool:
        """Whether the teacher costs nothing, so that only its loss is chosen."""
        return self.d_logits == 0.0 and self.d_pretrain == 0.0


@dataclass(frozen=True)
class Teacher:
    """A teacher that exists.

    Args:
        name: What the user calls it.
        params: Its non-embedding parameters.
        loss: Its measured loss, in nats per token, on the student's held-out data and tokenizer.
    """

    name: str
    params: Params
    loss: Nats


BEST = Scenario("best", 0.0, 0.0, "the teacher is free")
INFERENCE = Scenario("inference", 1.0, 0.0, "any teacher exists; pay for its logits")
PRETRAINING = Scenario("pretraining", 0.0, 1.0, "train the teacher; its logits are stored and free")
BOTH = Scenario("both", 1.0, 1.0, "train the teacher for this one student and pay for its logits")


def shared(students: int) -> Scenario:
    """The teacher is trained once for `students` students, which share its logits too."""
    return Scenario("shared", 1.0 / students, 1.0 / students, f"train the teacher for {students} students of this kind")


def scenarios_for(students: int = 1) -> tuple[Scenario, ...]:
    """The scenarios that a plan compares, cheapest teacher first; `shared` where there are several students."""
    alone = (BEST, INFERENCE, PRETRAINING, BOTH)
    return (*alone, shared(students)) if students > 1 else alone
