"""Ordinary training with the same budget: what distilling has to beat.

Covers: the student's size on the whole budget (over-training included), and the size left free (compute-optimal). Does
not cover: served tokens; repeated data enter through the law of ordinary training (`Spread.ordinary`).
"""

from __future__ import annotations

import numpy as np

from tutelage.laws.family import Equation
from tutelage.laws.numbers import FloatArray
from tutelage.planning.near_optimal import near_optimal_training
from tutelage.planning.optimum import compute_optimal
from tutelage.planning.parts import ComputeOptimal, SupervisedPlan, known
from tutelage.planning.question import Question
from tutelage.planning.scenarios import HIGHEST, LOWEST
from tutelage.planning.spread import Spread
from tutelage.planning.target import cheapest_training
from tutelage.records.document import Caution
from tutelage.records.estimate import Estimate


def train_ordinarily(question: Question, spread: Spread) -> tuple[SupervisedPlan | None, tuple[Caution, ...]]:
    """Ordinary training of the student's size; None, with the caution that says why, where the budget does not do."""
    if question.target_loss is not None:
        return _reach(question, question.target_loss, spread)
    law = spread.law
    own = float(law.forward.training_per_token(question.size))
    tokens = min((question.compute or 0.0) / own, HIGHEST) if question.tokens is None else question.tokens
    if tokens < LOWEST:
        return None, (_unaffordable(question, own),)
    budget = np.array([own * tokens])

    def optimal(equation: Equation, near: float | None = None) -> tuple[FloatArray, FloatArray]:
        return compute_optimal(spread.ordinary(equation), law.forward, budget, near)

    size, data = (float(part[0]) for part in optimal(law.equation))
    drawn = (np.empty(0), np.empty(0)) if spread.ensemble is None else optimal(spread.ensemble, size)
    return SupervisedPlan(
        loss=_loss(spread, question.size, tokens),
        tokens=known(tokens),
        tokens_per_param=known(tokens / question.size),
        compute=known(own * tokens),
        compute_optimal=_optimal(spread, (size, data), drawn),
    ), ()


def _reach(question: Question, target: float, spread: Spread) -> tuple[SupervisedPlan | None, tuple[Caution, ...]]:
    """Ordinary training to a target loss."""
    law, params = spread.law, question.size
    own = float(law.forward.training_per_token(params))

    def needed(equation: Equation) -> FloatArray:
        tokens = np.maximum(spread.ordinary(equation).tokens_for(params, target), LOWEST)
        return np.where(tokens <= HIGHEST, tokens, np.nan)

    tokens = float(needed(law.equation))
    if np.isnan(tokens):
        return None, (_infeasible(question, spread, target),)
    size, data = (float(part[0]) for part in cheapest_training(spread.ordinary(law.equation), law.forward, target))
    drawn, every = (np.empty(0), np.empty(0)), np.empty(0)
    if spread.ensemble is not None:
        every = needed(spread.ensemble)
        drawn = cheapest_training(spread.ordinary(spread.ensemble), law.forward, target, size)
    return SupervisedPlan(
        loss=_loss(spread, params, tokens),
        tokens=spread.around(tokens, every),
        tokens_per_param=spread.around(tokens / params, every / params),
        compute=spread.around(own * tokens, own * every),
        compute_optimal=_optimal(spread, (size, data), drawn),
        reachable=spread.share(lambda _: np.isfinite(every)),
    ), ()


def _optimal(spread: Spread, choice: tuple[float, float], drawn: tuple[FloatArray, FloatArray]) -> ComputeOptimal:
    params, tokens = choice
    forward = spread.law.forward
    return ComputeOptimal(
        spread.around(params, drawn[0]),
        spread.around(tokens, drawn[1]),
        _loss(spread, params, tokens),
        spread.around(forward.training_per_token(params) * tokens, forward.training_per_token(drawn[0]) * drawn[1]),
        near_optimal_training(spread.ordinary(spread.law.equation), spread.law.forward, params, tokens),
    )


def _loss(spread: Spread, params: float, tokens: float) -> Estimate:
    return spread.estimate(lambda equation: spread.ordinary(equation).predict(np.asarray(params), tokens))


def _infeasible(question: Question, spread: Spread, target: float) -> Caution:
    floor = float(spread.ordinary(spread.law.equation).predict(question.size, HIGHEST))
    text = (
        f"ordinary training: the loss {target:.4g} cannot be reached; with unlimited tokens this size goes down to "
        f"{floor:.4f} and no further"
    )
    return Caution("infeasible-target", "supervised.target_loss", target, (floor, np.inf), text)


def _unaffordable(question: Question, own: float) -> Caution:
    text = f"ordinary training: {question.compute:.3g} FLOPs do not pay for {LOWEST:.0g} tokens ({LOWEST * own:.2g} do)"
    return Caution("unaffordable", "supervised.compute", question.compute, (LOWEST * own, np.inf), text)
