"""Quantities as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import InputError
from tutelage.units import format_quantity, parse_quantity

# Printing keeps three significant digits, so reading it back is right to half a unit of the third.
THREE_DIGITS = 5e-3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7B", 7e9),
        ("7.7B", 7.7e9),
        ("1.07B", 1.07e9),
        ("1.5T", 1.5e12),
        ("143M", 143e6),
        ("20k", 2e4),
        ("7b", 7e9),
        ("3G", 3e9),
        ("1e21", 1e21),
        ("1E+21", 1e21),
        (" 2.02 ", 2.02),
        ("20_000", 2e4),
        (".5B", 5e8),
        (1e9, 1e9),
    ],
)
def test_quantities_are_read_to_the_last_bit(text: str | float, value: float) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "B", "7 billion", "1e", "7Q", "0x10", "1,5", "--3", "7BB", "1e21B3"])
def test_what_is_not_a_number_is_said_to_be_so(text: str) -> None:
    with pytest.raises(InputError, match="which is not a number"):
        parse_quantity(text, "--compute")


@pytest.mark.parametrize("text", ["0", "-7B", "nan", "inf", "-inf", "Infinity", "1e999", "-0.0"])
def test_a_quantity_is_finite_and_greater_than_0(text: str) -> None:
    with pytest.raises(InputError, match=r"--compute is .* must be a finite number greater than 0"):
        parse_quantity(text, "--compute")


@pytest.mark.parametrize(
    ("value", "text"),
    [(7e9, "7B"), (1e21, "1e21"), (5.765e11, "576B"), (999.6e6, "1B"), (1e15, "1e15"), (2.02, "2.02"), (0.0, "0")],
)
def test_quantities_are_printed_short(value: float, text: str) -> None:
    assert format_quantity(value) == text


def test_what_is_not_finite_is_printed_too() -> None:
    assert format_quantity(math.inf) == "unlimited"
    assert format_quantity(math.nan) == "?"


@given(st.floats(min_value=1e-6, max_value=1e300))
def test_what_is_printed_is_read_back(value: float) -> None:
    assert parse_quantity(format_quantity(value)) == pytest.approx(value, rel=THREE_DIGITS)
