"""Judging the student on the dev split while it trains, and keeping the weights of its best step.

Covers when a check is due, that it leaves the training's random stream alone, `dev.jsonl`, and the state that a
checkpoint carries. Does not cover the decisions (`selection`) or how a task judges (`runs`). Under several ranks the
main one measures, its value is sent to all, and every rank decides the same from it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.records.estimate import Estimate
from tutelage.records.files import write_atomically
from tutelage.training import state
from tutelage.training.optimisation import Optimisation
from tutelage.training.selection import DevCheck, best_of, stops, waited
from tutelage.training.step import Lesson

JudgeDev = Callable[[str], Estimate]
"""The value of a metric on the dev split; models may be left in evaluation mode."""


class DevChecks:
    """The checks of one training.

    Args:
        lesson: Who learns; put back in training mode after a check.
        settings: When, what, and whether the best weights are kept.
        judge: Measures; None where no check is wanted.
        accelerator: Tells the main process.
        path: Of `dev.jsonl`: one line a check, written anew at each, so that it never disagrees with the checkpoint.
    """

    def __init__(
        self,
        lesson: Lesson[Any],
        settings: Optimisation,
        judge: JudgeDev | None,
        accelerator: Accelerator,
        path: Path,
    ) -> None:
        if settings.dev_checks is not None and judge is None:
            raise ValueError("early_stop and keep_best need Watch.judge, which measures on the dev split")
        self._lesson, self._judge, self._accelerator, self._path = lesson, judge, accelerator, path
        self._settings, self._when = settings, settings.dev_checks
        self._min_delta = 0.0 if self._when is None else self._when.min_delta
        self._checks: list[DevCheck] = []
        self._best: dict[str, Tensor] = {}

    @property
    def best(self) -> DevCheck | None:
        """The best check so far."""
        return best_of(self._checks)

    @property
    def stopped(self) -> bool:
        """Whether the checks so far end the training."""
        return self._when is not None and stops(self._checks, self._when)

    def why_stopped(self) -> str:
        """The reason in one sentence."""
        metric = self._checks[-1].metric
        return f"the dev split's {metric} has not improved for {waited(self._checks, self._min_delta)} checks."

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Every check as plain JSON values, for a checkpoint."""
        return [check.to_dict() for check in self._checks]

    @property
    def best_weights(self) -> Mapping[str, Tensor]:
        """The weights of the best step, where they are kept, for a checkpoint."""
        return self._best

    def take(self, step: int) -> DevCheck | None:
        """Judge the student after `step`, if a check is due; returns it.

        Raises:
            TutelageError: The value is not finite.
        """
        if self._when is None or (step % self._when.every and step != self._settings.steps):
            return None
        value, *interval = self._measure(self._when.metric)
        check = DevCheck(step, self._when.metric, value, *interval)
        if not math.isfinite(check.value):
            raise TutelageError(f"Step {step}: the dev split's {check.metric} is not finite ({check.value}).")
        self._checks.append(check)
        if self._settings.keep_best and self.best == check:
            self._best = state.capture_weights(self._lesson.trainable())
        self._write()
        return check

    def restore(self, lines: Sequence[Mapping[str, Any]], best: Mapping[str, Tensor]) -> None:
        """Go back to what a checkpoint carried."""
        self._checks, self._best = [DevCheck(**line) for line in lines], dict(best)
        if self._when is not None:
            self._write()

    def load_best(self) -> None:
        """Put the weights of the best step into the student and the projectors, where they are kept."""
        if self._best:
            state.restore_weights(self._lesson.trainable(), self._best)

    def _measure(self, metric: str) -> tuple[float, float | None, float | None, float | None]:
        """(value, low, high, level), measured by the main process with the random states as they were."""
        numbers = [0.0] * 4
        if self._accelerator.is_main_process and self._judge is not None:
            before = state.capture_randomness()
            self._lesson.set_training(False)
            try:
                found = asdict(self._judge(metric))
            finally:
                state.restore_randomness(before)
                self._lesson.set_training(True)
            numbers = [math.nan if found[name] is None else found[name] for name in ("value", "low", "high", "level")]
        if self._accelerator.num_processes > 1:
            sent = torch.tensor(numbers, dtype=torch.float64, device=self._accelerator.device)
            numbers = [float(number) for number in self._accelerator.reduce(sent, "sum")]  # zeros of all others
        low, high, level = (None if math.isnan(number) else number for number in numbers[1:])
        return numbers[0], low, high, level

    def _write(self) -> None:
        if self._accelerator.is_main_process:
            write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in self.lines))
