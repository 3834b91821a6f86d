"""The minimiser of a Huber loss on log losses, many starts a call, as plain Python that `compilation` compiles.

Covers: the objective with its gradient and a model of its Hessian, damped steps within bounds, many starts on many
weightings of the same runs. Does not cover: where to start (`starts`), how the work is cut into calls (`search`).

The objective is sum_i weight_i Huber_delta(prediction_i - log loss_i). The Hessian's model is J'J on the runs in
Huber's quadratic part, and on the others a majoriser (weight delta / |residual|) that counts for less the better the
steps succeed. The valleys of these laws are long and bent, so each step has a second-order part that follows the bend
(`transtrum2012`, geodesic acceleration): without it three hundred steps do not reach the minimum of the nine-parameter
law, with it about a hundred do.

These functions hold numbers and loops only, because numba compiles them. `kernel` is a name without a value here: each
family's compiled copy of this module's functions has its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.laws.numbers import FloatArray

if TYPE_CHECKING:

    def kernel(theta: FloatArray, x: FloatArray, slope: FloatArray) -> float:
        """The family's, see `tutelage.laws.family.Family`."""


_FIRST_DAMPING = 0.1
_LEAST_DAMPING = 1e-12
_MOST_DAMPING = 1e7
_EASE = 0.2
"""Damping is multiplied by this after a step that went downhill."""
_TIGHTEN = 6.0
"""And by this after one that did not."""
_PROBE = 0.1
"""Part of a step over which the bend of the valley is measured."""
_MOST_BEND = 0.5
"""The second-order part of a step is at most this much of its first-order part, else it is left out."""


class Problem(NamedTuple):
    """One weighting of the runs: features (runs, features), log losses and weights (runs,), bounds (parameters,)."""

    x: FloatArray
    y: FloatArray
    weights: FloatArray
    low: FloatArray
    high: FloatArray
    delta: float


class Place(NamedTuple):
    """What is known at a point: the gradient, the Hessian's model in two parts, and each run's residual and slope."""

    gradient: FloatArray
    inner: FloatArray
    outer: FloatArray
    residuals: FloatArray
    slopes: FloatArray


def evaluate(theta: FloatArray, problem: Problem, place: Place) -> float:
    """The objective at `theta`; fills `place` (of the Hessian's two parts the lower triangles)."""
    gradient = place.gradient
    gradient[:] = 0.0
    place.inner[:] = 0.0
    place.outer[:] = 0.0
    total = 0.0
    for run in range(len(problem.y)):
        slope = place.slopes[run]
        residual = kernel(theta, problem.x[run], slope) - problem.y[run]
        place.residuals[run] = residual
        size, weight = abs(residual), problem.weights[run]
        if size <= problem.delta:
            total += 0.5 * weight * residual * residual
            bend, part = weight, place.inner
        else:
            total += weight * problem.delta * (size - 0.5 * problem.delta)
            bend, part = weight * problem.delta / size, place.outer
        pull = bend * residual
        for i in range(len(theta)):
            gradient[i] += pull * slope[i]
            scaled = bend * slope[i]
            for j in range(i + 1):
                part[i, j] += scaled * slope[j]
    return total


def factorise(matrix: FloatArray) -> bool:
    """Put Cholesky's factor into the lower triangle; False where the matrix is not positive definite."""
    count = len(matrix)
    for j in range(count):
        whole = matrix[j, j]
        for k in range(j):
            matrix[j, j] -= matrix[j, k] * matrix[j, k]
        if not matrix[j, j] > 1e-14 * whole:
            return False
        matrix[j, j] = math.sqrt(matrix[j, j])
        for i in range(j + 1, count):
            for k in range(j):
                matrix[i, j] -= matrix[i, k] * matrix[j, k]
            matrix[i, j] /= matrix[j, j]
    return True


def substitute(factor: FloatArray, right: FloatArray) -> None:
    """Solve in place for `right`, with the factor that `factorise` left."""
    count = len(right)
    for i in range(count):
        for k in range(i):
            right[i] -= factor[i, k] * right[k]
        right[i] /= factor[i, i]
    for back in range(count):
        i = count - 1 - back
        for k in range(i + 1, count):
            right[i] -= factor[k, i] * right[k]
        right[i] /= factor[i, i]


def bend_of(theta: FloatArray, step: FloatArray, problem: Problem, place: Place, mix: float) -> FloatArray:
    """How the residuals bend along a step, pulled back to the parameters, (parameters,)."""
    count = len(theta)
    right, slope = np.zeros(count), np.empty(count)
    moved = theta + _PROBE * step
    for i in range(count):
        moved[i] = min(max(moved[i], problem.low[i]), problem.high[i])
    for run in range(len(problem.y)):
        before = place.residuals[run]
        straight = before
        for i in range(count):
            straight += place.slopes[run, i] * (moved[i] - theta[i])
        bent = kernel(moved, problem.x[run], slope) - problem.y[run] - straight
        weight = problem.weights[run]
        if abs(before) > problem.delta:
            weight *= mix * problem.delta / abs(before)
        for i in range(count):
            right[i] -= weight * bent / (_PROBE * _PROBE) * place.slopes[run, i]
    return right


