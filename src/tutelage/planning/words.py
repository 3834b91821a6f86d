"""A plan in words and in rows of a table.

Covers: plain text that a terminal, a log or a report can show. Does not cover: drawing the table.
"""

from __future__ import annotations

from tutelage.planning import sizes
from tutelage.planning.economics_words import economics_in_words
from tutelage.planning.near_optimal import WITHIN
from tutelage.planning.parts import Ends, ScenarioPlan
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
    """One row a scenario, then ordinary training; the columns are `HEADERS`; near-optimal ranges below the choices."""
    table = [_row(name, scenario) for name, scenario in plan.scenarios.items() if scenario is not None]
    ordinary = plan.supervised
    if ordinary is not None:
        name = f"train ({format_quantity(plan.question.size)})"
        flops = _count(ordinary.compute)
        table.append([name, _loss(ordinary.loss), _count(ordinary.tokens), "", "", "", flops, "", ""])
        free = ordinary.compute_optimal
        if free is not None:
            near = free.near_optimal
            name = f"train ({_count(free.params)})" + (f"\n{_range(near.params)}" if near else "")
            tokens = _choice(free.tokens, near.tokens if near else None)
            table.append([name, _loss(free.loss), tokens, "", "", "", _count(free.compute), "", ""])
    return table


def _row(name: str, scenario: ScenarioPlan) -> list[str]:
    near = scenario.near_optimal
    return [
        f"{name} ({scenario.teacher})" if scenario.teacher else name,
        _loss(scenario.student_loss),
        _choice(scenario.student_tokens, near.student_tokens if near else None),
        _choice(scenario.teacher_params, near.teacher_params if near else None),
        _choice(scenario.teacher_tokens, near.teacher_tokens if near else None),
        f"{scenario.teacher_loss.value:.3f}",
        _count(scenario.compute),
        "/".join(f"{100 * share.value:.0f}" for share in scenario.shares.values()),
        f"{scenario.gain.value:+.3f}",
    ]


def in_words(plan: Plan) -> str:
    """The sizes, the verdict, where distilling pays along compute, the teachers in order, and the caveats."""
    lines = _sizes(plan)
    lines.append(plan.verdict.text)
    if plan.verdict.choice is not None and plan.verdict.probability is None:
        lines.append(f"(No probability: {plan.verdict.reason}.)")
    if any(scenario is not None for scenario in plan.scenarios.values()):
        lines.append(
            "In the table, below a loss: its interval; below a choice: the range that stays within "
            f"{100 * WITHIN:g} % of the best loss at the same cost."
        )
    if plan.crossover:
        lines += ["", "Distil or train, along compute, at this size:"]
        lines += [f"  {name}: {crossover.text}" for name, crossover in plan.crossover.items()]
    if plan.teachers:
        lines += ["", "Teachers, best first:"]
        lines += [f"  {_teacher(plan, index)}" for index in range(len(plan.teachers))]
        lines.append(plan.teachers_text)
    lines += [line for part in economics_in_words(plan.economics) for line in ("", part)]
    if plan.caveats:
        lines += ["", "Mind:", *(f"  - {caveat}" for caveat in plan.caveats)]
    return "\n".join(lines)


def _sizes(plan: Plan) -> list[str]:
    """Each way's size for a target loss, where the student's size was left open."""
    found = plan.sizes
    if found is None or found.planned_params is None:
        return []
    ways = {"supervised": found.ordinary, **found.scenarios}
    planned = f"{found.planned}, {format_quantity(found.planned_params)} parameters"
    return [
        f"The student that reaches {found.target_loss:.4g} nats with the least compute:",
        *(f"  {sizes.in_words(name, answer)}" for name, answer in ways.items()),
        f"The plan is for {'ordinary training' if found.planned == 'supervised' else planned}.",
        "",
    ]


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
    return f"{estimate.value:.3f}\n{estimate.low:.3f}-{estimate.high:.3f}"


def _count(estimate: Estimate | None) -> str:
    return "" if estimate is None else format_quantity(estimate.value)


def _choice(estimate: Estimate | None, near: Ends | None) -> str:
    """A choice with its near-optimal range below, where there is one."""
    if estimate is None or near is None or near[0] == near[1]:
        return _count(estimate)
    return f"{_count(estimate)}\n{_range(near)}"


def _range(ends: Ends) -> str:
    low, high = (format_quantity(end, 2) for end in ends)
    return f"{low[:-1] if low[-1] == high[-1] and low[-1].isalpha() else low}-{high}"
