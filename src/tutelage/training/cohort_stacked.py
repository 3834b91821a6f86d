"""How the members of a cohort take their steps: in turn, or all in one pass with their adapters stacked.

Stacked, the members' samples go through one student's modules side by side (`students.stacked`), every member's loss is
its own, and one backward pass of their sum gives each its own gradient, since no trained weight is shared. Clip,
optimiser and schedule stay each member's. The numbers are those of steps in turn but for the order of some sums.

Covers the choice with its reason, and the stacked step. Does not cover steps in turn (`cohort_member`) or the loop
(`cohort`). A step that measures each term's own gradient is taken in turn.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from tutelage.objectives.signal import Signal
from tutelage.students.stacked import StackedStudents, why_not_stacked
from tutelage.training.cohort_member import LiveMember, Member
from tutelage.training.optimisation import MembersStep
from tutelage.training.portion import Handout, Portion
from tutelage.training.step import Batch, Process, StepReport

BatchT = TypeVar("BatchT", bound=Batch)


@dataclasses.dataclass(frozen=True)
class Stepping:
    """How members take their steps.

    Args:
        used: "in_turn" or "stacked".
        why: The reason, in one sentence.
    """

    used: MembersStep
    why: str


def choose_stepping(members: Sequence[Member[Any]], asked: MembersStep, device_type: str) -> Stepping:
    """How they take their steps: stacked where that is asked for and possible.

    Args:
        members: All of them.
        asked: "auto" is stacked on a CUDA GPU and in turn elsewhere.
        device_type: Of the training.
    """
    if asked == "in_turn":
        return Stepping("in_turn", "The recipe says so.")
    if asked == "auto" and device_type != "cuda":
        return Stepping("in_turn", "On a CPU stacked adapters save nothing that was measured.")
    reasons = list(_reasons_against(members))
    if reasons:
        return Stepping("in_turn", f"Adapters cannot be stacked: {'; '.join(reasons)}.")
    return Stepping("stacked", "The recipe says so." if asked == "stacked" else "The device is a GPU.")


class StackedStep(Generic[BatchT]):
    """Takes a step of several members at once.

    Args:
        live: All members, which `choose_stepping` found fit.
        process: An `accelerate.Accelerator`.
    """

    def __init__(self, live: Sequence[LiveMember[BatchT]], process: Process) -> None:
        place = _leading([one.member for one in live])
        if place is None:
            raise ValueError("no member puts out the states that all others compare")
        self._lead, self._process = live[place].lesson, process

    def take(
        self, going: Sequence[LiveMember[BatchT]], step: int, handouts: Sequence[Handout[BatchT]]
    ) -> list[StepReport | None]:
        """One step of each; None where a member's loss is not finite, which stops it alone.

        Args:
            going: The members that have not stopped.
            step: Its number.
            handouts: The step's micro-batches.
        """
        students = StackedStudents(self._lead.student, [one.lesson.student for one in going])
        whole = [Portion(handout.batch, handout.teacher, handout.prefix) for handout in handouts]
        begun = [one.stepper.begin(step, whole) for one in going]
        for handout, portion in zip(handouts, whole, strict=True):
            signals = students.run(functools.partial(self._forward, handout.repeat(len(going))))
            losses = [
                one.stepper.loss(own, dataclasses.replace(portion, student=signal))
                for one, own, signal in zip(going, begun, signals, strict=True)
            ]
            self._process.backward(sum(losses[1:], start=losses[0]))
        return [
            one.settle(step, functools.partial(one.stepper.finish, own)) for one, own in zip(going, begun, strict=True)
        ]

    def _forward(self, repeated: Portion[BatchT]) -> Signal:
        with self._process.autocast():
            return self._lead.student_forward(repeated)


def _reasons_against(members: Sequence[Member[Any]]) -> Iterator[str]:
    """Why these members cannot be stacked; every reason."""
    if len(members) == 1:
        yield "there is one member"
    if members[0].settings.gradient_checkpointing:
        yield "activations are recomputed (training.gradient_checkpointing)"
    for member in members:
        if member.times is not None and any(count != 1 for count in member.times):
            yield f"{member.name} does not take every sample once"
        reason = why_not_stacked(member.lesson.student)
        if reason is not None:
            yield f"{member.name} {reason}"
    if _leading(members) is None:
        yield "no member puts out the states that all others compare"


def _leading(members: Sequence[Member[Any]]) -> int | None:
    """The first member whose signal has all states that any of them compares."""
    wanted = {layer for member in members for layer in member.lesson.objective.student_layers}
    return next(
        (place for place, member in enumerate(members) if wanted <= set(member.lesson.objective.student_layers)), None
    )
