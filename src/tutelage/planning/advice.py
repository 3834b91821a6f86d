"""What to mind of a plan: the cautions, the caveats, whether there is an answer at all.

Covers: choices on a bound, numbers outside the fitted range, targets that some draws do not reach, a law whose fit is
weak, what the law cannot know. Does not cover: distil or train (`verdict`), how a plan is printed (`words`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tutelage.laws.law import Law
from tutelage.laws.validity import cautions_among
from tutelage.planning.parts import ScenarioPlan, SupervisedPlan, Verdict
from tutelage.planning.question import Question
from tutelage.planning.scenarios import HIGHEST, LOWEST
from tutelage.planning.sizes import Sizes
from tutelage.records.document import Caution, Status
from tutelage.units import format_quantity

NO_DRAWS = "the law has no joint draws of its coefficients, so the choice has no probability"
LAW_STATUS = "law-status"
AT_RISK = "target-at-risk"
AT_BOUND = "at-bound"
_ON_A_BOUND = 1e-3
"""Relative: a choice this close to the edge of the range would go on if the range were wider."""


def caveats(law: Law) -> tuple[str, ...]:
    """What users of this law must know whatever the question is."""
    scale = (
        f"Sizes are {law.counting.params}; tokens are {law.counting.tokens}. Losses on other data or tokenizers are on "
        "another scale: only differences of the law's own predictions mean something."
    )
    if law.distillation is None:
        return (scale,)
    ceiling = (
        "The law has the student's loss above its teacher's always; it cannot express a student that beats its "
        "teacher, which experiments do show."
    )
    bands = (
        "A rounding band shows what the printed coefficients leave open and no more; the uncertainty of the fit behind "
        "them is larger."
    )
    return (ceiling, scale, bands) if law.rounding else (ceiling, scale)


def law_cautions(law: Law) -> tuple[Caution, ...]:
    """The status of the law's fit, where that is not as it should be."""
    if law.status.kind in ("done", "converged"):
        return ()
    text = " ".join(part for part in (f"{law.name} is {law.status.kind}: {law.status.text}", law.status.remedy) if part)
    return (Caution(LAW_STATUS, "law", law.status.kind, None, text),)


def risk_cautions(
    target: float | None, scenarios: Mapping[str, ScenarioPlan | None], supervised: SupervisedPlan | None
) -> tuple[Caution, ...]:
    """One caution for each way that does not reach the target under some of the draws, whatever it spends."""
    found = []
    for name, way in {**scenarios, "supervised": supervised}.items():
        if way is None or way.reachable is None or way.reachable == 1.0:
            continue
        text = (
            f"{name}: in {1.0 - way.reachable:.0%} of the law's draws no budget reaches the loss {target:.4g}; the "
            "intervals are of the other draws"
        )
        found.append(Caution(AT_RISK, f"{name}.target_loss", target, None, text))
    return tuple(found)


def easy_target_caution(name: str, plan: ScenarioPlan) -> Caution:
    """That a way reaches the target with next to no data, which only the law believes."""
    text = (
        f"{name}: by the law the target takes less than one token a parameter, where it is not to be believed; the "
        f"plan is for that much compute, {format_quantity(plan.compute.value)} FLOPs"
    )
    return Caution(AT_BOUND, f"{name}.compute", plan.compute.value, None, text)


def size_cautions(sizes: Sizes) -> tuple[Caution, ...]:
    """One caution for each way whose size would be larger, had the law been fitted there."""
    return tuple(
        Caution(
            AT_BOUND,
            f"sizes.{name}.params",
            answer.params.value,
            None,
            f"{name}: the size {format_quantity(answer.params.value)} sits on the edge of what the law was fitted on; "
            "a larger student on fewer tokens may take less compute, but the law cannot tell",
        )
        for name, answer in sizes.scenarios.items()
        if answer.at_edge and answer.params is not None
    )


def bound_cautions(scenarios: Mapping[str, ScenarioPlan | None]) -> tuple[Caution, ...]:
    """One caution for each choice that sits on the edge of the range it is chosen from."""
    found = []
    for name, scenario in scenarios.items():
        if scenario is None or scenario.teacher is not None:
            continue
        chosen = {
            "student_tokens": scenario.student_tokens,
            "teacher_params": scenario.teacher_params,
            "teacher_tokens": scenario.teacher_tokens,
        }
        for what, estimate in chosen.items():
            if estimate is None or not _on_bound(estimate.value):
                continue
            text = f"{name}: {what} sits on the edge of the allowed range, {format_quantity(estimate.value)}"
            if name == "inference" and what == "teacher_tokens":
                text += ": a teacher whose training costs nothing wants unlimited tokens"
            found.append(Caution(AT_BOUND, f"{name}.{what}", estimate.value, (LOWEST, HIGHEST), text))
    return tuple(found)


def range_cautions(
    law: Law, question: Question, scenarios: Mapping[str, ScenarioPlan | None], supervised: SupervisedPlan | None
) -> tuple[Caution, ...]:
    """One caution for each kind of input that leaves the fitted range anywhere in the plan.

    An existing teacher's size is not an input of the law, which knows it by its loss alone. A choice on a bound has its
    own caution.
    """
    inputs: dict[str, dict[str, float | None]] = {
        name: {}
        for name in (
            "student_params",
            "student_tokens",
            "teacher_params",
            "teacher_tokens",
            "teacher_loss",
            "loss_ratio",
        )
    }
    inputs["student_params"][""] = question.size
    if supervised is not None:
        inputs["student_tokens"]["ordinary training"] = supervised.tokens.value
        free = supervised.compute_optimal
        if free is not None:
            inputs["student_params"]["compute-optimal training"] = free.params.value
            inputs["student_tokens"]["compute-optimal training"] = free.tokens.value
    for name, scenario in scenarios.items():
        if scenario is None:
            continue
        tokens = scenario.student_tokens.value
        inputs["student_tokens"][name] = tokens
        inputs["teacher_loss"][name] = scenario.teacher_loss.value
        own = float(law.supervised.predict(question.size, tokens))
        inputs["loss_ratio"][name] = scenario.teacher_loss.value / own
        if scenario.teacher is None:
            for what, estimate in (
                ("teacher_params", scenario.teacher_params),
                ("teacher_tokens", scenario.teacher_tokens),
            ):
                if estimate is not None and not _on_bound(estimate.value):
                    inputs[what][name] = estimate.value
    return cautions_among(law, inputs)


def status_of(question: Question, verdict: Verdict, warnings: tuple[Caution, ...]) -> Status:
    """Done, or that no way gives an answer, with the remedy; the warnings hold the reason of each way."""
    if verdict.choice is not None:
        return Status()
    ends = [
        warning.range[0]
        for warning in warnings
        if warning.range and warning.code in ("infeasible-target", "unaffordable")
    ]
    least = min(ends, default=np.nan)
    size = format_quantity(question.size)
    if question.budget == "target_loss":
        wanted = f"{question.target_loss:.4g}"
        text = f"no way brings a student of {size} parameters to a loss of {wanted}; its floor is {least:.4f}."
        return Status("infeasible", text, "Ask for a higher loss or plan a larger student.")
    text = f"{question.compute:.3g} FLOPs train no student of {size} parameters; {least:.2g} are the least."
    return Status("infeasible", text, "Give a larger budget or plan a smaller student.")


def _on_bound(value: float) -> bool:
    return value <= LOWEST * (1.0 + _ON_A_BOUND) or value >= HIGHEST * (1.0 - _ON_A_BOUND)
