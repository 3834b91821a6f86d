"""A plan: what a law says about distilling a student from a teacher, against ordinary training.

Covers: one question under one law and its draws, all scenarios, existing teachers, the curves and their crossover, the
verdict, the student's size where a target leaves it open. Does not cover: how each is found (the modules beside this).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from tutelage.laws.law import Law
from tutelage.laws.published import DEFAULT_LAW, PUBLISHED
from tutelage.laws.validity import modality_caution
from tutelage.planning import advice
from tutelage.planning.cost import Cost
from tutelage.planning.crossover import Crossover, find_crossover
from tutelage.planning.curves import Curves, gather
from tutelage.planning.economics import Economics, reckon
from tutelage.planning.ordinary import train_ordinarily
from tutelage.planning.parts import RankedTeacher, ScenarioPlan, SupervisedPlan, Verdict
from tutelage.planning.question import Question
from tutelage.planning.ranking import rank, teachers_in_words
from tutelage.planning.scenarios import scenarios_for
from tutelage.planning.size_search import find_sizes
from tutelage.planning.sizes import Sizes
from tutelage.planning.spread import Spread
from tutelage.planning.teacher_curve import TeacherCurve, bend
from tutelage.planning.verdict import judge, way_at_hand
from tutelage.planning.ways import answer, given_way, scenario_ways, unreachable
from tutelage.records.document import Caution, Document, Status


@dataclass(frozen=True)
class Plan:
    """What a law answers to a question.

    Args:
        question: The question.
        law: The law.
        scenarios: The best allocation by scenario ("existing" is the best of the given teachers); None where the
            scenario cannot be paid for, cannot reach the target, or has no teacher.
        supervised: Ordinary training; None where it cannot be paid for or cannot reach the target.
        crossover: The span of compute in which each scenario beats ordinary training.
        teachers: The given teachers, best first.
        verdict: Distil or train?
        economics: What each way costs, over a lifetime too; repeated data, adapters, the teacher's cache.
        caveats: What the law cannot know.
        sizes: The sizes for a target loss, where the student's size was left open; the rest is of the size planned.
        curves: Every way along compute.
        teacher_curve: The student's loss against its teacher's.
        status: Whether there is an answer, with the remedy where there is none.
        warnings: Inputs and choices outside the fitted range or on a bound; targets that cannot be reached; a weak law.
    """

    question: Question
    law: Law
    scenarios: Mapping[str, ScenarioPlan | None]
    supervised: SupervisedPlan | None
    crossover: Mapping[str, Crossover]
    teachers: tuple[RankedTeacher, ...]
    verdict: Verdict
    economics: Economics
    caveats: tuple[str, ...]
    sizes: Sizes | None = None
    curves: Curves | None = None
    teacher_curve: TeacherCurve | None = None
    status: Status = field(default_factory=Status)
    warnings: tuple[Caution, ...] = ()

    @property
    def cost(self) -> Cost:
        """What the verdict's way costs."""
        return self.economics.cost

    @property
    def teachers_text(self) -> str:
        """Which teacher, how close the second is, whether a stronger one would hurt; empty without teachers."""
        return teachers_in_words(self.question, self.teachers)

    def document(self) -> Document:
        """The document of `tutelage plan`."""
        body = {
            "law": self.law.name,
            "law_status": asdict(self.law.status),
            "question": {
                "student_params": None if self.sizes else self.question.student_params,
                "compute": self.question.compute,
                "tokens": self.question.tokens,
                "target_loss": self.question.target_loss,
                "students": self.question.students,
                "modality": self.question.modality,
                "served_tokens": self.question.served_tokens,
                "unique_tokens": self.question.unique_tokens,
                "asked": self.question.asked or None,
            },
            "scenarios": self.scenarios,
            "supervised": self.supervised,
            "crossover": self.crossover,
            "teachers": self.teachers,
            "teachers_text": self.teachers_text,
            "sizes": self.sizes,
            "curves": self.curves,
            "teacher_curve": self.teacher_curve,
            **self.economics.body(),
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
    spread = Spread.of(law, question.unique_tokens)
    if question.student_params is None:
        return _with_size(question, spread)
    supervised, warnings = train_ordinarily(question, spread)
    warnings = advice.law_cautions(law) + warnings
    if law.distillation is None:
        warnings += advice.risk_cautions(question.target_loss, {}, supervised)
        warnings += advice.range_cautions(law, question, {}, supervised)
        text = f"{law.name} is a supervised law and says nothing of distillation."
        status = Status("no-distillation-law", text, f"Use a distillation law such as {DEFAULT_LAW}.")
        nothing = _unanswered(question, law, status, warnings)
        economics = reckon(question, spread, {}, supervised, nothing.verdict)
        return replace(nothing, supervised=supervised, economics=economics, caveats=nothing.caveats + economics.caveats)
    return _answered(question, spread, supervised, warnings)


def _with_size(question: Question, spread: Spread) -> Plan:
    """The size for a target loss, then the plan of that size."""
    law, target = spread.law, question.target_loss
    assert target is not None
    ways = {} if law.distillation is None else scenario_ways(question, law)
    for teacher in question.teachers if ways else ():
        ways[f"teacher {teacher.name}"] = given_way(question, law, teacher)
    sizes = find_sizes(spread, target, ways, way_at_hand(question))
    if sizes.planned_params is None:
        status = Status("infeasible", sizes.text, "Ask for a higher loss.")
        return replace(_unanswered(question, law, status, advice.law_cautions(law)), sizes=sizes)
    sized = plan(replace(question, student_params=sizes.planned_params), law)
    return replace(sized, sizes=sizes, warnings=advice.size_cautions(sizes) + sized.warnings)


def _names(question: Question) -> tuple[str, ...]:
    return (*(scenario.name for scenario in scenarios_for(question.students)), "existing")


def _unanswered(question: Question, law: Law, status: Status, warnings: tuple[Caution, ...]) -> Plan:
    return Plan(
        question,
        law,
        scenarios=dict.fromkeys(_names(question)),
        supervised=None,
        crossover={},
        teachers=(),
        verdict=Verdict(None, None, f"No prediction: {status.text}", advice.NO_DRAWS),
        economics=Economics(),
        caveats=advice.caveats(law),
        status=status,
        warnings=warnings,
    )


def _answered(
    question: Question, spread: Spread, supervised: SupervisedPlan | None, warnings: tuple[Caution, ...]
) -> Plan:
    answers = {name: answer(question, spread, way) for name, way in scenario_ways(question, spread.law).items()}
    by_teacher = {
        teacher.name: answer(question, spread, given_way(question, spread.law, teacher))
        for teacher in question.teachers
    }
    for name, answered in {**by_teacher, **answers}.items():
        if answered.plan is None:
            warnings += (unreachable(question, answered.way, name),)
    teachers = rank(question, spread, by_teacher)
    if teachers:
        answers["existing"] = by_teacher[teachers[0].teacher.name]
    scenarios: dict[str, ScenarioPlan | None] = dict.fromkeys(_names(question))
    scenarios |= {name: answered.plan for name, answered in answers.items()}
    crossover = {name: find_crossover(answered.curve, spread) for name, answered in answers.items()}
    if question.target_loss is not None:
        easy = {name: answered.plan for name, answered in answers.items() if answered.at_beginning}
        warnings += tuple(advice.easy_target_caution(name, found) for name, found in easy.items() if found)
    warnings += advice.risk_cautions(question.target_loss, scenarios, supervised)
    warnings += advice.bound_cautions(scenarios)
    warnings += advice.range_cautions(spread.law, question, scenarios, supervised)
    verdict = judge(question, spread, scenarios, supervised, crossover)
    economics = reckon(question, spread, scenarios, supervised, verdict)
    warnings += economics.warnings
    return Plan(
        question,
        spread.law,
        scenarios,
        supervised,
        crossover,
        teachers,
        verdict,
        economics,
        advice.caveats(spread.law) + economics.caveats,
        None,
        gather(spread, question.size, {name: answered.curve for name, answered in answers.items()}),
        _teacher_curve(question, spread, scenarios, verdict, supervised),
        advice.status_of(question, verdict, warnings),
        warnings,
    )


def _teacher_curve(
    question: Question,
    spread: Spread,
    scenarios: Mapping[str, ScenarioPlan | None],
    verdict: Verdict,
    supervised: SupervisedPlan | None,
) -> TeacherCurve | None:
    """At the tokens of the way that the verdict is about, else of ordinary training."""
    judged = scenarios.get(verdict.way) if verdict.way else None
    part = judged.student_tokens if judged else supervised.tokens if supervised else None
    return bend(spread, question.size, part.value, question.teachers) if part else None
