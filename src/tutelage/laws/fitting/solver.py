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
_EASE, _GOOD = 0.2, 0.75
"""Damping is multiplied by the first after a step that gained more than the second of what the model promised."""
_HOLD, _POOR = 2.0, 0.25
"""Likewise after one that gained less than this."""
_TIGHTEN = 4.0
"""And by this after one that went uphill."""
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


class Workspace(NamedTuple):
    """Room for what is known at the present point, and for the next one; allocated once for many starts.

    Args:
        theta: The present point and the trial point, in alternating slots, shape (2, parameters).
        residuals: Of each run at both, shape (2, runs).
        slopes: Of each run at both, shape (2, runs, parameters).
        gradient: At the present point, shape (parameters,).
        inner: The Hessian's model there, its part from Huber's quadratic range (lower triangle).
        outer: Likewise from the linear range.
        matrix: The damped model and its factor.
        rows: The model's diagonal, the step, the bend, a slope: shape (4, parameters).
    """

    theta: FloatArray
    residuals: FloatArray
    slopes: FloatArray
    gradient: FloatArray
    inner: FloatArray
    outer: FloatArray
    matrix: FloatArray
    rows: FloatArray


def make_workspace(runs: int, count: int) -> Workspace:
    """An empty workspace."""
    return Workspace(
        np.empty((2, count)),
        np.empty((2, runs)),
        np.empty((2, runs, count)),
        np.empty(count),
        np.empty((count, count)),
        np.empty((count, count)),
        np.empty((count, count)),
        np.empty((4, count)),
    )


def evaluate(problem: Problem, work: Workspace, slot: int) -> float:
    """The objective at the point in that slot; writes each run's residual and slope beside it."""
    total = 0.0
    for run in range(len(problem.y)):
        residual = kernel(work.theta[slot], problem.x[run], work.slopes[slot, run]) - problem.y[run]
        work.residuals[slot, run] = residual
        size = abs(residual)
        if size <= problem.delta:
            total += 0.5 * problem.weights[run] * residual * residual
        else:
            total += problem.weights[run] * problem.delta * (size - 0.5 * problem.delta)
    return total


def accumulate(problem: Problem, work: Workspace, slot: int) -> None:
    """Sum the residuals and slopes of that slot to the gradient and the Hessian's two parts."""
    count = len(work.gradient)
    for i in range(count):
        work.gradient[i] = 0.0
        for j in range(i + 1):
            work.inner[i, j] = work.outer[i, j] = 0.0
    for run in range(len(problem.y)):
        slope, residual, bend = work.slopes[slot, run], work.residuals[slot, run], problem.weights[run]
        part = work.inner
        if abs(residual) > problem.delta:
            bend *= problem.delta / abs(residual)
            part = work.outer
        for i in range(count):
            scaled = bend * slope[i]
            work.gradient[i] += scaled * residual
            for j in range(i + 1):
                part[i, j] += scaled * slope[j]


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


def measure_bend(problem: Problem, work: Workspace, slot: int, mix: float) -> None:
    """How the residuals bend along the step, pulled back to the parameters, into the bend's row.

    The trial slot's point serves as the probe.
    """
    count = len(work.gradient)
    here, probe, slopes = work.theta[slot], work.theta[1 - slot], work.slopes[slot]
    step, right, slope = work.rows[1], work.rows[2], work.rows[3]
    for i in range(count):
        right[i] = 0.0
        probe[i] = min(max(here[i] + _PROBE * step[i], problem.low[i]), problem.high[i])
    for run in range(len(problem.y)):
        before = work.residuals[slot, run]
        straight = before
        for i in range(count):
            straight += slopes[run, i] * (probe[i] - here[i])
        bent = kernel(probe, problem.x[run], slope) - problem.y[run] - straight
        pull = problem.weights[run] * bent / (_PROBE * _PROBE)
        if abs(before) > problem.delta:
            pull *= mix * problem.delta / abs(before)
        for i in range(count):
            right[i] -= pull * slopes[run, i]


