"""Choices that are nearly as good as the best: how far each may be moved before the loss rises by half a per cent.

Covers: ranges of the student's tokens and of the teacher's size, tokens and loss at the cost of the best allocation;
of size and tokens of compute-optimal training. Does not cover: the law's uncertainty, which moves the optimum itself.

The set of good allocations is looked at on a grid of the search variables, first over the whole box and then over what
was found: at most a hundredth of the set's own width is missed at either end.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from tutelage.laws.compute import ForwardCost, distillation_cost
from tutelage.laws.families.distillation import DistillationLaw
from tutelage.laws.families.supervised import SupervisedLaw
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray
from tutelage.planning.optimum import Allocations, divide, search_box
from tutelage.planning.parts import Ends, NearOptimal, NearOptimalTraining
from tutelage.planning.scenarios import HIGHEST, LOWEST, Scenario

WITHIN = 0.005
"""Share of the best loss: about what two runs of one recipe differ by."""
_POINTS = {1: (1201, 401), 2: (61, 121)}
"""Grid points a variable, first over the box, then over the set."""
_FEWEST = 1e-3
"""Share of the tokens that is looked at where fewer would do."""

_Parts = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def near_optimal(
    law: Law, scenario: Scenario | None, allocations: Allocations, tokens_given: bool = False
) -> NearOptimal:
    """What is nearly as good as an allocation.

    Args:
        law: A law with a distillation law.
        scenario: What the student pays for; None where its teacher exists.
        allocations: The best allocation, of one budget.
        tokens_given: Whether the student's tokens are given rather than chosen.
    """
    equation = law.require_distillation()
    params, tokens = float(np.ravel(allocations.student_params)[0]), float(allocations.student_tokens[0])
    ceiling = (1.0 + WITHIN) * float(allocations.student_loss[0])
    if scenario is None or scenario.free_teacher:
        teacher_loss = float(allocations.teacher_loss[0]) if scenario is None else None
        enough = (tokens, tokens) if tokens_given else _fewer(equation, params, tokens, teacher_loss, ceiling)
        if scenario is None:
            return NearOptimal(WITHIN, enough)
    else:
        enough = None
    low, high = search_box(equation.supervised, scenario, 1)
    if tokens_given and not scenario.free_teacher:
        # What is left is the teacher's size: its tokens follow from it at a given cost.
        low, high = low[:, :1], high[:, :1]
    compute = np.array([[float(allocations.costs.total[0])]])

    def at(points: FloatArray) -> _Parts:
        if tokens_given and not scenario.free_teacher:
            return _divide_given_tokens(law, scenario, (params, tokens), float(compute[0, 0]), points)
        return divide(equation.supervised, law.forward, scenario, np.array([[params]]), compute, points[None])

    def loss(points: FloatArray) -> FloatArray:
        student_tokens, _, _, teacher_loss = at(points)
        possible = student_tokens >= LOWEST
        reached = equation.predict(params, np.where(possible, student_tokens, LOWEST), teacher_loss)
        return np.where(possible, reached, np.inf).ravel()

    best = allocations.student_tokens, allocations.teacher_params, allocations.teacher_tokens, allocations.teacher_loss
    found = zip(best, at(_good(loss, ceiling, low[0], high[0])), strict=True)
    student_tokens, teacher_params, teacher_tokens, teacher_losses = (
        _ends(np.append(part.ravel(), value)) for value, part in found
    )
    return NearOptimal(
        WITHIN,
        enough or student_tokens or (tokens, tokens),
        teacher_params,
        teacher_tokens if scenario.d_pretrain else None,
        teacher_losses,
    )


def near_optimal_training(
    law: SupervisedLaw, forward: ForwardCost, params: float, tokens: float
) -> NearOptimalTraining:
    """Sizes near the compute-optimal one whose loss is nearly as good on the same budget."""
    compute = float(forward.training_per_token(params)) * tokens
    ceiling = (1.0 + WITHIN) * float(law.predict(params, tokens))

    def tokens_of(points: FloatArray) -> FloatArray:
        return np.minimum(compute / forward.training_per_token(np.exp(points[:, 0])), HIGHEST)

    def loss(points: FloatArray) -> FloatArray:
        afforded = tokens_of(points)
        reached = law.predict(np.exp(points[:, 0]), np.maximum(afforded, LOWEST))
        return np.where(afforded >= LOWEST, reached, np.inf)

    good = _good(loss, ceiling, np.log([LOWEST]), np.log([HIGHEST]))
    sizes = _ends(np.append(np.exp(good[:, 0]), params)) or (params, params)
    return NearOptimalTraining(WITHIN, sizes, _ends(np.append(tokens_of(good), tokens)) or (tokens, tokens))


def _good(loss: Callable[[FloatArray], FloatArray], ceiling: float, low: FloatArray, high: FloatArray) -> FloatArray:
    """Points of a grid in the box whose loss is at most `ceiling`, shape (good, variables)."""
    good = np.empty((0, len(low)))
    for points in _POINTS[len(low)]:
        unit = np.array(list(product(np.linspace(0.0, 1.0, points), repeat=len(low))))
        grid = low + unit * (high - low)
        losses = loss(grid)
        good = grid[losses <= ceiling]
        if not len(good):
            return grid[[np.argmin(losses)]]
        cell = (high - low) / (points - 1)
        low, high = np.maximum(good.min(axis=0) - cell, low), np.minimum(good.max(axis=0) + cell, high)
    return good


def _divide_given_tokens(
    law: Law, scenario: Scenario, student: tuple[float, float], compute: float, points: FloatArray
) -> _Parts:
    """D_S, N_T, D_T and L_T where the student's tokens are given and the teacher's size is varied at one cost."""
    size = np.exp(points[:, 0])
    unit = distillation_cost(law.forward, student, (size, np.ones_like(size)), scenario.d_logits, scenario.d_pretrain)
    left = compute * (1.0 + 1e-9) - unit.student - unit.logits
    tokens = left / unit.teacher if scenario.d_pretrain else np.where(left >= 0.0, HIGHEST, 0.0)
    possible = tokens >= LOWEST
    trained = np.clip(tokens, LOWEST, HIGHEST)
    return np.where(possible, student[1], 0.0), size, trained, law.supervised.predict(size, trained)


def _fewer(law: DistillationLaw, params: float, tokens: float, teacher_loss: float | None, ceiling: float) -> Ends:
    """The fewest tokens that reach `ceiling`, with the given teacher or the best one, and all of them."""
    fewer = tokens * np.geomspace(_FEWEST, 1.0, 81)
    losses = (
        law.best_teacher_loss(params, fewer)[1] if teacher_loss is None else law.predict(params, fewer, teacher_loss)
    )
    # Never rising in the tokens, so that the reversed pair is what `interp` wants.
    return float(np.exp(np.interp(ceiling, losses[::-1], np.log(fewer)[::-1]))), tokens


def _ends(values: FloatArray) -> Ends | None:
    return None if not np.isfinite(values).all() else (float(values.min()), float(values.max()))
