"""The laws that plans are made with: the published one, and one with joint draws as a fit leaves them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tutelage.laws.law import Law, make_equation
from tutelage.laws.published import PUBLISHED

# Log loss: what two runs of one recipe differ by.
RUN_NOISE = 0.004
# Natural logarithm: what is believed of each coefficient without runs, which keeps the unidentified ones apart.
PRIOR = 0.05
DRAWS = 1000


@pytest.fixture(scope="session")
def law() -> Law:
    """The distillation law of `busbridge2025`."""
    return PUBLISHED["busbridge2025"]


def with_draws(law: Law, noise: float = RUN_NOISE, count: int = DRAWS) -> Law:
    """`law` as a fit of 48 runs of each kind would leave it: joint normal draws of the logarithms, no printed digits.

    The covariance is that of least squares on log loss, by finite differences.
    """
    rng = np.random.default_rng(0)
    names = list(law.equation.coefficients())
    centre = np.log(np.array(list(law.equation.coefficients().values())))
    params, tokens = np.exp(rng.uniform(np.log([1.5e8, 4e9]), np.log([1.2e10, 5e11]), (48, 2))).T
    teachers = rng.uniform(1.9, 2.8, 48)

    def log_losses(logs: np.ndarray) -> np.ndarray:
        equation = make_equation(dict(zip(names, np.exp(logs).tolist(), strict=True)))
        supervised = equation.supervised.log_predict(params, tokens)
        student = replace(law, equation=equation).require_distillation().log_predict(params, tokens, teachers)
        return np.concatenate([supervised, student])

    step = 1e-5
    slopes = np.stack(
        [
            (log_losses(centre + step * unit) - log_losses(centre - step * unit)) / (2 * step)
            for unit in np.eye(len(names))
        ],
        axis=1,
    )
    precision = slopes.T @ slopes / noise**2 + np.eye(len(names)) / PRIOR**2
    drawn = np.exp(rng.multivariate_normal(centre, np.linalg.inv(precision), count))
    draws = {name: tuple(column) for name, column in zip(names, drawn.T.tolist(), strict=True)}
    return replace(law, name="fitted", rounding={}, intervals={}, draws=draws)


@pytest.fixture(scope="session")
def few(law: Law) -> Law:
    """The same with twelve draws: few enough to solve each by itself."""
    return with_draws(law, count=12)


@pytest.fixture(scope="session")
def noisy(law: Law) -> Law:
    """As if every run had five times the noise."""
    return with_draws(law, noise=5 * RUN_NOISE)


@pytest.fixture(scope="session")
def fitted(law: Law) -> Law:
    """A distillation law with a thousand joint draws, whose predictions vary by a few tenths of a per cent."""
    return with_draws(law)
