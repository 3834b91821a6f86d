"""How far the law's uncertainty spreads what a plan says.

Covers: estimates and curves with the interval that joint draws, else rounding, give them; how often a thing holds among
the draws. Does not cover: drawing, nor the percentiles and bands themselves (`tutelage.laws.uncertainty`).

Two questions are kept apart. What following the plan yields (losses, gains) is evaluated at the planned choice under
every draw. What the best choice is (sizes, tokens, a teacher's loss, compute for a target) is optimised anew under
every draw; a published law, which has no draws, leaves it a point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.laws.families.supervised import SupervisedLaw
from tutelage.laws.family import Equation
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray, Numbers
from tutelage.laws.rounding import POINT
from tutelage.laws.uncertainty import LEVEL, Quantity, estimate, interval, interval_method, percentiles
from tutelage.planning.repeated_training import training_law
from tutelage.records.estimate import Estimate
from tutelage.units import Tokens

FEW_DRAWS = 200
"""Below this a share among the draws is known to worse than about 0.03."""
_CONSTANT = 1e-9
"""Relative: what varies less than this among the draws does not depend on the law."""


@dataclass(frozen=True)
class Band:
    """A curve with its interval, each of shape (points,); NaN ends where the law says nothing of its uncertainty."""

    value: FloatArray
    low: FloatArray
    high: FloatArray

    def __getitem__(self, part: slice) -> Band:
        return Band(self.value[part], self.low[part], self.high[part])

    def where(self, known: NDArray[np.bool_]) -> Band:
        """The curve with NaN where it is not known."""
        return Band(*(np.where(known, part, np.nan) for part in (self.value, self.low, self.high)))


@dataclass(frozen=True)
class Spread:
    """A law together with all of its joint draws as one equation.

    Args:
        law: The law.
        ensemble: Its draws, coefficients of shape (draws, 1); None where it has none.
        unique_tokens: Distinct tokens that ordinary training has; None for as many as it reads.
    """

    law: Law
    ensemble: Equation | None
    unique_tokens: Tokens | None = None

    @property
    def method(self) -> str:
        """What the intervals are made of: "bootstrap, N draws", "rounding band" or "point"."""
        return interval_method(self.law)

    @property
    def level(self) -> float | None:
        """Coverage of the intervals; None where they are no probability."""
        return LEVEL if self.draws else None

    @classmethod
    def of(cls, law: Law, unique_tokens: Tokens | None = None) -> Spread:
        """The spread of `law`."""
        return cls(law, law.ensemble(), unique_tokens)

    def ordinary(self, equation: Equation) -> SupervisedLaw:
        """The law of ordinary training under `equation`, with its tokens repeated where only some are distinct."""
        return training_law(equation, self.unique_tokens)

    @property
    def draws(self) -> int:
        """How many draws there are."""
        return 0 if self.ensemble is None else int(np.size(self.ensemble.supervised.E))

    def estimate(self, quantity: Quantity) -> Estimate:
        """One number at a choice that every draw keeps; `quantity` as for `tutelage.laws.uncertainty.estimate`."""
        if self.ensemble is None:
            return estimate(self.law, quantity)
        return self.around(np.ravel(quantity(self.law.equation))[0], quantity(self.ensemble))

    def chosen(self, value: Numbers, anew: Callable[[Equation], FloatArray]) -> Estimate:
        """A choice: its value under the law itself, and what `anew` chooses under every draw."""
        return Estimate(float(value)) if self.ensemble is None else self.around(value, anew(self.ensemble))

    def around(self, value: Numbers, drawn: FloatArray) -> Estimate:
        """A value with the percentiles of what the draws make of it; draws without an answer (NaN) are left out.

        Args:
            value: Under the law itself.
            drawn: Under each draw, shape (draws,) or (draws, 1); without draws the estimate is a point.
        """
        point, drawn = float(value), np.ravel(drawn)
        if not len(drawn) or not np.isfinite(drawn).any():
            return Estimate(point)
        if np.nanmax(np.abs(drawn - point)) <= _CONSTANT * abs(point):
            return Estimate(point)
        low, high = (float(end) for end in percentiles(drawn))
        return Estimate(point, low, high, self.level, self.method)

    def band(self, quantity: Quantity) -> Band:
        """A curve; `quantity` returns (points,) for the law's own equation and (draws, points) for its draws."""
        value = np.asarray(quantity(self.law.equation))
        if self.method == POINT:
            return Band(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
        if self.ensemble is None:
            return Band(value, *interval(self.law, quantity))
        return Band(value, *percentiles(quantity(self.ensemble)))

    def share(self, holds: Callable[[Equation], NDArray[np.bool_]]) -> float | None:
        """Among the draws, how often `holds` (true or false a draw); None without draws."""
        return None if self.ensemble is None else float(np.mean(holds(self.ensemble)))


def interval_in_words(estimate: Estimate) -> str:
    """What an estimate's interval is called in a sentence: "90 % interval", or its method where it has no level."""
    return estimate.method if estimate.level is None else f"{100 * estimate.level:g} % interval"
