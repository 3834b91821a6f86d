"""What a fit says of itself: the design of its runs, the conditioning, and the verdict whether they determine the law.

Covers: the measures and the status with its remedy. Does not cover: intervals, the errors on held-out runs
(`hold_out`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from tutelage.laws.fitting.objective import Objective
from tutelage.laws.fitting.quantities import sizes_of
from tutelage.laws.fitting.search import EXACT, Found
from tutelage.laws.fitting.starts import TERMS
from tutelage.laws.law import Range
from tutelage.laws.numbers import FloatArray
from tutelage.records.document import Status

_SAME_RATIO = 0.02
"""Ratios of tokens to parameters closer than this, in natural logarithm, count as one."""
_SPARE_RUNS = 2
_WIDEST = 2.0
"""An interval whose ends differ by more than this factor does not determine a constant."""
_WIDEST_SCALE = 100.0
"""Likewise for A and B, which an exponent's uncertainty moves by its product with ln N, about 20."""
_MOST_AT_BOUNDS = 0.05
_SINGULAR = 1e8
"""Condition number of the normalised Jacobian beyond which float64 cannot tell constants apart."""
_LEAST_AGREEING = 2
NEVER_IDENTIFIED = {"c1": "a larger c1 with a larger d1 is the same curve"}


@dataclass(frozen=True)
class Diagnosis:
    """The measures.

    Args:
        distinct_ratios: Distinct ratios of tokens to parameters among the runs.
        correlation: Of ln N and ln D; None where one of them is constant.
        condition_number: Of the Jacobian of log predictions with columns of length 1; infinite where one is 0.
        linear_share: Share of the runs in the linear part of Huber's loss.
        at_bounds: Fitted constants at a bound of the search.
        promise: What one more step promises to gain, as part of the objective.
        blind: Constants that the least determined direction is made of.
        redundant: Whether that direction changes no prediction at all within the range of the runs, so that it is the
            equation that has constants to spare, not the design that lacks runs.
        equally_good: Lowest and highest value of each coefficient among the minima that agree with the best.
    """

    distinct_ratios: int
    correlation: float | None
    condition_number: float
    linear_share: float
    at_bounds: tuple[str, ...]
    promise: float
    blind: tuple[str, ...]
    redundant: bool = False
    equally_good: Mapping[str, Range] = field(default_factory=dict)


def diagnose(objective: Objective, found: Found) -> Diagnosis:
    """Measure the runs and the minimum."""
    params, tokens = (np.log(column) for column in sizes_of(objective.family, objective.columns))
    ratios = np.sort(tokens - params)
    varies = np.ptp(params) > 0 and np.ptp(tokens) > 0
    residuals, slopes = objective.linearise(found.theta)
    low, high = objective.bounds
    edge = objective.free & ((found.theta <= low) | (found.theta >= high))
    names = np.array([parameter.name for parameter in objective.family.parameters])
    inside = objective.free & ~edge
    condition, blind = _conditioning(slopes[:, inside], names[inside])
    more = np.vstack([slopes, _at_corners(objective).linearise(found.theta)[1]])
    return Diagnosis(
        distinct_ratios=1 + int(np.sum(np.diff(ratios) > _SAME_RATIO)),
        correlation=float(np.corrcoef(params, tokens)[0, 1]) if varies else None,
        condition_number=condition,
        linear_share=float(np.mean(np.abs(residuals) > objective.delta)),
        at_bounds=tuple(names[edge].tolist()),
        promise=_promise(objective, residuals, slopes[:, inside], found.objective),
        blind=blind,
        equally_good=_among_equals(objective, found),
        redundant=min(condition, _conditioning(more[:, inside], names[inside])[0]) > _SINGULAR,
    )


def _among_equals(objective: Objective, found: Found) -> dict[str, Range]:
    own = objective.coefficients(found.minima[: found.agreeing(len(objective.y))])
    return {name: (float(np.min(own[name])), float(np.max(own[name]))) for name in objective.free_names}


def _at_corners(objective: Objective) -> Objective:
    """The same objective on the corners of the box that the runs' inputs span; its losses mean nothing."""
    columns, letters = objective.columns, [column.letter for column in objective.family.inputs]
    ends = [(float(columns[letter].min()), float(columns[letter].max())) for letter in letters]
    corners = dict(zip(letters, np.array(list(product(*ends))).T, strict=True))
    x = np.ascontiguousarray(objective.family.features(corners, objective.supervised))[None]
    return replace(objective, columns=corners, x=x, y=np.zeros(x.shape[1]))


def _conditioning(slopes: FloatArray, names: FloatArray) -> tuple[float, tuple[str, ...]]:
    lengths = np.linalg.norm(slopes, axis=0)
    if not len(lengths):
        return 1.0, ()
    if not lengths.min() > 0:
        return float("inf"), tuple(names[lengths == 0].tolist())
    _, singular, directions = np.linalg.svd(slopes / lengths, full_matrices=False)
    smallest = singular[-1] if len(slopes) >= len(lengths) else 0.0
    weight = np.abs(directions[-1])
    blind = tuple(names[weight > 0.3 * weight.max()].tolist())
    return (float(singular[0] / smallest) if smallest > 0 else float("inf")), blind


