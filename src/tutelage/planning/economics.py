"""What a plan costs and what bounds it beyond its losses: the parts of a plan that hardware, service and data decide.

Covers: cost of every way, lifetime, repeated data, adapters and the teacher's cache, put together from a finished
comparison of ways. Does not cover: how each is counted (the modules it imports), nor words and tables
(`economics_words`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tutelage.laws.family import Equation
from tutelage.laws.numbers import Numbers
from tutelage.planning.cost import Cost, cost_of, scaled
from tutelage.planning.hardware import Hardware
from tutelage.planning.lifetime import Goal, Lifetime, Lived, Service, assess_lifetime
from tutelage.planning.lora import LORA_CAVEAT, LoraCost, cost_lora
from tutelage.planning.parts import ScenarioPlan, SupervisedPlan, Verdict, known
from tutelage.planning.question import Question
from tutelage.planning.repetition import Repetition, Training, assess_repetition, repetition_cautions
from tutelage.planning.spread import Spread
from tutelage.planning.storage import CachePlan, Reading, plan_cache
from tutelage.planning.verdict import chosen_flops
from tutelage.records.document import Caution
from tutelage.records.estimate import Estimate

IDEAL_HOURS = (
    "Hours, money and energy are those of the counted FLOPs at the stated utilisation: no evaluation, no failed runs, "
    "no waiting; a board's power alone, with the site's overhead."
)
TRAIN, TRAIN_OPTIMAL = "train", "train-optimal"
"""Ordinary training of the student's size and of the compute-optimal one, beside the names of the ways to distil."""


@dataclass(frozen=True)
class Economics:
    """Cost, lifetime, data and adapters of a plan; None where the question does not ask.

    Args:
        cost: What the chosen way costs for one student; ordinary training where no way to distil has an answer.
        costs: What every way costs, by name; `TRAIN` and `TRAIN_OPTIMAL` are ordinary training.
        hardware: The device that hours, money and energy are counted for.
        lifetime: With served tokens.
        repetition: With a limit of unique tokens.
        lora: With adapters.
        cache: With a kept teacher's signal.
        caveats: What users of these numbers must know.
        warnings: Students that repeat tokens.
    """

    cost: Cost = field(default_factory=Cost)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    hardware: Hardware | None = None
    lifetime: Lifetime | None = None
    repetition: Repetition | None = None
    lora: LoraCost | None = None
    cache: CachePlan | None = None
    caveats: tuple[str, ...] = ()
    warnings: tuple[Caution, ...] = ()

    def body(self) -> dict[str, object]:
        """The parts of the plan's document."""
        return {
            "cost": {**self.cost.to_dict(), "assumptions": self.hardware},
            "costs": self.costs,
            "lifetime": self.lifetime,
            "repetition": self.repetition,
            "lora": self.lora,
            "cache": self.cache,
        }


def reckon(
    question: Question,
    spread: Spread,
    scenarios: Mapping[str, ScenarioPlan | None],
    supervised: SupervisedPlan | None,
    verdict: Verdict,
) -> Economics:
    """Cost, lifetime, data and adapters of a plan.

    Args:
        question: What is asked.
        spread: The law with its uncertainty.
        scenarios: The best allocation of every way to distil.
        supervised: Ordinary training.
        verdict: What the plan chooses.
    """
    found = {name: scenario for name, scenario in scenarios.items() if scenario is not None}
    distilled = {name: scenario.student_tokens.value for name, scenario in found.items()}
    judged = found.get(verdict.way) if verdict.way else None
    unique, hardware = question.unique_tokens, question.hardware
    made = _made(question, found, supervised)
    chosen = chosen_flops(verdict, scenarios, supervised)
    if not found and supervised is not None:
        chosen = supervised.compute
    return Economics(
        cost_of(chosen, hardware),
        {name: cost_of(each.training, hardware) for name, each in made.items()},
        hardware,
        _lifetime(question, spread, made, supervised),
        assess_repetition(spread, Training(question.size, supervised.tokens.value, unique), distilled)
        if unique is not None and supervised is not None
        else None,
        _lora(question, spread, judged, supervised, verdict),
        _cache(question, spread, judged),
        (*((LORA_CAVEAT,) if question.lora else ()), *((IDEAL_HOURS,) if hardware else ())),
        repetition_cautions(unique, distilled) if unique is not None and distilled else (),
    )


def _made(question: Question, found: Mapping[str, ScenarioPlan], supervised: SupervisedPlan | None) -> dict[str, Lived]:
    """The model of every way, with what its training costs."""
    size = known(question.size)
    made = {
        name: Lived(size, scenario.student_tokens, scenario.student_loss, scenario.compute)
        for name, scenario in found.items()
    }
    if supervised is None:
        return made
    made[TRAIN] = Lived(size, supervised.tokens, supervised.loss, supervised.compute)
    free = supervised.compute_optimal
    if free is not None:
        made[TRAIN_OPTIMAL] = Lived(free.params, free.tokens, free.loss, free.compute)
    return made


def _lifetime(
    question: Question, spread: Spread, made: Mapping[str, Lived], supervised: SupervisedPlan | None
) -> Lifetime | None:
    if question.served_tokens is None:
        return None
    target = question.target_loss
    if target is None:
        if supervised is None:
            return None
        params, tokens = question.size, supervised.tokens.value

        def loss(equation: Equation) -> Numbers:
            return spread.ordinary(equation).predict(params, tokens)

        goal = Goal(loss, question.unique_tokens)
    else:
        goal = Goal(lambda _: np.float64(target), question.unique_tokens)
    return assess_lifetime(spread, Service(question.served_tokens, question.hardware, question.serving), made, goal)


def _lora(
    question: Question,
    spread: Spread,
    judged: ScenarioPlan | None,
    supervised: SupervisedPlan | None,
    verdict: Verdict,
) -> LoraCost | None:
    """Adapters instead of every weight, and what the chosen way then costs."""
    if question.lora is None:
        return None
    lora = cost_lora(spread.law.forward, question.size, question.lora)
    if verdict.choice == "distil" and judged is not None:
        kept = 1.0 - judged.shares["student"].value * (1.0 - lora.ratio.value)
        return replace(lora, flops=scaled(judged.compute, kept))
    flops: Estimate | None = supervised.compute if supervised else None
    return lora if flops is None else replace(lora, flops=scaled(flops, lora.ratio.value))


def _cache(question: Question, spread: Spread, judged: ScenarioPlan | None) -> CachePlan | None:
    """The signal of the judged way's teacher; None where there is no such teacher."""
    if question.cache is None or judged is None or judged.teacher_params is None:
        return None
    reading = Reading(
        judged.teacher_params.value, judged.student_tokens.value, question.unique_tokens, question.students
    )
    return plan_cache(spread.law.forward, question.cache, reading)
