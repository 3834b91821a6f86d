"""The cache of a teacher: bytes by format, forward passes saved."""

from __future__ import annotations

import pytest

from tutelage.errors import InputError
from tutelage.laws.compute import ForwardCost
from tutelage.planning.storage import Reading, TeacherCache, format_bytes, plan_cache

FORWARD = ForwardCost()


@pytest.mark.parametrize(
    ("cache", "vocabulary", "expected"),
    [
        (TeacherCache("sampled", 12), 32768, 12 * (2 + 1) + 4),
        (TeacherCache("sampled", 12), 151936, 12 * (4 + 1) + 4),
        (TeacherCache("sampled", 12), 0, 12 * (4 + 1) + 4),
        (TeacherCache("sampled", 12, 65536), 0, 12 * (2 + 1) + 4),
        (TeacherCache("topk", 128), 32768, 128 * (2 + 2) + 4),
        (TeacherCache("topk", 128, 151936), 32768, 128 * (4 + 2) + 4),
        (TeacherCache("hidden", 4096), 32768, 8192),
    ],
)
def test_bytes_a_token_follow_from_the_layout(cache: TeacherCache, vocabulary: int, expected: float) -> None:
    assert cache.bytes_per_token(vocabulary) == expected


def test_epochs_and_students_read_what_was_paid_once() -> None:
    per_token = float(FORWARD.per_token(7e9))
    found = plan_cache(FORWARD, TeacherCache("topk", 128), Reading(7e9, 4e10, unique_tokens=1e10, students=3))
    assert found.bytes.value == 516 * 1e10
    assert found.logits_flops_paid_once.value == pytest.approx(per_token * 1e10)
    assert found.logits_flops_online.value == pytest.approx(per_token * 1.2e11)
    assert found.saving.value == pytest.approx(per_token * 1.1e11)
    assert "instead of 12 times" in found.text
    assert "5.16 TB" in found.text
    assert "biased" in found.text


def test_without_epochs_and_further_students_nothing_is_saved() -> None:
    assert plan_cache(FORWARD, TeacherCache("sampled", 12), Reading(7e9, 4e10)).saving.value == 0.0
    more = plan_cache(FORWARD, TeacherCache("sampled", 12), Reading(7e9, 4e9, unique_tokens=1e10))
    assert more.cached_tokens.value == 4e9


def test_replaying_the_head_is_charged_for() -> None:
    found = plan_cache(FORWARD, TeacherCache("hidden", 4096), Reading(7e9, 1e10, students=2))
    assert found.replay_flops.value == pytest.approx(2 * 4096 * 32768 * 2e10)
    assert found.saving.value == pytest.approx(float(FORWARD.per_token(7e9)) * 1e10 - found.replay_flops.value)
    assert "exact at every temperature" in found.text
    unknown = plan_cache(ForwardCost(0, 0), TeacherCache("hidden", 4096), Reading(7e9, 1e10))
    assert unknown.replay_flops.value == 0.0
    assert "not counted: give the vocabulary" in unknown.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dense", 5), "cache 'dense' is not known; it must be one of topk, sampled, hidden"),
        (("topk", -1), "cache: topk is -1"),
        (("topk", 1.5), "must be a whole number"),
        (("topk", 300, 256), "the vocabulary has 256 entries"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        TeacherCache(*arguments)


def test_bytes_are_written_in_units() -> None:
    assert [format_bytes(count) for count in (12, 1.5e3, 2e6, 3.4e9, 5.16e12, 1e15)] == [
        "12 bytes",
        "1.5 kB",
        "2 MB",
        "3.4 GB",
        "5.16 TB",
        "1 PB",
    ]
