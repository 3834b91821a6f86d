"""A plan along compute: what each way of distilling, and ordinary training, reach at every budget.

Covers: one way's curve of loss, gain over ordinary training and shares, with the interval of each; ordinary training of
the same and of the compute-optimal size. Does not cover: where the curves cross (`crossover`), drawing them.

The intervals keep the allocations of the law's own coefficients: at an optimum a small change of the law moves the loss
of the best allocation and the loss at the old one alike, to first order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.laws.family import Equation
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray
from tutelage.planning.optimum import Allocations, compute_optimal
from tutelage.planning.scenarios import HIGHEST
from tutelage.planning.spread import Band, Spread

BUDGETS = 61
"""About seven a decade of compute; between two of them the gain is close to linear in the logarithm."""
FEWEST_TOKENS_PER_PARAM = 1.0
"""Training below one token a parameter is not a choice that anybody compares with."""


def budgets(law: Law, student_params: float) -> FloatArray:
    """The budgets that a student of this size is looked at with, in FLOPs, ascending."""
    own = float(law.forward.training_per_token(student_params))
    return own * np.geomspace(FEWEST_TOKENS_PER_PARAM * student_params, HIGHEST, BUDGETS)


@dataclass(frozen=True)
class Curve:
    """One way of distilling along compute; every array has one element a budget.

    Args:
        compute: Budgets in FLOPs, ascending.
        allocations: The best allocation at each.
        loss: The student's loss, nats per token.
        gain: Loss of ordinary training of the same size at the same cost, minus `loss`.
        drawn: `loss` under each draw, shape (draws, budgets); None without draws.
    """

    compute: FloatArray
    allocations: Allocations
    loss: Band
    gain: Band
    drawn: FloatArray | None

    @property
    def affordable(self) -> NDArray[np.bool_]:
        """Which budgets pay for a student at all."""
        return np.isfinite(self.allocations.student_loss)

    def to_dict(self) -> dict[str, object]:
        """The JSON form; null where a budget does not pay for a student."""
        loss, gain, costs = self.loss.where(self.affordable), self.gain.where(self.affordable), self.allocations.costs
        parts = {"student": costs.student, "logits": costs.logits, "teacher": costs.teacher}
        shares = {name: np.where(self.affordable, part / costs.total, np.nan) for name, part in parts.items()}
        return {
            "loss": loss.value.tolist(),
            "low": loss.low.tolist(),
            "high": loss.high.tolist(),
            "gain": gain.value.tolist(),
            "gain_low": gain.low.tolist(),
            "gain_high": gain.high.tolist(),
            "shares": {name: part.tolist() for name, part in shares.items()},
        }


def trace(spread: Spread, student_params: float, spend: Callable[[FloatArray], Allocations]) -> Curve:
    """The curve of one way of distilling.

    Args:
        spread: A law with a distillation law.
        student_params: N_S.
        spend: Takes budgets in FLOPs, shape (n,), and returns the best allocations.
    """
    law = spread.law
    compute = budgets(law, student_params)
    allocations = spend(compute)
    tokens = compute / law.forward.training_per_token(student_params)

    def both(equation: Equation) -> FloatArray:
        loss = allocations.student_loss_under(equation)
        return np.concatenate([loss, spread.ordinary(equation).predict(student_params, tokens) - loss], axis=-1)

    band = spread.band(both)
    drawn = None if spread.ensemble is None else allocations.student_loss_under(spread.ensemble)
    return Curve(compute, allocations, band[:BUDGETS], band[BUDGETS:], drawn)


@dataclass(frozen=True)
class Curves:
    """Every way along compute, with ordinary training beside them.

    Args:
        compute: Budgets in FLOPs, shape (n,).
        scenarios: The curve of each way of distilling.
        supervised: Loss of ordinary training of the student's size, nats per token.
        optimal: Loss of ordinary training of the compute-optimal size.
        optimal_params: That size.
        optimal_tokens: Its tokens.
    """

    compute: FloatArray
    scenarios: Mapping[str, Curve]
    supervised: Band
    optimal: FloatArray
    optimal_params: FloatArray
    optimal_tokens: FloatArray

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "compute": self.compute.tolist(),
            "scenarios": self.scenarios,
            "supervised": {
                "loss": self.supervised.value.tolist(),
                "low": self.supervised.low.tolist(),
                "high": self.supervised.high.tolist(),
            },
            "compute_optimal": {
                "loss": self.optimal.tolist(),
                "params": self.optimal_params.tolist(),
                "tokens": self.optimal_tokens.tolist(),
            },
        }


def gather(spread: Spread, student_params: float, scenarios: Mapping[str, Curve]) -> Curves:
    """The curves of all ways with those of ordinary training."""
    law = spread.law
    compute = budgets(law, student_params)
    tokens = compute / law.forward.training_per_token(student_params)
    ordinary = spread.ordinary(law.equation)
    params, free_tokens = compute_optimal(ordinary, law.forward, compute)
    return Curves(
        compute,
        scenarios,
        spread.band(lambda equation: spread.ordinary(equation).predict(student_params, tokens)),
        ordinary.predict(params, free_tokens),
        params,
        free_tokens,
    )
