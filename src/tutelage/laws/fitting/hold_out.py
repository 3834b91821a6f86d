"""How well a form predicts the strongest runs from the weak ones.

Covers: a refit on the runs below a tenth of the largest compute and its errors on the rest, for one family and for
Hoffmann's form against the gamma form. Does not cover: errors on the fitted runs (`diagnosis`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.laws.families import families
from tutelage.laws.fitting.objective import Objective, make_objective
from tutelage.laws.fitting.search import search
from tutelage.laws.fitting.settings import FitSettings
from tutelage.laws.numbers import FloatArray
from tutelage.laws.table import RunTable
from tutelage.units import format_quantity

DECADE = 10.0
_SPARE_RUNS = 3
"""Runs beyond the constants that the refit must have."""
FORMS = ("hoffmann", "gamma")


@dataclass(frozen=True)
class HeldOut:
    """What a law fitted on weak runs makes of the strong ones.

    Args:
        compute_from: FLOPs from which runs were held out.
        runs: How many were held out.
        median_error: Median over them of |predicted / measured - 1|.
        largest_error: The largest of these errors.
        text: The same in a sentence.
    """

    compute_from: float
    runs: int
    median_error: float
    largest_error: float
    text: str


def hold_out(objective: Objective, compute: FloatArray, settings: FitSettings) -> HeldOut | str:
    """Fit the runs below a tenth of the largest compute and predict the rest; where that cannot be, the reason."""
    compute_from = float(compute.max()) / DECADE
    weak: NDArray[np.bool_] = compute < compute_from
    needed = int(objective.free.sum()) + _SPARE_RUNS
    if weak.sum() < needed:
        return (
            f"No hold-out: {int(weak.sum())} runs lie below a tenth of the largest compute, and "
            f"{needed} are needed to fit {objective.family.name} on them."
        )
    found = search(objective.restricted(weak), settings.start_count(len(objective.bounds[0])), settings.seed)
    strong = objective.restricted(~weak)
    residuals, _ = strong.linearise(found.theta)
    errors = np.abs(np.expm1(residuals))
    text = (
        f"Fitted on the {int(weak.sum())} runs below {format_quantity(compute_from)} FLOPs, {objective.family.name} "
        f"predicts the other {len(errors)} with a median error of {100 * np.median(errors):.2f} % "
        f"(largest {100 * errors.max():.2f} %)."
    )
    return HeldOut(compute_from, len(errors), float(np.median(errors)), float(errors.max()), text)


def compare_forms(runs: RunTable, compute: FloatArray, settings: FitSettings) -> dict[str, dict[str, float | None]]:
    """Hoffmann's form and the gamma form on the same runs: the objective on all, the median error on those held out."""
    table: dict[str, dict[str, float | None]] = {}
    for name in FORMS:
        family = families()[name]
        known = {parameter.name for parameter in family.parameters}
        own = FitSettings(
            delta=settings.delta,
            starts=settings.starts,
            seed=settings.seed,
            fixed={coefficient: value for coefficient, value in settings.fixed.items() if coefficient in known},
        )
        objective = make_objective(runs, family, own)
        found = search(objective, own.start_count(len(family.parameters)), own.seed)
        held = hold_out(objective, compute, own)
        error = None if isinstance(held, str) else held.median_error
        table[name] = {"objective": found.objective, "held_out_median_error": error}
    return table
