"""The page about a plan: the verdict first, then what may be wrong with it, then what it rests on.

Covers: which parts of a plan's document are told, and in which order. Does not cover: the parts themselves
(`plan_tables`, `plan_figures`, `plan_teachers`), HTML (`render`).
"""

from __future__ import annotations

from tutelage.reports import plan_figures, plan_tables, words
from tutelage.reports.content import Banner, Figure, Page, Section, Tone
from tutelage.reports.plan_curves import read_curves
from tutelage.reports.plan_document import Part
from tutelage.reports.plan_teachers import teacher_figure

_CHOICES = {"distil": "Distil", "train": "Train", "either": "Too close to call", "": "No answer"}
_DETERMINED = ("", "done", "converged")


def plan_page(document: Part) -> Page:
    """Everything that a report says of a plan.

    Raises:
        InputError: A part of the document is not as `tutelage plan --json` prints it.
    """
    curves = read_curves(document)
    along: tuple[Figure | None, ...] = ()
    if curves is not None:
        along = (
            plan_figures.loss_figure(curves),
            plan_figures.gain_figure(curves),
            plan_figures.share_figure(curves),
        )
    teacher = teacher_figure(document)
    reached, chosen = plan_tables.reached_table(document), plan_tables.chosen_table(document)
    crossover, teachers = plan_tables.crossover_table(document), plan_tables.teacher_table(document)
    said = document.text("teachers_text")
    return Page(
        kicker="Distillation plan",
        title=_title(document),
        subtitle=f"Under the law {document.text('law') or 'not named'}",
        banners=_banners(document),
        facts=_facts(document),
        sections=(
            Section("The ways", tables=tuple(table for table in (reached, chosen) if table is not None)),
            Section(
                "Along compute",
                figures=tuple(figure for figure in along if figure is not None),
            ),
            Section("Where distilling pays", tables=(crossover,) if crossover is not None else ()),
            Section(
                "Which teacher?",
                (words.prose(said),) if said else (),
                tables=(teachers,) if teachers is not None else (),
                figures=(teacher,) if teacher is not None else (),
            ),
            *plan_tables.extra_sections(document),
            plan_tables.cost_section(document),
            Section("Mind", items=document.texts("caveats")),
        ),
    )


def _title(document: Part) -> str:
    question = document.part("question")
    size = "A student"
    if question.has("student_params"):
        size += f" of {words.count(question.number('student_params'))} parameters"
    if question.has("target_loss"):
        return f"{size} for a loss of {words.number(question.number('target_loss'))}"
    if question.has("tokens"):
        return f"{size} on {words.count(question.number('tokens'))} tokens"
    if question.has("compute"):
        return f"{size} on {words.power(question.number('compute'))} FLOPs"
    return size


def _banners(document: Part) -> tuple[Banner, ...]:
    verdict = document.part("verdict")
    choice = verdict.text("choice")
    headline = _CHOICES.get(choice, choice)
    tone: Tone = "bad" if not choice else "warn" if choice == "either" else "good"
    lines = [words.sentence(words.prose(verdict.text("text")).removeprefix(f"{headline}: "))]
    if verdict.has("probability"):
        headline += f": right with a probability of {words.chance(verdict.number('probability'))}"
        lines.append("The probability is the share of the law's joint draws under which this choice is the better one.")
    elif choice and verdict.text("reason"):
        lines.append(f"{words.sentence(verdict.text('reason'))}.")
    banners = [Banner(tone, headline, tuple(line for line in lines if line))]
    for key, name in (("law_status", "The law"), ("status", "The plan")):
        if document.has(key):
            status = document.part(key)
            kind = status.text("kind")
            if kind not in _DETERMINED:
                loud: Tone = "warn" if kind == "weakly-identified" else "bad"
                told = (status.text("text"), status.text("remedy") and f"What to do: {status.text('remedy')}")
                banners.append(Banner(loud, f"{name} is {kind}", tuple(line for line in told if line)))
    warnings = [
        words.prose(each.text("text")) for each in document.rows("warnings") if each.text("code") != "law-status"
    ]
    if warnings:
        banners.append(Banner("warn", words.plural(len(warnings), "warning"), tuple(warnings)))
    return tuple(banners)


def _facts(document: Part) -> tuple[tuple[str, str], ...]:
    question = document.part("question")
    facts = [("Law", document.text("law"))]
    if document.has("law_status"):
        status = document.part("law_status")
        facts.append(("Its status", status.text("kind") if status.text("kind") != "done" else "published"))
    if question.has("students"):
        facts.append(("Students that share a teacher", words.number(question.number("students"))))
    if question.text("modality"):
        facts.append(("Modality", question.text("modality")))
    return tuple((label, value) for label, value in facts if value)
