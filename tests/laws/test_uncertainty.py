"""Intervals of any quantity: from joint draws, from rounding, or none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tutelage.laws.family import Equation
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray
from tutelage.laws.published import PUBLISHED
from tutelage.laws.uncertainty import estimate, interval, interval_method
from tutelage.records.estimate import Estimate

SIZES = np.array([1e8, 1e9, 1e10])


def loss(equation: Equation) -> FloatArray:
    return equation.supervised.predict(SIZES, 2e10)


def loss_of_one(equation: Equation) -> FloatArray:
    return equation.supervised.predict(np.asarray(1e9), 2e10)


@pytest.fixture
def drawn() -> Law:
    """A law with 200 joint draws of E and A."""
    law, random = PUBLISHED["besiroglu2024"], np.random.default_rng(0)
    spread = random.normal(0.0, 0.02, 200)
    point = law.equation.coefficients()
    draws = {"E": tuple(point["E"] * np.exp(spread)), "A": tuple(point["A"] * np.exp(-spread))}
    return replace(law, draws=draws, rounding={})


def test_draws_give_percentiles_of_each_point(drawn: Law) -> None:
    assert drawn.draws is not None
    by_hand = np.array(
        [
            loss(drawn.family.build({**drawn.equation.coefficients(), "E": E, "A": A}))
            for E, A in zip(drawn.draws["E"], drawn.draws["A"], strict=True)
        ]
    )
    low, high = interval(drawn, loss, level=0.8)
    assert low == pytest.approx(np.quantile(by_hand, 0.1, axis=0))
    assert high == pytest.approx(np.quantile(by_hand, 0.9, axis=0))
    found = estimate(drawn, loss_of_one)
    assert (found.level, found.method) == (0.9, "bootstrap, 200 draws")
    assert found.low == pytest.approx(np.quantile(by_hand[:, 1], 0.05))
    assert found.high == pytest.approx(np.quantile(by_hand[:, 1], 0.95))
    assert found.value == float(loss_of_one(drawn.equation))


def test_at_most_a_thousand_draws_are_used(drawn: Law) -> None:
    assert drawn.draws is not None
    many = replace(drawn, draws={name: values * 10 for name, values in drawn.draws.items()})
    assert interval_method(many) == "bootstrap, 1000 draws"


def test_without_draws_the_rounding_and_else_a_point() -> None:
    printed = PUBLISHED["besiroglu2024"]
    found = estimate(printed, loss_of_one)
    assert (found.method, found.level) == ("rounding band", None)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    bare = replace(printed, rounding={})
    assert estimate(bare, loss_of_one) == Estimate(found.value)
    low, high = interval(bare, loss)
    assert np.array_equal(low, high)
    assert low.shape == SIZES.shape


def test_draws_without_a_finite_value_are_left_out(drawn: Law) -> None:
    def sometimes(equation: Equation) -> FloatArray:
        value = loss(equation)
        return np.where(value > np.median(value, axis=0), value, np.inf) if value.ndim > 1 else value

    low, _ = interval(drawn, sometimes)
    assert np.isfinite(low).all()
    low, high = interval(drawn, lambda equation: np.full_like(loss(equation), np.nan))
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_a_quantity_that_no_draw_moves_is_a_point(drawn: Law) -> None:
    found = estimate(drawn, lambda equation: np.asarray(equation.supervised.alpha))
    assert found == Estimate(drawn.supervised.alpha)
