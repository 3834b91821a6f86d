"""Simulate, fit, recover: the law that made the runs is found again, whatever their order, unit and number."""

from __future__ import annotations

import numpy as np
import pytest

from simulated_runs import BUSBRIDGE, TRUTHS, inputs_for, simulated
from tutelage.laws.designs import Design
from tutelage.laws.families import families, find_family
from tutelage.laws.fitting.objective import Objective, make_objective
from tutelage.laws.fitting.search import Found, search
from tutelage.laws.fitting.settings import FitSettings
from tutelage.laws.published import PUBLISHED
from tutelage.laws.simulate import simulate
from tutelage.laws.table import RunTable

EXACT = 1e-6  # relative error of a prediction where the runs have no noise
WITHIN = 1e-3  # relative error of a prediction where 910 runs have a noise of a tenth of a per cent
SAME_OBJECTIVE = 1e-9  # relative: the order of a sum
SAME = 1e-5  # relative error of a coefficient at one minimum, found twice: the objective is flat to second order
RUN_NOISE = 1e-3


def searched(runs: RunTable, name: str) -> tuple[Objective, Found]:
    family, settings = find_family(name), FitSettings()
    supervised = BUSBRIDGE.supervised if family.frozen else None
    objective = make_objective(runs, family, settings, supervised)
    return objective, search(objective, settings.start_count(len(family.parameters)), settings.seed)


@pytest.mark.parametrize("name", sorted(families()))
def test_noise_free_runs_give_their_law_back(name: str) -> None:
    objective, found = searched(simulated(name, runs=90), name)
    elsewhere = inputs_for(name, runs=50, seed=7)
    predicted = objective.family.predict(objective.equation(found.theta), elsewhere)
    true = objective.family.predict(TRUTHS[name], elsewhere)
    assert np.abs(predicted / true - 1.0).max() < EXACT


@pytest.mark.parametrize("noise", [0.0, RUN_NOISE])
def test_the_published_distillation_law_is_refitted_from_910_runs(noise: float) -> None:
    law = PUBLISHED["busbridge2025"]
    runs = simulate(law, Design("distillation", 910), noise=noise, seed=0)
    objective, found = searched(runs, "distillation")
    predicted = objective.family.predict(objective.equation(found.theta), objective.columns)
    true = objective.family.predict(law.equation, objective.columns)
    assert np.abs(predicted / true - 1.0).max() < WITHIN


@pytest.fixture(scope="module")
def noisy() -> RunTable:
    return simulated("hoffmann", runs=60, noise=2e-3)


def changed(runs: RunTable, **columns: tuple[float, ...]) -> RunTable:
    return RunTable({**runs.columns, **columns})


def test_the_order_of_the_runs_does_not_matter(noisy: RunTable) -> None:
    order = np.random.default_rng(0).permutation(len(noisy))
    turned = RunTable({letter: tuple(np.array(values)[order]) for letter, values in noisy.columns.items()})
    (_, found), (_, again) = searched(noisy, "hoffmann"), searched(turned, "hoffmann")
    assert again.objective == pytest.approx(found.objective, rel=SAME_OBJECTIVE)
    assert again.theta == pytest.approx(found.theta, rel=SAME)
    assert turned.sha256 == noisy.sha256


def test_another_unit_of_size_moves_the_scale_alone(noisy: RunTable) -> None:
    in_thousands = changed(noisy, N=tuple(value / 1000.0 for value in noisy.columns["N"]))
    (objective, found), (_, again) = searched(noisy, "hoffmann"), searched(in_thousands, "hoffmann")
    before, after = objective.coefficients(found.theta), objective.coefficients(again.theta)
    assert again.objective == pytest.approx(found.objective, rel=SAME_OBJECTIVE)
    assert after.pop("A") * 1000.0 ** after["alpha"] == pytest.approx(before.pop("A"), rel=100 * SAME)
    assert after == pytest.approx(before, rel=SAME)


def test_every_run_twice_doubles_the_objective_alone(noisy: RunTable) -> None:
    twice = RunTable({letter: values + values for letter, values in noisy.columns.items()})
    (_, found), (_, again) = searched(noisy, "hoffmann"), searched(twice, "hoffmann")
    assert again.objective == pytest.approx(2.0 * found.objective, rel=SAME_OBJECTIVE)
    assert again.theta == pytest.approx(found.theta, rel=SAME)
