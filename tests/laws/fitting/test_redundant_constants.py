"""What no run could tell apart leaves a law usable and its search at rest; what these runs alone do not, does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tutelage.laws.designs import Design
from tutelage.laws.families import find_family
from tutelage.laws.fitting import FitSettings, fit
from tutelage.laws.fitting.diagnosis import diagnose, judge
from tutelage.laws.fitting.objective import make_objective
from tutelage.laws.fitting.search import search
from tutelage.laws.published import PUBLISHED
from tutelage.laws.simulate import simulate
from tutelage.laws.table import RunTable
from tutelage.records.document import Status

SETTINGS = FitSettings(bootstrap=0)
WRONG = 5e-3  # noise of 2e-3 on 120 runs and the flat valley; far below what a wrong law predicts
SIZES, TOKENS = np.array([3e8, 1e9, 5e9]), np.array([2e10, 1e11, 3e11])


@pytest.fixture(scope="module")
def status_and_error() -> tuple[Status, float]:
    """A distillation law from noisy runs whose student's own term of tokens, lost in the noise, is kept at nothing."""
    truth = PUBLISHED["busbridge2025"]
    supervised = fit(simulate(truth, Design("isoflop", 60), 2e-3), find_family("gamma"), SETTINGS).law
    runs = simulate(truth, Design("distillation", 120), 2e-3, seed=1)
    settings = FitSettings(bootstrap=0, fixed={"B_prime": 0.01, "beta_prime": 3.0})
    found = fit(runs, find_family("distillation"), settings, supervised)
    predicted = found.law.require_distillation().predict(SIZES, TOKENS, 2.1)
    return found.status, float(np.abs(predicted / truth.require_distillation().predict(SIZES, TOKENS, 2.1) - 1).max())


def test_a_term_that_vanishes_leaves_its_neighbours_weak_and_the_law_usable(
    status_and_error: tuple[Status, float],
) -> None:
    status, error = status_and_error
    assert error < WRONG
    assert status.kind == "weakly-identified"
    assert "alpha_prime (any change is made up for by " in status.text


def test_a_step_that_gains_less_than_the_runs_can_tell_is_no_stuck_search() -> None:
    runs = simulate(PUBLISHED["besiroglu2024"], Design("isoflop", 40), 2e-3)
    objective = make_objective(runs, find_family("hoffmann"), SETTINGS)
    found = search(objective, 64, seed=0)
    measured, enough = diagnose(objective, found), found.agreement(40)
    for share, kind in ((0.9, "converged"), (1.1, "stuck")):
        assert judge(objective, found, replace(measured, promise=share * enough), {}, {}).kind == kind


def test_runs_on_one_curve_stay_unidentified() -> None:
    law = PUBLISHED["besiroglu2024"]
    equation = law.supervised
    # along this curve, whose runs have ten ratios of tokens to parameters, both terms fall alike; off it they would not
    params = np.geomspace(1e8, 1e10, 10)
    tokens = 2e10 * (params / 1e9) ** (equation.alpha / equation.beta)
    runs = RunTable({"N": tuple(params), "D": tuple(tokens), "L": tuple(equation.predict(params, tokens))})
    settings = FitSettings(bootstrap=0, fixed={"alpha": equation.alpha, "beta": equation.beta})
    status = fit(runs, find_family("hoffmann"), settings).status
    assert status.kind == "not-identified"
    assert status.text.startswith("The runs do not tell A and B apart")
