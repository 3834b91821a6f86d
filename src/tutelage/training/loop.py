"""The training loop: from a lesson and a stream of batches to a trained student, in one process or several.

Covers the schedule, the checkpoints, interruption, resuming to the same numbers, and the log. Does not cover a step's
arithmetic (`step`), the checks before it (`preflight`), what a batch is (`tasks`), devices (`device`), or scoring. The
state saving of Accelerate is not used: it pickles, and saves the frozen model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from accelerate import Accelerator

from tutelage.errors import InputError, InterruptedRunError
from tutelage.progress import Progress, Talk, no_progress, say_nothing
from tutelage.records.document import jsonable
from tutelage.training import state
from tutelage.training.checkpoint import (
    Snapshot,
    find_checkpoint,
    open_checkpoint,
    require_same_recipe,
    save_checkpoint,
)
from tutelage.training.dev_checks import DevChecks, JudgeDev
from tutelage.training.device import describe_environment, limit_threads, make_optimizer, require_precision
from tutelage.training.interruption import stop_on_signals
from tutelage.training.optimisation import Optimisation, learning_rate_at
from tutelage.training.recompute import recompute_activations
from tutelage.training.selection import DevCheck
from tutelage.training.step import Batch, Lesson, Stepper, StepReport
from tutelage.training.step_log import StepLog
from tutelage.training.trackers import open_trackers

BatchT = TypeVar("BatchT", bound=Batch)


class Sampler(Protocol):
    """Which samples come next, epoch after epoch (`tasks.sampler.EpochSampler`)."""

    def next_batch(self) -> Sequence[int]:
        """Indices of the next micro-batch, over all ranks."""

    def state_dict(self) -> Mapping[str, Any]:
        """Its position; plain JSON values."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go to a position."""


@dataclass(frozen=True)
class Stream(Generic[BatchT]):
    """Where batches come from.

    Args:
        sampler: Yields indices; every rank draws the same ones and takes its share.
        make_batch: Turns indices into a batch, which is moved to the accelerator's device if it has a method `to`. It
            must depend on nothing but the indices and the global random generators, or a resumed run differs.
    """

    sampler: Sampler
    make_batch: Callable[[Sequence[int]], BatchT]


@dataclass(frozen=True)
class Keeping:
    """What a training leaves on disk, and how it continues.

    Args:
        folder: Takes `log.jsonl`, `checkpoints/` and, with a dev split, `dev.jsonl`.
        recipe: The resolved recipe; resuming with another is refused.
        resume: Continue from the checkpoint in `folder`, if there is one.
        resume_command: What the user types to continue; part of the message of an interruption.
    """

    folder: Path
    recipe: Mapping[str, Any]
    resume: bool = False
    resume_command: str = "the same command with --resume"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    @property
    def log(self) -> StepLog:
        """The log of steps."""
        return StepLog(self.folder / "log.jsonl")


