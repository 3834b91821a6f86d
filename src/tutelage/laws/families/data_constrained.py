"""The data-constrained law: the loss of a model whose unique tokens are limited, so that tokens are repeated.

Covers: the law of `muennighoff2023`, in which repeated tokens and excess parameters are worth less and less. Does not
cover: repeated data under distillation, of which no law is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tutelage.laws.families.supervised import SUPERVISED_INPUTS, SUPERVISED_PARAMETERS, SupervisedLaw
from tutelage.laws.family import Column, Columns, Equation, Family, Parameter
from tutelage.laws.numbers import FloatArray, Numbers


@dataclass(frozen=True)
class DataConstrainedLaw:
    """L = E + A / N'^alpha + B / D'^beta, with N' and D' discounted for excess and repetition, in nats per token.

    D' = U_D + U_D R_D* (1 - exp(-R_D / R_D*)), U_D = min(U, D), R_D = D / U_D - 1 repetitions; N' likewise from
    U_N = min(N, the size that is compute-optimal for U_D) and R_N = N / U_N - 1.

    Args:
        supervised: The law of fresh tokens, E + A / N^alpha + B / D^beta (gamma is 1).
        R_D: R_D*, repetitions after which repeated tokens are worth little.
        R_N: R_N*, the same for parameters beyond the optimum of the unique tokens.

    Source: `muennighoff2023` Eq. 5 to 8.
    """

    supervised: SupervisedLaw
    R_D: float
    R_N: float

    family: ClassVar[str] = "data-constrained"
    units: ClassVar[dict[str, str]] = {"E": "nats per token", "R_D": "repetitions", "R_N": "repetitions"}

    def coefficients(self) -> dict[str, float]:
        """The coefficients by name."""
        return {**self.supervised.coefficients(), "R_D": self.R_D, "R_N": self.R_N}

    def effective_tokens(self, tokens: Numbers, unique_tokens: Numbers) -> FloatArray:
        """D', the fresh tokens that `tokens` are worth when only `unique_tokens` are distinct."""
        total = np.asarray(tokens, dtype=np.float64)
        unique = np.minimum(np.asarray(unique_tokens, dtype=np.float64), total)
        return _discounted(total, unique, self.R_D)

    def effective_params(self, params: Numbers, tokens: Numbers, unique_tokens: Numbers) -> FloatArray:
        """N', the parameters that `params` are worth on `unique_tokens` distinct tokens."""
        size = np.asarray(params, dtype=np.float64)
        unique = np.minimum(np.asarray(unique_tokens, dtype=np.float64), tokens)
        law = self.supervised
        optimal = (np.log(law.alpha / law.beta) + np.log(law.A / law.B) + law.beta * np.log(unique)) / law.alpha
        return _discounted(size, np.minimum(size, np.exp(optimal)), self.R_N)

    def predict(self, params: Numbers, tokens: Numbers, unique_tokens: Numbers) -> FloatArray:
        """Loss in nats per token of `params` parameters after `tokens` tokens, `unique_tokens` of them distinct."""
        return self.supervised.predict(
            self.effective_params(params, tokens, unique_tokens), self.effective_tokens(tokens, unique_tokens)
        )


def _discounted(total: FloatArray, unique: FloatArray, worth: Numbers) -> FloatArray:
    discounted: FloatArray = unique * (1.0 - worth * np.expm1(-(total / unique - 1.0) / worth))
    return discounted


def _build(coefficients: Mapping[str, float]) -> DataConstrainedLaw:
    own = {name: coefficients[name] for name in ("R_D", "R_N")}
    return DataConstrainedLaw(SupervisedLaw(**{k: v for k, v in coefficients.items() if k not in own}), **own)


def _features(columns: Columns, supervised: SupervisedLaw | None = None) -> FloatArray:  # noqa: ARG001 - no inner law
    """Ln N, ln D and ln U of each run, shape (runs, 3)."""
    return np.log(np.column_stack([columns["N"], columns["D"], columns["U"]]))


def _predict(equation: Equation, columns: Columns) -> FloatArray:
    if not isinstance(equation, DataConstrainedLaw):
        raise TypeError("repeated tokens need a data-constrained law")
    return equation.predict(columns["N"], columns["D"], columns["U"])


def _kernel(theta: FloatArray, x: FloatArray, slope: FloatArray) -> float:
    alpha, beta = theta[3], theta[4]
    # D': how much the tokens are worth, and its slope in ln R_D*.
    unique = min(x[2], x[1])
    repeats = math.exp(x[1] - unique) - 1.0
    worth = math.exp(theta[5])
    left = math.exp(-repeats / worth)
    gained = worth * (1.0 - left)
    tokens = unique + math.log1p(gained)
    tokens_by_worth = (gained - repeats * left) / (1.0 + gained)
    # N': likewise, and its slope in ln U_N, which the other constants move.
    optimal = (math.log(alpha) - math.log(beta) + theta[1] - theta[2] + beta * unique) / alpha
    base = min(x[0], optimal)
    excess = math.exp(x[0] - base) - 1.0
    size_worth = math.exp(theta[6])
    size_left = math.exp(-excess / size_worth)
    size_gained = size_worth * (1.0 - size_left)
    size = base + math.log1p(size_gained)
    size_by_worth = (size_gained - excess * size_left) / (1.0 + size_gained)
    size_by_base = 0.0
    if optimal < x[0]:
        size_by_base = 1.0 - size_left * (excess + 1.0) / (1.0 + size_gained)

    of_params = theta[1] - alpha * size
    of_tokens = theta[2] - beta * tokens
    top = max(theta[0], max(of_params, of_tokens))
    log_loss: float = top + math.log(math.exp(theta[0] - top) + math.exp(of_params - top) + math.exp(of_tokens - top))
    size_weight = math.exp(of_params - log_loss)
    data_weight = math.exp(of_tokens - log_loss)
    through = -size_weight * alpha * size_by_base
    slope[0] = math.exp(theta[0] - log_loss)
    slope[1] = size_weight + through / alpha
    slope[2] = data_weight - through / alpha
    slope[3] = -size_weight * size + through * (1.0 / alpha - optimal) / alpha
    slope[4] = -data_weight * tokens + through * (unique - 1.0 / beta) / alpha
    slope[5] = -data_weight * beta * tokens_by_worth
    slope[6] = -size_weight * alpha * size_by_worth
    return log_loss


_REPETITIONS = (math.log(0.1), math.log(1e4))

FAMILIES = (
    Family(
        name="data-constrained",
        formula="L = E + A / N'^alpha + B / D'^beta, with U unique tokens repeated to D",
        source="muennighoff2023 Eq. 5 to 8",
        parameters=(
            *SUPERVISED_PARAMETERS,
            Parameter("R_D", *_REPETITIONS, (0.0, math.log(100.0)), log=True),
            Parameter("R_N", *_REPETITIONS, (0.0, math.log(100.0)), log=True),
        ),
        inputs=(*SUPERVISED_INPUTS, Column("U", "unique_tokens", "tokens")),
        loss="L",
        features=_features,
        kernel=_kernel,
        build=_build,
        predict=_predict,
        constants={"gamma": 1.0},
    ),
)
