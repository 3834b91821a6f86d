"""Cohorts: several students on one backbone learn from one stream of batches, each as if it were alone.

A step draws its batches once, asks the teacher once and runs the frozen blocks below every adapter once; then every
member takes its own optimiser step, with its own random generators, samples, objective, clip and schedule: in turn, or
all with one pass over stacked adapters (`cohort_stacked`). So a member's weights are those of the same student trained
alone by `loop.train` on the same stream: to the bit, at equal threads, where it takes every sample once and in turn.

Covers the loop, one checkpoint of all members, resuming, and stopping a member whose loss is not finite. Does not cover
the members' arithmetic (`step`, `cohort_member`), several processes (a cohort is one; runs go side by side), or checks
on a dev split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from accelerate import Accelerator

from tutelage.errors import DivergedError, InputError, InterruptedRunError
from tutelage.objectives.signal import Signal
from tutelage.progress import Talk
from tutelage.records.document import jsonable
from tutelage.students.cohort import SharedPrefix
from tutelage.training import state
from tutelage.training.checkpoint import (
    Snapshot,
    find_checkpoint,
    open_checkpoint,
    require_same_recipe,
    save_checkpoint,
)
from tutelage.training.cohort_member import LiveMember, Member, Stopped
from tutelage.training.cohort_stacked import StackedStep, Stepping, choose_stepping
from tutelage.training.device import describe_environment, limit_threads, require_precision
from tutelage.training.interruption import stop_on_signals
from tutelage.training.loop import Keeping, Stream, Trained, Watch
from tutelage.training.optimisation import MembersStep
from tutelage.training.portion import Handout
from tutelage.training.recompute import recompute_activations
from tutelage.training.step import Batch, StepReport

BatchT = TypeVar("BatchT", bound=Batch)

_SHARED = ("steps", "batch_size", "accumulate", "checkpoint_every", "threads", "gradient_checkpointing")
_ALONE = ("early_stop", "keep_best", "trackers")
_STREAM = "stream"  # names the data's random states in a checkpoint; no member may be called so


@dataclass(frozen=True)
class Cohort(Generic[BatchT]):
    """Students that learn together.

    Args:
        members: At least one.
        teacher: Its signal on a batch, with the states that any member compares; None where no member asks for it.
        data_seed: Of what making a batch draws.
        share_prefix: Run the frozen blocks below every adapter once for all, where that changes no number.
        members_step: How members take their steps.
        recall: From a batch to the outputs of the frozen blocks that all share, as they were kept before; () where they
            are to be run.
    """

    members: tuple[Member[BatchT], ...]
    teacher: Callable[[BatchT], Signal] | None = None
    data_seed: int = 0
    share_prefix: bool = True
    members_step: MembersStep = "auto"
    recall: Callable[[BatchT], tuple[Any, ...]] | None = None

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if not names or len(set(names)) != len(names) or _STREAM in names:
            raise ValueError(f"a cohort needs members of different names, none of them {_STREAM!r}, not {names}")
        first = self.members[0].settings
        for member in self.members:
            other = [name for name in _SHARED if getattr(member.settings, name) != getattr(first, name)]
            if other:
                raise ValueError(f"{member.name} has other {', '.join(other)} than {names[0]}; members share them")
            asked = [name for name in _ALONE if getattr(member.settings, name, None)]
            if asked:
                raise ValueError(f"{member.name} has {', '.join(asked)}, which a cohort does not offer")


@dataclass(frozen=True)
class MemberTrained:
    """What became of a member.

    Args:
        trained: Its training; `seconds` are those of the whole cohort.
        tokens: Positions that it was trained on.
        skipped: Steps in which it had no sample.
        stopped: Why it did not finish; None if it did.
    """

    trained: Trained
    tokens: int
    skipped: int
    stopped: Stopped | None = None


@dataclass(frozen=True)
class CohortTrained:
    """A finished training.

    Args:
        members: By name, in the cohort's order.
        seconds: Wall-clock seconds in the loop, over all resumes.
        shared_blocks: Frozen blocks that were run once a batch for all.
        stepping: How members took their steps.
    """

    members: Mapping[str, MemberTrained]
    seconds: float
    shared_blocks: int
    stepping: Stepping

    @property
    def finished(self) -> tuple[str, ...]:
        """Members that did."""
        return tuple(name for name, found in self.members.items() if found.stopped is None)


def train_cohort(
    cohort: Cohort[BatchT],
    stream: Stream[BatchT],
    keeping: Keeping,
    accelerator: Accelerator,
    watch: Watch | None = None,
) -> CohortTrained:
    """Train every member in place.

    Args:
        cohort: The members.
        stream: Where batches come from; one stream for all.
        keeping: What is left on disk: one checkpoint of all members, and `members/NAME/log.jsonl` of each.
        accelerator: From `open_accelerator`; one process.
        watch: Who is told; `on_step` is called with every member's report in turn.

    Raises:
        InputError: The device, the checkpoint or the recipe do not fit, before any step.
        InterruptedRunError: The user stopped the run; the checkpoint is complete.
        DivergedError: No member is left.
        TutelageError: A checkpoint cannot be written.
    """
    require_precision(accelerator.device.type, accelerator.mixed_precision)
    if accelerator.num_processes > 1:
        raise InputError(
            f"A cohort learns in one process, and there are {accelerator.num_processes}. Start it without a launcher; "
            "independent runs go side by side."
        )
    settings = cohort.members[0].settings
    with limit_threads(settings.threads), ExitStack() as stack:
        for member in cohort.members:
            stack.callback(member.lesson.set_training, False)
            stack.enter_context(recompute_activations(member.lesson.student, settings.gradient_checkpointing))
        return _Training(cohort, stream, keeping, accelerator).run(watch or Watch())


class _Training(Generic[BatchT]):
    """The live objects of one training; `run` is the loop."""

    def __init__(
        self, cohort: Cohort[BatchT], stream: Stream[BatchT], keeping: Keeping, accelerator: Accelerator
    ) -> None:
        self._cohort, self._stream, self._keeping, self._accelerator = cohort, stream, keeping, accelerator
        self._settings = cohort.members[0].settings
        self._recipe = jsonable(keeping.recipe)
        self._prefix = SharedPrefix([member.lesson.student for member in cohort.members])
        if not cohort.share_prefix or self._settings.gradient_checkpointing:
            self._prefix.depth = 0  # recomputing would run the blocks again
        folder = keeping.folder / "members"
        self._live = [LiveMember(member, accelerator, self._prefix, folder / member.name) for member in cohort.members]
        self._stepping = choose_stepping(cohort.members, cohort.members_step, accelerator.device.type)
        self._stacked = StackedStep(self._live, accelerator) if self._stepping.used == "stacked" else None
        state.seed_randomness(cohort.data_seed)
        self._randomness: Mapping[str, Any] = state.capture_randomness()
        self._seconds_before = 0.0
        self._started = time.monotonic()

    def run(self, watch: Watch) -> CohortTrained:
        steps = self._settings.steps
        start = self._begin(watch.talk)
        if self._stepping.used != self._cohort.members_step != "auto":
            watch.talk(f"members take their steps in turn. {self._stepping.why}")
        for one in self._live:
            one.member.lesson.set_training(True)
        with stop_on_signals() as stop, watch.progress("distil", steps, "step", start or 0) as advance:
            for step in range((start or 0) + 1, steps + 1):
                losses = self._take(step, watch)
                advance(1, note="loss " + ", ".join(losses))
                if stop.requested or step == steps or step % self._settings.checkpoint_every == 0:
                    self._save(step)
                if stop.requested:
                    raise self._interrupted(step)
        if stop.requested:  # while the last checkpoint was being written
            raise self._interrupted(steps)
        return CohortTrained(
            {one.member.name: self._found(one, start) for one in self._live},
            self._seconds(),
            self._prefix.depth,
            self._stepping,
        )

    def _take(self, step: int, watch: Watch) -> list[str]:
        """One step of every member; returns their losses in words."""
        words = {one.member.name: "stopped" for one in self._live}
        for one, report in self._reports(step, (step - 1) % watch.measure_every == 0):
            name = one.member.name
            if one.stopped is not None:
                watch.talk(f"member {name} is stopped, the others go on. {one.stopped.reason}")
                continue
            if report is not None and watch.on_step is not None:
                watch.on_step(report)
            words[name] = "-" if report is None else f"{report.total:.3f}"
        if all(one.stopped is not None for one in self._live):
            raise DivergedError("\n".join(["No member of the cohort is left.", *self._reasons()]))
        return [f"{name} {word}" for name, word in words.items()]

    def _reports(self, step: int, measure: bool) -> Iterator[tuple[LiveMember[BatchT], StepReport | None]]:
        """What every member that goes on did; in turn, the next begins when the one before has been dealt with."""
        drawn, handouts = self._next_batches()
        going = [one for one in self._live if one.stopped is None]
        if self._stacked is not None and not measure:
            yield from zip(going, self._stacked.take(going, step, handouts), strict=True)
            return
        for one in going:
            yield one, one.take(step, handouts, drawn, measure)

    def _reasons(self) -> list[str]:
        return [f"{one.member.name}: {one.stopped.reason}" for one in self._live if one.stopped is not None]

    def _next_batches(self) -> tuple[list[Sequence[int]], list[Handout[BatchT]]]:
        """The step's micro-batches with the teacher's signal and the shared blocks' outputs on them."""
        state.restore_randomness(self._randomness)
        drawn = [self._stream.sampler.next_batch() for _ in range(self._settings.accumulate)]
        batches = [self._stream.make_batch(indices) for indices in drawn]
        batches = [batch.to(self._accelerator.device) if hasattr(batch, "to") else batch for batch in batches]
        self._randomness = state.capture_randomness()
        return drawn, [self._hand_out(batch) for batch in batches]

    def _hand_out(self, batch: BatchT) -> Handout[BatchT]:
        teacher = self._cohort.teacher if any(one.asks_teacher for one in self._live) else None
        first = self._cohort.members[0].lesson

        def forward() -> Signal:
            with self._accelerator.autocast():
                return first.student_forward(batch)

        kept = () if self._cohort.recall is None else self._cohort.recall(batch)
        return Handout(batch, None if teacher is None else teacher(batch), kept or self._prefix.record(forward))

    def _begin(self, talk: Talk) -> int | None:
        """Continue from a checkpoint or write the first; returns the step continued from."""
        keeping = self._keeping
        found = find_checkpoint(keeping.checkpoints)
        if found is not None and not keeping.resume:
            raise InputError(f"{keeping.folder} holds a training already ({found.name}). Resume it, or choose another.")
        if found is None:
            self._save(0)
            for one in self._live:
                one.log.path.parent.mkdir(parents=True, exist_ok=True)
                one.log.rewind(0)
            return None
        snapshot = open_checkpoint(found)
        require_same_recipe(snapshot, self._recipe, self._schedules())
        for name, value in self._environment().items():
            was = snapshot.environment.get(name)
            if was != value:
                talk(f"{name} was {was} and is {value}: numbers may differ in their last digits from the run so far.")
        for one in self._live:
            one.restore(snapshot.weights, snapshot.moments, snapshot.randomness)
            stopped = snapshot.sampler["stopped"].get(one.member.name)
            one.stopped = None if stopped is None else Stopped(**stopped)
            one.log.rewind(snapshot.step)
        try:
            self._stream.sampler.load_state_dict(snapshot.sampler["samples"])
        except ValueError as error:
            raise InputError(f"The data changed since the run was interrupted: {error}") from error
        self._randomness = {
            name.removeprefix(f"{_STREAM}/"): value
            for name, value in snapshot.randomness.items()
            if name.startswith(f"{_STREAM}/")
        }
        self._seconds_before = snapshot.seconds
        return snapshot.step

    def _save(self, step: int) -> None:
        weights: dict[str, Any] = {}
        moments: dict[str, Any] = {}
        randomness: dict[str, Any] = {f"{_STREAM}/{name}": value for name, value in self._randomness.items()}
        for one in self._live:
            one.log.sync()
            for all_of_them, mine in zip((weights, moments, randomness), one.capture(), strict=True):
                all_of_them |= mine
        snapshot = Snapshot(
            step=step,
            seconds=self._seconds(),
            weights=weights,
            moments=moments,
            randomness=randomness,
            sampler={
                "samples": jsonable(self._stream.sampler.state_dict()),
                "stopped": {one.member.name: note for one in self._live if (note := one.note()) is not None},
            },
            schedule=self._schedules(),
            recipe=self._recipe,
            environment=self._environment(),
        )
        save_checkpoint(self._keeping.checkpoints, snapshot)

    def _schedules(self) -> dict[str, Any]:
        return {member.name: jsonable(asdict(member.settings)) for member in self._cohort.members}

    def _environment(self) -> dict[str, Any]:
        return describe_environment(self._accelerator, self._live[0].optimizer)

    def _found(self, one: LiveMember[BatchT], start: int | None) -> MemberTrained:
        reports: tuple[StepReport, ...] = one.log.read()
        steps = self._settings.steps if one.stopped is None else one.stopped.step - 1
        trained = Trained(steps, self._seconds(), start, reports[-1] if reports else None)
        tokens = sum(report.positions for report in reports)
        return MemberTrained(trained, tokens, steps - len(reports), one.stopped)

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _interrupted(self, step: int) -> InterruptedRunError:
        return InterruptedRunError(
            f"Stopped after step {step} of {self._settings.steps}; the checkpoint is complete. Continue with: "
            f"{self._keeping.resume_command}"
        )