def propose(theta: FloatArray, problem: Problem, place: Place, damping: float) -> FloatArray:
    """The point that a damped step within the bounds leads to; `theta` itself where the model is not convex.

    A parameter at a bound that the gradient pushes beyond it is kept there.
    """
    count = len(theta)
    matrix, scale, step, free = np.empty((count, count)), np.empty(count), np.empty(count), np.ones(count)
    mix = min(1.0, damping)
    for i in range(count):
        scale[i] = place.inner[i, i] + place.outer[i, i]
        step[i] = -place.gradient[i]
        for j in range(i + 1):
            matrix[i, j] = place.inner[i, j] + mix * place.outer[i, j]
        matrix[i, i] += damping * scale[i]
    for i in range(count):
        up, down = theta[i] >= problem.high[i], theta[i] <= problem.low[i]
        if (up and step[i] >= 0.0) or (down and step[i] <= 0.0) or not matrix[i, i] > 0.0:
            step[i] = free[i] = 0.0
            for j in range(count):
                matrix[max(i, j), min(i, j)] = 0.0
            matrix[i, i] = 1.0
    if not factorise(matrix):
        return theta.copy()
    substitute(matrix, step)
    bend = bend_of(theta, step, problem, place, mix) * free
    substitute(matrix, bend)
    if (scale * bend * bend).sum() <= _MOST_BEND * _MOST_BEND * (scale * step * step).sum():
        step += bend
    for i in range(count):
        step[i] = min(max(theta[i] + step[i], problem.low[i]), problem.high[i])
    return step


def empty_place(runs: int, count: int) -> Place:
    """Room for what is known at a point."""
    square = (count, count)
    return Place(np.empty(count), np.empty(square), np.empty(square), np.empty(runs), np.empty((runs, count)))


def descend(theta: FloatArray, problem: Problem, steps: int, tolerance: float) -> float:
    """Move `theta` downhill in place by at most `steps` trial steps; return the objective there.

    Ends where two steps in a row gain less than `tolerance` of the objective.
    """
    here, there = empty_place(len(problem.y), len(theta)), empty_place(len(problem.y), len(theta))
    objective = evaluate(theta, problem, here)
    damping, small = _FIRST_DAMPING, 0
    for _ in range(steps):
        trial = propose(theta, problem, here, damping)
        value = evaluate(trial, problem, there)
        if value < objective:
            small = small + 1 if objective - value <= tolerance * objective else 0
            theta[:] = trial
            objective = value
            here, there = there, here
            damping = max(_EASE * damping, _LEAST_DAMPING)
            if small == 2:
                break
        else:
            damping *= _TIGHTEN
            if damping > _MOST_DAMPING:
                break
    return objective


def solve(
    starts: FloatArray,
    x: FloatArray,
    y: FloatArray,
    weights: FloatArray,
    pairs: NDArray[np.int64],
    bounds: FloatArray,
    options: FloatArray,
) -> FloatArray:
    """Move every row of `starts` downhill in place; return the objective of each, shape (starts,).

    Args:
        starts: Points within the bounds, shape (starts, parameters).
        x: Features, shape (versions, runs, features); versions differ in the frozen supervised law.
        y: Log losses, shape (runs,).
        weights: Weightings of the runs, shape (weightings, runs); runs of weight 0 cost nothing.
        pairs: For each start the version and the weighting that it is for, integers of shape (starts, 2).
        bounds: Lower and upper bounds, shape (2, parameters); equal ones fix a parameter.
        options: Huber's delta, most steps of a start, tolerance; shape (3,).
    """
    objectives = np.empty(len(starts))
    near_x, near_y, near_weights = np.empty(x.shape[1:]), np.empty(len(y)), np.empty(len(y))
    for start in range(len(starts)):
        version, weighting = pairs[start, 0], pairs[start, 1]
        kept = 0
        for run in range(len(y)):
            if weights[weighting, run] > 0.0:
                near_x[kept] = x[version, run]
                near_y[kept] = y[run]
                near_weights[kept] = weights[weighting, run]
                kept += 1
        problem = Problem(near_x[:kept], near_y[:kept], near_weights[:kept], bounds[0], bounds[1], options[0])
        objectives[start] = descend(starts[start], problem, int(options[1]), options[2])
    return objectives
