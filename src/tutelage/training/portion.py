"""What members of a cohort take from one batch of the stream: their samples, and what was computed once for all.

Covers rows of batches, signals and block outputs, and a lesson that reads portions. A sample that a member takes twice
is there twice, one that it does not take is not there: weights are whole numbers, and every mean stays a mean. Does not
cover steps (`step`), the loop (`cohort`) or who takes what (`runs.cohort`).

Shape letters: B batch, T positions, N samples of a portion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from tutelage.objectives.signal import Signal
from tutelage.objectives.targets import SparseTargets
from tutelage.students.cohort import SharedPrefix, take_rows
from tutelage.training.step import Batch, Lesson

BatchT = TypeVar("BatchT", bound=Batch)


@dataclass(frozen=True)
class Handout(Generic[BatchT]):
    """One batch of the stream with what every member reads of it.

    Args:
        batch: All samples.
        teacher: The teacher's signal on them; None where no member asks for it.
        prefix: The outputs of the shared frozen blocks; empty where there are none.
    """

    batch: BatchT
    teacher: Signal | None
    prefix: tuple[Any, ...] = ()

    def portion(self, times: Sequence[int] | None) -> Portion[BatchT] | None:
        """A member's part; None if it takes no sample.

        Args:
            times: How often it takes each sample; None takes each once, without a copy.
        """
        if times is None or all(count == 1 for count in times):
            return Portion(self.batch, self.teacher, self.prefix)
        rows = [row for row, count in enumerate(times) for _ in range(count)]
        if not rows:
            return None
        rows_N = torch.tensor(rows, device=self.batch.keep_BT.device)
        teacher = None if self.teacher is None else _take_signal(self.teacher, rows_N)
        return Portion(_take_batch(self.batch, rows_N), teacher, take_rows(self.prefix, rows_N))

    def repeat(self, members: int) -> Portion[BatchT]:
        """All samples for each of so many members, one member's after the other's, without a teacher.

        Of the shared blocks the last alone is repeated; what those below put out is only read, as states.
        """
        rows_N = torch.arange(len(self.batch.keep_BT), device=self.batch.keep_BT.device).repeat(members)
        prefix = (*self.prefix[:-1], *(take_rows(output, rows_N) for output in self.prefix[-1:]))
        return Portion(_take_batch(self.batch, rows_N), None, prefix)


@dataclass(frozen=True)
class Portion(Generic[BatchT]):
    """What one member learns from in one micro-batch.

    Args:
        batch: Its samples.
        teacher: The teacher's signal on them.
        prefix: The outputs of the shared blocks on them.
        student: The member's own signal on them, where one pass was run for several members.
    """

    batch: BatchT
    teacher: Signal | None
    prefix: tuple[Any, ...]
    student: Signal | None = None

    @property
    def labels_BT(self) -> Tensor:  # noqa: N802  (shape letters)
        """The right class at each position."""
        return self.batch.labels_BT

    @property
    def keep_BT(self) -> Tensor:  # noqa: N802  (shape letters)
        """True where a position is supervised."""
        return self.batch.keep_BT


def read_portions(lesson: Lesson[BatchT], prefix: SharedPrefix) -> Lesson[Portion[BatchT]]:
    """The same lesson, from portions: the teacher and the shared blocks have answered already."""

    def student_forward(portion: Portion[BatchT]) -> Signal:
        if portion.student is not None:
            return portion.student
        with prefix.replay(lesson.student, portion.prefix):
            return lesson.student_forward(portion.batch)

    def teacher_forward(portion: Portion[BatchT]) -> Signal:
        if portion.teacher is None:
            raise ValueError("a member compares with a teacher, and the cohort was given none")
        return portion.teacher

    return Lesson(lesson.student, lesson.projectors, lesson.objective, student_forward, teacher_forward)


def _take_batch(batch: BatchT, rows_N: Tensor) -> BatchT:
    """Some samples of a batch: of its tensors by their first axis, of its tuples by their entries."""
    chosen = rows_N.tolist()
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(batch):  # type: ignore[arg-type]  # every batch is a dataclass
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = value[rows_N]
        elif isinstance(value, tuple):
            changes[field.name] = tuple(value[row] for row in chosen)
    taken: BatchT = dataclasses.replace(batch, **changes)  # type: ignore[type-var]
    return taken


def _take_signal(signal: Signal, rows_N: Tensor) -> Signal:
    taken = signal.map(lambda values: values[rows_N])
    if isinstance(signal.scores, SparseTargets):
        return dataclasses.replace(taken, scores=signal.scores.map(lambda values: values[rows_N]))
    return taken
