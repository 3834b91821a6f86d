"""When a training ends early and which of its steps is kept, from what a dev split says: settings and decisions.

Covers the settings, one check as a value, and the decisions as pure functions of all checks so far, so that a resumed
run decides the same. Does not cover measuring or keeping weights (`dev_checks`). Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

DevMetric = Literal["loss", "wer"]


@dataclass(frozen=True)
class EarlyStop:
    """How the student is judged on the dev split while it trains, and when that ends the training.

    Args:
        every: Optimiser steps between two checks, at least 1; the last step is checked too.
        patience: Checks in a row without an improvement after which training stops, at least 1; None never stops.
        metric: "loss" (nats per token) or, for speech, "wer" (greedy transcripts, new tokens capped by duration). Less
            is better.
        min_delta: An improvement is a value lower than the last improvement by more than this, from 0.
    """

    every: int
    patience: int | None = 3
    metric: DevMetric = "loss"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        for name in ("every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be a whole number from 1, not {value!r}.")
        if not (math.isfinite(self.min_delta) and self.min_delta >= 0):
            raise ValueError(f"min_delta must be a finite number from 0, not {self.min_delta!r}.")


@dataclass(frozen=True)
class DevCheck:
    """The student after one step, judged on the dev split.

    Args:
        step: Optimiser steps taken.
        metric: What was measured.
        value: Its value; less is better.
        low: Lower end of its interval; None where there is none.
        high: Upper end.
        level: Of the interval.
    """

    step: int
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    level: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def best_of(checks: Sequence[DevCheck]) -> DevCheck | None:
    """The check of the lowest value, the earliest of equals; None without checks."""
    return min(checks, key=lambda check: check.value, default=None)


def waited(checks: Sequence[DevCheck], min_delta: float = 0.0) -> int:
    """Checks since the last improvement.

    Example:
        >>> waited([DevCheck(step, "loss", value) for step, value in ((1, 2.0), (2, 1.0), (3, 1.5))])
        1
    """
    reference, count = math.inf, 0
    for check in checks:
        if check.value < reference - min_delta:
            reference, count = check.value, 0
        else:
            count += 1
    return count


def stops(checks: Sequence[DevCheck], settings: EarlyStop) -> bool:
    """Whether the training ends after the last of these checks."""
    return settings.patience is not None and waited(checks, settings.min_delta) >= settings.patience
