"""The supervised law: the loss of a model from its size and its training tokens.

Covers: the form with an outer exponent (`busbridge2025` Eq. 1), of which the Hoffmann form is gamma = 1; its floor and
its inverse in tokens. Does not cover: repeated data, served tokens, nor what is known about a published instance (see
`tutelage.laws.law`).

Everything is float64 and computed in log space, so that no size, token count (infinite ones included) or exponent
overflows. Scalars and numpy arrays broadcast; scalars give a numpy scalar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tutelage.laws.family import Column, Columns, Equation, Family, Parameter
from tutelage.laws.numbers import FloatArray, Numbers

SUPERVISED_NAMES = ("E", "A", "B", "alpha", "beta", "gamma")


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
        return "hoffmann" if np.all(self.gamma == 1.0) else "gamma"

    @property
    def supervised(self) -> SupervisedLaw:
        """The law itself, as every family names its supervised part."""
        return self

    def coefficients(self) -> dict[str, float]:
        """The coefficients by name."""
        return {name: getattr(self, name) for name in SUPERVISED_NAMES}

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


def log_features(columns: Columns, supervised: SupervisedLaw | None = None) -> FloatArray:  # noqa: ARG001 - no inner law
    """Ln N and ln D of each run, shape (runs, 2)."""
    return np.log(np.column_stack([columns["N"], columns["D"]]))


def predict_columns(equation: Equation, columns: Columns) -> FloatArray:
    """The loss of each run, nats per token."""
    return equation.supervised.predict(columns["N"], columns["D"])


def _gamma_kernel(theta: FloatArray, x: FloatArray, slope: FloatArray) -> float:
    size = theta[1] - theta[3] * x[0]
    data = theta[2] - theta[4] * x[1]
    apart = math.exp(-abs(size - data))
    inner = max(size, data) + math.log(1.0 + apart)
    reducible = theta[5] * inner
    smaller = math.exp(-abs(reducible - theta[0]))
    log_loss: float = max(reducible, theta[0]) + math.log(1.0 + smaller)
    weight = (1.0 if reducible > theta[0] else smaller) / (1.0 + smaller)
    of_size = weight * theta[5] * (1.0 if size > data else apart) / (1.0 + apart)
    of_data = weight * theta[5] * (apart if size > data else 1.0) / (1.0 + apart)
    slope[0] = (smaller if reducible > theta[0] else 1.0) / (1.0 + smaller)
    slope[1] = of_size
    slope[2] = of_data
    slope[3] = -of_size * x[0]
    slope[4] = -of_data * x[1]
    slope[5] = weight * inner
    return log_loss


def _hoffmann_kernel(theta: FloatArray, x: FloatArray, slope: FloatArray) -> float:
    size = theta[1] - theta[3] * x[0]
    data = theta[2] - theta[4] * x[1]
    top = max(theta[0], max(size, data))
    floor, of_size, of_data = math.exp(theta[0] - top), math.exp(size - top), math.exp(data - top)
    whole = floor + of_size + of_data
    log_loss: float = top + math.log(whole)
    of_size, of_data = of_size / whole, of_data / whole
    slope[0] = floor / whole
    slope[1] = of_size
    slope[2] = of_data
    slope[3] = -of_size * x[0]
    slope[4] = -of_data * x[1]
    return log_loss


SUPERVISED_INPUTS = (
    Column("N", "student_params", "parameters"),
    Column("D", "student_tokens", "tokens"),
)
SUPERVISED_PARAMETERS = (
    Parameter("E", -3.0, 2.5, (-1.0, 1.5), log=True),
    Parameter("A", -5.0, 40.0, (0.0, 20.0), log=True),
    Parameter("B", -5.0, 40.0, (0.0, 20.0), log=True),
    Parameter("alpha", 0.01, 3.0, (0.05, 1.5)),
    Parameter("beta", 0.01, 3.0, (0.05, 1.5)),
)
"""Starts: the grid of `busbridge2025` (log A and log B 0..20, log E -1..1.5, exponents to 1.5)."""

FAMILIES = (
    Family(
        name="hoffmann",
        formula="L = E + A / N^alpha + B / D^beta",
        source="hoffmann2022 Eq. 2",
        parameters=SUPERVISED_PARAMETERS,
        inputs=SUPERVISED_INPUTS,
        loss="L",
        features=log_features,
        kernel=_hoffmann_kernel,
        build=lambda coefficients: SupervisedLaw(**coefficients),
        predict=predict_columns,
        constants={"gamma": 1.0},
    ),
    Family(
        name="gamma",
        formula="L = E + (A / N^alpha + B / D^beta)^gamma",
        source="busbridge2025 Eq. 1",
        parameters=(*SUPERVISED_PARAMETERS, Parameter("gamma", 0.02, 5.0, (0.1, 1.5))),
        inputs=SUPERVISED_INPUTS,
        loss="L",
        features=log_features,
        kernel=_gamma_kernel,
        build=lambda coefficients: SupervisedLaw(**coefficients),
        predict=predict_columns,
    ),
)
