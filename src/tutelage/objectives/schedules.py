"""How a term's weight changes over training, as settings, and its factor at every step.

Covers constant weights, linear warm-up or decay, and stages. Does not cover learning rates (`training.optimisation`).
Loads without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """The factor of a term's weight at every optimiser step.

    Args:
        kind: "constant": `end` at every step. "linear": from `start` at `from_step` and before to `end` at `to_step`
            and after. "stages": the factor of the last stage that has begun.
        start: Factor at the beginning; linear only.
        end: Factor at the end; 0 or more. Not for stages.
        from_step: Steps taken before the ramp begins; linear only.
        to_step: Steps taken when it ends; linear only.
        stages: (steps taken before it begins, factor) each, the first from 0 and the steps rising; stages only.

    Raises:
        ValueError: A number is out of range, belongs to another kind, or the factor is 0 at every step.

    Example:
        >>> warm_up = Schedule("linear", start=0.0, end=1.0, from_step=0, to_step=4)
        >>> [warm_up.factor(step) for step in range(1, 7)]  # the first step is 1
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    kind: Literal["constant", "linear", "stages"] = "constant"
    start: float = 1.0
    end: float = 1.0
    from_step: int = 0
    to_step: int = 0
    stages: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("constant", "linear", "stages"):
            raise ValueError(f'a schedule is "constant", "linear" or "stages", not {self.kind!r}')
        factors = [self.start, self.end, *(factor for _, factor in self.stages)]
        if not all(math.isfinite(factor) and factor >= 0 for factor in factors):
            raise ValueError(f"the factors of a schedule must be finite numbers, 0 or more, not {factors}")
        ramp = (self.start, self.from_step, self.to_step) != (1.0, 0, 0)
        if ramp and self.kind != "linear":
            raise ValueError(f'start, from_step and to_step belong to a linear schedule, and this one is "{self.kind}"')
        if self.kind == "linear" and not 0 <= self.from_step < self.to_step:
            raise ValueError(
                f"a linear schedule needs 0 <= from_step < to_step, not {self.from_step} and {self.to_step}"
            )
        if (self.kind == "stages") != bool(self.stages):
            raise ValueError("stages are given as [[steps taken before it begins, factor], ...] of kind: stages only")
        if self.kind == "stages":
            begins = [step for step, _ in self.stages]
            if begins[0] != 0 or begins != sorted(set(begins)) or self.end != 1.0:
                raise ValueError(f"stages begin at 0 and rise, without an end factor of their own; here at {begins}")
        if not any(self._factors_used()):
            raise ValueError("the schedule's factor is 0 at every step; give the term weight 0 to log it only")

    def factor(self, step: int) -> float:
        """The factor at a step; the first step is 1, before which 0 steps were taken."""
        taken = step - 1
        if self.kind == "stages":
            return [factor for begins, factor in self.stages if begins <= taken][-1]
        if self.kind == "constant" or taken >= self.to_step:
            return self.end
        done = max(0.0, (taken - self.from_step) / (self.to_step - self.from_step))
        return self.start + done * (self.end - self.start)

    def _factors_used(self) -> tuple[float, ...]:
        if self.kind == "stages":
            return tuple(factor for _, factor in self.stages)
        return (self.end,) if self.kind == "constant" else (self.start, self.end)
