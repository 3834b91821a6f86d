"""A fitted law in words and in rows of tables, from its status and diagnostics alone.

Covers: plain text that a terminal, a log or a report can show. Does not cover: drawing the table, nor the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.laws.law import IDENTIFIED, Law
from tutelage.units import format_quantity

COEFFICIENT_HEADERS = ("coefficient", "value", "low", "high", "")


def verdict(law: Law) -> str:
    """The status and its remedy, loud where the runs did not determine the law."""
    kind = law.status.kind if law.status.kind == "converged" else law.status.kind.upper()
    said = f"{kind}: {law.status.text} {law.status.remedy}".strip()
    if law.status.kind not in IDENTIFIED:
        said += "\nThis law is refused by predict and plan, unless --accept-unidentified says to use it all the same."
    return said


def coefficient_rows(law: Law) -> list[list[str]]:
    """One row a coefficient: name, value, ends of its interval, and what is to be said of it."""
    told: Mapping[str, Any] = law.diagnostics
    estimates = told.get("coefficients") or {}
    marks = {
        "fixed": {*law.family.constants, *(told.get("fixed") or ())},
        "frozen": set(law.family.frozen),
        "at its bound": set(told.get("at_bounds") or ()),
        "weakly identified": set(told.get("weak") or ()),
    }
    return [
        [
            name,
            *_numbers(estimates.get(name) or {"value": value}),
            ", ".join(mark for mark, names in marks.items() if name in names),
        ]
        for name, value in law.equation.coefficients().items()
    ]


def identified_rows(law: Law) -> list[list[str]]:
    """One row a quantity that runs determine better than single coefficients."""
    told: Mapping[str, Any] = law.diagnostics
    return [
        [name.replace("_", " "), *_numbers(found), _where(found)]
        for name, found in (told.get("identified") or {}).items()
        if isinstance(found, Mapping)
    ]


def diagnosis(law: Law) -> list[str]:
    """What the fit says of itself, one line each."""
    told: Mapping[str, Any] = law.diagnostics
    lines = [f"runs: {law.source}"]
    lines += [line.format(**told) for keys, line in _LINES if all(told.get(key) is not None for key in keys)]
    lines.append(f"at bounds: {', '.join(told.get('at_bounds') or ()) or 'none'}")
    if held_out := told.get("held_out"):
        lines.append(held_out.get("text") or _HELD_OUT.format(**held_out))
    for name, form in (told.get("forms") or {}).items():
        if form.get("held_out_median_error") is not None:
            lines.append(f"out of sample, {name}: median error {form['held_out_median_error']:.2%}")
    lines += told.get("notes") or ()
    seconds = law.provenance.get("seconds")
    if isinstance(seconds, Mapping):
        said = (f"{name} {value:.2f}" for name, value in seconds.items() if isinstance(value, float))
        lines.append(f"seconds: {', '.join(said)}")
    return lines


_LINES = (
    (("objective", "delta"), "objective: {objective:.8g} (Huber on log losses, summed; delta {delta:g})"),
    (("agreeing_starts", "starts"), "starts: {agreeing_starts} of {starts} reached the best objective"),
    (("condition_number",), "condition number: {condition_number:.3g}"),
    (("correlation",), "correlation of ln N and ln D: {correlation:.2f}"),
    (("distinct_ratios",), "distinct ratios D/N: {distinct_ratios}"),
    (("linear_share",), "runs in Huber's linear part: {linear_share:.0%}"),
)
_HELD_OUT = "held out from {compute_from:.3g} FLOPs: {runs} runs, median error {median_error:.2%}"


def _numbers(estimate: Mapping[str, Any]) -> list[str]:
    return ["" if estimate.get(end) is None else _short(float(estimate[end])) for end in ("value", "low", "high")]


def _short(value: float) -> str:
    return format_quantity(value) if abs(value) >= _LARGE else f"{value:.4g}"


_LARGE = 1e6
"""Coefficients are shown to four digits, counts of parameters and tokens as 1.2B."""


def _where(estimate: Mapping[str, Any]) -> str:
    compute = estimate.get("at_compute")
    return "" if compute is None else f"at {format_quantity(float(compute))} FLOPs"
