"""What is known of a law, in tables: coefficients with their intervals, what is identified, how the fit went.

Covers: the banner with the status and its remedy, and the tables; everything comes from the law file. Does not cover:
figures (`law_curves`, `law_runs`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tutelage.laws.law import Law
from tutelage.laws.uncertainty import LEVEL, percentiles
from tutelage.records.estimate import Estimate
from tutelage.reports import words
from tutelage.reports.content import Banner, Table, Tone

_TONES: Mapping[str, Tone] = {"done": "plain", "converged": "good", "weakly-identified": "warn"}
_HEADLINES = {
    "done": "Published",
    "converged": "Converged",
    "weakly-identified": "Weakly identified",
    "not-identified": "Not identified: do not use these coefficients",
    "stuck": "Stuck: the fit did not reach its optimum",
}
_MEANINGS = {
    "objective": "sum of the Huber losses of the log residuals at the optimum",
    "delta": "Huber's delta, in log loss",
    "runs": "runs that were fitted",
    "starts": "starting points",
    "followed_starts": "of them, starts that were followed to a minimum",
    "agreeing_starts": "of those, starts that reached the best optimum",
    "condition_number": "condition number of the problem; large means that constants trade off",
    "correlation": "correlation of ln N and ln D over the runs",
    "distinct_ratios": "distinct tokens-per-parameter ratios among the runs",
    "linear_share": "share of runs in Huber's linear part (outliers)",
}


def status_banner(law: Law) -> Banner:
    """The status of the fit, loud where the law must not be used as it stands."""
    status = law.status
    if status.kind == "done" and not status.text:
        known = "bands show the rounding of the coefficients alone" if law.rounding else "there are no bands"
        text = (
            f"The joint draws of the coefficients were not published, so a prediction has no probability; {known}."
            if law.draws is None
            else "The law carries joint draws of its coefficients; bands are made of them."
        )
        return Banner("plain", "Published" if law.draws is None else "Ready", (text,))
    lines = tuple(line for line in (status.text, status.remedy and f"What to do: {status.remedy}") if line)
    return Banner(_TONES.get(status.kind, "bad"), _HEADLINES.get(status.kind, status.kind), lines)


def coefficient_table(law: Law) -> Table:
    """Every coefficient with the best interval that the law has for it."""
    fitted = estimates(law.diagnostics.get("coefficients"))
    at_bounds = law.diagnostics.get("at_bounds")
    bound = tuple(map(str, at_bounds)) if isinstance(at_bounds, list) else ()
    rows = []
    for name, value in law.equation.coefficients().items():
        known = fitted.get(name) or _known(law, name, value)
        note = "on a bound of the search" if name in bound else ""
        if name in law.family.constants:
            note = "fixed by the family"
        elif name in law.family.frozen:
            note = "supervised law"
        rows.append(
            (words.formula(name), words.number(value), words.between(known.low, known.high), words.spread(known), note)
        )
    headers = ("coefficient", "value", "interval", "kind", "note")
    shown = len(headers) if any(row[-1] for row in rows) else -1
    return Table(headers[:shown], tuple(row[:shown] for row in rows), "With the best interval that is known of each")


def _known(law: Law, name: str, value: float) -> Estimate:
    if law.draws and name in law.draws:
        low, high = percentiles(np.array(law.draws[name]))
        return Estimate(value, float(low), float(high), LEVEL, f"bootstrap, {len(law.draws[name])} draws")
    if name in law.intervals:
        return Estimate(value, *law.intervals[name], law.interval_level, "published")
    if name in law.rounding:
        half = law.rounding[name]
        return Estimate(value, value - half, value + half, None, "rounding band")
    return Estimate(value)


def identified_table(law: Law) -> Table | None:
    """What the runs determine even where the coefficients trade off, or None."""
    found = estimates(law.diagnostics.get("identified"))
    rows = tuple(
        (words.label(name), words.named(name, known.value), words.named_ends(name, known), words.spread(known))
        for name, known in found.items()
    )
    title = f"What the runs determine{_setting(law)}"
    return Table(("quantity", "value", "interval", "kind"), rows, title) if rows else None


def _setting(law: Law) -> str:
    """At what the identified quantities are stated."""
    compute, student = law.diagnostics.get("at_compute"), law.diagnostics.get("at_student")
    said = [f"{words.power(compute, 3)} FLOPs"] if isinstance(compute, int | float) else []
    if isinstance(student, Mapping):
        size, tokens = (student.get(key) for key in ("params", "tokens"))
        if isinstance(size, int | float) and isinstance(tokens, int | float):
            said.append(f"{words.count(size)} parameters on {words.count(tokens)} tokens")
    return f", at {words.listed(said)}" if said else ""


def diagnostics_table(law: Law) -> Table | None:
    """The plain numbers of the fit with what each means, or None."""
    rows = tuple(
        (words.label(name), _plain(law.diagnostics[name]), meaning)
        for name, meaning in _MEANINGS.items()
        if isinstance(law.diagnostics.get(name), int | float)
    )
    return Table(("diagnostic", "value", "meaning"), rows, "How the fit went") if rows else None


def forms_table(law: Law) -> Table | None:
    """The families that were compared out of sample, or None."""
    forms = law.diagnostics.get("forms")
    if not isinstance(forms, Mapping):
        return None
    rows = tuple(
        (str(name), _plain(form.get("objective")), _share(form.get("held_out_median_error")))
        for name, form in forms.items()
        if isinstance(form, Mapping)
    )
    title = "The same runs under each form"
    return Table(("form", "objective", "median error on the held-out runs"), rows, title) if rows else None


def remarks(law: Law) -> tuple[str, ...]:
    """The sentences that the fit and the law carry."""
    held_out, notes = law.diagnostics.get("held_out"), law.diagnostics.get("notes")
    said = [str(held_out["text"])] if isinstance(held_out, Mapping) and held_out.get("text") else []
    said += [str(note) for note in notes] if isinstance(notes, list) else []
    return tuple(dict.fromkeys(said + ([law.note] if law.note else [])))


def estimates(found: object) -> dict[str, Estimate]:
    """The estimates of a JSON mapping; what is not one is passed over."""
    if not isinstance(found, Mapping):
        return {}
    fields = Estimate.__dataclass_fields__
    return {
        str(name): Estimate(**{key: item for key, item in value.items() if key in fields})
        for name, value in found.items()
        if isinstance(value, Mapping) and isinstance(value.get("value"), int | float)
    }


def _plain(value: object, name: str = "") -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return words.NONE if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**6 else words.named(name, value)


def _share(value: object) -> str:
    return words.percent(value) if isinstance(value, int | float) else words.NONE
