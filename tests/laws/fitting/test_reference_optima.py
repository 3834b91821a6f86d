"""The minima of public tables of runs, as other implementations found them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tutelage.laws.families import find_family
from tutelage.laws.fitting.objective import make_objective
from tutelage.laws.fitting.search import search
from tutelage.laws.fitting.settings import FitSettings
from tutelage.laws.published import PUBLISHED
from tutelage.laws.table import RunTable

Read = Callable[[str, dict[str, str]], RunTable]

SAME_OBJECTIVE = 1e-6  # relative
FOUR_DIGITS = 5e-4  # half a unit of the fourth significant digit, at most
LAST_DIGIT = 5e-9  # of an objective printed as 0.01582594

OPTIMA = {
    "gemstones": (
        "gemstones_hot.jsonl",
        {"N": "params_active_precise", "D": "tokens", "L": "final_loss"},
        0.001981613,
        {"E": 2.14321, "A": 213.085, "B": 4.968e6, "alpha": 0.29289, "beta": 0.71298},
    ),
    "chinchilla": (
        "chinchilla_figure.csv",
        {"N": "N", "D": "D", "L": "loss"},
        0.0008400931,
        {"E": 1.78389, "A": 442.164, "B": 1271.81, "alpha": 0.34263, "beta": 0.34200},
    ),
    "olmo": (
        "olmo_ladder.csv",
        {"N": "N", "D": "D", "L": "c4_en-validation_ce"},
        0.0001064384,
        {"E": 1.857, "A": 114.3, "B": 34.0, "alpha": 0.2673, "beta": 0.1571},
    ),
}


@pytest.mark.parametrize("name", OPTIMA)
def test_the_reference_optimum_is_reached(name: str, reference_table: Read) -> None:
    file, columns, least, coefficients = OPTIMA[name]
    settings = FitSettings()
    objective = make_objective(reference_table(file, columns), find_family("hoffmann"), settings)
    found = search(objective, settings.start_count(5), seed=0)
    assert found.objective == pytest.approx(least, rel=SAME_OBJECTIVE)
    fitted = {name: float(value) for name, value in objective.coefficients(found.theta).items() if name != "gamma"}
    assert fitted == pytest.approx(coefficients, rel=10 * FOUR_DIGITS if name == "olmo" else FOUR_DIGITS)
    assert found.agreeing(len(objective.y)) >= 12  # of 16


def test_repeated_data_are_fitted_at_least_as_well_as_published(reference_table: Read) -> None:
    runs = reference_table("datablations_182.csv", {"N": "N", "D": "D", "U": "U", "L": "loss"})
    settings, family = FitSettings(), find_family("data-constrained")
    objective = make_objective(runs, family, settings)
    published = PUBLISHED["muennighoff2023"].equation.coefficients()
    theta = np.array([np.log(published[p.name]) if p.log else published[p.name] for p in family.parameters])
    _, at_published = objective.minimise(theta[None], steps=0)
    assert at_published[0] == pytest.approx(0.01582594, abs=LAST_DIGIT)
    assert search(objective, settings.start_count(7), seed=0).objective < at_published[0]
