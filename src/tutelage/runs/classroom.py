"""A classroom: everything alive during a run, and what every task's classroom can do.

The order in which it is asked stands in `distil`. Covers the interface and what passes through it. Does not cover how
any task does it (`speech.classroom`, `text.classroom`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from accelerate import Accelerator

from tutelage.records.estimate import Estimate
from tutelage.runs.folder import RunFolder
from tutelage.runs.materials import Materials
from tutelage.runs.result import Findings
from tutelage.training.loop import Stream, Trained
from tutelage.training.preflight import PreflightReport
from tutelage.training.step import Batch, Lesson

BatchT = TypeVar("BatchT", bound=Batch)


@dataclass(frozen=True)
class Course(Generic[BatchT]):
    """What happened before the end of a run.

    Args:
        rehearsal: The checks before the first step.
        untrained: What was judged before training.
        trained: The training.
        verdict: The trained student's row, where it was judged already.
    """

    rehearsal: PreflightReport
    untrained: Sequence[Any]
    trained: Trained
    verdict: Any = None


class Classroom(Protocol[BatchT]):
    """Who learns what from whom, with what; one task's."""

    @property
    def materials(self) -> Materials:
        """Recipe, data and model folders."""

    @property
    def accelerator(self) -> Accelerator:
        """The device."""

    @property
    def lesson(self) -> Lesson[BatchT]:
        """Student, teacher, projectors and objective."""

    @property
    def choices(self) -> Mapping[str, Any]:
        """What was chosen by measuring, and must be again when a run is resumed; plain values."""

    def rehearse(self) -> PreflightReport:
        """Every check before the first step.

        Raises:
            PreflightError: One of them failed.
        """

    def judge_untrained(self) -> Sequence[Any]:
        """The teacher, and the student before training, on held-out data."""

    def stream(self) -> Stream[BatchT]:
        """The training batches, in the recipe's order."""

    def judge_dev(self, metric: str) -> Estimate:
        """The student on the dev split, while it trains.

        Args:
            metric: "loss" (nats per token), or another that the task measures; less is better.
        """

    def judge_trained(self, name: str, untrained: Sequence[Any]) -> Any:
        """The student after training, on held-out data; `untrained` is what `judge_untrained` found."""

    def conclude(self, folder: RunFolder, course: Course[BatchT]) -> Findings:
        """Judge the trained student, write it down, and gather what was found."""
