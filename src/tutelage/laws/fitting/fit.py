"""Fitting a law: from runs and a family to a law with intervals, a status and what the fit says of itself.

Covers: the use case in order (search, bootstrap, hold-out, verdict) and its result. Does not cover: each of these steps
(their modules), reading runs (`tutelage.laws.reading`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from tutelage.errors import InputError
from tutelage.laws.family import Family
from tutelage.laws.files import law_to_dict
from tutelage.laws.fitting.bootstrap import bootstrap, draw_weights, shares_at_bounds, stored_draws
from tutelage.laws.fitting.compilation import compile_solver
from tutelage.laws.fitting.diagnosis import Diagnosis, diagnose, judge, weak_constants
from tutelage.laws.fitting.hold_out import FORMS, compare_forms, hold_out
from tutelage.laws.fitting.objective import Objective, make_objective
from tutelage.laws.fitting.quantities import identified_quantities, make_setting, training_compute
from tutelage.laws.fitting.search import Found, search
from tutelage.laws.fitting.settings import FitSettings
from tutelage.laws.law import Counting, Law, Range
from tutelage.laws.table import RunTable
from tutelage.laws.uncertainty import estimate, percentiles
from tutelage.progress import Progress, no_progress
from tutelage.records.document import Document, Status
from tutelage.records.estimate import Estimate
from tutelage.records.provenance import collect_provenance, version_of

_UNIDENTIFIED_PRODUCT = (
    "beta'*gamma' is not identified by distillation runs, however many there are (the student's tokens act through its "
    "supervised loss as well); neither are alpha' and gamma' apart from their product."
)


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    Args:
        law: The law, complete: coefficients, draws, intervals, range, runs, status, diagnostics, provenance.
    """

    law: Law

    @property
    def status(self) -> Status:
        """Whether the runs determined the law: converged, weakly-identified, not-identified or stuck."""
        return self.law.status

    def document(self) -> Document:
        """The document "fit": the law as its file holds it, and its diagnostics."""
        body = {"law": law_to_dict(self.law), "diagnostics": self.law.diagnostics}
        return Document("fit", body, status=self.law.status)


def fit(
    runs: RunTable,
    family: Family,
    settings: FitSettings | None = None,
    supervised: Law | None = None,
    progress: Progress = no_progress,
) -> Fit:
    """Fit a family of laws to runs.

    Args:
        runs: The runs; the columns that the family names.
        family: What is fitted.
        settings: How; the defaults where None.
        supervised: The law inside a distillation law, kept as it is; its joint draws are carried through.
        progress: Opens a bar for the starts and one for the bootstrap.

    Returns:
        The law with its status; a law that the runs do not determine is a result too.

    Raises:
        InputError: The runs cannot be fitted at all: a column is missing, a number is not positive.
        MissingExtraError: numba is not installed.
    """
    settings = settings or FitSettings()
    if supervised is not None and supervised.distillation is not None:
        raise InputError(f"{supervised.name} is a distillation law; fit on a supervised law")
    objective = make_objective(runs, family, settings, None if supervised is None else supervised.supervised)
    seconds = {"compile": compile_solver(family).seconds}

    started = time.perf_counter()
    count = settings.start_count(len(family.parameters))
    with progress("starts", total=count, unit="start") as advance:
        found = search(objective, count, settings.seed, advance)
    seconds["fit"] = time.perf_counter() - started

    started = time.perf_counter()
    draws: dict[str, tuple[float, ...]] = {}
    bounds: Mapping[str, float] = {}
    if settings.bootstrap and objective.free.any():
        weights = draw_weights(len(runs), settings.bootstrap, settings.seed)
        with progress("bootstrap", total=settings.bootstrap, unit="draw") as advance:
            drawn = bootstrap(objective, found, weights, supervised, advance)
        draws, bounds = stored_draws(objective, drawn, supervised), shares_at_bounds(objective, drawn)
    seconds["bootstrap"] = time.perf_counter() - started

    measured = diagnose(objective, found)
    intervals = {name: _ends(values, settings.level) for name, values in draws.items()}
    law = Law(
        name=settings.name,
        equation=objective.equation(found.theta),
        source=f"fitted by {family.name} to {len(runs)} runs of {runs.source or 'a table'} (sha256 {runs.sha256})",
        counting=Counting(runs.counting.get("params", "not stated"), runs.counting.get("tokens", "not stated")),
        forward=settings.forward,
        fitted=_ranges(objective),
        modality=settings.modality,
        intervals=intervals,
        interval_level=settings.level if draws else None,
        draws=draws or None,
        status=judge(objective, found, measured, intervals, bounds),
        runs=runs,
    )
    started = time.perf_counter()
    diagnostics = _diagnostics(objective, found, measured, law, settings)
    diagnostics["weak"] = list(weak_constants(objective, measured, intervals, bounds))
    seconds["diagnostics"] = time.perf_counter() - started
    return Fit(replace(law, diagnostics=diagnostics, provenance=_provenance(settings, supervised, seconds)))


