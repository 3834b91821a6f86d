"""Joint draws: seeded, each at the minimum of its own weights, carrying the supervised law's draws with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulated_runs import BUSBRIDGE, simulated
from tutelage.laws.families import find_family
from tutelage.laws.families.supervised import SupervisedLaw
from tutelage.laws.fitting import FitSettings, fit
from tutelage.laws.fitting.bootstrap import bootstrap, draw_weights, stored_draws
from tutelage.laws.fitting.objective import make_objective
from tutelage.laws.fitting.search import search
from tutelage.laws.law import Law
from tutelage.laws.published import PUBLISHED

MEDIAN_EXCESS = 1e-6  # of a draw's objective over the best of many starts under the same weights
TEN_DIGITS = 1e-9  # relative: half a unit of the tenth significant digit
DRAWS = 48


def test_weights_draw_runs_with_replacement() -> None:
    weights = draw_weights(runs=50, draws=200, seed=3)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(50), abs=0.4)  # 5 standard errors of a mean of 200
    assert (weights == draw_weights(50, 200, 3)).all()
    assert (weights != draw_weights(50, 200, 4)).any()


@pytest.mark.parametrize("name", ["hoffmann", "distillation"])
def test_each_draw_is_at_the_minimum_of_its_own_weights(name: str) -> None:
    family = find_family(name)
    supervised = BUSBRIDGE.supervised if family.frozen else None
    objective = make_objective(simulated(name, 120, 1e-3), family, FitSettings(), supervised)
    found = search(objective, 256, seed=0)
    weights = draw_weights(120, DRAWS, seed=0)
    drawn = bootstrap(objective, found, weights, None)
    pairs = np.stack([np.zeros(DRAWS, dtype=np.int64), np.arange(DRAWS)], axis=1)
    best = np.full(DRAWS, np.inf)
    for start in found.minima[:16]:
        _, reached = objective.minimise(np.tile(start, (DRAWS, 1)), 400, weights, pairs, tolerance=1e-12)
        best = np.minimum(best, reached)
    assert np.median(drawn.objectives / best - 1.0) < MEDIAN_EXCESS
    _, own = objective.minimise(drawn.theta, 0, weights, pairs)
    assert own == pytest.approx(drawn.objectives)


def test_stored_draws_have_ten_digits_and_leave_fixed_constants_out() -> None:
    settings = FitSettings(fixed={"alpha": 0.35})
    objective = make_objective(simulated("hoffmann", 60, 1e-3), find_family("hoffmann"), settings)
    drawn = bootstrap(objective, search(objective, 64, 0), draw_weights(60, 8, 0), None)
    stored = stored_draws(objective, drawn, None)
    assert set(stored) == {"E", "A", "B", "beta"}
    assert stored["A"] == pytest.approx(np.exp(drawn.theta[:, 1]), rel=TEN_DIGITS)
    assert max(len(str(value)) for value in stored["E"]) <= 11


def two_stage(draws: dict[str, tuple[float, ...]] | None) -> Law:
    family = find_family("gamma")
    inside = fit(simulated("gamma", 60, 1e-3), family, FitSettings(bootstrap=24)).law
    runs = simulated("distillation", 90, 1e-3)
    return fit(runs, find_family("distillation"), FitSettings(bootstrap=DRAWS), replace(inside, draws=draws)).law


def test_the_supervised_laws_draws_are_carried_through() -> None:
    names = ("E", "A", "B", "alpha", "beta", "gamma")
    rng = np.random.default_rng(0)
    own = BUSBRIDGE.supervised.coefficients()
    draws = {name: tuple(own[name] * (1.0 + 0.01 * rng.standard_normal(24))) for name in names}
    law = two_stage(draws)
    assert law.draws is not None
    assert law.draws["E"] == pytest.approx(draws["E"] * 2, rel=TEN_DIGITS)  # draw b with draw b, over and over
    fixed = two_stage(None)
    assert fixed.draws is not None
    assert "E" not in fixed.draws
    assert fixed.intervals.keys() == {parameter.name for parameter in law.family.parameters}

    def width(of: Law) -> float:
        low, high = of.intervals["x0"]
        return high - low

    assert width(law) > 1.2 * width(
        fixed
    )  # a supervised law that is uncertain by a per cent widens the knee's interval


def test_a_draw_is_fitted_on_the_supervised_law_of_the_same_draw() -> None:
    family, runs = find_family("distillation"), simulated("distillation", 60, 1e-3)
    own, rng = BUSBRIDGE.supervised.coefficients(), np.random.default_rng(1)
    draws = {name: tuple(own[name] * (1.0 + 0.01 * rng.standard_normal(5))) for name in own}
    inside = replace(PUBLISHED["busbridge2025"], equation=BUSBRIDGE.supervised, draws=draws)
    objective = make_objective(runs, family, FitSettings(), BUSBRIDGE.supervised)
    weights = draw_weights(60, 8, 0)
    drawn = bootstrap(objective, search(objective, 128, 0), weights, inside)
    for draw in range(8):
        law = SupervisedLaw(**{name: values[draw % 5] for name, values in draws.items()})
        again = make_objective(runs, family, FitSettings(), law)
        _, value = again.minimise(drawn.theta[draw][None], 0, weights[draw][None])
        assert value[0] == pytest.approx(drawn.objectives[draw], rel=TEN_DIGITS)


def test_the_same_seed_gives_the_same_law() -> None:
    runs, family = simulated("hoffmann", 40, 2e-3), find_family("hoffmann")
    one, again = (fit(runs, family, FitSettings(bootstrap=32, seed=5)).law for _ in range(2))
    other = fit(runs, family, FitSettings(bootstrap=32, seed=6)).law
    assert one.draws == again.draws
    assert one.draws != other.draws
    assert one.supervised == again.supervised
