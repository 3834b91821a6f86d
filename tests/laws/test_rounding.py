"""Rounding bands against every corner of the box."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tutelage.laws.law import DistillationLaw, Law, make_equation, with_coefficients
from tutelage.laws.numbers import FloatArray
from tutelage.laws.published import PUBLISHED
from tutelage.laws.rounding import banded, rounding_band

# Float64; the band is the extreme corner itself, not an approximation of it.
ROUND_OFF = 1e-12


@pytest.fixture
def published() -> Law:
    return PUBLISHED["busbridge2025"]


def test_half_a_unit_of_the_last_printed_digit(published: Law) -> None:
    assert published.rounding["E"] == 0.0005
    assert published.rounding["A"] == 0.5
    assert published.rounding["c1"] == 0.05
    assert published.rounding["f1"] == 0.0005
    assert set(published.rounding) == set(published.equation.coefficients())
    assert "gamma" not in PUBLISHED["hoffmann2022"].rounding


@pytest.mark.parametrize(
    ("params", "tokens", "teacher"), [(1e9, 2.5e11, 2.0), (3e8, 2e10, 2.2), (1e10, 2.5e11, 1.6), (1e9, 2e10, 1.5)]
)
def test_the_band_is_the_extreme_of_all_corners(published: Law, params: float, tokens: float, teacher: float) -> None:
    def loss(equation: object) -> FloatArray:
        assert isinstance(equation, DistillationLaw)
        return equation.predict(params, tokens, teacher)

    names = list(published.rounding)
    signs = np.array(list(product((-1.0, 1.0), repeat=len(names)))).T
    printed = published.equation.coefficients()
    corners = {name: printed[name] + row * published.rounding[name] for name, row in zip(names, signs, strict=True)}
    # The equations broadcast over arrays of coefficients too, which makes the 2^15 corners one evaluation.
    everywhere = loss(make_equation(corners))  # type: ignore[arg-type]
    low, high = rounding_band(published, loss)
    assert low == pytest.approx(everywhere.min(), rel=ROUND_OFF)
    assert high == pytest.approx(everywhere.max(), rel=ROUND_OFF)
    estimate = banded(published, loss)
    assert (estimate.low, estimate.high, estimate.level) == (low, high, None)
    assert estimate.method == "rounding band"
    assert low < estimate.value < high


def test_each_element_has_its_own_band(published: Law) -> None:
    teachers = np.array([1.6, 2.0, 2.4])

    def loss(equation: object, which: FloatArray) -> FloatArray:
        assert isinstance(equation, DistillationLaw)
        return equation.predict(1e9, 2.5e11, which)

    low, high = rounding_band(published, lambda equation: loss(equation, teachers))
    for index, teacher in enumerate(teachers):
        alone = rounding_band(published, lambda equation, teacher=teacher: loss(equation, teacher))
        assert (low[index], high[index]) == pytest.approx(alone, rel=ROUND_OFF)


def test_a_law_without_printed_digits_gives_a_point(published: Law) -> None:
    from dataclasses import replace

    estimate = banded(replace(published, rounding={}), lambda equation: equation.supervised.predict(1e9, 2e10))
    assert (estimate.low, estimate.high, estimate.level, estimate.method) == (None, None, None, "point")


def test_changing_a_coefficient_leaves_the_rest(published: Law) -> None:
    changed = with_coefficients(published, {"E": 1.3})
    assert changed.supervised.E == 1.3
    assert {**changed.equation.coefficients(), "E": 1.22} == published.equation.coefficients()
