"""The interval of any quantity of a law, by the best that is known of the law's uncertainty.

Covers: percentiles over the joint draws of a fitted law; the rounding band of a law whose coefficients were printed; a
point where neither is there. Does not cover: drawing (`tutelage.laws.fitting`), nor run-to-run noise: an interval says
where the law's curve lies, not where the next run falls.

A quantity is a function of an equation. It is called once with the law's own and once with all draws in one equation,
whose coefficients have shape (draws, 1): it must then return (draws, points), or (draws, 1) for a single number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from tutelage.laws.family import Equation
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray
from tutelage.laws.rounding import BAND, POINT, rounding_band
from tutelage.records.estimate import Estimate

LEVEL = 0.9
"""Coverage of an interval where none is asked for, as in `busbridge2025`."""
_MOST_DRAWS = 1000
"""More draws move the ends of a 90 % interval by less than 3 % of its width."""

Quantity: TypeAlias = Callable[[Equation], FloatArray]


def interval(law: Law, quantity: Quantity, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """The lowest and highest values of `quantity` that the law's uncertainty leaves, elementwise.

    Args:
        law: Its draws are used where it has them, else its rounding; without either the interval has no width.
        quantity: Takes an equation, returns shape (points,) or () for the law's own, (draws, points) for its draws.
        level: Coverage of the percentile interval, in (0, 1); a rounding band has none.

    Returns:
        Low and high ends, each of the quantity's shape. Draws whose quantity is not finite are left out, point by
        point; a point without any is NaN.
    """
    low, high = _ends(law, quantity, level)
    shape = np.shape(quantity(law.equation))
    return low.reshape(shape), high.reshape(shape)


def estimate(law: Law, quantity: Quantity, level: float = LEVEL) -> Estimate:
    """One number of a law with its interval.

    Args:
        law: As for `interval`.
        quantity: Takes an equation, returns one number: shape () or (1,), and (draws, 1) for the law's draws.
        level: Coverage of the percentile interval, in (0, 1).

    Returns:
        The value at the law's own coefficients; `method` says what the interval is made of. A point, where the draws
        do not move the quantity.
    """
    value = float(np.ravel(quantity(law.equation))[0])
    method = interval_method(law)
    if method == POINT:
        return Estimate(value)
    low, high = (float(np.ravel(end)[0]) for end in _ends(law, quantity, level))
    if not np.isfinite(low + high) or low == high:
        # Draws of other coefficients, such as those on a frozen law that has none, say nothing of this quantity.
        return Estimate(value)
    return Estimate(value, low, high, level if law.draws else None, method)


def interval_method(law: Law) -> str:
    """What an interval of this law is made of: "bootstrap, N draws", "rounding band" or "point"."""
    if law.draws:
        return f"bootstrap, {min(_MOST_DRAWS, len(next(iter(law.draws.values()))))} draws"
    return BAND if law.rounding else POINT


def _ends(law: Law, quantity: Quantity, level: float) -> tuple[FloatArray, FloatArray]:
    ensemble = law.ensemble(_MOST_DRAWS)
    if ensemble is None:
        return rounding_band(law, quantity)
    return percentiles(quantity(ensemble), level)


def percentiles(drawn: FloatArray, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """The central interval of draws, elementwise.

    Args:
        drawn: Shape (draws, ...); draws that are not finite are left out, element by element.
        level: Coverage, in (0, 1).

    Returns:
        Low and high ends, each of the shape after the first axis; NaN where no draw is finite.
    """
    drawn, shares = np.asarray(drawn, dtype=np.float64), [0.5 - level / 2, 0.5 + level / 2]
    finite = np.isfinite(drawn)
    if finite.all():
        low, high = np.quantile(drawn, shares, axis=0)
        return low, high
    known = finite.any(axis=0)
    ends = np.full((2, *drawn.shape[1:]), np.nan)
    ends[:, known] = np.nanquantile(np.where(finite, drawn, np.nan)[:, known], shares, axis=0)
    return ends[0], ends[1]
