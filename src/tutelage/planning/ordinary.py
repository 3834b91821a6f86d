"""Ordinary training with the same budget: what distilling has to beat.

Covers: the student's size on the whole budget (over-training included), and the size left free (compute-optimal). Does
not cover: served tokens and repeated data.
"""

from __future__ import annotations

import numpy as np

from tutelage.laws.law import Law
from tutelage.laws.rounding import banded
from tutelage.planning.optimum import compute_optimal
from tutelage.planning.parts import ComputeOptimal, SupervisedPlan, known
from tutelage.planning.question import Question
from tutelage.planning.scenarios import HIGHEST, LOWEST
from tutelage.planning.target import cheapest_training
from tutelage.records.document import Caution
from tutelage.records.estimate import Estimate


def train_ordinarily(question: Question, law: Law) -> tuple[SupervisedPlan | None, tuple[Caution, ...]]:
    """Ordinary training of the student's size; None, with the caution that says why, where the budget does not do."""
    own = float(law.forward.training_per_token(question.student_params))
    free: tuple[float, float] | None
    if question.target_loss is not None:
        tokens = float(law.supervised.tokens_for(question.student_params, question.target_loss))
        if tokens > HIGHEST:
            return None, (_infeasible(question, law, question.target_loss),)
        tokens = max(tokens, LOWEST)
        free = cheapest_training(law.supervised, law.forward, question.target_loss)
    else:
        tokens = min((question.compute or 0.0) / own, HIGHEST) if question.tokens is None else question.tokens
        if tokens < LOWEST:
            return None, (_unaffordable(question, own),)
        params, free_tokens = compute_optimal(law.supervised, law.forward, np.array([own * tokens]))
        free = float(params[0]), float(free_tokens[0])
    return SupervisedPlan(
        loss=_loss(law, question.student_params, tokens),
        tokens=known(tokens),
        tokens_per_param=known(tokens / question.student_params),
        compute=known(own * tokens),
        compute_optimal=ComputeOptimal(known(free[0]), known(free[1]), _loss(law, *free)) if free else None,
    ), ()


def _loss(law: Law, params: float, tokens: float) -> Estimate:
    return banded(law, lambda equation: equation.supervised.predict(np.asarray(params), tokens))


def _infeasible(question: Question, law: Law, target: float) -> Caution:
    floor = float(law.supervised.predict(question.student_params, HIGHEST))
    text = (
        f"ordinary training: the loss {target:.4g} cannot be reached; with unlimited tokens this size goes down to "
        f"{floor:.4f} and no further"
    )
    return Caution("infeasible-target", "supervised.target_loss", target, (floor, np.inf), text)


def _unaffordable(question: Question, own: float) -> Caution:
    text = f"ordinary training: {question.compute:.3g} FLOPs do not pay for {LOWEST:.0g} tokens ({LOWEST * own:.2g} do)"
    return Caution("unaffordable", "supervised.compute", question.compute, (LOWEST * own, np.inf), text)
