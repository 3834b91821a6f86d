"""How a student is optimised, as settings, and the learning rate at every step.

Covers the frozen values that a recipe is parsed into, with their ranges, and the schedule as a pure function. Does not
cover the optimiser itself (`loop`); nothing here imports torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tutelage.training.selection import EarlyStop

Tracker = Literal["tensorboard", "wandb", "mlflow"]
MembersStep = Literal["auto", "in_turn", "stacked"]
"""How the members of a cohort take their steps (`cohort_stacked`)."""


@dataclass(frozen=True)
class Optimisation:
    """AdamW with linear warm-up, a cosine down to `final_learning_rate` and one global clip of the gradient.

    The defaults for weight decay, final rate and clip are those of the latest known setting of `yang2026`
    (reconstruction).

    Args:
        steps: Optimiser steps, at least 1.
        batch_size: Utterances in a micro-batch, over all processes, at least 1.
        accumulate: Micro-batches in an optimiser step, at least 1; a step sees batch_size * accumulate utterances.
        learning_rate: Highest learning rate, above 0.
        final_learning_rate: Learning rate of the last step, in [0, learning_rate].
        warmup_steps: Steps of linear warm-up, in [0, steps).
        weight_decay: Decoupled weight decay of AdamW, from 0.
        clip_norm: Largest global norm of the gradient, above 0.
        checkpoint_every: Steps between two checkpoints, at least 1.
        threads: Threads of a CPU operation, at least 1; None leaves them as they are. Results are the same bit for
            bit at equal threads only.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, more time, same gradients.
        precision: Of the student's forward passes: "no" (float32), or "bf16" with float32 weights, on GPUs only.
        early_stop: When the student is judged on the dev split (`data.dev`), and when that ends the training.
        keep_best: Keep the weights of the step that the dev split liked best; without `early_stop` the loss is measured
            at every checkpoint.
        trackers: Which also get every number of the log; they change none.
    """

    steps: int
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    warmup_steps: int = 0
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    checkpoint_every: int = 50
    threads: int | None = None
    gradient_checkpointing: bool = False
    precision: Literal["no", "bf16"] = "no"
    early_stop: EarlyStop | None = None
    keep_best: bool = False
    trackers: tuple[Tracker, ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "checkpoint_every"):
            _require(_is_whole(getattr(self, name), 1), f"{name} must be a whole number from 1", getattr(self, name))
        if self.threads is not None:
            _require(_is_whole(self.threads, 1), "threads must be a whole number from 1", self.threads)
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, f"{name} must be a finite number above 0", value)
        for name in ("final_learning_rate", "weight_decay"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, f"{name} must be a finite number from 0", value)
        _require(
            self.final_learning_rate <= self.learning_rate,
            f"final_learning_rate must not exceed learning_rate ({self.learning_rate:g})",
            self.final_learning_rate,
        )
        _require(
            _is_whole(self.warmup_steps, 0) and self.warmup_steps < self.steps,
            f"warmup_steps must be a whole number from 0 and below steps ({self.steps})",
            self.warmup_steps,
        )
        _require(len(set(self.trackers)) == len(self.trackers), "trackers must name each one once", self.trackers)

    @property
    def dev_checks(self) -> EarlyStop | None:
        """When the student is judged on the dev split; None for never."""
        if self.early_stop is None and self.keep_best:
            return EarlyStop(self.checkpoint_every, patience=None)
        return self.early_stop

    def identity(self) -> dict[str, Any]:
        """What decides the numbers, as plain values: later options are left out where they change nothing."""
        plain = asdict(self)
        del plain["trackers"]
        for name, unset in (("precision", "no"), ("early_stop", None), ("keep_best", False)):
            if plain[name] == unset:
                del plain[name]
        return plain


def learning_rate_at(step: int, optimisation: Optimisation) -> float:
    """The learning rate of one optimiser step.

    With w warm-up steps, n steps, highest rate a and final rate b, step s counted from 0:

        s < w:  a (s + 1) / (w + 1)
        s >= w: b + (a - b) (1 + cos(pi (s - w) / (n - 1 - w))) / 2

    so the highest rate is reached at s = w and the final one at s = n - 1. A schedule whose last step is s = w stays
    at the highest rate there.

    Args:
        step: The step about to be taken, from 0 to steps - 1.
        optimisation: The settings.

    Returns:
        The learning rate, in (0, learning_rate] during warm-up and [final_learning_rate, learning_rate] after.

    Raises:
        ValueError: If `step` lies outside the schedule.

    Source: the cosine of Loshchilov and Hutter (arXiv:1608.03983), one cycle.

    Example:
        >>> settings = Optimisation(steps=3, learning_rate=1.0, final_learning_rate=0.0)
        >>> [learning_rate_at(step, settings) for step in range(3)]
        [1.0, 0.5, 0.0]
    """
    if not 0 <= step < optimisation.steps:
        raise ValueError(f"Step {step} lies outside the schedule of {optimisation.steps} steps.")
    warmup, highest, final = optimisation.warmup_steps, optimisation.learning_rate, optimisation.final_learning_rate
    if step < warmup:
        return highest * (step + 1) / (warmup + 1)
    last = optimisation.steps - 1
    if step == warmup:  # the ends are exact, whatever the cosine rounds to
        return highest
    if step == last:
        return final
    share = (step - warmup) / (last - warmup)
    return final + (highest - final) * (1 + math.cos(math.pi * share)) / 2


def _is_whole(value: object, lowest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def _require(condition: bool, rule: str, value: object) -> None:
    if not condition:
        raise ValueError(f"{rule}, not {value!r}.")
