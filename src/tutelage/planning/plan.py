"""A plan: what a law says about distilling a student from a teacher, against ordinary training.

Covers: one question under one law, all scenarios, existing teachers, the crossover, the verdict. Does not cover: served
tokens, repeated data, hours, money and energy, probabilities from joint draws, nor near-optimal ranges of the choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tutelage.laws.law import Law
from tutelage.laws.published import DEFAULT_LAW, PUBLISHED
from tutelage.laws.validity import modality_caution
from tutelage.planning import advice
from tutelage.planning.crossover import Crossover, find_crossover
from tutelage.planning.ordinary import train_ordinarily
from tutelage.planning.parts import Cost, RankedTeacher, ScenarioPlan, SupervisedPlan, Verdict
from tutelage.planning.question import Question
from tutelage.planning.scenarios import scenarios_for
from tutelage.planning.ways import answer, given_way, rank, scenario_ways, unreachable
from tutelage.records.document import Caution, Document, Status


@dataclass(frozen=True)
class Plan:
    """What a law answers to a question.

    Args:
        question: The question.
        law: Name of the law.
        scenarios: The best allocation by scenario ("existing" is the best of the given teachers); None where the
            scenario cannot be paid for, cannot reach the target, or has no teacher.
        supervised: Ordinary training; None where it cannot be paid for or cannot reach the target.
        crossover: The span of compute in which each scenario beats ordinary training.
        teachers: The given teachers, best first.
        verdict: Distil or train?
        cost: What the verdict's way costs.
        caveats: What the law cannot know.
        status: Whether there is an answer, with the remedy where there is none.
        warnings: Inputs and choices outside the fitted range or on a bound; targets that cannot be reached.
    """

    question: Question
    law: str
    scenarios: Mapping[str, ScenarioPlan | None]
    supervised: SupervisedPlan | None
    crossover: Mapping[str, Crossover]
    teachers: tuple[RankedTeacher, ...]
    verdict: Verdict
    cost: Cost
    caveats: tuple[str, ...]
    status: Status = field(default_factory=Status)
    warnings: tuple[Caution, ...] = ()

    def document(self) -> Document:
        """The document of `tutelage plan`."""
        body = {
            "law": self.law,
            "question": {
                "student_params": self.question.student_params,
                "compute": self.question.compute,
                "tokens": self.question.tokens,
                "target_loss": self.question.target_loss,
                "students": self.question.students,
                "modality": self.question.modality,
            },
            "scenarios": self.scenarios,
            "supervised": self.supervised,
            "crossover": self.crossover,
            "teachers": self.teachers,
            "cost": self.cost,
            "verdict": self.verdict,
            "caveats": self.caveats,
        }
        return Document("plan", body, status=self.status, warnings=self.warnings)

    def to_dict(self) -> dict[str, object]:
        """The JSON form of `document`."""
        return self.document().to_dict()


def plan(question: Question, law: Law = PUBLISHED[DEFAULT_LAW]) -> Plan:
    """Divide a budget between a student and its teacher in every scenario, and say whether to distil.

    Args:
        question: A student, a budget and the teachers at hand.
        law: The law that predicts.

    Returns:
        The plan. A question that the law cannot answer (another modality, a supervised law, an unreachable target, a
        budget below the smallest student) is a plan whose status says so.

    Raises:
        InputError: The student's size or tokens are outside the range that a plan is made within.

    Example:
        >>> answer = plan(Question(student_params=1e9, compute=1e22))
        >>> f"{answer.scenarios['best'].student_loss.value:.4f}"
        '2.1310'
    """
    foreign = modality_caution(law, question.modality)
    if foreign is not None:
        return _unanswered(
            question,
            law,
            Status("law-does-not-apply", f"{foreign.text}.", "Measure instead: distil a small student and record it."),
            (foreign,),
        )
    question.require_within_bounds()
    supervised, warnings = train_ordinarily(question, law)
    if law.distillation is None:
        warnings += advice.range_cautions(law, question, {}, supervised)
        text = f"{law.name} is a supervised law and says nothing of distillation."
        status = Status("no-distillation-law", text, f"Use a distillation law such as {DEFAULT_LAW}.")
        return replace(_unanswered(question, law, status, warnings), supervised=supervised)
    return _answered(question, law, supervised, warnings)


def _names(question: Question) -> tuple[str, ...]:
    return (*(scenario.name for scenario in scenarios_for(question.students)), "existing")


def _unanswered(question: Question, law: Law, status: Status, warnings: tuple[Caution, ...]) -> Plan:
    verdict = Verdict(None, None, f"No prediction: {status.text}", advice.NO_DRAWS)
    nothing: dict[str, ScenarioPlan | None] = dict.fromkeys(_names(question))
    return Plan(
        question,
        law.name,
        nothing,
        None,
        {},
        (),
        verdict,
        Cost(),
        advice.caveats(law),
        status=status,
        warnings=warnings,
    )


def _answered(question: Question, law: Law, supervised: SupervisedPlan | None, warnings: tuple[Caution, ...]) -> Plan:
    scenarios: dict[str, ScenarioPlan | None] = dict.fromkeys(_names(question))
    ways = scenario_ways(question, law)
    teachers = rank(question, law)
    for ranked in teachers:
        if ranked.student_loss is None:
            warnings += (unreachable(question, law, given_way(question, law, ranked.teacher), ranked.teacher.name),)
    if teachers:
        ways["existing"] = given_way(question, law, teachers[0].teacher)
    for name, way in ways.items():
        scenarios[name] = answer(question, law, way)
        if scenarios[name] is None and name != "existing":
            warnings += (unreachable(question, law, way, name),)
    crossover = {name: find_crossover(law, question.student_params, way.spend) for name, way in ways.items()}
    warnings += advice.bound_cautions(scenarios)
    warnings += advice.range_cautions(law, question, scenarios, supervised)
    verdict = advice.judge(question, law, scenarios, supervised, crossover)
    return Plan(
        question,
        law.name,
        scenarios,
        supervised,
        crossover,
        teachers,
        verdict,
        Cost(advice.chosen_flops(verdict, scenarios, supervised)),
        advice.caveats(law),
        advice.status_of(question, verdict, warnings),
        warnings,
    )
