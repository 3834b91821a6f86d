"""The compute at which distilling stops (or begins) to beat ordinary training of the same size.

Covers: one scenario's gain over ordinary training along compute, the span in which it is positive, and the band of the
span's ends from rounding. Does not cover: compute-optimal training, which changes the size.

The two curves cross at a small angle, so the rounding of printed coefficients alone moves the crossing by a factor of 5
to 20: it is never given as a bare point. The band keeps the allocations of the printed law: at an optimum a small
change of the law moves the loss of the best allocation and the loss at the old one alike, to first order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tutelage.laws.family import Equation
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray
from tutelage.laws.rounding import BAND, rounding_band
from tutelage.planning.optimum import Allocations
from tutelage.planning.scenarios import HIGHEST
from tutelage.records.estimate import Estimate
from tutelage.units import format_quantity

_BUDGETS = 61
"""About seven a decade of compute; between two of them the gain is close to linear in the logarithm."""
_FEWEST_TOKENS_PER_PARAM = 1.0
"""Ordinary training below one token a parameter is not a choice that anybody compares with."""


@dataclass(frozen=True)
class Crossover:
    """The span of compute in which a scenario's student beats ordinary training of the same size.

    Args:
        begins: Compute in FLOPs from which distilling is better; None where it is so from the smallest budget looked
            at, or never.
        ends: Compute in FLOPs above which ordinary training is better; None where it never becomes so.
        ever: Whether distilling is better at any budget looked at.
        looked_at: The smallest and the largest budget, FLOPs.
    """

    begins: Estimate | None
    ends: Estimate | None
    ever: bool
    looked_at: tuple[float, float]

    @property
    def text(self) -> str:
        """The span in one sentence."""
        if not self.ever:
            return "ordinary training of the same size is better at every budget"
        parts = []
        if self.begins is not None:
            parts.append(f"above {_written(self.begins)}")
        if self.ends is not None:
            parts.append(f"below {_written(self.ends)}")
        return f"distilling is better {' and '.join(parts) if parts else 'at every budget'}"

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "begins": self.begins,
            "ends": self.ends,
            "ever": self.ever,
            "looked_at": list(self.looked_at),
            "text": self.text,
        }


def find_crossover(law: Law, student_params: float, spend: Callable[[FloatArray], Allocations]) -> Crossover:
    """Where along compute a way of distilling beats ordinary training of the same size.

    Args:
        law: A law with a distillation law.
        student_params: N_S.
        spend: Takes budgets in FLOPs, shape (n,), and returns the best allocations.

    Returns:
        The span from the first to the last budget at which distilling is better.
    """
    own = float(law.forward.training_per_token(student_params))
    compute = own * np.geomspace(_FEWEST_TOKENS_PER_PARAM * student_params, HIGHEST, _BUDGETS)
    allocations = spend(compute)
    affordable = np.isfinite(allocations.student_loss)

    def gain(equation: Equation) -> FloatArray:
        ordinary = equation.supervised.predict(student_params, compute / own)
        return np.where(affordable, ordinary - allocations.student_loss_under(equation), -np.inf)

    gains = gain(law.equation)
    lowest, highest = rounding_band(law, gain)
    looked_at = (float(compute[0]), float(compute[-1]))
    better = np.flatnonzero(gains > 0)
    if not len(better):
        return Crossover(None, None, False, looked_at)
    logs = np.log(compute)
    ends = _falling(logs, gains, lowest, highest, int(better[-1])) if better[-1] < _BUDGETS - 1 else None
    # The beginning is the end of the mirrored curve.
    mirror = slice(None, None, -1)
    begins = (
        _falling(logs[mirror], gains[mirror], lowest[mirror], highest[mirror], _BUDGETS - 1 - int(better[0]))
        if better[0] > 0 and np.isfinite(gains[better[0] - 1])
        else None
    )
    banded = bool(law.rounding)
    return Crossover(_estimate(begins, banded), _estimate(ends, banded), True, looked_at)


def _falling(
    logs: FloatArray, gains: FloatArray, lowest: FloatArray, highest: FloatArray, last: int
) -> tuple[float, float, float]:
    """Where the gain, and the ends of its band, fall through 0 after index `last`; a band may reach the curve's end."""
    surely = np.flatnonzero(lowest[: last + 1] > 0)
    never = np.flatnonzero(highest[last + 1 :] < 0)
    return (
        _zero(logs, gains, last),
        _zero(logs, lowest, int(surely[-1])) if len(surely) else float(logs[0]),
        _zero(logs, highest, last + int(never[0])) if len(never) else float(logs[-1]),
    )


def _zero(logs: FloatArray, curve: FloatArray, index: int) -> float:
    """The zero of the line through the curve at `index` and the next point."""
    above, below = curve[index], curve[index + 1]
    if not np.isfinite(below):
        return float(logs[index])
    return float(logs[index] + (logs[index + 1] - logs[index]) * above / (above - below))


def _estimate(logs: tuple[float, float, float] | None, banded: bool) -> Estimate | None:
    if logs is None:
        return None
    value, *ends = (float(np.exp(log)) for log in logs)
    return Estimate(value, min(ends), max(ends), None, BAND) if banded else Estimate(value)


def _written(compute: Estimate) -> str:
    if compute.low is None or compute.high is None:
        return f"{format_quantity(compute.value)} FLOPs"
    band = f"{format_quantity(compute.low, 2)} to {format_quantity(compute.high, 2)}"
    return f"{format_quantity(compute.value, 2)} FLOPs ({compute.method} {band})"
