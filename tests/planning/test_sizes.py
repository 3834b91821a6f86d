"""The size for a target loss: against brute force, against each draw by itself, at the edges."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tutelage.errors import InputError
from tutelage.laws.law import Law, make_equation
from tutelage.laws.published import PUBLISHED
from tutelage.planning.optimum import allocate
from tutelage.planning.plan import plan
from tutelage.planning.question import Question
from tutelage.planning.scenarios import BOTH, HIGHEST, PRETRAINING, Scenario, Teacher
from tutelage.planning.size_search import find_sizes
from tutelage.planning.sizes import NEAR_COMPUTE, Sizes
from tutelage.planning.spread import Spread
from tutelage.planning.target import cheapest_training, compute_for
from tutelage.planning.ways import given_way, scenario_ways
from tutelage.planning.words import in_words

SEVEN = Teacher("7B", 7.7e9, 2.02)
# Relative, of compute at its flat minimum in size: a parabola through sizes a few per cent apart.
COST = 1e-4
# Natural logarithm of the size: the minimum is flat, 5 % more compute is a factor of 1.4 to 2 in size.
SIZE = 0.03

# Relative, of compute at the ends of a near-optimal range: a line between sizes a third apart.
END = 0.02


def search(law: Law, target: float, *names: str, teachers: tuple[Teacher, ...] = ()) -> Sizes:
    question = Question(None, target_loss=target, teachers=teachers)
    ways = {name: way for name, way in scenario_ways(question, law).items() if name in names}
    ways |= {teacher.name: given_way(question, law, teacher) for teacher in teachers}
    return find_sizes(Spread.of(law), target, ways, "existing" if teachers else "both")


def test_ordinary_training_is_the_cheapest_there_is(law: Law) -> None:
    found = search(law, 2.15).ordinary
    params, tokens = (float(part[0]) for part in cheapest_training(law.supervised, law.forward, 2.15))
    assert found.params is not None
    assert found.tokens is not None
    assert found.compute is not None
    assert np.log(found.params.value) == pytest.approx(np.log(params), abs=SIZE)
    assert found.compute.value == pytest.approx(float(law.forward.training_per_token(params)) * tokens, rel=COST)
    assert law.supervised.predict(found.params.value, found.tokens.value) == pytest.approx(2.15)
    assert found.smallest_params is not None
    assert law.supervised.predict(found.smallest_params, HIGHEST) == pytest.approx(2.15, abs=1e-6)
    assert found.floor == pytest.approx(float(law.supervised.predict(HIGHEST, HIGHEST)))


@pytest.mark.parametrize("scenario", [PRETRAINING, BOTH], ids=lambda scenario: scenario.name)
def test_no_other_size_takes_less_compute(law: Law, scenario: Scenario) -> None:
    found = search(law, 2.15, scenario.name).scenarios[scenario.name]
    assert found.params is not None
    assert found.compute is not None
    assert found.near_optimal is not None
    assert found.curve is not None

    def needed(size: float) -> float:
        def spend(compute: np.ndarray) -> np.ndarray:
            return allocate(law.require_distillation(), law.forward, scenario, size, compute).student_loss

        compute, _ = compute_for(spend, 2.15, 1e15)
        assert compute is not None
        return compute

    least = needed(found.params.value)
    assert found.compute.value == pytest.approx(least, rel=COST)
    for factor in (0.5, 0.8, 1.25, 2.0):
        assert needed(factor * found.params.value) > least
    for end in found.near_optimal:
        assert needed(end) == pytest.approx((1 + NEAR_COMPUTE) * least, rel=END)
    assert found.curve.compute.min() == pytest.approx(least, rel=1e-3)
    assert not found.at_edge


def test_an_existing_teacher_is_a_way_too(law: Law) -> None:
    found = search(law, 2.04, "both", teachers=(SEVEN, Teacher("dear", 7e10, 2.02)))
    existing = found.scenarios["existing"]
    assert existing.teacher == "7B"
    assert existing.params is not None
    assert existing.tokens is not None
    assert law.require_distillation().predict(existing.params.value, existing.tokens.value, 2.02) == pytest.approx(
        2.04, abs=1e-6
    )
    # The size may be free, but no student gets below its teacher.
    assert existing.floor == pytest.approx(2.02, abs=1e-3)
    unable = search(law, 2.0, "both", teachers=(SEVEN,))
    assert unable.scenarios["existing"].params is None
    assert unable.scenarios["both"].params is not None


def test_where_the_law_is_absurd_there_is_no_answer(law: Law) -> None:
    # Left alone, the law has 9B parameters learn from a free teacher in 12M tokens.
    best = search(law, 2.15, "best").scenarios["best"]
    assert best.at_edge
    assert best.params is not None
    assert best.tokens is not None
    assert best.teacher_loss is not None
    own = float(law.supervised.predict(best.params.value, best.tokens.value))
    assert best.teacher_loss.value / own >= 0.69 * (1 - 1e-6)
    assert best.tokens.value >= 4e9
    answer = plan(Question(None, target_loss=2.15), law)
    assert "sizes.best.params" in {caution.input for caution in answer.warnings if caution.code == "at-bound"}
    free = search(replace(law, fitted={}), 2.15, "best").scenarios["best"]
    assert free.tokens is not None
    assert free.tokens.value < best.tokens.value


def test_the_intervals_are_those_of_each_draw_alone(few: Law) -> None:
    found = search(few, 2.15, "both")
    alone = []
    for draw in range(12):
        equation = make_equation({name: column[draw] for name, column in (few.draws or {}).items()})
        alone.append(search(replace(few, equation=equation, draws=None), 2.15, "both"))
    for pick in ("ordinary", "both"):
        answers = [one.ordinary if pick == "ordinary" else one.scenarios["both"] for one in alone]
        together = found.ordinary if pick == "ordinary" else found.scenarios["both"]
        for name, tolerance in (("params", SIZE), ("compute", 0.01), ("tokens", 0.05)):
            values = np.log([getattr(answer, name).value for answer in answers])
            estimate = getattr(together, name)
            assert np.log([estimate.low, estimate.high]) == pytest.approx(
                np.quantile(values, [0.05, 0.95]), abs=tolerance
            ), (pick, name)


def test_the_plan_is_of_the_size_that_takes_less_compute(law: Law) -> None:
    trained = plan(Question(None, target_loss=2.15), law)
    assert trained.sizes is not None
    assert trained.sizes.planned == "supervised"
    assert trained.verdict.choice == "train"
    assert trained.question.size == trained.sizes.planned_params
    distilled = plan(Question(None, target_loss=2.15, teachers=(SEVEN,)), law)
    assert distilled.sizes is not None
    assert distilled.sizes.planned == "existing"
    assert distilled.verdict.choice == "distil"
    existing = distilled.scenarios["existing"]
    assert existing is not None
    assert distilled.sizes.scenarios["existing"].compute is not None
    assert existing.compute.value == pytest.approx(distilled.sizes.scenarios["existing"].compute.value, rel=COST)
    document: Any = json.loads(distilled.document().to_json())
    assert document["question"]["student_params"] is None
    sizes = document["sizes"]
    assert {"target_loss", "ordinary", "scenarios", "planned", "planned_params", "floor", "text"} <= set(sizes)
    assert sizes["ordinary"]["near_optimal"]["within_compute"] == NEAR_COMPUTE
    assert len(sizes["scenarios"]["both"]["curve"]["params"]) == len(sizes["scenarios"]["both"]["curve"]["compute"])
    assert "9.39B parameters" in sizes["text"]


def test_a_target_below_every_floor_is_said_to_be_so(law: Law) -> None:
    answer = plan(Question(None, target_loss=1.2, teachers=(SEVEN,)), law)
    assert answer.status.kind == "infeasible"
    assert answer.sizes is not None
    assert answer.sizes.planned is None
    assert f"{answer.sizes.floor:.4f}" in answer.status.text
    assert 1.2 < answer.sizes.floor < 1.24
    assert answer.verdict.choice is None
    json.dumps(answer.to_dict(), allow_nan=False)


def test_a_supervised_law_sizes_ordinary_training_alone() -> None:
    answer = plan(Question(None, target_loss=2.1), PUBLISHED["hoffmann2022"])
    assert answer.sizes is not None
    assert answer.sizes.scenarios == {}
    assert answer.sizes.planned == "supervised"
    assert answer.supervised is not None
    assert answer.supervised.loss.value == pytest.approx(2.1)
    assert answer.status.kind == "no-distillation-law"


def test_the_size_is_open_for_a_target_alone() -> None:
    with pytest.raises(InputError, match="student_params"):
        Question(None, compute=1e21)


def test_every_way_has_its_line(law: Law) -> None:
    words = in_words(plan(Question(None, target_loss=2.04, teachers=(Teacher("near", 7.7e9, 2.039), SEVEN)), law))
    assert "The student that reaches 2.04 nats with the least compute:" in words
    assert "  ordinary training: 6.88B parameters on 108B tokens for 4.9e21 FLOPs (1.29B parameters at least)" in words
    assert "  existing (7B): 15B parameters on " in words
    assert "; the edge of the fitted range)" in words
    assert "The plan is for ordinary training." in words
    assert "existing (low): no size does" in in_words(
        plan(Question(None, target_loss=2.0, teachers=(Teacher("low", 7.7e9, 2.02),)), law)
    )
