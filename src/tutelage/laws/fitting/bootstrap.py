"""Joint draws of a law's constants by resampling runs, each draw fitted from several starts.

Covers: multinomial weights on fixed arrays, the two stages of a law on a fitted supervised law, the rounding of stored
draws. Does not cover: intervals (`tutelage.laws.uncertainty`), the point estimate (`search`).

A draw of the nine-parameter law that starts at the point estimate alone ends more than 0.1 % above its minimum in up
to a third of the cases. So each draw starts there and at the best of its neighbours' solutions under its own weights,
and the better of the two is followed to its end. Other minima of the search are no starts: where a term has vanished
there is no slope to follow back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tutelage.laws.families.supervised import SUPERVISED_NAMES, SupervisedLaw
from tutelage.laws.fitting.objective import Objective
from tutelage.laws.fitting.search import Found
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray
from tutelage.progress import Advance

GROUP = 128
"""Draws that exchange solutions."""
_NEIGHBOURS = 12
_FIRST_STEPS = 24
_LAST_STEPS = 80
_TOLERANCE = 1e-8
DIGITS = 10
"""Significant digits of stored draws: far below any interval, and a third of the size of all of them."""


@dataclass(frozen=True)
class Drawn:
    """The joint draws.

    Args:
        theta: Fitted constants, in the fitted scale, shape (draws, parameters).
        objectives: What each draw's fit reached under its weights, shape (draws,).
        supervised: Which draw of the supervised law each belongs to, shape (draws,); None where it stayed fixed.
    """

    theta: FloatArray
    objectives: FloatArray
    supervised: NDArray[np.int64] | None


def draw_weights(runs: int, draws: int, seed: int) -> FloatArray:
    """How often each run is drawn, shape (draws, runs)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(runs, np.full(runs, 1.0 / runs), draws).astype(np.float64)


def bootstrap(
    objective: Objective, found: Found, weights: FloatArray, supervised: Law | None, advance: Advance | None = None
) -> Drawn:
    """One fit for each row of `weights`, with the supervised law of the same draw where it has draws."""
    laws = _supervised_draws(supervised)
    which = None if laws is None else np.arange(len(weights), dtype=np.int64) % len(laws)
    solved = []
    for first in range(0, len(weights), GROUP):
        group = slice(first, first + GROUP)
        of_group = objective
        if laws is not None and which is not None:
            features = [objective.family.features(objective.columns, laws[draw]) for draw in which[group]]
            of_group = replace(objective, x=np.ascontiguousarray(features))
        solved.append(_solve_group(of_group, found.theta, weights[group]))
        if advance is not None:
            advance(len(weights[group]))
    return Drawn(np.concatenate([t for t, _ in solved]), np.concatenate([v for _, v in solved]), which)


def _solve_group(objective: Objective, start: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    count = len(weights)
    draws = np.arange(count)
    versions = draws if len(objective.x) > 1 else np.zeros(count, dtype=np.int64)
    pairs = np.stack([versions, draws], axis=1)

    def descend(points: FloatArray, steps: int) -> tuple[FloatArray, FloatArray]:
        return objective.minimise(points, steps, weights, pairs, tolerance=_TOLERANCE)

    theta, values = descend(np.tile(start, (count, 1)), _FIRST_STEPS)
    neighbours = (draws[:, None] + 1 + 3 * np.arange(_NEIGHBOURS)) % count
    candidates = theta[neighbours].reshape(-1, len(start))
    _, there = objective.minimise(candidates, 0, weights, np.repeat(pairs, _NEIGHBOURS, axis=0))
    nearest = neighbours[draws, np.argmin(there.reshape(count, -1), axis=1)]
    moved, reached = descend(theta[nearest], _FIRST_STEPS)
    better = reached < values
    return descend(np.where(better[:, None], moved, theta), _LAST_STEPS)


def _supervised_draws(law: Law | None) -> list[SupervisedLaw] | None:
    """The supervised law of each joint draw; None where it has none."""
    if law is None or not law.draws:
        return None
    point = law.supervised.coefficients()
    count = len(next(iter(law.draws.values())))
    columns = [law.draws.get(name, (point[name],) * count) for name in SUPERVISED_NAMES]
    return [SupervisedLaw(*row) for row in zip(*columns, strict=True)]


def stored_draws(objective: Objective, drawn: Drawn, supervised: Law | None) -> dict[str, tuple[float, ...]]:
    """The draws as a law keeps them: the fitted coefficients, and those of the supervised law that were drawn too."""
    columns: dict[str, FloatArray] = {}
    if drawn.supervised is not None and supervised is not None and supervised.draws:
        columns = {
            name: np.asarray(values)[drawn.supervised]
            for name, values in supervised.draws.items()
            if name in SUPERVISED_NAMES
        }
    own = objective.coefficients(drawn.theta)
    columns |= {name: np.asarray(own[name]) for name in objective.free_names}
    return {name: tuple(float(f"{value:.{DIGITS}g}") for value in column) for name, column in columns.items()}


def shares_at_bounds(objective: Objective, drawn: Drawn) -> Mapping[str, float]:
    """The share of draws in which each fitted constant lies at a bound of the search."""
    low, high = objective.bounds
    at = (drawn.theta <= low) | (drawn.theta >= high)
    shares = dict(zip((p.name for p in objective.family.parameters), at.mean(axis=0).tolist(), strict=True))
    return {name: shares[name] for name in objective.free_names}