def hold_at_bounds(problem: Problem, work: Workspace, slot: int) -> None:
    """Take the parameters that cannot move out of the model: their scale becomes 0.

    These are the ones at a bound that the gradient pushes beyond it, and those that the model does not depend on.
    """
    count, matrix = len(work.gradient), work.matrix
    scale, step = work.rows[0], work.rows[1]
    for i in range(count):
        up, down = work.theta[slot, i] >= problem.high[i], work.theta[slot, i] <= problem.low[i]
        if (up and step[i] >= 0.0) or (down and step[i] <= 0.0) or not matrix[i, i] > 0.0:
            step[i] = scale[i] = 0.0
            for j in range(count):
                matrix[max(i, j), min(i, j)] = 0.0
            matrix[i, i] = 1.0


def propose(problem: Problem, work: Workspace, slot: int, damping: float) -> bool:
    """Write the point that a damped step within the bounds leads to into the other slot; False where there is none."""
    count, mix = len(work.gradient), min(1.0, damping)
    here, matrix = work.theta[slot], work.matrix
    scale, step, bend = work.rows[0], work.rows[1], work.rows[2]
    for i in range(count):
        scale[i] = work.inner[i, i] + work.outer[i, i]
        step[i] = -work.gradient[i]
        for j in range(i + 1):
            matrix[i, j] = work.inner[i, j] + mix * work.outer[i, j]
        matrix[i, i] += damping * scale[i]
    hold_at_bounds(problem, work, slot)
    if not factorise(matrix):
        return False
    substitute(matrix, step)
    measure_bend(problem, work, slot, mix)
    for i in range(count):
        if scale[i] == 0.0:
            bend[i] = 0.0
    substitute(matrix, bend)
    long, short = 0.0, 0.0
    for i in range(count):
        long += scale[i] * step[i] * step[i]
        short += scale[i] * bend[i] * bend[i]
    follow = short <= _MOST_BEND * _MOST_BEND * long
    for i in range(count):
        moved = here[i] + step[i] + (bend[i] if follow else 0.0)
        work.theta[1 - slot, i] = min(max(moved, problem.low[i]), problem.high[i])
    return True


def promised(work: Workspace, slot: int, damping: float) -> float:
    """What the Hessian's model gains on the way from that slot's point to the other's."""
    gain, mix = 0.0, min(1.0, damping)
    here, there = work.theta[slot], work.theta[1 - slot]
    for i in range(len(work.gradient)):
        step = there[i] - here[i]
        gain -= work.gradient[i] * step
        for j in range(i + 1):
            bend = (work.inner[i, j] + mix * work.outer[i, j]) * step * (there[j] - here[j])
            gain -= 0.5 * bend if i == j else bend
    return gain


def change_of_damping(gain: float, promise: float) -> float:
    """What to multiply damping by after a step that gained something, against what the model promised."""
    if gain > _GOOD * promise:
        return _EASE
    return _HOLD if gain < _POOR * promise else 1.0


def descend(theta: FloatArray, problem: Problem, work: Workspace, steps: int, tolerance: float) -> float:
    """Move `theta` downhill in place by at most `steps` trial steps; return the objective there.

    Ends where two steps in a row gain less than `tolerance` of the objective.
    """
    damping, small, moved = _FIRST_DAMPING, 0, True
    slot = int(np.int64(0))  # a literal 0 would be a type of its own, for which everything is compiled again
    for i in range(len(theta)):
        work.theta[slot, i] = theta[i]
    objective = evaluate(problem, work, slot)
    for _ in range(steps):
        if moved:
            accumulate(problem, work, slot)
        moved = False
        if propose(problem, work, slot, damping):
            value = evaluate(problem, work, 1 - slot)
            moved = value < objective
        if not moved:
            damping *= _TIGHTEN
            if damping > _MOST_DAMPING:
                break
            continue
        gain = objective - value
        damping = max(damping * change_of_damping(gain, promised(work, slot, damping)), _LEAST_DAMPING)
        small = small + 1 if gain <= tolerance * objective else 0
        slot, objective = 1 - slot, value
        if small == 2:
            break
    for i in range(len(theta)):
        theta[i] = work.theta[slot, i]
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
    work = make_workspace(len(y), starts.shape[1])
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
        objectives[start] = descend(starts[start], problem, work, int(options[1]), options[2])
    return objectives
