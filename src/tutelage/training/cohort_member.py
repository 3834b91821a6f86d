"""One member of a cohort: what it learns, and its live state between steps.

Covers its optimiser, its own random generators, its steps and its log, and taking its state out and putting it back.
Does not cover the batches and the order of members (`cohort`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from tutelage.errors import DivergedError
from tutelage.students.cohort import SharedPrefix
from tutelage.training import state
from tutelage.training.device import make_optimizer
from tutelage.training.optimisation import Optimisation, learning_rate_at
from tutelage.training.portion import Handout, read_portions
from tutelage.training.step import Batch, Lesson, Process, Stepper, StepReport
from tutelage.training.step_log import StepLog

BatchT = TypeVar("BatchT", bound=Batch)


@dataclass(frozen=True)
class Member(Generic[BatchT]):
    """One student of a cohort.

    Args:
        name: Unique; names its log.
        lesson: What it learns from whom; its student shares frozen weights with the others (`share_weights`).
        settings: How; steps, batches and checkpoints are those of every member.
        seed: Of its random generators (adapter dropout).
        times: How often it takes each sample of the stream, by index; None takes each once.
    """

    name: str
    lesson: Lesson[BatchT]
    settings: Optimisation
    seed: int
    times: Sequence[int] | None = None


@dataclass(frozen=True)
class Stopped:
    """A member that did not finish.

    Args:
        step: The step that could not be taken.
        reason: One sentence.
    """

    step: int
    reason: str


class LiveMember(Generic[BatchT]):
    """A member that is being trained.

    Args:
        member: The member.
        process: An `accelerate.Accelerator`.
        prefix: The blocks that all members share.
        folder: Takes `log.jsonl`.

    Its `lesson` reads portions, and so does its `stepper`.
    """

    def __init__(self, member: Member[BatchT], process: Process, prefix: SharedPrefix, folder: Path) -> None:
        self.member, self.log = member, StepLog(folder / "log.jsonl")
        self.stopped: Stopped | None = None
        self.lesson = read_portions(member.lesson, prefix)
        self._trainable = self.lesson.trainable()
        self.optimizer = make_optimizer(list(self._trainable.values()), member.settings)
        self.stepper = Stepper(self.lesson, self.optimizer, member.settings.clip_norm, process)
        state.seed_randomness(member.seed)
        self._randomness: Mapping[str, Tensor] = state.capture_randomness()

    @property
    def asks_teacher(self) -> bool:
        """Whether it goes on, and compares with a teacher."""
        return self.stopped is None and self.member.lesson.objective.needs_teacher

    def take(
        self, step: int, handouts: Sequence[Handout[BatchT]], drawn: Sequence[Sequence[int]], measure: bool
    ) -> StepReport | None:
        """One step on its samples.

        Args:
            step: Its number.
            handouts: The step's micro-batches.
            drawn: The indices of their samples.
            measure: Whether to measure each term's own gradient norm.

        Returns:
            The report; None where it takes no sample of this step, or its loss is not finite, which stops it.
        """
        portions = [
            portion
            for handout, indices in zip(handouts, drawn, strict=True)
            if (portion := handout.portion(self._times(indices))) is not None
        ]
        if not portions:
            return None
        state.restore_randomness(self._randomness)
        report = self.settle(step, lambda rate: self.stepper.take(step, portions, rate, measure))
        self._randomness = state.capture_randomness()
        return report

    def settle(self, step: int, update: Callable[[float], StepReport]) -> StepReport | None:
        """Make a step's update and log it.

        Args:
            step: Its number.
            update: From the step's learning rate to the report.

        Returns:
            The report; None where the loss is not finite, which stops the member.
        """
        try:
            report = update(learning_rate_at(step - 1, self.member.settings))
        except DivergedError as error:
            self.stopped = Stopped(step, str(error))
            return None
        self.log.append(report)
        return report

    def capture(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Its weights, moments and random states, every name behind its own."""
        mine = f"{self.member.name}/"
        parts = (
            state.capture_weights(self._trainable),
            state.capture_moments(self.optimizer, self._trainable),
            self._randomness,
        )
        weights, moments, randomness = ({mine + name: value for name, value in part.items()} for part in parts)
        return weights, moments, randomness

    def restore(
        self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], randomness: Mapping[str, Tensor]
    ) -> None:
        """Take its own out of what all members saved.

        Raises:
            InputError: The weights are of another student.
        """
        state.restore_weights(self._trainable, self._mine(weights))
        state.restore_moments(self.optimizer, self._trainable, self._mine(moments))
        self._randomness = self._mine(randomness)

    def note(self) -> dict[str, Any] | None:
        """Why it stopped, as JSON values."""
        return None if self.stopped is None else asdict(self.stopped)

    def _times(self, indices: Sequence[int]) -> list[int] | None:
        times = self.member.times
        return None if times is None else [times[index] for index in indices]

    def _mine(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        mine = f"{self.member.name}/"
        return {name.removeprefix(mine): value for name, value in values.items() if name.startswith(mine)}
