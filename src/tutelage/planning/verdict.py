"""Distil or train, in a sentence or a few, with the probability that it is right.

Covers: the choice for the way that the user really has, its reason, what it costs. Does not cover: the cautions that go
with it (`advice`).
"""

from __future__ import annotations

from collections.abc import Mapping

from tutelage.laws.law import Law
from tutelage.laws.validity import cautions_among
from tutelage.planning.advice import NO_DRAWS
from tutelage.planning.crossover import Crossover
from tutelage.planning.parts import ScenarioPlan, SupervisedPlan, Verdict
from tutelage.planning.question import Question
from tutelage.planning.spread import FEW_DRAWS, Spread, interval_in_words
from tutelage.records.estimate import Estimate
from tutelage.units import format_quantity

NOTHING_TO_COMPARE = "one of the two has no answer, so there is nothing to compare"


def way_at_hand(question: Question) -> str:
    """The way that the user really has: the best existing teacher, else one that is trained."""
    return "existing" if question.teachers else "shared" if question.students > 1 else "both"


def judge(
    question: Question,
    spread: Spread,
    scenarios: Mapping[str, ScenarioPlan | None],
    supervised: SupervisedPlan | None,
    crossover: Mapping[str, Crossover],
) -> Verdict:
    """Distil or train, for the way that the user really has: the best existing teacher, else training one.

    Source: the comparison at equal cost (at equal tokens where tokens are the budget) of `busbridge2025`.
    """
    way = way_at_hand(question)
    scenario = scenarios.get(way)
    if scenario is None:
        choice = "train" if supervised is not None else None
        text = f"Distilling {_from(way, question, None)} has no answer here; see the warnings."
        return Verdict(choice, None, text, NOTHING_TO_COMPARE, way)
    if supervised is None:
        text = f"Distil: ordinary training of {_size(question)} cannot do it; see the warnings."
        return Verdict("distil", None, text, NOTHING_TO_COMPARE, way)
    choice = _choose(scenario.gain)
    head = {"distil": "Distil", "train": "Train", "either": "Too close to call"}[choice]
    text = f"{head}: {_comparison(question, way, scenario, supervised)} {_gain(question, scenario.gain)}"
    probability = scenario.probability
    if probability is not None:
        probability = 1.0 - probability if choice == "train" else probability
        text += f" {_chance(choice, probability, spread.draws)}"
    if way in crossover:
        text += f" Along compute, {crossover[way].text}."
    free = supervised.compute_optimal
    if free is not None and question.budget == "compute" and free.loss.value < supervised.loss.value:
        text += (
            f" If the size is free, ordinary training of {format_quantity(free.params.value)} parameters on "
            f"{format_quantity(free.tokens.value)} tokens reaches {free.loss.value:.3f} nats for the same compute."
        )
    unique = question.unique_tokens
    if unique is not None and scenario.student_tokens.value > unique:
        epochs = scenario.student_tokens.value / unique
        text += (
            f" The distilled student would read its distinct tokens {epochs:.3g} times; no law says what that costs "
            "it, so distilling looks better here than it is."
        )
    outside = _outside(spread.law, question, scenario)
    if outside:
        text += f" This is an extrapolation (outside the fitted range: {outside})."
    return Verdict(choice, probability, text, NO_DRAWS if probability is None else "", way)


def _chance(choice: str, probability: float, draws: int) -> str:
    """How often the choice is right among the draws, in a sentence."""
    what = {"distil": "Distilling is better", "train": "Ordinary training is better"}.get(
        choice, "Distilling is better"
    )
    few = f"; {draws} draws are few, refit with more" if draws < FEW_DRAWS else ""
    return f"{what} in {_percent(probability, draws)} of {draws} draws of the law{few}."


def _percent(share: float, draws: int) -> str:
    """A share that none or all of the draws have is told as what the draws resolve."""
    if share in (0.0, 1.0):
        edge = 100.0 / draws
        return f"over {100 - edge:.3g} %" if share else f"under {edge:.3g} %"
    return f"{100 * share:.3g} %"


def _choose(gain: Estimate) -> str:
    low = gain.value if gain.low is None else gain.low
    high = gain.value if gain.high is None else gain.high
    if low > 0:
        return "distil"
    return "train" if high < 0 else "either"


def _size(question: Question) -> str:
    return f"a student of {format_quantity(question.size)} parameters"


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
        text += f" ({interval_in_words(gain)} of the gain {gain.low:+.3f} to {gain.high:+.3f})"
    return f"{text}."


def _outside(law: Law, question: Question, scenario: ScenarioPlan) -> str:
    own = float(law.supervised.predict(question.size, scenario.student_tokens.value))
    inputs: dict[str, dict[str, float | None]] = {
        "student_params": {"": question.size},
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
