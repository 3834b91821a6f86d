"""The page about a law: its status first, then what it says, how well it meets its runs, and what is known of it.

Covers: which parts a law gets; a published law has no runs, a supervised law no teachers. Does not cover: the parts
themselves (`law_tables`, `law_curves`, `law_teachers`, `law_sizes`, `law_runs`), HTML (`render`).
"""

from __future__ import annotations

from collections.abc import Mapping

from tutelage.laws.families.data_constrained import DataConstrainedLaw
from tutelage.laws.law import Law
from tutelage.reports import law_curves, law_runs, law_tables, words
from tutelage.reports.content import Figure, Page, Section, Table
from tutelage.reports.law_sizes import optimum_figure
from tutelage.reports.law_teachers import teacher_figure

_FITTED = {
    "student_params": "parameters",
    "student_tokens": "training tokens",
    "unique_tokens": "distinct tokens",
    "teacher_params": "teacher's parameters",
    "teacher_tokens": "teacher's tokens",
    "teacher_loss": "teacher's loss",
    "loss_ratio": "teacher's loss over the student's supervised loss",
}


def law_page(law: Law) -> Page:
    """Everything that a report says of a law."""
    found = law_runs.residuals(law)
    fit = (law_runs.residual_figure(found), law_runs.agreement_figure(found)) if found is not None else ()
    tables = tuple(
        table
        for table in (law_tables.identified_table(law), law_tables.diagnostics_table(law), law_tables.forms_table(law))
        if table is not None
    )
    remarks = law_tables.remarks(law)
    return Page(
        kicker="Scaling law",
        title=law.name,
        subtitle=words.formula(law.family.formula),
        banners=(law_tables.status_banner(law),),
        facts=_facts(law),
        sections=(
            Section("What the law says", figures=_curves(law)),
            Section("How well it meets its runs", figures=fit),
            Section("Coefficients", tables=(law_tables.coefficient_table(law),)),
            Section("What the fit determined", tables=tables),
            Section("Where it was fitted", tables=_ranges(law)),
            Section("Mind", items=remarks),
        ),
        footer=_footer(law),
    )


def _curves(law: Law) -> tuple[Figure, ...]:
    figures = [law_curves.token_figure(law)]
    if law.distillation is not None:
        figures.insert(0, teacher_figure(law, law.distillation))
    if isinstance(law.equation, DataConstrainedLaw):
        figures.append(law_curves.repetition_figure(law, law.equation))
    return (*figures, optimum_figure(law))


def _facts(law: Law) -> tuple[tuple[str, str], ...]:
    facts = [
        ("Family", law.family.name),
        ("Source", law.source),
        ("Counts", f"{law.counting.params}; {law.counting.tokens}"),
        ("Modality", law.modality),
    ]
    if law.runs is not None:
        facts.append(("Runs", words.plural(len(law.runs), "run")))
    seconds = law.provenance.get("seconds")
    if isinstance(seconds, Mapping):
        parts = [f"{words.label(str(k))} {v:.2g} s" for k, v in seconds.items() if isinstance(v, int | float)]
        facts.append(("Time", ", ".join(parts)))
    return tuple(facts)


def _ranges(law: Law) -> tuple[Table, ...]:
    rows = tuple(
        (_FITTED.get(name, name), *(words.number(end, 3) if end < 1e4 else words.count(end) for end in ends))
        for name, ends in law.fitted.items()
    )
    return (
        (Table(("input", "from", "to"), rows, "Predictions outside these ranges are extrapolations"),) if rows else ()
    )


def _footer(law: Law) -> tuple[str, ...]:
    return (f"Data {law.runs.sha256[:16]}.",) if law.runs is not None else ()
