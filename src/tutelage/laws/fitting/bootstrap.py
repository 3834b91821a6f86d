"""Joint draws of a law's constants by resampling runs, each draw fitted from several starts.

Covers: multinomial weights on fixed arrays, the two stages of a law on a fitted supervised law, the rounding of stored
draws. Does not cover: intervals (`tutelage.laws.uncertainty`), the point estimate (`search`).

A draw that starts at the point estimate alone ends in another valley for a third of the draws of the nine-parameter
law. So each draw starts from the best of the search's minima under its own weights, and then, twice, from the best of
its neighbours' solutions under its own weights.
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
EXCHANGES = 2
_NEIGHBOURS = 16
_MOST_MINIMA = 8
_STEPS = 120
_TOLERANCE = 1e-8
_DISTINCT = 1e-6
"""Minima of the search whose objectives differ by less than this part are taken for one."""
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
    starts = _distinct_minima(found)
    solved = []
    for first in range(0, len(weights), GROUP):
        group = slice(first, first + GROUP)
        of_group = objective
        if laws is not None and which is not None:
            features = [objective.family.features(objective.columns, laws[draw]) for draw in which[group]]
            of_group = replace(objective, x=np.ascontiguousarray(features))
        solved.append(_solve_group(of_group, starts, weights[group]))
        if advance is not None:
            advance(len(weights[group]))
    return Drawn(np.concatenate([t for t, _ in solved]), np.concatenate([v for _, v in solved]), which)


def _solve_group(objective: Objective, starts: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    draws = np.arange(len(weights))
    theta, values = _from_best(objective, np.broadcast_to(starts, (len(draws), *starts.shape)), weights)
    for exchange in range(1, EXCHANGES + 1):
        offsets = exchange + np.arange(_NEIGHBOURS) * (2 * exchange + 1)
        neighbours = (draws[:, None] + offsets) % len(draws)
        moved, reached = _from_best(objective, theta[neighbours], weights)
        better = reached < values
        theta, values = np.where(better[:, None], moved, theta), np.where(better, reached, values)
    return theta, values


def _from_best(objective: Objective, candidates: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Descend, for each weighting, from the best of its candidates, shape (weightings, candidates, parameters)."""
    draws, count, parameters = candidates.shape
    versions = np.arange(draws) if len(objective.x) > 1 else np.zeros(draws, dtype=np.int64)
    pairs = np.stack([versions, np.arange(draws)], axis=1)
    _, values = objective.minimise(candidates.reshape(-1, parameters), 0, weights, np.repeat(pairs, count, axis=0))
    best = np.argmin(values.reshape(draws, count), axis=1)
    return objective.minimise(candidates[np.arange(draws), best], _STEPS, weights, pairs, tolerance=_TOLERANCE)


def _distinct_minima(found: Found) -> FloatArray:
    kept = [0]
    for index in range(1, len(found.objectives)):
        if found.objectives[index] > found.objectives[kept[-1]] * (1.0 + _DISTINCT):
            kept.append(index)
    return found.minima[kept[:_MOST_MINIMA]]


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