@dataclass(frozen=True)
class Watch:
    """Who is told what.

    Args:
        progress: Opens the bar.
        talk: Takes remarks, such as a library that changed since the checkpoint.
        on_step: Called after every step, once its line is in the log.
        measure_every: Steps between two measurements of each term's own gradient norm; the first step is measured.
        judge: Measures a metric on the dev split; needed where the settings ask for it.
    """

    progress: Progress = no_progress
    talk: Talk = say_nothing
    on_step: Callable[[StepReport], None] | None = None
    measure_every: int = 25
    judge: JudgeDev | None = None


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Args:
        steps: Optimiser steps taken, over all resumes.
        seconds: Wall-clock seconds in the loop, checks on the dev split among them, over all resumes.
        resumed_from: Step of the checkpoint that this process continued from, or None.
        last: The last step's report, from this process or from the log of an earlier one; None if the log is gone.
        best: The dev split's best check; None without checks.
        stopped_early: Whether the dev split ended the training.
        kept_step: The step whose weights the student has; None for the last.
    """

    steps: int
    seconds: float
    resumed_from: int | None
    last: StepReport | None
    best: DevCheck | None = None
    stopped_early: bool = False
    kept_step: int | None = None


def train(
    lesson: Lesson[BatchT],
    stream: Stream[BatchT],
    settings: Optimisation,
    keeping: Keeping,
    accelerator: Accelerator,
    seed: int,
    watch: Watch | None = None,
) -> Trained:
    """Train the student and the projectors in place.

    The global random generators are seeded here, so that what ran before changes nothing. A checkpoint is written
    before the first step, every `settings.checkpoint_every` steps, after the last, and when Ctrl-C or SIGTERM arrives.
    Where the best step is kept, the student has its weights in the end.

    Args:
        lesson: Who learns what from whom; its modules are on the accelerator's device.
        stream: Where batches come from.
        settings: How.
        keeping: What is left on disk.
        accelerator: From `open_accelerator`.
        seed: Of the global random generators (adapter dropout, augmentation); every rank adds its own number.
        watch: Who is told.

    Returns:
        What was done. Student and projectors are left in evaluation mode.

    Raises:
        InputError: If the device, the precision, the checkpoint or the recipe do not fit, before any step.
        InterruptedRunError: If the user stopped the run; the checkpoint is complete.
        TutelageError: If a step is not finite, or a checkpoint cannot be written.
    """
    require_precision(accelerator.device.type, accelerator.mixed_precision)
    watch = watch or Watch()
    dev = DevChecks(lesson, settings, watch.judge, accelerator, keeping.folder / "dev.jsonl")
    training = _Training(lesson, stream, settings, keeping, accelerator, dev)
    with limit_threads(settings.threads), recompute_activations(lesson.student, settings.gradient_checkpointing):
        try:
            return training.run(seed, watch)
        finally:
            lesson.set_training(False)


class _Training(Generic[BatchT]):
    """The live objects of one training; `run` is the loop."""

    def __init__(
        self,
        lesson: Lesson[BatchT],
        stream: Stream[BatchT],
        settings: Optimisation,
        keeping: Keeping,
        accelerator: Accelerator,
        dev: DevChecks,
    ) -> None:
        self._lesson, self._stream, self._settings = lesson, stream, settings
        self._keeping, self._accelerator, self._dev = keeping, accelerator, dev
        self._recipe = jsonable(keeping.recipe)
        self._trainable = lesson.trainable()
        if not self._trainable:
            raise InputError("Nothing is trained: no parameter of the student or a projector requires a gradient.")
        self._optimizer = make_optimizer(list(self._trainable.values()), settings)
        self._seconds_before = 0.0
        self._started = time.monotonic()

    def run(self, seed: int, watch: Watch) -> Trained:
        settings, log, dev = self._settings, self._keeping.log, self._dev
        logged = log.read()
        resumed_from = self._begin(seed, watch.talk)
        step = resumed_from or 0
        stepper = Stepper(self._lesson, self._optimizer, settings.clip_norm, self._accelerator)
        trackers = settings.trackers if self._accelerator.is_main_process else ()
        self._lesson.set_training(True)
        with (
            stop_on_signals(patient=self._accelerator.num_processes > 1) as stop,
            open_trackers(trackers, self._keeping.folder, step, logged[-1].step if logged else 0) as send,
            watch.progress("distil", settings.steps, "step", step) as advance,
        ):
            while step < settings.steps and not dev.stopped:
                step += 1
                measure = (step - 1) % watch.measure_every == 0
                rate = learning_rate_at(step - 1, settings)
                report = stepper.take(step, self._next_batches(), rate, measure)
                if self._accelerator.is_main_process:
                    log.append(report)
                if watch.on_step is not None:
                    watch.on_step(report)
                check = dev.take(step)
                send(report, check)
                advance(1, note=f"loss {report.total:.3f}" + (f", dev {check.value:.3f}" if check else ""))
                stopping = self._any_rank(stop.requested)
                ended = dev.stopped or step == settings.steps
                if stopping or ended or step % settings.checkpoint_every == 0:
                    self._save(step)
                if stopping:
                    raise self._interrupted(step)
        if self._any_rank(stop.requested):  # while the last checkpoint was being written
            raise self._interrupted(step)
        return self._finish(step, resumed_from, watch.talk)

    def _finish(self, step: int, resumed_from: int | None, talk: Talk) -> Trained:
        """Take the best weights, where they are kept, and say what was done."""
        dev, reports = self._dev, self._keeping.log.read()
        early = dev.stopped and step < self._settings.steps
        kept = dev.best.step if dev.best is not None and self._settings.keep_best else None
        if early:
            talk(f"stopped after step {step} of {self._settings.steps}: {dev.why_stopped()}")
        if kept is not None:
            dev.load_best()
            talk(f"kept the weights of step {kept}, the best on the dev split")
        return Trained(step, self._seconds(), resumed_from, reports[-1] if reports else None, dev.best, early, kept)

    def _begin(self, seed: int, talk: Talk) -> int | None:
        """Seed, then continue from a checkpoint or write the first; returns the step continued from."""
        keeping, rank = self._keeping, self._accelerator.process_index
        found = find_checkpoint(keeping.checkpoints)
        if found is not None and not keeping.resume:
            raise InputError(f"{keeping.folder} holds a training already ({found.name}). Resume it, or choose another.")
        state.seed_randomness(seed + rank)
        if found is None:
            self._save(0)
            if self._accelerator.is_main_process:
                keeping.log.rewind(0)
            return None
        snapshot = open_checkpoint(found)
        require_same_recipe(snapshot, self._recipe, jsonable(self._settings.identity()))
        here = describe_environment(self._accelerator, self._optimizer)
        before = snapshot.environment.get("processes")
        if before != here["processes"]:
            raise InputError(f"The run used {before} processes and now has {here['processes']}; resume with {before}.")
        for name, value in here.items():
            if snapshot.environment.get(name) != value:
                was = snapshot.environment.get(name)
                talk(f"{name} was {was} and is {value}: numbers may differ in their last digits from the run so far.")
        state.restore_weights(self._trainable, snapshot.weights)
        state.restore_moments(self._optimizer, self._trainable, snapshot.moments)
        try:
            self._stream.sampler.load_state_dict(snapshot.sampler)
        except ValueError as error:
            raise InputError(f"The data changed since the run was interrupted: {error}") from error
        mine = f"{rank}/"
        state.restore_randomness(
            {key.removeprefix(mine): value for key, value in snapshot.randomness.items() if key.startswith(mine)}
        )
        self._dev.restore(snapshot.dev_checks, snapshot.best)
        self._seconds_before = snapshot.seconds
        if self._accelerator.is_main_process:
            keeping.log.rewind(snapshot.step)
        return snapshot.step

    def _next_batches(self) -> list[BatchT]:
        """This rank's share of the step's micro-batches; a rank may get no sample of a short one."""
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        drawn = [self._stream.sampler.next_batch()[rank::ranks] for _ in range(self._settings.accumulate)]
        batches = [self._stream.make_batch(indices) for indices in drawn if len(indices)]
        return [batch.to(self._accelerator.device) if hasattr(batch, "to") else batch for batch in batches]

    def _any_rank(self, stopping: bool) -> bool:
        if self._accelerator.num_processes == 1:
            return stopping
        votes = torch.tensor(int(stopping), device=self._accelerator.device)
        return bool(self._accelerator.reduce(votes, "sum"))

    def _save(self, step: int) -> None:
        randomness = self._gather_randomness()
        if self._accelerator.is_main_process:
            self._keeping.log.sync()
            snapshot = Snapshot(
                step=step,
                seconds=self._seconds(),
                weights=state.capture_weights(self._trainable),
                moments=state.capture_moments(self._optimizer, self._trainable),
                randomness=randomness,
                sampler=jsonable(self._stream.sampler.state_dict()),
                schedule=jsonable(self._settings.identity()),
                recipe=self._recipe,
                environment=describe_environment(self._accelerator, self._optimizer),
                dev_checks=self._dev.lines,
                best=self._dev.best_weights,
            )
            save_checkpoint(self._keeping.checkpoints, snapshot)
        self._accelerator.wait_for_everyone()

    def _gather_randomness(self) -> dict[str, torch.Tensor]:
        """The random states of every rank, on every rank."""
        gathered: dict[str, torch.Tensor] = {}
        for name, value in state.capture_randomness().items():
            rows = self._accelerator.gather(value[None].to(self._accelerator.device)).cpu()
            gathered |= {f"{rank}/{name}": row.clone() for rank, row in enumerate(rows)}
        return gathered

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _interrupted(self, step: int) -> InterruptedRunError:
        return InterruptedRunError(
            f"Stopped after step {step} of {self._settings.steps}; the checkpoint is complete. Continue with: "
            f"{self._keeping.resume_command}"
        )
