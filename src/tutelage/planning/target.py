"""How much compute a target loss takes.

Covers: the smallest budget that reaches a loss, for any way of spending a budget; the floor where none does. Does not
cover: how a budget is spent (`optimum`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tutelage.laws.compute import ForwardCost
from tutelage.laws.families.supervised import SupervisedLaw
from tutelage.laws.minimum import minimise
from tutelage.laws.numbers import FloatArray
from tutelage.planning.scenarios import HIGHEST, LOWEST

_SECTIONS = 17
_ROUNDS = 7
"""Seventeen budgets a round, seven rounds: thirty decades shrink to 3e-7 of a natural logarithm."""
_LARGEST_COMPUTE = 1e36
"""Enough to train and query a teacher of 1e17 parameters on 1e17 tokens: nothing within the bounds costs more."""


def compute_for(
    spend: Callable[[FloatArray], FloatArray], target: float, least_compute: float
) -> tuple[float | None, float]:
    """The smallest budget that reaches `target`, and the loss that no budget goes below.

    Args:
        spend: Takes budgets in FLOPs, shape (n,), ascending; returns the loss that each reaches, never rising; infinite
            where nothing can be afforded.
        target: The wanted loss, nats per token.
        least_compute: A budget that is surely too small.

    Returns:
        The budget in FLOPs, None where the target cannot be reached, and the floor in nats per token.
    """
    low, high = np.log(least_compute), np.log(_LARGEST_COMPUTE)
    floor = float(spend(np.exp([high]))[0])
    if not floor <= target:
        return None, floor
    for _ in range(_ROUNDS):
        budgets = np.linspace(low, high, _SECTIONS)
        losses = spend(np.exp(budgets))
        first = int(np.argmax(losses <= target))
        if not losses[first] <= target:
            first = _SECTIONS - 1
        if first == 0:
            return float(np.exp(low)), floor
        low, high = budgets[first - 1], budgets[first]
        below, above = losses[first - 1], losses[first]
    if np.isfinite(below) and below > above:
        high = low + (high - low) * (below - target) / (below - above)
    return float(np.exp(high)), floor


def cheapest_training(law: SupervisedLaw, forward: ForwardCost, target: float) -> tuple[float, float] | None:
    """Size and tokens of ordinary training that reach `target` with the least compute; None where no size does."""

    def log_cost(points: FloatArray) -> FloatArray:
        size = np.exp(points[..., 0])
        tokens = np.maximum(law.tokens_for(size, target), LOWEST)
        possible = tokens <= HIGHEST
        cost = np.log(forward.training_per_token(size)) + np.log(np.where(possible, tokens, 1.0))
        return np.where(possible, cost, np.inf)

    where, least = minimise(log_cost, np.log([[LOWEST]]), np.log([[HIGHEST]]))
    if not np.isfinite(least[0]):
        return None
    size = float(np.exp(where[0, 0]))
    return size, max(float(law.tokens_for(size, target)), LOWEST)
