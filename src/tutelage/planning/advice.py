"""What to make of a plan: the verdict, the cautions, the caveats.

Covers: distil or train for the question at hand, choices on a bound, numbers outside the fitted range, what the law
cannot know. Does not cover: how a plan is printed (`words`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tutelage.laws.law import Law
from tutelage.laws.validity import cautions_among
from tutelage.planning.crossover import Crossover
from tutelage.planning.parts import ScenarioPlan, SupervisedPlan, Verdict
from tutelage.planning.question import Question
from tutelage.planning.scenarios import HIGHEST, LOWEST
from tutelage.records.document import Caution, Status
from tutelage.records.estimate import Estimate
from tutelage.units import format_quantity

NO_DRAWS = "the law has no joint draws of its coefficients, so the choice has no probability"
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
    inputs["student_params"][""] = question.student_params
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
        own = float(law.supervised.predict(question.student_params, tokens))
        inputs["loss_ratio"][name] = scenario.teacher_loss.value / own
        if scenario.teacher is None:
            for what, estimate in (
                ("teacher_params", scenario.teacher_params),
                ("teacher_tokens", scenario.teacher_tokens),
            ):
                if estimate is not None and not _on_bound(estimate.value):
                    inputs[what][name] = estimate.value
    return cautions_among(law, inputs)


def judge(
    question: Question,
    law: Law,
    scenarios: Mapping[str, ScenarioPlan | None],
    supervised: SupervisedPlan | None,
    crossover: Mapping[str, Crossover],
) -> Verdict:
    """Distil or train, for the way that the user really has: the best existing teacher, else training one.

    Source: the comparison at equal cost (at equal tokens where tokens are the budget) of `busbridge2025`.
    """
    way = "existing" if question.teachers else "shared" if question.students > 1 else "both"
    scenario = scenarios.get(way)
    if scenario is None:
        choice = "train" if supervised is not None else None
        text = f"Distilling {_from(way, question, None)} has no answer here; see the warnings."
        return Verdict(choice, None, text, NO_DRAWS, way)
    if supervised is None:
        text = f"Distil: ordinary training of {_size(question)} cannot do it; see the warnings."
        return Verdict("distil", None, text, NO_DRAWS, way)
    choice = _choose(scenario.gain)
    head = {"distil": "Distil", "train": "Train", "either": "Too close to call"}[choice]
    text = f"{head}: {_comparison(question, way, scenario, supervised)} {_gain(question, scenario.gain)}"
    if way in crossover:
        text += f" Along compute, {crossover[way].text}."
    free = supervised.compute_optimal
    if free is not None and question.budget == "compute" and free.loss.value < supervised.loss.value:
        text += (
            f" If the size is free, ordinary training of {format_quantity(free.params.value)} parameters on "
            f"{format_quantity(free.tokens.value)} tokens reaches {free.loss.value:.3f} nats for the same compute."
        )
    outside = _outside(law, question, scenario)
    if outside:
        text += f" This is an extrapolation (outside the fitted range: {outside})."
    return Verdict(choice, None, text, NO_DRAWS, way)


def _choose(gain: Estimate) -> str:
    low = gain.value if gain.low is None else gain.low
    high = gain.value if gain.high is None else gain.high
    if low > 0:
        return "distil"
    return "train" if high < 0 else "either"


def _size(question: Question) -> str:
    return f"a student of {format_quantity(question.student_params)} parameters"


def _from(way: str, question: Question, scenario: ScenarioPlan | None) -> str:
    if way == "existing":
        return f"from {scenario.teacher}" if scenario else f"from {question.teachers[0].name}"
    if way == "shared":
        return f"from a teacher trained for {question.students} students"
    return "from a teacher trained for it"


def _comparison(question: Question, way: str, scenario: ScenarioPlan, supervised: SupervisedPlan) -> str:
    source = _from(way, question, scenario)
    if question.budget == "target_loss":
        return (
            f"{_size(question)} reaches {question.target_loss:.4g} nats with {format_quantity(scenario.compute.value)} "
            f"FLOPs distilled {source}, and with {format_quantity(supervised.compute.value)} by ordinary training."
        )
    budget = (
        f"{format_quantity(supervised.tokens.value)} tokens"
        if question.budget == "tokens"
        else f"{format_quantity(scenario.compute.value)} FLOPs"
    )
    text = (
        f"on {budget}, {_size(question)} is predicted to reach {scenario.student_loss.value:.3f} nats distilled "
        f"{source}, and {supervised.loss.value:.3f} by ordinary training."
    )
    if question.budget == "tokens":
        ratio = scenario.compute.value / supervised.compute.value
        text += f" Distilling costs {ratio:.3g} times the compute."
    return text


def _gain(question: Question, gain: Estimate) -> str:
    same = "tokens" if question.budget == "tokens" else "compute"
    side = "lower" if gain.value >= 0 else "higher"
    text = f"At the same {same}, distilling ends {abs(gain.value):.3f} nats {side}"
    if gain.low is not None and gain.high is not None:
        text += f" ({gain.method} of the gain {gain.low:+.3f} to {gain.high:+.3f})"
    return f"{text}."


def _outside(law: Law, question: Question, scenario: ScenarioPlan) -> str:
    own = float(law.supervised.predict(question.student_params, scenario.student_tokens.value))
    inputs: dict[str, dict[str, float | None]] = {
        "student_params": {"": question.student_params},
        "student_tokens": {"": scenario.student_tokens.value},
        "teacher_loss": {"": scenario.teacher_loss.value},
        "loss_ratio": {"": scenario.teacher_loss.value / own},
    }
    return ", ".join(caution.input.replace("_", " ") for caution in cautions_among(law, inputs))


def chosen_flops(
    verdict: Verdict, scenarios: Mapping[str, ScenarioPlan | None], supervised: SupervisedPlan | None
) -> Estimate | None:
    """FLOPs of what the verdict chooses, for one student; ordinary training where neither is better."""
    scenario = scenarios.get(verdict.way) if verdict.way else None
    if verdict.choice == "distil":
        return scenario.compute if scenario else None
    return supervised.compute if supervised and verdict.choice else None


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
    size = format_quantity(question.student_params)
    if question.budget == "target_loss":
        wanted = f"{question.target_loss:.4g}"
        text = f"no way brings a student of {size} parameters to a loss of {wanted}; its floor is {least:.4f}."
        return Status("infeasible", text, "Ask for a higher loss or plan a larger student.")
    text = f"{question.compute:.3g} FLOPs train no student of {size} parameters; {least:.2g} are the least."
    return Status("infeasible", text, "Give a larger budget or plan a smaller student.")


def _on_bound(value: float) -> bool:
    return value <= LOWEST * (1.0 + _ON_A_BOUND) or value >= HIGHEST * (1.0 - _ON_A_BOUND)
