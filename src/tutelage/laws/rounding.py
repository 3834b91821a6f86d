"""Bands from the rounding of printed coefficients.

Covers: how far any quantity of a law moves while each coefficient stays within half a unit of its last printed digit.
Does not cover: the uncertainty of the fit behind the coefficients, which is larger; a rounding band is a lower bound of
what is unknown and never a probability.

The box of roundings has 2^15 corners for the distillation law. The quantities are close to linear within it, so the
extreme corner is the one that the sign of each coefficient's own effect names; it is evaluated together with every
coefficient moved alone, which makes the band right where one effect is not monotone as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tutelage.laws.family import Equation
from tutelage.laws.law import Law, make_equation
from tutelage.laws.numbers import FloatArray
from tutelage.records.estimate import Estimate

BAND = "rounding band"
POINT = "point"


def rounding_band(law: Law, quantity: Callable[[Equation], FloatArray]) -> tuple[FloatArray, FloatArray]:
    """The lowest and highest values of `quantity` while the coefficients stay within their rounding.

    Args:
        law: A law with `rounding`; without it the band has no width.
        quantity: Takes an equation, returns an array whose shape does not depend on it.

    Returns:
        Low and high ends, elementwise, each of the quantity's shape; the value at the printed coefficients is inside.
    """
    printed = law.equation.coefficients()

    def at(shifts: Mapping[str, float]) -> FloatArray:
        moved = {name: printed[name] + shift for name, shift in shifts.items()}
        return np.asarray(quantity(make_equation({**printed, **moved})), dtype=np.float64)

    centre = at({})
    seen, signs = [centre], []
    for name, half in law.rounding.items():
        below, above = at({name: -half}), at({name: half})
        seen += [below, above]
        signs.append(np.where(above >= below, 1, -1).ravel())
    if not signs:
        return centre, centre
    for pattern in np.unique(np.stack(signs, axis=1), axis=0):
        toward = dict(zip(law.rounding, pattern.tolist(), strict=True))
        for direction in (-1.0, 1.0):
            seen.append(at({name: direction * sign * law.rounding[name] for name, sign in toward.items()}))
    everything = np.stack(seen)
    return everything.min(axis=0), everything.max(axis=0)


def banded(law: Law, quantity: Callable[[Equation], FloatArray]) -> Estimate:
    """One number with its rounding band, or as a point where `law` has no printed rounding."""
    value = float(quantity(law.equation))
    if not law.rounding:
        return Estimate(value)
    low, high = rounding_band(law, quantity)
    return Estimate(value, float(low), float(high), None, BAND)
