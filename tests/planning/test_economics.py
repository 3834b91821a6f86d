"""The economics of whole plans: cost of every way, lifetime, repeated data, adapters, cache; their words and tables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tutelage.errors import InputError
from tutelage.laws.law import Law
from tutelage.laws.published import PUBLISHED
from tutelage.planning.economics_words import (
    EVERY_WAY,
    assumption_rows,
    cost_headers,
    cost_rows,
    economics_in_words,
)
from tutelage.planning.hardware import PRESETS
from tutelage.planning.lora import LoraStudent
from tutelage.planning.plan import Plan, plan
from tutelage.planning.question import Question
from tutelage.planning.scenarios import Teacher
from tutelage.planning.storage import TeacherCache
from tutelage.planning.words import in_words

SEVEN = Teacher("7B", 7.7e9, 2.02)
H100 = PRESETS["H100"]
UNIQUE = 1e10


@pytest.fixture(scope="module")
def full() -> Plan:
    """A question that asks for everything; distilling is chosen."""
    return plan(
        Question(
            1e9,
            compute=1e20,
            teachers=(SEVEN,),
            students=2,
            hardware=H100,
            served_tokens=1e12,
            unique_tokens=UNIQUE,
            lora=LoraStudent(share=0.01),
            cache=TeacherCache("sampled", 12),
            asked="70 device-hours of H100",
        )
    )


def test_every_way_has_its_cost_and_the_choice_is_one_of_them(full: Plan) -> None:
    assert set(full.economics.costs) == {
        "best",
        "inference",
        "pretraining",
        "both",
        "shared",
        "existing",
        "train",
        "train-optimal",
    }
    assert full.verdict.choice == "distil"
    assert full.cost == full.economics.costs["existing"]
    assert full.cost.gpu_hours is not None
    assert full.cost.gpu_hours.value == pytest.approx(1e20 / (989e12 * 0.4 * 3600))


def test_a_target_gives_every_way_its_own_cost_with_the_intervals_of_its_compute(fitted: Law) -> None:
    answer = plan(Question(1e9, target_loss=2.3, hardware=H100), fitted)
    for name, cost in answer.economics.costs.items():
        assert cost.flops is not None
        assert cost.money is not None
        assert (cost.money.low is None) == (cost.flops.low is None)
        assert cost.flops.low is not None or name == "best"
        if cost.money.low is not None and cost.flops.low is not None:
            assert cost.money.low / cost.money.value == pytest.approx(cost.flops.low / cost.flops.value)
    spent = {name: cost.flops.value for name, cost in answer.economics.costs.items() if cost.flops}
    assert spent["best"] < spent["inference"] < spent["both"]
    optimal = answer.supervised.compute_optimal if answer.supervised else None
    assert optimal is not None
    forward = float(fitted.forward.training_per_token(optimal.params.value))
    assert spent["train-optimal"] == pytest.approx(forward * optimal.tokens.value)
    assert spent["train-optimal"] <= spent["train"]
    assert len(cost_rows(answer.economics)) == len(spent)


def test_lifetime_of_the_ways_and_of_the_free_size(full: Plan) -> None:
    lifetime = full.economics.lifetime
    assert lifetime is not None
    assert set(lifetime.ways) == set(full.economics.costs)
    assert full.supervised is not None
    assert lifetime.loss.value == pytest.approx(full.supervised.loss.value)
    total = lifetime.optimal.total
    assert total is not None
    assert lifetime.ways["train"].total is not None
    assert total.value < lifetime.ways["train"].total.value


def test_ordinary_training_repeats_tokens_everywhere_in_the_plan() -> None:
    fresh = plan(Question(1e9, compute=1e21))
    limited = plan(Question(1e9, compute=1e21, unique_tokens=UNIQUE))
    plenty = plan(Question(1e9, compute=1e21, unique_tokens=1e14))
    assert fresh.supervised is not None
    assert limited.supervised is not None
    assert plenty.supervised is not None
    repetition = limited.economics.repetition
    assert repetition is not None
    assert limited.supervised.loss == repetition.loss
    assert limited.supervised.loss.value > fresh.supervised.loss.value == repetition.loss_if_fresh.value
    assert plenty.supervised.loss.value == pytest.approx(fresh.supervised.loss.value)
    best = limited.supervised.compute_optimal
    assert best is not None
    assert best.params.value == pytest.approx(repetition.best_use.params.value)
    # The gain of distilling is over that training; the student's own loss is that of fresh tokens, with a warning.
    for name in ("both", "best"):
        one, other = fresh.scenarios[name], limited.scenarios[name]
        assert one is not None
        assert other is not None
        assert other.student_loss == one.student_loss
        assert other.gain.value > one.gain.value
    assert [caution.code for caution in limited.warnings].count("repeated-tokens") == 1
    assert "looks better here than it is" in limited.verdict.text
    assert fresh.curves is not None
    assert limited.curves is not None
    assert limited.curves.supervised.value[-1] > fresh.curves.supervised.value[-1]


def test_a_target_is_reached_with_more_repeated_tokens_or_not_at_all() -> None:
    fresh = plan(Question(1e9, target_loss=2.3))
    limited = plan(Question(1e9, target_loss=2.3, unique_tokens=UNIQUE))
    assert fresh.supervised is not None
    assert limited.supervised is not None
    assert limited.supervised.tokens.value > fresh.supervised.tokens.value
    assert limited.supervised.loss.value == pytest.approx(2.3)
    poor = plan(Question(1e9, target_loss=2.3, unique_tokens=1e9))
    assert poor.supervised is None
    (caution,) = [each for each in poor.warnings if each.input == "supervised.target_loss"]
    assert caution.range is not None
    assert caution.range[0] > 2.3


def test_a_data_constrained_law_plans_ordinary_training_on_repeated_tokens() -> None:
    law = PUBLISHED["muennighoff2023"]
    answer = plan(Question(1e9, tokens=1e11, unique_tokens=UNIQUE, hardware=H100), law)
    assert answer.supervised is not None
    inputs = {"N": 1e9, "D": 1e11, "U": UNIQUE}
    assert answer.supervised.loss.value == pytest.approx(float(law.family.predict(law.equation, inputs)))
    assert answer.economics.repetition is not None
    assert "used as it is" in answer.economics.repetition.assumption
    assert answer.cost.flops == answer.supervised.compute
    assert answer.cost.money is not None


def test_adapters_make_the_students_part_of_the_choice_cheaper(full: Plan) -> None:
    lora, existing = full.economics.lora, full.scenarios["existing"]
    assert lora is not None
    assert lora.flops is not None
    assert existing is not None
    student = existing.shares["student"].value * existing.compute.value
    assert lora.flops.value == pytest.approx(existing.compute.value - student * (1 - lora.ratio.value))
    trained = plan(Question(1e9, compute=1e22, teachers=(SEVEN,), lora=LoraStudent(share=0.01)))
    assert trained.verdict.choice == "train"
    assert trained.economics.lora is not None
    assert trained.economics.lora.flops is not None
    assert trained.economics.lora.flops.value == pytest.approx(1e22 * trained.economics.lora.ratio.value)
    assert any("not what loss it reaches" in caveat for caveat in trained.caveats)


def test_the_cache_is_that_of_the_judged_teacher(full: Plan) -> None:
    cache, existing = full.economics.cache, full.scenarios["existing"]
    assert cache is not None
    assert existing is not None
    assert cache.cached_tokens.value == min(existing.student_tokens.value, UNIQUE)
    assert cache.saving.value > 0
    alone = plan(Question(1e9, compute=1e20, cache=TeacherCache("hidden", 4096)))
    assert alone.economics.cache is not None
    both = alone.scenarios["both"]
    assert both is not None
    assert alone.economics.cache.cached_tokens.value == both.student_tokens.value


def test_the_document_holds_every_part_and_its_assumptions(full: Plan) -> None:
    document: Any = json.loads(full.document().to_json())
    assert {"cost", "costs", "lifetime", "repetition", "lora", "cache"} <= set(document)
    assumptions = document["cost"]["assumptions"]
    assert assumptions["name"] == "H100"
    assert {each["name"]: each["value"] for each in assumptions["numbers"]} == {
        "peak": 989e12,
        "mfu": 0.4,
        "watts": 700,
        "price": 3.0,
        "pue": 1.3,
        "carbon": 473.0,
    }
    assert all(each["source"] and each["unit"] for each in assumptions["numbers"])
    assert document["lifetime"]["optimal"]["params"]["method"] == "rounding band"
    assert document["repetition"]["best_use"]["epochs"]["value"] > 0
    assert set(document["lora"]) >= {"full_training_flops_per_token", "lora_training_flops_per_token", "ratio", "text"}
    assert set(document["cache"]) >= {"bytes_per_token", "bytes", "logits_flops_paid_once", "saving", "text"}
    assert document["question"]["asked"] == "70 device-hours of H100"
    bare: Any = plan(Question(1e9, compute=1e20)).to_dict()
    assert bare["cost"]["assumptions"] is None
    assert bare["lifetime"] is bare["repetition"] is bare["lora"] is bare["cache"] is None
    assert bare["costs"]["train"]["gpu_hours"] is None


def test_the_words_say_every_part_once(full: Plan) -> None:
    lines = economics_in_words(full.economics)
    assert [line.partition(":")[0] for line in lines] == [
        "Cost of the choice",
        "Lifetime",
        "Repeated data",
        "LoRA",
        "Cached teacher",
    ]
    words = in_words(full)
    assert all(line in words for line in lines)
    assert economics_in_words(plan(Question(1e9, compute=1e20)).economics) == []


def test_tables_are_as_wide_as_their_headers_and_ways_of_one_cost_share_a_row(full: Plan) -> None:
    table = cost_rows(full.economics)
    assert [row[0] for row in table] == [EVERY_WAY, "train-optimal"]
    assert all(len(row) == len(cost_headers(full.economics)) for row in table)
    assert len(assumption_rows(H100)) == 6
    bare = plan(Question(1e9, compute=1e20)).economics
    assert cost_rows(bare) == []
    assert assumption_rows(bare.hardware) == []


def test_what_needs_a_size_or_service_is_refused_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Question(
            None,
            target_loss=2.2,
            unique_tokens=-1.0,
            served_tokens=None,
            serving=H100,
        )
    assert len(caught.value.faults) == 3
    said = "\n".join(caught.value.faults)
    for part in ("unique_tokens is -1", "unique_tokens needs", "without served_tokens"):
        assert part in said
