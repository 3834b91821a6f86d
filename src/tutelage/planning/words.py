"""A plan in words and in rows of a table.

Covers: plain text that a terminal, a log or a report can show. Does not cover: drawing the table.
"""

from __future__ import annotations

from tutelage.planning.economics_words import economics_in_words
from tutelage.planning.parts import ScenarioPlan
from tutelage.planning.plan import Plan
from tutelage.records.estimate import Estimate
from tutelage.units import format_quantity

HEADERS = (
    "way",
    "student loss",
    "student\ntokens",
    "teacher",
    "teacher\ntokens",
    "teacher\nloss",
    "FLOPs",
    "student/\nlogits/\nteacher %",
    "gain",
)
"""Two or three lines each, so that the table fits a terminal."""


def rows(plan: Plan) -> list[list[str]]:
    """One row a scenario, then ordinary training; the columns are `HEADERS`."""
    table = [_row(name, scenario) for name, scenario in plan.scenarios.items() if scenario is not None]
    ordinary = plan.supervised
    if ordinary is not None:
        name = f"train ({format_quantity(plan.question.size)})"
        flops = _count(ordinary.compute)
        table.append([name, _loss(ordinary.loss), _count(ordinary.tokens), "", "", "", flops, "", ""])
        free = ordinary.compute_optimal
        if free is not None:
            name = f"train ({_count(free.params)})"
            table.append([name, _loss(free.loss), _count(free.tokens), "", "", "", _count(free.compute), "", ""])
    return table


def _row(name: str, scenario: ScenarioPlan) -> list[str]:
    return [
        f"{name} ({scenario.teacher})" if scenario.teacher else name,
        _loss(scenario.student_loss),
        _count(scenario.student_tokens),
        _count(scenario.teacher_params),
        _count(scenario.teacher_tokens),
        f"{scenario.teacher_loss.value:.3f}",
        _count(scenario.compute),
        "/".join(f"{100 * share.value:.0f}" for share in scenario.shares.values()),
        f"{scenario.gain.value:+.3f}",
    ]


def in_words(plan: Plan) -> str:
    """The verdict, where distilling pays along compute, the teachers in order, and the caveats."""
    lines = [plan.verdict.text]
    if plan.verdict.choice is not None:
        lines.append(f"(No probability: {plan.verdict.reason}.)")
    if plan.crossover:
        lines += ["", "Distil or train, along compute, at this size:"]
        lines += [f"  {name}: {crossover.text}" for name, crossover in plan.crossover.items()]
    if plan.teachers:
        lines += ["", "Teachers, best first:"]
        lines += [f"  {_teacher(plan, index)}" for index in range(len(plan.teachers))]
    lines += [line for part in economics_in_words(plan.economics) for line in ("", part)]
    if plan.caveats:
        lines += ["", "Mind:", *(f"  - {caveat}" for caveat in plan.caveats)]
    return "\n".join(lines)


def _teacher(plan: Plan, index: int) -> str:
    ranked = plan.teachers[index]
    name = f"{ranked.teacher.name} ({format_quantity(ranked.teacher.params)}, loss {ranked.teacher.loss:.4g})"
    if ranked.student_loss is None or ranked.lost is None or ranked.best_teacher_loss is None:
        return f"{name}: cannot serve this question"
    return (
        f"{name}: the student reaches {ranked.student_loss.value:.4f}; {ranked.side} by {ranked.lost.value:.4f} nats "
        f"(a teacher of loss {ranked.best_teacher_loss.value:.3f} would serve these tokens best)"
    )


def _loss(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _count(estimate: Estimate | None) -> str:
    return "" if estimate is None else format_quantity(estimate.value)
