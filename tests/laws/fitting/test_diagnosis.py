"""What a fit says of runs that do not, or hardly, determine a law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulated_runs import BUSBRIDGE, simulated
from tutelage.errors import InputError
from tutelage.laws.families import find_family
from tutelage.laws.fitting import Fit, FitSettings, fit
from tutelage.laws.fitting.diagnosis import diagnose, judge
from tutelage.laws.fitting.objective import make_objective
from tutelage.laws.fitting.search import search
from tutelage.laws.law import Counting, Law
from tutelage.laws.published import PUBLISHED
from tutelage.laws.table import RunTable

NO_DRAWS = FitSettings(bootstrap=0)
SUPERVISED = Law(
    name="inside",
    equation=BUSBRIDGE.supervised,
    source="busbridge2025",
    counting=Counting("non-embedding", "tokens"),
    forward=PUBLISHED["busbridge2025"].forward,
    fitted={},
)


def of_sizes_and_tokens(params: np.ndarray, tokens: np.ndarray, settings: FitSettings = NO_DRAWS) -> Fit:
    losses = PUBLISHED["besiroglu2024"].supervised.predict(params, tokens)
    return fit(
        RunTable({"N": tuple(params), "D": tuple(tokens), "L": tuple(losses)}), find_family("hoffmann"), settings
    )


def test_a_good_design_converges() -> None:
    found = fit(simulated("hoffmann", 60, 1e-3), find_family("hoffmann"), NO_DRAWS)
    assert found.status.kind == "converged"
    assert found.status.text == "16 of 16 followed starts ended at the best objective."


def test_one_ratio_is_not_identified() -> None:
    params = np.geomspace(1e8, 1e10, 30)
    status = of_sizes_and_tokens(params, 20.0 * params).status
    assert status.kind == "not-identified"
    assert "one ratio of tokens to parameters (20)" in status.text
    assert "at other ratios" in status.remedy
    with pytest.raises(InputError, match="is not-identified: Every run has one ratio"):
        of_sizes_and_tokens(params, 20.0 * params).law.require_identified()


def test_fixing_a_term_makes_one_ratio_enough() -> None:
    params = np.geomspace(1e8, 1e10, 30)
    published = PUBLISHED["besiroglu2024"].supervised
    settings = replace(NO_DRAWS, fixed={"B": published.B, "beta": published.beta})
    found = of_sizes_and_tokens(params, 20.0 * params, settings)
    assert found.status.kind == "converged"
    assert found.law.supervised.alpha == pytest.approx(published.alpha, rel=1e-4)
    assert found.law.supervised.beta == published.beta


def test_too_few_runs_are_counted() -> None:
    params, tokens = np.array([1e8, 1e9, 1e10]), np.array([1e10, 3e10, 2e10])
    status = of_sizes_and_tokens(params, tokens).status
    assert status.kind == "not-identified"
    assert status.text == "3 distinct runs cannot determine 5 constants (E, A, B, alpha, beta)."
    assert status.remedy == "Add runs (7 or more), or fix constants with --fixed."
    again = of_sizes_and_tokens(np.repeat(params, 10), np.repeat(tokens, 10))
    assert again.status.text == status.text


def test_a_column_without_variation_is_named() -> None:
    status = of_sizes_and_tokens(np.full(20, 1e9), np.geomspace(1e9, 1e11, 20)).status
    assert status.kind == "not-identified"
    assert "N is 1e+09 in every run, which leaves A and alpha undetermined." in status.text


def test_one_teacher_does_not_determine_a_distillation_law() -> None:
    runs = simulated("distillation", 60)
    one = RunTable({**runs.columns, "L_T": (2.1,) * 60})
    found = fit(one, find_family("distillation"), NO_DRAWS, SUPERVISED)
    assert found.status.kind == "not-identified"
    assert "L_T is 2.1 in every run" in found.status.text


def test_c1_is_never_identified() -> None:
    found = fit(simulated("distillation-eq8", 90, 1e-3), find_family("distillation-eq8"), NO_DRAWS, SUPERVISED)
    assert found.status.kind == "weakly-identified"
    assert "c1 (a larger c1 with a larger d1 is the same curve)" in found.status.text
    assert found.law.require_identified() is found.law
    assert any("beta'*gamma' is not identified" in note for note in found.law.diagnostics["notes"])


def test_a_search_that_did_not_arrive_is_stuck() -> None:
    settings = FitSettings(starts=16)
    objective = make_objective(simulated("hoffmann", 40, 2e-3), find_family("hoffmann"), settings)
    found = search(objective, 16, seed=0)
    theta, values = objective.minimise(found.theta[None] + 0.02, steps=0)
    away = replace(found, theta=theta[0], objective=float(values[0]))
    status = judge(objective, away, diagnose(objective, away), {}, {})
    assert status.kind == "stuck"
    assert "one more step promises" in status.text
    alone = replace(found, objectives=np.concatenate([found.objectives[:1], found.objectives[1:] * 3.0]))
    assert judge(objective, alone, diagnose(objective, alone), {}, {}).kind == "stuck"


def test_wide_intervals_and_bounds_are_weak() -> None:
    settings = FitSettings()
    objective = make_objective(simulated("hoffmann", 60, 1e-3), find_family("hoffmann"), settings)
    found = search(objective, 64, seed=0)
    measured = diagnose(objective, found)
    wide = judge(objective, found, measured, {"beta": (0.2, 0.9)}, {})
    assert (wide.kind, "beta (between 0.2 and 0.9)" in wide.text) == ("weakly-identified", True)
    edge = judge(objective, found, measured, {"A": (100.0, 200.0)}, {"A": 0.2})
    assert "A (at a bound of the search in 20 % of the draws)" in edge.text
    assert judge(objective, found, measured, {"A": (100.0, 900.0)}, {"A": 0.01}).kind == "converged"


def test_equally_good_minima_apart_are_weak() -> None:
    objective = make_objective(simulated("hoffmann", 60, 1e-3), find_family("hoffmann"), FitSettings())
    found = search(objective, 64, seed=0)
    minima = found.minima.copy()
    minima[1, 4] *= 3.0
    apart = replace(found, minima=minima)
    status = judge(objective, apart, diagnose(objective, apart), {}, {})
    beta = found.theta[4]
    assert status.kind == "weakly-identified"
    assert f"beta (between {beta:.3g} and {3 * beta:.3g} in equally good minima)" in status.text


def test_the_measures_of_the_design() -> None:
    found = fit(simulated("hoffmann", 60, 1e-3), find_family("hoffmann"), NO_DRAWS)
    said = found.law.diagnostics
    columns = found.law.runs.arrays()
    assert said["correlation"] == pytest.approx(np.corrcoef(np.log(columns["N"]), np.log(columns["D"]))[0, 1])
    predicted = found.law.supervised.predict(columns["N"], columns["D"])
    assert said["linear_share"] == np.mean(np.abs(np.log(predicted / columns["L"])) > 1e-3)
    assert said["at_bounds"] == []
    assert 10 < said["condition_number"] < 1e5


def test_ratios_within_a_fiftieth_are_one() -> None:
    params = np.geomspace(1e8, 1e10, 12)
    ratios = np.tile([10.0, 20.0, 20.1, 40.0], 3)
    assert of_sizes_and_tokens(params, params * ratios).law.diagnostics["distinct_ratios"] == 3
