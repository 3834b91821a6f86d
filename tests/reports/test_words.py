"""Numbers as a report writes them."""

from __future__ import annotations

import math

import pytest

from tutelage.records.estimate import Estimate
from tutelage.reports import words


@pytest.mark.parametrize(
    ("value", "text"), [(1e21, "10²¹"), (3.2e20, "3.2×10²⁰"), (2e-5, "2×10⁻⁵"), (0.0, "0"), (math.inf, "–")]
)
def test_powers_of_ten(value: float, text: str) -> None:
    assert words.power(value) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("student_loss", 2.13, "2.1300"),
        ("compute", 1e21, "10²¹"),
        ("params", 7e9, "7B"),
        ("bytes", 5.16e13, "51.6T"),
        ("tokens_per_param", 20.0, "20"),
        ("money", 21065.0, "21,065"),
        ("objective", 8.4e-4, "8.4×10⁻⁴"),
    ],
)
def test_a_number_is_written_as_what_its_key_says(name: str, value: float, text: str) -> None:
    assert words.named(name, value) == text


@pytest.mark.parametrize(("share", "text"), [(0.004, "0.40 %"), (0.0123, "1.2 %"), (0.5, "50 %"), (0.0, "0 %")])
def test_per_cents(share: float, text: str) -> None:
    assert words.percent(share) == text


def test_prose_has_powers_and_minus_signs() -> None:
    text = "below 3.7e20 FLOPs (5.28e+09), gain -0.027 to -0.014, a 3-year-old in 2026-11"
    assert words.prose(text) == "below 3.7×10²⁰ FLOPs (5.28×10⁹), gain −0.027 to −0.014, a 3-year-old in 2026-11"


def test_intervals_say_what_they_are() -> None:
    assert words.spread(Estimate(1.0, 0.9, 1.1, 0.9, "bootstrap, 9 draws")) == "90 % interval"
    assert words.spread(Estimate(1.0, 0.9, 1.1, None, "rounding band")) == "rounding band"
    assert words.between(None, 1.0) == words.NONE


def test_names_have_their_letters() -> None:
    assert words.label("alpha_prime") == "α′"
    assert words.label("smallest_params") == "smallest parameters"
    assert words.formula("A' / N_S^alpha'") == "A′ / N_S^α′"


@pytest.mark.parametrize(
    ("probability", "text"), [(1.0, "over 99.9 %"), (0.997, "over 99 %"), (0.962, "96 %"), (0.5, "50 %")]
)
def test_a_probability_from_draws_is_never_certain(probability: float, text: str) -> None:
    assert words.chance(probability) == text
