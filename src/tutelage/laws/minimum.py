"""Many small smooth minimisations at once, by a grid and then a compass with Newton steps.

Covers: problems of one or two bounded variables, one problem a row, all rows together in numpy. Does not cover:
constraints beyond bounds (eliminate them first), nor more variables (the grid would not scale).

A law's optimum is asked for at many budgets at a time, on surfaces that are flat along one direction; a start from a
grid makes the result independent of starting points, and the rows share every numpy call.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from tutelage.laws.numbers import FloatArray

_GRID_POINTS = {1: 129, 2: 41}
_COARSE_POINTS = {1: 65, 2: 11}
"""Beside a start: enough to see that another valley has become the deeper one."""
_SMALLEST_STEP = 1e-7
"""Steps below this move the loss by less than float64 resolves: the surfaces are quadratic at their minimum."""
_SHRINK = 0.25
_SHORT_JUMP = 0.5
_FRACTIONS = np.array([1.0, 0.3, 0.1, 0.03])
"""Parts of a Newton step that are tried: all of it where the surface is quadratic, less where a valley bends."""
_MOST_ROUNDS = 200


def minimise(
    objective: Callable[[FloatArray], FloatArray],
    low: FloatArray,
    high: FloatArray,
    start: FloatArray | None = None,
    smallest_step: float = _SMALLEST_STEP,
) -> tuple[FloatArray, FloatArray]:
    """The minimum of each row's objective within its bounds.

    Args:
        objective: Takes points of shape (rows, points, variables) and returns values of shape (rows, points); infinity
            marks a point that is not allowed. Row r of the result may only depend on row r of the points.
        low: Lower bounds, shape (rows, variables) with one or two variables.
        high: Upper bounds, of the same shape.
        start: Where each row's minimum is nearly, of the same shape: a coarse grid is then enough, to see whether
            another valley is deeper. For problems that differ little from a solved one.
        smallest_step: The search ends at stencils of this many cells of the grid; a Newton step from there is far more
            accurate than that.

    Returns:
        The minimisers, shape (rows, variables), and the minima, shape (rows,); infinity where no point is allowed.
    """
    rows, variables = low.shape
    every = np.arange(rows)
    points = _GRID_POINTS[variables]
    centre, least = _best_of_grid(objective, low, high, points if start is None else _COARSE_POINTS[variables])
    if start is not None:
        start = np.clip(start, low, high)
        there = np.asarray(objective(start[:, None, :]))[:, 0]
        centre, least = np.where((there <= least)[:, None], start, centre), np.minimum(there, least)
    # The centre comes first so that argmin keeps it on a tie.
    compass = np.array(sorted(product((-1.0, 0.0, 1.0), repeat=variables), key=lambda offset: (any(offset), offset)))
    span = (high - low) / (points - 1)
    step = np.ones(rows)
    for _ in range(_MOST_ROUNDS):
        reach = step[:, None] * span
        stencil = np.clip(centre[:, None, :] + compass[None] * reach[:, None, :], low[:, None, :], high[:, None, :])
        around = np.asarray(objective(stencil))
        jump = _newton_step(compass, around)
        jumps = np.clip(
            centre[:, None, :] + _FRACTIONS[None, :, None] * (jump * reach)[:, None, :],
            low[:, None, :],
            high[:, None, :],
        )
        candidates = np.concatenate([stencil, jumps], axis=1)
        heights = np.concatenate([around, np.asarray(objective(jumps))], axis=1)
        best = np.argmin(heights, axis=1)
        centre, least = candidates[every, best], heights[every, best]
        # A valley is walked to its end before it is looked at more closely.
        far = np.where(best < len(compass), best > 0, np.abs(jump).max(axis=1) > _SHORT_JUMP)
        step = np.where(far, step, step * _SHRINK)
        if np.all(step < smallest_step):
            break
    return centre, least


def _best_of_grid(
    objective: Callable[[FloatArray], FloatArray], low: FloatArray, high: FloatArray, points: int
) -> tuple[FloatArray, FloatArray]:
    unit = np.array(list(product(np.linspace(0.0, 1.0, points), repeat=low.shape[1])))
    grid = low[:, None, :] + unit[None] * (high - low)[:, None, :]
    values = np.asarray(objective(grid))
    every, first = np.arange(len(low)), np.argmin(values, axis=1)
    return grid[every, first], values[every, first]


def _newton_step(compass: FloatArray, around: FloatArray) -> FloatArray:
    """The step to the minimum of the quadratic through each stencil, in stencil units; 0 where there is none."""
    variables = compass.shape[1]
    place = {tuple(offset): index for index, offset in enumerate(compass.tolist())}
    axes = np.eye(variables)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        plus = np.stack([around[:, place[tuple(axis)]] for axis in axes], axis=1)
        minus = np.stack([around[:, place[tuple(-axis)]] for axis in axes], axis=1)
        slope, bend = 0.5 * (plus - minus), plus + minus - 2.0 * around[:, :1]
        if variables == 1:
            found = (bend > 0) & np.isfinite(slope)
            return np.where(found, -slope / np.where(found, bend, 1.0), 0.0)
        cross = 0.25 * (
            around[:, place[1.0, 1.0]]
            + around[:, place[-1.0, -1.0]]
            - around[:, place[1.0, -1.0]]
            - around[:, place[-1.0, 1.0]]
        )
        determinant = bend[:, 0] * bend[:, 1] - cross**2
        found = (determinant > 0) & (bend[:, 0] > 0) & np.isfinite(slope).all(axis=1)
        safe = np.where(found, determinant, 1.0)
        step = -np.stack(
            [bend[:, 1] * slope[:, 0] - cross * slope[:, 1], bend[:, 0] * slope[:, 1] - cross * slope[:, 0]], axis=1
        )
        return np.where(found[:, None], step / safe[:, None], 0.0)
