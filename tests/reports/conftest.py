"""Laws as fits leave them, with runs and joint draws, and a plan's document, made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tutelage.laws.families.distillation import KneeLaw
from tutelage.laws.law import Law
from tutelage.laws.published import PUBLISHED
from tutelage.laws.table import RunTable
from tutelage.planning.plan import plan
from tutelage.planning.question import Question
from tutelage.planning.scenarios import Teacher
from tutelage.records.document import Status

# Log loss: what two runs of one recipe differ by.
RUN_NOISE = 0.003
# Relative: the spread of each coefficient over the draws.
COEFFICIENT_SPREAD = 0.002
DRAWS = 100


def _draws(law: Law, rng: np.random.Generator) -> dict[str, tuple[float, ...]]:
    names = [name for name in law.equation.coefficients() if name not in law.family.constants]
    centre = np.array([law.equation.coefficients()[name] for name in names])
    drawn = centre * np.exp(COEFFICIENT_SPREAD * rng.standard_normal((DRAWS, len(names))))
    return {name: tuple(column) for name, column in zip(names, drawn.T.tolist(), strict=True)}


def _estimate(value: float, low: float, high: float) -> dict[str, Any]:
    method = f"bootstrap, {DRAWS} draws"
    return {"value": value, "low": low, "high": high, "level": 0.9, "method": method}


def make_supervised(runs: int = 40) -> Law:
    """A supervised law on simulated runs; the last run lies 4 % above the law."""
    rng = np.random.default_rng(0)
    published = PUBLISHED["besiroglu2024"]
    sizes = np.exp(rng.uniform(*np.log([6e7, 1.6e10]), runs))
    tokens = np.exp(rng.uniform(*np.log([1.5e9, 3e11]), runs))
    loss = published.supervised.predict(sizes, tokens) * np.exp(RUN_NOISE * rng.standard_normal(runs))
    loss[-1] = 1.04 * published.supervised.predict(sizes[-1], tokens[-1])
    table = RunTable({"N": tuple(sizes), "D": tuple(tokens), "L": tuple(loss)}, "runs.csv")
    diagnostics = {
        "objective": 0.00084,
        "delta": 1e-3,
        "runs": runs,
        "starts": 4096,
        "agreeing_starts": 3911,
        "condition_number": 62.4,
        "correlation": 0.81,
        "distinct_ratios": runs,
        "at_bounds": [],
        "linear_share": 0.12,
        "coefficients": {"E": _estimate(1.8172, 1.78, 1.85)},
        "identified": {"optimal_params": _estimate(2.1e9, 1.7e9, 2.6e9)},
        "at_compute": 1e21,
        "at_student": {"params": 7e9, "tokens": 3e11},
        "held_out": {
            "compute_from": 1e21,
            "runs": 9,
            "median_error": 0.004,
            "largest_error": 0.04,
            "text": "Held out.",
        },
        "forms": {"hoffmann": {"objective": 0.00084, "held_out_median_error": 0.0041}},
        "notes": ["A note of the fit."],
    }
    return replace(
        published,
        name="ours",
        source="runs.csv",
        rounding={},
        draws=_draws(published, rng),
        runs=table,
        diagnostics=diagnostics,
        status=Status("converged", "All starts agree.", ""),
        provenance={"seconds": {"compile": 2.0, "fit": 0.05, "bootstrap": 0.1}},
    )


def make_distillation(runs: int = 50) -> Law:
    """A distillation law of eight parameters on simulated runs."""
    rng = np.random.default_rng(1)
    published = PUBLISHED["busbridge2025"]
    printed = published.equation.coefficients()
    own = {name: printed[name] for name in KneeLaw.own_names if name in printed}
    law = replace(published, name="taught", equation=KneeLaw(published.supervised, x0=0.93, **own), rounding={})
    sizes = np.exp(rng.uniform(*np.log([1.5e8, 1.2e10]), runs))
    tokens = np.exp(rng.uniform(*np.log([4e9, 5e11]), runs))
    teachers = rng.uniform(1.9, 2.8, runs)
    loss = law.require_distillation().predict(sizes, tokens, teachers) * np.exp(RUN_NOISE * rng.standard_normal(runs))
    columns = {"N_S": tuple(sizes), "D_S": tuple(tokens), "L_T": tuple(teachers), "L_S": tuple(loss)}
    return replace(law, intervals={}, draws=_draws(law, rng), runs=RunTable(columns, "students.csv"))


@pytest.fixture(scope="session")
def supervised() -> Law:
    """A fitted supervised law."""
    return make_supervised()


@pytest.fixture(scope="session")
def distillation() -> Law:
    """A fitted distillation law."""
    return make_distillation()


@pytest.fixture(scope="session")
def plan_document() -> dict[str, Any]:
    """What `tutelage plan --json` prints for a student, two teachers and a fitted law."""
    teachers = (Teacher("7B", 7.7e9, 2.02), Teacher("3B", 3e9, 2.15))
    question = Question(1e9, 1e22, None, None, teachers, 4)
    document: dict[str, Any] = plan(question, make_distillation()).document().to_dict()
    return document
