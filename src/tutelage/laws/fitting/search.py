"""The search for the best constants: many starts a few steps, then the best of them to their minimum.

Covers: one fit's minimum and how many starts agree on it. Does not cover: its uncertainty (`bootstrap`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.laws.fitting.objective import Objective
from tutelage.laws.fitting.settings import polished_count
from tutelage.laws.fitting.starts import draw_starts
from tutelage.laws.numbers import FloatArray
from tutelage.progress import Advance

FIRST_STEPS = 5
"""Steps of every start before the best are chosen; ten find nothing that five do not."""
POLISH_STEPS = 400
"""Most steps of a chosen one: the bent valleys of the distillation laws need up to three hundred."""
FINAL_STEPS = 2000
FINAL_TOLERANCE = 1e-13
"""Of the best one alone, which costs little."""
AGREEMENT = 0.5
"""Two minima agree where their objectives differ by less than this times parameters / runs of the better one, half of
what it costs to move every constant by a standard error: these runs could not tell them apart."""
EXACT = 1e-14
"""Mean squared log residual below which a minimum is exact in float64."""


@dataclass(frozen=True)
class Found:
    """The minimum that a search found.

    Args:
        theta: The best constants in the fitted scale, shape (parameters,).
        objective: The objective there.
        minima: The constants that the polished starts ended at, best first, shape (polished, parameters).
        objectives: The objectives there, shape (polished,).
        starts: How many starts there were.
    """

    theta: FloatArray
    objective: float
    minima: FloatArray
    objectives: FloatArray
    starts: int

    def agreement(self, runs: int) -> float:
        """The part of the best objective within which another minimum agrees with it, see `AGREEMENT`."""
        return AGREEMENT * len(self.theta) / runs

    def agreeing(self, runs: int) -> int:
        """How many polished starts ended at the best objective, itself included."""
        close = self.objectives <= self.objective * (1.0 + self.agreement(runs)) + 0.5 * runs * EXACT
        return int(np.sum(close))


def search(objective: Objective, count: int, seed: int, advance: Advance | None = None) -> Found:
    """The minimum of `objective` from `count` starts."""
    points, values = objective.minimise(draw_starts(objective, count, seed), FIRST_STEPS, advance=advance)
    chosen = np.argsort(values, kind="stable")[: polished_count(count)]
    minima, values = objective.minimise(points[chosen], POLISH_STEPS)
    order = _best_first(objective, minima, values)
    minima, values = minima[order], values[order]
    best, least = objective.minimise(minima[:1], FINAL_STEPS, tolerance=FINAL_TOLERANCE)
    minima[0], values[0] = best[0], least[0]
    return Found(best[0], float(least[0]), minima, values, count)


def _best_first(objective: Objective, minima: FloatArray, values: FloatArray) -> NDArray[np.int64]:
    """The order of the minima: by objective; exact ones are equal, and first those with fewer constants at a bound."""
    exact = np.maximum(values, 0.5 * len(objective.y) * EXACT)
    low, high = objective.bounds
    edges = (objective.free & ((minima <= low) | (minima >= high))).sum(axis=1)
    return np.lexsort((values, edges, exact))
