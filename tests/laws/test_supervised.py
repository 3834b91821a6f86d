"""The supervised law: published values, limits, inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.laws.families.distillation import DistillationLaw
from tutelage.laws.families.supervised import SupervisedLaw
from tutelage.laws.published import PUBLISHED

# Half a unit of the last digit of the reference values.
FIVE_DECIMALS = 5e-6
FOUR_DECIMALS = 5e-5
# Float64 through a logarithm and an exponential.
ROUND_OFF = 1e-12

sizes = st.floats(min_value=1e6, max_value=1e13)


@pytest.mark.parametrize(("params", "loss"), [(143e6, 2.88919), (546e6, 2.51494), (1.82e9, 2.25088), (7.75e9, 2.00357)])
def test_twenty_tokens_a_parameter(distillation: DistillationLaw, params: float, loss: float) -> None:
    assert distillation.supervised.predict(params, 20 * params) == pytest.approx(loss, abs=FIVE_DECIMALS)


def test_infinite_tokens_give_the_floor(distillation: DistillationLaw) -> None:
    law = distillation.supervised
    assert law.predict(1e9, np.inf) == pytest.approx(2.0788, abs=FOUR_DECIMALS)
    assert law.floor(1e9) == law.predict(1e9, np.inf)
    assert law.floor(1e9) == pytest.approx(law.E + (law.A / 1e9**law.alpha) ** law.gamma, rel=ROUND_OFF)
    assert law.predict(np.inf, np.inf) == pytest.approx(law.E, rel=ROUND_OFF)


def test_gamma_1_is_the_hoffmann_form() -> None:
    law = PUBLISHED["hoffmann2022"].supervised
    expected = 1.69 + 406.4 / 1e9**0.34 + 410.7 / 2e10**0.28
    assert law.predict(1e9, 2e10) == pytest.approx(expected, rel=ROUND_OFF)
    assert law.family == "hoffmann"
    assert PUBLISHED["busbridge2025"].supervised.family == "gamma"


def test_arrays_broadcast_and_equal_the_scalars(distillation: DistillationLaw) -> None:
    law = distillation.supervised
    params, tokens = np.geomspace(1e6, 1e12, 7)[:, None], np.geomspace(1e6, 1e15, 5)[None]
    losses = law.predict(params, tokens)
    assert losses.shape == (7, 5)
    assert losses.dtype == np.float64
    for row, size in enumerate(params[:, 0]):
        for column, data in enumerate(tokens[0]):
            assert losses[row, column] == law.predict(float(size), float(data))


@given(params=sizes, tokens=sizes, factor=st.floats(min_value=1.01, max_value=1e3))
def test_more_tokens_and_more_parameters_help(params: float, tokens: float, factor: float) -> None:
    law = PUBLISHED["busbridge2025"].supervised
    assert law.predict(params, tokens * factor) < law.predict(params, tokens)
    assert law.predict(params * factor, tokens) < law.predict(params, tokens)


@given(params=sizes, tokens=st.floats(min_value=1e6, max_value=1e14))
def test_tokens_for_a_loss_invert_the_law(params: float, tokens: float) -> None:
    law = PUBLISHED["besiroglu2024"].supervised
    back = law.tokens_for(params, law.predict(params, tokens))
    # Near its floor the loss hardly depends on the tokens, so compare losses.
    assert law.predict(params, back) == pytest.approx(law.predict(params, tokens), rel=ROUND_OFF)


def test_a_loss_below_the_floor_takes_infinite_tokens(distillation: DistillationLaw) -> None:
    law = distillation.supervised
    below = np.array([law.E / 2, law.E, law.floor(1e9), law.floor(1e9) - 1e-3])
    assert np.all(np.isinf(law.tokens_for(1e9, below)))
    assert np.isfinite(law.tokens_for(1e9, law.floor(1e9) + 1e-3))


def test_exponents_that_would_overflow_do_not() -> None:
    law = SupervisedLaw(E=1.0, A=1e200, B=1e200, alpha=1.0, beta=1.0, gamma=3.0)
    with np.errstate(over="raise"):
        assert np.isfinite(law.log_predict(1.0, 1.0))
