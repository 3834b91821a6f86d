"""Plans: what they answer, their cautions, verdicts and documents."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from typing import Any

import pytest

from tutelage.errors import InputError
from tutelage.laws.law import Law
from tutelage.laws.published import PUBLISHED
from tutelage.planning.plan import Plan, plan
from tutelage.planning.question import Question
from tutelage.planning.scenarios import Teacher
from tutelage.planning.words import HEADERS, in_words, rows

SEVEN = Teacher("7B", 7.7e9, 2.02)
# Losses at reference optima.
LOSS = 1e-4
# The whole of a plan, on a busy machine; a quiet one takes a fifth.
CPU_SECONDS = 2.0


@pytest.fixture(scope="module")
def realistic() -> Plan:
    """A 1B student, an existing 7B teacher of loss 2.02, 1e21 FLOPs."""
    return plan(Question(1e9, compute=1e21, teachers=(SEVEN,)))


def test_the_reference_case_of_every_scenario() -> None:
    answer = plan(Question(1e9, compute=1e22))
    expected = {"best": 2.1310, "inference": 2.1395, "pretraining": 2.1479, "both": 2.1655}
    for name, loss in expected.items():
        scenario = answer.scenarios[name]
        assert scenario is not None
        assert scenario.student_loss.value == pytest.approx(loss, abs=LOSS)
        assert scenario.student_loss.low is not None
        assert scenario.student_loss.low < scenario.student_loss.value
        assert sum(share.value for share in scenario.shares.values()) == pytest.approx(1.0)
        assert scenario.compute.value == pytest.approx(1e22)
    assert answer.scenarios["existing"] is None
    assert answer.supervised is not None
    assert answer.supervised.loss.value == pytest.approx(2.1348, abs=LOSS)
    assert answer.supervised.compute_optimal is not None
    assert answer.supervised.compute_optimal.loss.value < answer.supervised.loss.value
    assert answer.status.kind == "done"


def test_what_a_scenario_leaves_free_is_null(realistic: Plan) -> None:
    scenarios = realistic.to_dict()["scenarios"]
    assert isinstance(scenarios, dict)
    assert scenarios["best"]["teacher_params"] is None
    assert scenarios["best"]["teacher_tokens"] is None
    assert scenarios["best"]["teacher_loss"]["value"] > 0
    assert scenarios["existing"]["teacher_tokens"] is None
    assert scenarios["existing"]["teacher_params"]["value"] == 7.7e9
    assert scenarios["existing"]["teacher_loss"]["value"] == 2.02
    assert scenarios["both"]["teacher_tokens"]["value"] > 0


def test_the_verdict_of_the_realistic_case(realistic: Plan) -> None:
    existing = realistic.scenarios["existing"]
    assert existing is not None
    assert existing.gain.high is not None
    assert existing.gain.high < 0
    assert realistic.verdict.choice == "train"
    assert realistic.verdict.probability is None
    assert "no joint draws" in realistic.verdict.reason
    assert "ordinary training" in realistic.verdict.text
    assert realistic.supervised is not None
    assert realistic.cost.flops == realistic.supervised.compute
    assert realistic.cost.money is None


def test_a_small_budget_is_better_spent_on_distilling() -> None:
    answer = plan(Question(1e9, compute=1e20, teachers=(SEVEN,)))
    assert answer.verdict.choice == "distil"
    existing = answer.scenarios["existing"]
    assert existing is not None
    assert existing.gain.low is not None
    assert existing.gain.low > 0
    assert answer.cost.flops == existing.compute


def test_what_the_rounding_spans_is_too_close_to_call() -> None:
    answer = plan(Question(1e9, compute=3.3e20, teachers=(SEVEN,)))
    assert answer.verdict.choice == "either"
    assert answer.verdict.text.startswith("Too close to call")


def test_the_law_says_that_it_cannot_beat_the_teacher(realistic: Plan) -> None:
    assert any("above its teacher's always" in caveat for caveat in realistic.caveats)
    assert "above its teacher's always" in in_words(realistic)


def test_a_free_teacher_that_wants_unlimited_tokens_is_a_warning(realistic: Plan) -> None:
    (caution,) = [caution for caution in realistic.warnings if caution.code == "at-bound"]
    assert caution.input == "inference.teacher_tokens"
    assert caution.value == 1e17
    assert caution.range == (1e6, 1e17)


def test_numbers_outside_the_fitted_range_are_warned_of() -> None:
    answer = plan(Question(5e7, compute=1e17))
    inputs = {caution.input for caution in answer.warnings if caution.code == "outside-fitted-range"}
    assert {"student_params", "student_tokens"} <= inputs
    assert "extrapolation" in answer.verdict.text
    inside = plan(Question(1e9, compute=1e21, teachers=(SEVEN,)))
    assert not [caution for caution in inside.warnings if caution.code == "outside-fitted-range"]


def test_the_size_of_a_given_teacher_is_no_input_of_the_law() -> None:
    answer = plan(Question(1e9, compute=1e21, teachers=(Teacher("70B", 70e9, 2.02),)))
    assert "teacher_params" not in {caution.input for caution in answer.warnings}


def test_a_speech_model_gets_no_prediction() -> None:
    answer = plan(Question(5e7, tokens=1e5, modality="speech"))
    assert answer.status.kind == "law-does-not-apply"
    assert answer.verdict.choice is None
    assert all(scenario is None for scenario in answer.scenarios.values())
    assert answer.supervised is None
    assert rows(answer) == []
    assert "does not apply to speech" in in_words(answer)
    assert [caution.code for caution in answer.warnings] == ["other-modality"]


def test_a_supervised_law_plans_ordinary_training_alone() -> None:
    answer = plan(Question(1e9, compute=1e21, teachers=(SEVEN,)), PUBLISHED["hoffmann2022"])
    assert answer.status.kind == "no-distillation-law"
    assert all(scenario is None for scenario in answer.scenarios.values())
    assert answer.supervised is not None
    assert answer.supervised.tokens.value == pytest.approx(1e21 / 6e9)


def test_given_tokens_reach_one_loss_at_different_costs() -> None:
    answer = plan(Question(1e9, tokens=2e10, teachers=(SEVEN,)))
    chosen = [answer.scenarios[name] for name in ("best", "inference", "pretraining", "both")]
    assert len({round(scenario.student_loss.value, 8) for scenario in chosen if scenario}) == 1
    costs = [scenario.compute.value for scenario in chosen if scenario]
    assert costs == sorted(costs)
    existing = answer.scenarios["existing"]
    assert existing is not None
    assert existing.student_tokens.value == 2e10
    assert "times the compute" in answer.verdict.text


def test_a_target_is_reached_with_the_least_compute() -> None:
    answer = plan(Question(1e9, target_loss=2.15, students=4))
    computes = {}
    for name in ("best", "inference", "pretraining", "both", "shared"):
        scenario = answer.scenarios[name]
        assert scenario is not None
        assert scenario.student_loss.value == pytest.approx(2.15, rel=1e-7)
        computes[name] = scenario.compute.value
    assert computes["best"] <= computes["inference"] <= computes["both"]
    assert computes["shared"] <= computes["both"]
    assert answer.supervised is not None
    assert answer.supervised.loss.value == pytest.approx(2.15)
    assert answer.verdict.way == "shared"
    assert (answer.verdict.choice == "train") == (answer.supervised.compute.value < computes["shared"])


def test_an_infeasible_target_is_said_to_be_so_with_its_floor() -> None:
    answer = plan(Question(1e9, target_loss=2.0, teachers=(SEVEN,)))
    assert answer.status.kind == "infeasible"
    assert "2.0792" in answer.status.text
    assert answer.verdict.choice is None
    assert all(scenario is None for scenario in answer.scenarios.values())
    codes = {caution.input: caution for caution in answer.warnings if caution.code == "infeasible-target"}
    assert codes["both.target_loss"].range is not None
    assert codes["both.target_loss"].range[0] == pytest.approx(2.0883, abs=LOSS)
    assert codes["7B.target_loss"].range is not None
    assert codes["7B.target_loss"].range[0] > 2.02
    json.dumps(answer.to_dict(), allow_nan=False)


def test_a_budget_below_the_smallest_student_is_said_to_be_so() -> None:
    answer = plan(Question(1e9, compute=1e10, teachers=(SEVEN,)))
    assert answer.status.kind == "infeasible"
    assert answer.supervised is None
    assert answer.teachers[0].student_loss is None
    json.dumps(answer.to_dict(), allow_nan=False)


def test_teachers_are_ranked_and_a_too_strong_one_is_told() -> None:
    weak, strong = Teacher("weak", 1e9, 2.3), Teacher("strong", 7e10, 1.5)
    answer = plan(Question(1e9, tokens=2.5e11, teachers=(weak, strong, SEVEN)))
    assert [ranked.teacher.name for ranked in answer.teachers] == ["7B", "strong", "weak"]
    assert [ranked.side for ranked in answer.teachers] == ["too weak", "too strong", "too weak"]
    assert all(ranked.lost is not None and ranked.lost.value >= 0 for ranked in answer.teachers)
    existing = answer.scenarios["existing"]
    assert existing is not None
    assert existing.teacher == "7B"
    document: Any = answer.to_dict()
    assert document["teachers"][0]["name"] == "7B"
    assert document["teachers"][0]["student_loss"]["method"] == "rounding band"


def test_students_that_share_a_teacher_have_their_own_scenario() -> None:
    alone, many = plan(Question(1e9, compute=1e21)), plan(Question(1e9, compute=1e21, students=8))
    assert "shared" not in alone.scenarios
    shared, both = many.scenarios["shared"], many.scenarios["both"]
    assert shared is not None
    assert both is not None
    assert shared.student_loss.value < both.student_loss.value
    assert many.verdict.way == "shared"


def test_the_words_and_the_table_hold_every_scenario(realistic: Plan) -> None:
    table = rows(realistic)
    assert all(len(row) == len(HEADERS) for row in table)
    assert [row[0].partition("\n")[0] for row in table] == [
        "best",
        "inference",
        "pretraining",
        "both",
        "existing (7B)",
        "train (1B)",
        "train (3.04B)",
    ]
    words = in_words(realistic)
    assert realistic.verdict.text in words
    for name in ("best", "inference", "pretraining", "both", "existing"):
        assert f"  {name}: " in words


def test_the_document_has_what_the_contract_names(realistic: Plan) -> None:
    document: Any = json.loads(realistic.document().to_json())
    assert document["schema"] == {"name": "tutelage.plan", "version": 1}
    assert {"scenarios", "supervised", "crossover", "teachers", "cost", "verdict", "caveats"} <= set(document)
    assert set(document["cost"]) == {"flops", "gpu_hours", "money", "energy_kwh", "co2e_kg", "assumptions"}
    assert {"choice", "probability", "text"} <= set(document["verdict"])
    for scenario in document["scenarios"].values():
        assert set(scenario["shares"]) == {"student", "logits", "teacher"}
        for name in ("student_loss", "student_tokens", "teacher_loss", "compute", "gain"):
            assert set(scenario[name]) == {"value", "low", "high", "level", "method"}
    assert {"loss", "tokens", "compute_optimal"} <= set(document["supervised"])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, "no budget"),
        ({"compute": 1e21, "tokens": 1e10}, "compute and tokens are given"),
        ({"compute": -1.0}, "compute is -1.0"),
        ({"compute": math.nan}, "compute is nan"),
        ({"tokens": math.inf}, "tokens is inf"),
        ({"compute": 1e21, "student_params": 0.0}, "student_params is 0.0"),
        ({"compute": 1e21, "students": 0}, "students is 0"),
        ({"compute": 1e21, "teachers": (SEVEN, SEVEN)}, "two teachers are called '7B'"),
        ({"compute": 1e21, "teachers": (Teacher("a", 1e9, -2.0),)}, "teacher a: loss is -2.0"),
    ],
)
def test_a_question_is_checked(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        Question(**{"student_params": 1e9, **changes})


def test_every_fault_of_a_question_is_reported_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Question(-1.0, compute=math.nan, tokens=1e10, students=-2)
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize("question", [Question(10.0, compute=1e21), Question(1e9, tokens=1e3)])
def test_a_plan_is_made_within_its_bounds(question: Question) -> None:
    with pytest.raises(InputError, match="a plan is made within 1M to 1e17"):
        plan(question)


def test_a_fitted_law_has_points_without_bands(law: Law) -> None:
    answer = plan(Question(1e9, compute=1e21), replace(law, rounding={}))
    best = answer.scenarios["best"]
    assert best is not None
    assert (best.student_loss.low, best.student_loss.method) == (None, "point")


def test_a_plan_is_quick() -> None:
    start = time.process_time()
    plan(Question(1e9, target_loss=2.15, students=4, teachers=(SEVEN,)))
    assert time.process_time() - start < CPU_SECONDS