def _ends(values: tuple[float, ...], level: float) -> Range:
    low, high = percentiles(np.asarray(values), level)
    return float(low), float(high)


def _ranges(objective: Objective) -> dict[str, Range]:
    """The range of each input that the runs span, by the names of `Law.fitted`."""
    columns = objective.columns
    spans = {column.name: columns[column.letter] for column in objective.family.inputs}
    if objective.supervised is not None:
        spans["loss_ratio"] = columns["L_T"] / objective.supervised.predict(columns["N_S"], columns["D_S"])
    return {name: (float(values.min()), float(values.max())) for name, values in spans.items()}


def _provenance(settings: FitSettings, supervised: Law | None, seconds: Mapping[str, float]) -> dict[str, object]:
    collected = collect_provenance().to_dict()
    packages = {**collected["packages"], "numba": version_of("numba")}
    inside = None if supervised is None else {"name": supervised.name, "source": supervised.source}
    return {**collected, "packages": packages, "seconds": seconds, "settings": asdict(settings), "supervised": inside}


def _diagnostics(
    objective: Objective, found: Found, measured: Diagnosis, law: Law, settings: FitSettings
) -> dict[str, object]:
    """What the fit says of itself, as JSON values."""
    family, columns = objective.family, objective.columns
    setting = make_setting(family, columns, settings.forward, settings.compute)
    compute = training_compute(family, columns, settings.forward)
    held = hold_out(objective, compute, settings)
    comparable = family.name in FORMS and law.runs is not None and law.status.kind != "not-identified"
    quantities = identified_quantities(family, setting)
    notes = [] if law.draws else ["No intervals: there was no bootstrap."]
    notes += [held] if isinstance(held, str) else [held.text]
    notes += [_UNIDENTIFIED_PRODUCT] if family.frozen else []
    return {
        "objective": found.objective,
        "delta": objective.delta,
        "runs": len(objective.y),
        "starts": found.starts,
        "followed_starts": len(found.objectives),
        "agreeing_starts": found.agreeing(len(objective.y)),
        "agreement": found.agreement(len(objective.y)),
        "condition_number": measured.condition_number,
        "correlation": measured.correlation,
        "distinct_ratios": measured.distinct_ratios,
        "at_bounds": list(measured.at_bounds),
        "linear_share": measured.linear_share,
        "coefficients": {name: _coefficient(law, name).to_dict() for name in law.equation.coefficients()},
        "at_compute": None if family.frozen else setting.compute,
        "at_student": {"params": setting.params, "tokens": setting.tokens},
        "identified": {name: estimate(law, q, settings.level).to_dict() for name, q in quantities.items()},
        "held_out": None if isinstance(held, str) else asdict(held),
        "forms": compare_forms(law.runs, compute, settings) if comparable and law.runs else None,
        "notes": notes,
    }


def _coefficient(law: Law, name: str) -> Estimate:
    value = float(law.equation.coefficients()[name])
    if name not in law.intervals:
        return Estimate(value)
    drawn = 0 if law.draws is None else len(law.draws[name])
    return Estimate(value, *law.intervals[name], law.interval_level, f"bootstrap, {drawn} draws")
