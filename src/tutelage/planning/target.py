"""How much compute a target loss takes.

Covers: the smallest budget that reaches a loss, for any way of spending a budget; the floor where none does; what that
budget is under every draw of a law. Does not cover: how a budget is spent (`optimum`); the student's size (`sizes`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tutelage.laws.compute import ForwardCost
from tutelage.laws.families.supervised import SupervisedLaw
from tutelage.laws.minimum import minimise
from tutelage.laws.numbers import FloatArray, Numbers
from tutelage.planning.scenarios import HIGHEST, LOWEST

_SECTIONS = 17
"""Budgets a round."""
_CLOSE = 1e-4
"""Natural logarithm: within this a line between two budgets misses the curve by less than 1e-9 nats."""
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
    below = above = np.nan
    while high - low > _CLOSE:
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


def compute_under_draws(compute: FloatArray, losses: FloatArray, target: float) -> tuple[FloatArray, FloatArray]:
    """The smallest budget that reaches `target` under each draw, along the allocations of the law itself.

    Args:
        compute: Budgets in FLOPs, shape (budgets,), ascending.
        losses: The loss that each reaches under each draw, shape (draws, budgets).
        target: The wanted loss, nats per token.

    Returns:
        FLOPs, NaN where no budget reaches the target, and -d loss / d ln C there; each of shape (draws,).
    """
    logs = np.log(compute)
    reached = losses <= target
    after = np.clip(np.argmax(reached, axis=1), 1, None)
    every = np.arange(len(losses))
    below, above = losses[every, after - 1], losses[every, after]
    slope = (below - above) / (logs[after] - logs[after - 1])
    found = reached.any(axis=1)
    between = found & np.isfinite(slope) & (slope > 0)
    place = logs[after] - np.where(between, (target - above) / np.where(between, slope, 1.0), 0.0)
    place = np.maximum(place, logs[0])
    return np.where(found, np.exp(place), np.nan), slope


def cheapest_training(
    law: SupervisedLaw, forward: ForwardCost, target: Numbers, near: float | None = None, served: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Size and tokens of ordinary training that reach `target` with the least compute, serving included.

    Args:
        law: The supervised law, or an ensemble of them.
        forward: The forward cost.
        target: The wanted loss, nats per token; one number, or shape (draws, 1) for an ensemble.
        near: The size for a law that differs little; the search starts there.
        served: Tokens that the finished model processes, forward alone.

    Returns:
        Parameters and tokens, each of shape (1,) or (draws,); NaN where no size reaches the target.
    """

    def log_cost(points: FloatArray) -> FloatArray:
        size = np.exp(points[..., 0])
        tokens = np.maximum(law.tokens_for(size, target), LOWEST)
        possible = tokens <= HIGHEST
        training = forward.training_per_token(size) * np.where(possible, tokens, 1.0)
        return np.where(possible, np.log(training + served * forward.per_token(size)), np.inf)

    rows = (np.size(law.alpha), 1)
    start = () if near is None else (np.full(rows, np.log(near)),)
    where, least = minimise(log_cost, np.full(rows, np.log(LOWEST)), np.full(rows, np.log(HIGHEST)), *start)
    size = np.where(np.isfinite(least), np.exp(where[:, 0]), np.nan)
    tokens = law.tokens_for(size[:, None], target)[:, 0]
    return size, np.maximum(tokens, LOWEST)
