"""The supervised law: the loss of a model from its size and its training tokens.

Covers: the form with an outer exponent (`busbridge2025` Eq. 1), of which the Hoffmann form is gamma = 1; its floor and
its inverse in tokens. Does not cover: repeated data, served tokens, fitting, nor what is known about a published
instance (see `tutelage.laws.law`).

Everything is float64 and computed in log space, so that no size, token count (infinite ones included) or exponent
overflows. Scalars and numpy arrays broadcast; scalars give a numpy scalar.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = float | FloatArray


@dataclass(frozen=True)
class SupervisedLaw:
    """L(N, D) = E + (A / N^alpha + B / D^beta)^gamma, in nats per token.

    Args:
        E: Irreducible loss, nats per token.
        A: Scale of the term in parameters.
        B: Scale of the term in tokens.
        alpha: Exponent of the parameters.
        beta: Exponent of the tokens.
        gamma: Outer exponent; 1 is the Hoffmann form.

    Source: `busbridge2025` Eq. 1; `hoffmann2022` Eq. 2 where gamma is 1.

    Example:
        >>> law = SupervisedLaw(E=1.220, A=3355, B=18186, alpha=0.408, beta=0.431, gamma=0.452)
        >>> round(float(law.predict(546e6, 20 * 546e6)), 5)
        2.51494
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    gamma: float = 1.0

    units: ClassVar[dict[str, str]] = {"E": "nats per token", "N": "parameters", "D": "tokens"}

    @property
    def family(self) -> str:
        """The family's name in a law file: "hoffmann" where gamma is 1, else "gamma"."""
        return "hoffmann" if self.gamma == 1.0 else "gamma"

    @property
    def supervised(self) -> SupervisedLaw:
        """The law itself, as every family names its supervised part."""
        return self

    def coefficients(self) -> dict[str, float]:
        """The coefficients by name."""
        return asdict(self)

    def log_predict(self, params: Numbers, tokens: Numbers) -> FloatArray:
        """Log of the loss; see `predict`."""
        with np.errstate(divide="ignore"):
            size = np.log(self.A) - self.alpha * np.log(np.asarray(params, dtype=np.float64))
            data = np.log(self.B) - self.beta * np.log(np.asarray(tokens, dtype=np.float64))
        log_loss: FloatArray = np.logaddexp(np.log(self.E), self.gamma * np.logaddexp(size, data))
        return log_loss

    def predict(self, params: Numbers, tokens: Numbers) -> FloatArray:
        """Loss in nats per token of a model of `params` parameters after `tokens` tokens.

        Args:
            params: Parameters N, greater than 0; infinity is allowed.
            tokens: Tokens D, greater than 0; infinity is allowed.

        Returns:
            Nats per token, greater than E, with the broadcast shape of the two.
        """
        return np.exp(self.log_predict(params, tokens))

    def floor(self, params: Numbers) -> FloatArray:
        """The loss that unlimited tokens approach at this size: E + (A / N^alpha)^gamma, in nats per token."""
        return self.predict(params, np.inf)

    def tokens_for(self, params: Numbers, loss: Numbers) -> FloatArray:
        """Tokens that bring a model of `params` parameters to `loss`: the inverse of `predict` in D.

        Args:
            params: Parameters N, greater than 0.
            loss: Wanted loss, nats per token.

        Returns:
            Tokens; infinity where `loss` is at or below the floor of that size.
        """
        excess = np.maximum(np.asarray(loss, dtype=np.float64) - self.E, 0.0)
        with np.errstate(divide="ignore"):
            both = np.log(excess) / self.gamma
            size = np.log(self.A) - self.alpha * np.log(np.asarray(params, dtype=np.float64))
            # log(e^both - e^size): what is left for the term in tokens; nothing at and below the floor.
            data = both + np.log(-np.expm1(np.minimum(size - both, 0.0)))
            tokens: FloatArray = np.exp((np.log(self.B) - data) / self.beta)
        return tokens
