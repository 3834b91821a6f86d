"""The compute at which distilling stops (or begins) to beat ordinary training of the same size.

Covers: the span of compute in which one way's gain over ordinary training is positive, and the interval of the span's
ends. Does not cover: the gain itself (`curves`); compute-optimal training, which changes the size.

The two curves cross at a small angle, so the rounding of printed coefficients alone moves the crossing by a factor of 5
to 20: it is never given as a bare point. An end's interval reaches from where the lower end of the gain's interval is
0 to where its upper end is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tutelage.laws.numbers import FloatArray
from tutelage.laws.rounding import POINT
from tutelage.planning.curves import Curve
from tutelage.planning.spread import Spread, interval_in_words
from tutelage.records.estimate import Estimate
from tutelage.units import format_quantity


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


def find_crossover(curve: Curve, spread: Spread) -> Crossover:
    """Where along compute a way of distilling beats ordinary training of the same size.

    Args:
        curve: The way's curve.
        spread: The law that it was traced with.

    Returns:
        The span from the first to the last budget at which distilling is better.
    """
    compute, last = curve.compute, len(curve.compute) - 1
    gains, lowest, highest = (
        np.where(curve.affordable, part, -np.inf) for part in (curve.gain.value, curve.gain.low, curve.gain.high)
    )
    looked_at = (float(compute[0]), float(compute[-1]))
    better = np.flatnonzero(gains > 0)
    if not len(better):
        return Crossover(None, None, False, looked_at)
    logs = np.log(compute)
    ends = _falling(logs, gains, lowest, highest, int(better[-1])) if better[-1] < last else None
    # The beginning is the end of the mirrored curve.
    mirror = slice(None, None, -1)
    begins = (
        _falling(logs[mirror], gains[mirror], lowest[mirror], highest[mirror], last - int(better[0]))
        if better[0] > 0 and np.isfinite(gains[better[0] - 1])
        else None
    )
    return Crossover(_estimate(begins, spread), _estimate(ends, spread), True, looked_at)


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


def _estimate(logs: tuple[float, float, float] | None, spread: Spread) -> Estimate | None:
    if logs is None:
        return None
    value, *ends = (float(np.exp(log)) for log in logs)
    if spread.method == POINT:
        return Estimate(value)
    return Estimate(value, min(ends), max(ends), spread.level, spread.method)


def _written(compute: Estimate) -> str:
    if compute.low is None or compute.high is None:
        return f"{format_quantity(compute.value)} FLOPs"
    band = f"{format_quantity(compute.low, 2)} to {format_quantity(compute.high, 2)}"
    return f"{format_quantity(compute.value, 2)} FLOPs ({interval_in_words(compute)} {band})"
