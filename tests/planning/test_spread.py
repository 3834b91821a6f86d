"""What draws make of an estimate, a curve and a share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tutelage.laws.law import Law
from tutelage.laws.uncertainty import estimate
from tutelage.planning.spread import Spread, interval_in_words
from tutelage.records.estimate import Estimate

# Float64 through a few logarithms.
ROUND_OFF = 1e-12


def test_an_estimate_has_the_percentiles_of_the_draws(fitted: Law) -> None:
    spread = Spread.of(fitted)
    found = spread.estimate(lambda equation: equation.supervised.predict(1e9, 2e10))
    every = [
        float(
            fitted.family.build(
                {name: column[draw] for name, column in (fitted.draws or {}).items()}
            ).supervised.predict(1e9, 2e10)
        )
        for draw in range(1000)
    ]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(every, [0.05, 0.95])), rel=ROUND_OFF)
    assert found.value == pytest.approx(float(fitted.supervised.predict(1e9, 2e10)), rel=ROUND_OFF)
    assert (found.level, found.method) == (0.9, "bootstrap, 1000 draws")
    assert found == estimate(fitted, lambda equation: equation.supervised.predict(1e9, 2e10))
    assert interval_in_words(found) == "90 % interval"


def test_a_published_law_gives_bands_to_outcomes_and_points_to_choices(law: Law) -> None:
    spread = Spread.of(law)
    outcome = spread.estimate(lambda equation: equation.supervised.predict(1e9, 2e10))
    assert interval_in_words(outcome) == outcome.method == "rounding band"
    assert outcome.level is None
    assert spread.around(3.0, np.empty(0)) == Estimate(3.0)
    assert spread.share(lambda _: np.ones(1, dtype=bool)) is None
    assert spread.draws == 0


def test_what_every_draw_agrees_on_has_no_interval(fitted: Law) -> None:
    spread = Spread.of(fitted)
    assert spread.around(5.0, np.full(1000, 5.0 + 1e-12)) == Estimate(5.0)
    assert spread.around(5.0, np.full(1000, np.nan)) == Estimate(5.0)


def test_draws_without_an_answer_are_left_out(fitted: Law) -> None:
    drawn = np.linspace(1.0, 2.0, 1001)
    drawn[::2] = np.nan
    found = Spread.of(fitted).around(1.5, drawn)
    assert found.low == pytest.approx(1.05, abs=0.002)
    assert found.high == pytest.approx(1.95, abs=0.002)


def test_a_curve_has_one_interval_a_point(fitted: Law) -> None:
    spread, tokens = Spread.of(fitted), np.array([1e10, 1e11, 1e12])
    band = spread.band(lambda equation: equation.supervised.predict(1e9, tokens))
    for index, one in enumerate(tokens):
        alone = spread.estimate(lambda equation, one=one: equation.supervised.predict(1e9, one))
        assert (band.value[index], band.low[index], band.high[index]) == pytest.approx(
            (alone.value, alone.low, alone.high)
        )
    known = band.where(np.array([True, False, True]))
    assert np.isnan(known.low[1])
    assert not np.isnan(known.high[2])
    bare = Spread.of(replace(fitted, draws=None)).band(lambda equation: equation.supervised.predict(1e9, tokens))
    assert np.isnan(bare.low).all()


def test_a_share_counts_draws(fitted: Law) -> None:
    spread = Spread.of(fitted)
    middle = float(np.median(fitted.draws["E"])) if fitted.draws else 0.0
    assert spread.share(lambda equation: middle < equation.supervised.E) == pytest.approx(0.5, abs=0.001)
