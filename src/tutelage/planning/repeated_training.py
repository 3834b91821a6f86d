"""The law of ordinary training when there are fewer distinct tokens than are trained on.

Covers: the loss on repeated tokens and its inverse, asked for like any supervised law. Does not cover: a distilled
student on repeated tokens; no law of that is known, and none is made up here.

A data-constrained law is used as it is. On any other law the discounts of `muennighoff2023` are laid on top, with its
published R_D* and R_N*: an assumption. Its discount of excess parameters also applies to a model that is too large for
fresh tokens, which every supervised law already counts; so what is laid on top is the discount over that of as many
fresh tokens as the repeated ones are worth. The law is then unchanged where nothing is repeated, and no jump or rise
comes with more tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tutelage.laws.families.data_constrained import DataConstrainedLaw
from tutelage.laws.families.supervised import SUPERVISED_NAMES, SupervisedLaw
from tutelage.laws.family import Equation
from tutelage.laws.numbers import FloatArray, Numbers
from tutelage.laws.published import PUBLISHED
from tutelage.units import Tokens

_PUBLISHED = PUBLISHED["muennighoff2023"].equation.coefficients()
R_D_STAR, R_N_STAR = _PUBLISHED["R_D"], _PUBLISHED["R_N"]
_CLOSE = 1e-10
_MOST_ROUNDS = 60
"""Two are enough for a size that suits its tokens; more only for sizes whose excess is discounted."""


@dataclass(frozen=True)
class RepeatedTraining(SupervisedLaw):
    """A supervised law of training in which only `unique_tokens` are distinct; it is asked like any other.

    Args:
        unique_tokens: U.
        R_D: R_D*, repetitions after which repeated tokens are worth little.
        R_N: R_N*, the same for parameters beyond the optimum of the unique tokens.
        own: Whether the law was fitted with these discounts, which are then applied whole.

    Source: `muennighoff2023` Eq. 5 to 8; the relative discount of parameters is our own.
    """

    unique_tokens: Tokens = np.inf
    R_D: float = R_D_STAR
    R_N: float = R_N_STAR
    own: bool = False

    @property
    def _discounts(self) -> DataConstrainedLaw:
        return DataConstrainedLaw(self, self.R_D, self.R_N)

    def effective_tokens(self, tokens: Numbers) -> FloatArray:
        """D', the fresh tokens that `tokens` are worth."""
        return self._discounts.effective_tokens(tokens, self.unique_tokens)

    def log_predict(self, params: Numbers, tokens: Numbers) -> FloatArray:
        """Log of the loss; see `predict`."""
        worth = self.effective_tokens(tokens)
        return super().log_predict(self._effective_params(params, worth, tokens), worth)

    def _effective_params(self, params: Numbers, worth: FloatArray, tokens: Numbers) -> FloatArray:
        """The parameters that `params` are worth on tokens that are worth `worth` fresh ones."""
        discounted = self._discounts.effective_params(params, tokens, self.unique_tokens)
        if self.own:
            return discounted
        return np.asarray(params * discounted / self._discounts.effective_params(params, worth, worth))

    def tokens_for(self, params: Numbers, loss: Numbers) -> FloatArray:
        """Tokens, repeats included, that bring a model of `params` parameters to `loss`; infinity where none do."""
        worth = super().tokens_for(params, loss)
        for _ in range(_MOST_ROUNDS):
            # Never falling from round to round: what is worth more tokens is a smaller share of distinct ones.
            again = super().tokens_for(self._effective_params(params, worth, worth), loss)
            if np.allclose(again, worth, rtol=_CLOSE, atol=0.0):
                break
            worth = again
        return self._repeated(again)

    def _repeated(self, worth: FloatArray) -> FloatArray:
        """The inverse of `effective_tokens`: infinity beyond what the unique tokens can be worth."""
        left = 1.0 - np.maximum(worth / self.unique_tokens - 1.0, 0.0) / self.R_D
        with np.errstate(divide="ignore"):
            repeated = self.unique_tokens * (1.0 - self.R_D * np.log(np.maximum(left, 0.0)))
        return np.where(worth <= self.unique_tokens, worth, repeated)


def training_law(equation: Equation, unique_tokens: Tokens | None) -> SupervisedLaw:
    """The law of ordinary training: the supervised one, on repeated tokens where only some are distinct.

    Args:
        equation: A law's equation, or an ensemble of them.
        unique_tokens: U; None for as many as are asked for.
    """
    return equation.supervised if unique_tokens is None else repeated_training(equation, unique_tokens)


def repeated_training(equation: Equation, unique_tokens: Tokens) -> RepeatedTraining:
    """The law of ordinary training on `unique_tokens` distinct tokens."""
    law = RepeatedTraining(
        **{name: getattr(equation.supervised, name) for name in SUPERVISED_NAMES}, unique_tokens=unique_tokens
    )
    if isinstance(equation, DataConstrainedLaw):
        return replace(law, R_D=equation.R_D, R_N=equation.R_N, own=True)
    return law
