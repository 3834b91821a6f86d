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
    settings: Any = law.provenance.get("settings") or {}
    estimates = told.get("coefficients") or {}
    marks = {
        "fixed": {*law.family.constants, *(settings.get("fixed") or ())},
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
    """One row a quantity that runs determine better than single coefficients; the last cell says at what."""
    told: Mapping[str, Any] = law.diagnostics
    student, compute = told.get("at_student"), told.get("at_compute")
    at: dict[str, str] = {}
    if compute is not None:
        at |= dict.fromkeys(_AT_COMPUTE, f"at {format_quantity(compute)} FLOPs")
    if student is not None:
        said = f"{format_quantity(student['params'])} on {format_quantity(student['tokens'])} tokens"
        at |= dict.fromkeys(_AT_STUDENT, said)
    return [
        [name.replace("_", " "), *_numbers(estimate), at.get(name, "")]
        for name, estimate in (told.get("identified") or {}).items()
    ]


_AT_COMPUTE = ("optimal_params", "optimal_tokens", "tokens_per_param")
_AT_STUDENT = ("largest_run_loss", "best_teacher_loss", "best_student_loss")


def diagnosis(law: Law) -> list[str]:
    """What the fit says of itself, one line each."""
    told: Mapping[str, Any] = law.diagnostics
    lines = [law.source]
    lines += [line.format(**told) for keys, line in _LINES if all(told.get(key) is not None for key in keys)]
    lines.append(f"at bounds: {', '.join(told.get('at_bounds') or ()) or 'none'}")
    lines += told.get("notes") or ()
    errors = {name: form.get("held_out_median_error") for name, form in (told.get("forms") or {}).items()}
    if errors and None not in errors.values():
        lines.append(
            "median error out of sample: " + ", ".join(f"{name} {100 * error:.2f} %" for name, error in errors.items())
        )
    seconds = law.provenance.get("seconds")
    if isinstance(seconds, Mapping):
        lines.append("seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in seconds.items()))
    return lines


_LINES = (
    (("objective", "delta"), "objective: {objective:.8g} (Huber on log losses, summed; delta {delta:g})"),
    (
        ("agreeing_starts", "followed_starts", "starts"),
        "starts: {starts} tried, {followed_starts} followed to a minimum, {agreeing_starts} of them to the best",
    ),
    (("condition_number",), "condition number: {condition_number:.3g}"),
    (("correlation",), "correlation of ln N and ln D: {correlation:.2f}"),
    (("distinct_ratios",), "distinct ratios D/N: {distinct_ratios}"),
    (("linear_share",), "runs in Huber's linear part: {linear_share:.0%}"),
)


def _numbers(estimate: Mapping[str, Any]) -> list[str]:
    return ["" if estimate.get(end) is None else _short(float(estimate[end])) for end in ("value", "low", "high")]


def _short(value: float) -> str:
    return format_quantity(value) if abs(value) >= _LARGE else f"{value:.4g}"


_LARGE = 1e6
"""Coefficients are shown to four digits, counts of parameters and tokens as 1.2B."""