def _promise(objective: Objective, residuals: FloatArray, slopes: FloatArray, least: float) -> float:
    """Half of g' H^-1 g by the majoriser's Hessian, over the objective."""
    size = np.abs(residuals)
    weights = np.sqrt(np.where(size <= objective.delta, 1.0, objective.delta / np.maximum(size, objective.delta)))
    lengths = np.linalg.norm(slopes, axis=0)
    scaled = slopes / np.where(lengths > 0, lengths, 1.0)
    explained = np.linalg.lstsq(scaled * weights[:, None], residuals * weights, rcond=1e-9)[0]
    gain = 0.5 * float(np.sum((scaled * weights[:, None] @ explained) ** 2))
    return gain / max(least, 0.5 * len(residuals) * EXACT)


def judge(
    objective: Objective,
    found: Found,
    measured: Diagnosis,
    intervals: Mapping[str, Range],
    at_bounds: Mapping[str, float],
) -> Status:
    """The status of a fit.

    Args:
        objective: What was minimised.
        found: Its minimum.
        measured: What `diagnose` found.
        intervals: Of each fitted coefficient; empty without a bootstrap.
        at_bounds: Share of the draws in which each lies at a bound.
    """
    faults = design_faults(objective, measured)
    if faults:
        remedies = dict.fromkeys(remedy for _, remedy in faults)
        return Status("not-identified", " ".join(text for text, _ in faults), " ".join(remedies))
    if measured.condition_number > _SINGULAR and not measured.redundant:
        text = (
            f"The runs do not tell {_listed(measured.blind)} apart (condition number {measured.condition_number:.1e})."
        )
        return Status("not-identified", text, "Add runs that vary what these constants act on, or fix one of them.")
    runs = len(objective.y)
    agreeing = found.agreeing(runs)
    # a step that gains less than the runs can tell apart goes along the floor of a valley: it is no fault of the search
    if agreeing < min(_LEAST_AGREEING, len(found.objectives)) or measured.promise > found.agreement(runs):
        reached = f"{agreeing} of {len(found.objectives)} followed starts ended at the best objective"
        text = f"The search is stuck: {reached}, and one more step promises {100 * measured.promise:.2g} % of it."
        return Status("stuck", text, "Use more starts, or another seed; look for outliers among the runs.")
    weak = weak_constants(objective, measured, intervals, at_bounds)
    if weak:
        reasons = "; ".join(f"{name} ({why})" for name, why in weak.items())
        text = f"The runs leave these constants open: {reasons}. Predictions within their range are not concerned."
        remedy = "Use predictions and the identified quantities, not these constants; add runs, or fix constants."
        return Status("weakly-identified", text, remedy)
    text = f"{agreeing} of {len(found.objectives)} followed starts ended at the best objective."
    return Status("converged", text)


def design_faults(objective: Objective, measured: Diagnosis) -> list[tuple[str, str]]:
    """Why no fit of these runs can determine the law: text and remedy of each reason."""
    faults = []
    free, columns = objective.free_names, objective.columns
    runs = len(np.unique(np.column_stack([columns[column.letter] for column in objective.family.inputs]), axis=0))
    if runs < len(free) + _SPARE_RUNS:
        counted = "1 run cannot" if runs == 1 else f"{runs} distinct runs cannot"
        text = f"{counted} determine {len(free)} constants ({', '.join(free)})."
        faults.append((text, f"Add runs ({len(free) + _SPARE_RUNS} or more), or fix constants with --fixed."))
    terms = [term for term in TERMS if term.scale in free or term.exponent in free]
    for term in terms:
        if np.ptp(columns[term.letter]) == 0:
            value, concerned = columns[term.letter][0], _listed([n for n in (term.scale, term.exponent) if n in free])
            text = f"{term.letter} is {value:.6g} in every run, which leaves {concerned} undetermined."
            faults.append((text, f"Add runs of another {term.letter}, or fix them with --fixed."))
    if "c0" in free and np.ptp(columns["L_T"]) == 0:
        text = f"L_T is {columns['L_T'][0]:.6g} in every run, which leaves what the teacher does undetermined."
        faults.append((text, "Add runs with teachers of another loss."))
    if len(terms) == 2 and measured.distinct_ratios == 1 and len(columns[terms[0].letter]) > 1 and not faults:
        params, tokens = sizes_of(objective.family, columns)
        text = (
            f"Every run has one ratio of tokens to parameters ({np.median(tokens / params):.4g}), along which the two "
            "terms cannot be told apart."
        )
        faults.append((text, "Add runs at other ratios: the same sizes on fewer and on more tokens."))
    return faults


def weak_constants(
    objective: Objective, measured: Diagnosis, intervals: Mapping[str, Range], at_bounds: Mapping[str, float]
) -> dict[str, str]:
    """The constants that the runs determine badly, and why."""
    scales = {term.scale for term in TERMS}
    weak: dict[str, str] = {}
    for name in objective.free_names:
        low, high = intervals.get(name, (1.0, 1.0))
        least, most = measured.equally_good[name]
        widest = _WIDEST_SCALE if name in scales else _WIDEST
        if name in NEVER_IDENTIFIED:
            weak[name] = NEVER_IDENTIFIED[name]
        elif name in measured.at_bounds:
            weak[name] = "at a bound of the search"
        elif measured.redundant and name in measured.blind:
            others = _listed([other for other in measured.blind if other != name])
            weak[name] = f"any change is made up for by {others}" if others else "no prediction depends on it"
        elif at_bounds.get(name, 0.0) > _MOST_AT_BOUNDS:
            weak[name] = f"at a bound of the search in {100 * at_bounds[name]:.0f} % of the draws"
        elif low <= 0 or high / low > widest:
            weak[name] = f"between {low:.3g} and {high:.3g}"
        elif least <= 0 or most / least > widest:
            weak[name] = f"between {least:.3g} and {most:.3g} in equally good minima"
    return weak


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
