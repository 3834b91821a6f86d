from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import GroupSums, Resampling
from tutelage.evaluation.compare import compare_arms, compare_scores, compare_sums, compare_values, pool_seeds
from tutelage.evaluation.wer import RAW, Normaliser, TranscriptScore, score_transcripts
from tutelage.records.document import jsonable

LENGTH = 8


def score_errors(errors: list[int], groups: list[str] | None = None, normaliser: Normaliser = RAW) -> TranscriptScore:
    """A score whose utterances of eight words have these numbers of errors."""
    reference = [f"w{i}" for i in range(LENGTH)]
    hypotheses = [" ".join(["x"] * count + reference[count:]) for count in errors]
    return score_transcripts([" ".join(reference)] * len(errors), hypotheses, normaliser, groups=groups)


@pytest.fixture(scope="module")
def hard_and_easy() -> list[int]:
    """Utterances that differ much: 60 draws of 0 to 7 errors."""
    return [int(n) for n in np.random.default_rng(0).integers(0, LENGTH, 60)]


def test_a_small_but_steady_gain_is_seen_by_pairing(hard_and_easy: list[int]) -> None:
    """A third of the utterances lose one error: unpaired intervals overlap, the paired one does not hold zero."""
    better = [max(0, n - (i % 3 == 0)) for i, n in enumerate(hard_and_easy)]
    baseline, candidate = score_errors(hard_and_easy), score_errors(better)
    found = compare_scores(baseline, candidate)
    assert baseline.wer.low is not None
    assert candidate.wer.high is not None
    assert candidate.wer.high > baseline.wer.low
    assert found.verdict == "better"
    assert found.difference.value == pytest.approx(candidate.wer.value - baseline.wer.value)
    assert compare_scores(candidate, baseline).verdict == "worse"


def test_the_sign_and_the_values() -> None:
    found = compare_scores(score_errors([0] * 40), score_errors([2] * 20 + [0] * 20))
    assert found.difference.value == pytest.approx(1 / 8)
    assert (found.baseline.value, found.candidate.value) == (0, 1 / 8)
    body = json.loads(json.dumps(jsonable(found)))
    assert body["verdict"] == "worse"
    assert set(body["difference"]) == {"value", "low", "high", "level", "method"}


def test_noise_is_undecided() -> None:
    generator = np.random.default_rng(1)
    one, other = (score_errors([int(n) for n in generator.integers(0, 8, 60)]) for _ in range(2))
    assert compare_scores(one, other).verdict == "undecided"


def test_a_system_against_itself(hard_and_easy: list[int]) -> None:
    found = compare_scores(score_errors(hard_and_easy), score_errors(hard_and_easy))
    assert found.difference.value == 0
    assert found.difference.low == -found.difference.high  # type: ignore[operator]
    assert found.verdict == "undecided"


def test_groups_decide_what_is_independent() -> None:
    """Forty utterances in five groups: a gain in one group alone is no gain."""
    groups = [str(i // 8) for i in range(40)]
    baseline = score_errors([4] * 40, groups)
    candidate = score_errors([0] * 8 + [4] * 32, groups)
    found = compare_scores(baseline, candidate)
    assert found.verdict == "undecided"
    assert found.status.kind == "few-groups"
    assert compare_scores(score_errors([4] * 40), score_errors([0] * 8 + [4] * 32)).verdict == "better"


def test_another_metric() -> None:
    loops = [8] * 20 + [0] * 20  # the same word eight times
    found = compare_scores(score_errors([0] * 40), score_errors(loops), "loop_rate")
    assert found.difference.value == pytest.approx(0.5)
    assert found.metric == "loop_rate"


def test_seeds_are_a_source_of_spread_of_their_own() -> None:
    """Two of five seeds got worse by much: the mean gain of the arm is not established, though each seed's is."""
    baseline = [score_errors([4] * 60) for _ in range(5)]
    candidate = [score_errors([n] * 59 + [n + 1]) for n in (1, 1, 2, 6, 7)]
    assert compare_scores(baseline[0], candidate[0]).verdict == "better"
    found = compare_arms(baseline, candidate)
    assert found.verdict == "undecided"
    assert found.status.kind == "done"
    assert "60 groups and 5 seeds" in found.difference.method


def test_seeds_that_agree_decide() -> None:
    found = compare_arms([score_errors([4, 5] * 30)] * 5, [score_errors([n, 3] * 30) for n in (2, 3, 2, 3, 2)])
    assert found.verdict == "better"


def test_seeds_are_paired_before_anything_is_drawn() -> None:
    """A seed that is hard for both arms is no spread of their difference."""
    levels = (1, 2, 3, 4, 5)
    baseline = [score_errors([n, n + 1] * 30) for n in levels]
    candidate = [score_errors([n - 1, n] * 30) for n in levels]
    found = compare_arms(baseline, candidate)
    assert found.difference.value == pytest.approx(-1 / 8)
    assert (found.difference.low, found.difference.high) == pytest.approx((-1 / 8, -1 / 8))
    assert found.baseline.high is not None
    assert found.candidate.high is not None
    assert found.baseline.high - found.baseline.value > 1 / 8


def test_one_model_is_compared_with_an_arm_of_seeds() -> None:
    found = compare_arms([score_errors([4, 5] * 30)], [score_errors([n, 3] * 30) for n in (2, 3, 2, 3, 2)])
    assert found.verdict == "better"
    assert "5 seeds" in found.difference.method
    assert "seeds" not in found.baseline.method


def test_few_seeds_are_said() -> None:
    arms = [[score_errors([n] * 40) for n in counts] for counts in ((3, 4), (2, 1))]
    assert compare_arms(*arms).status.kind == "few-seeds"


def test_pooling_seeds_takes_the_mean() -> None:
    found = pool_seeds([score_errors([n] * 40) for n in (1, 2, 3)])
    assert found.value == pytest.approx(2 / 8)
    with pytest.raises(InputError, match="no runs"):
        pool_seeds([])


class TestWhatCannotBePaired:
    def test_other_normaliser(self) -> None:
        other = score_errors([1] * 4, normaliser=Normaliser("lower", str.lower))
        with pytest.raises(InputError, match=r"'raw'.*'lower'"):
            compare_scores(score_errors([1] * 4), other)

    def test_other_number(self) -> None:
        with pytest.raises(InputError, match="4 utterances, the other on 5"):
            compare_scores(score_errors([1] * 4), score_errors([1] * 5))

    @pytest.mark.parametrize("change", [{"id": "z"}, {"group": "z"}])
    def test_other_utterances(self, change: dict[str, str]) -> None:
        one = score_errors([1] * 4)
        moved = replace(one, utterances=(*one.utterances[:3], replace(one.utterances[3], **change)))  # type: ignore[arg-type]
        with pytest.raises(InputError, match="'z'"):
            compare_scores(one, moved)

    def test_other_references(self) -> None:
        one, other = (score_transcripts([text], [text], RAW) for text in ("a b", "a c"))
        with pytest.raises(InputError, match="references differ"):
            compare_scores(one, other)

    def test_other_numbers_of_seeds(self) -> None:
        with pytest.raises(InputError, match="3 baseline and 2 candidate"):
            compare_arms([score_errors([1])] * 3, [score_errors([1])] * 2)
        with pytest.raises(InputError, match="0 baseline"):
            compare_arms([], [])


def test_losses_are_compared_as_means() -> None:
    generator = np.random.default_rng(2)
    losses = generator.normal(2.0, 0.5, 50)
    found = compare_values(list(losses), list(losses - 0.1 + generator.normal(0, 0.02, 50)))
    assert found.value == pytest.approx(-0.1, abs=0.02)
    assert found.high is not None
    assert found.high < 0
    with pytest.raises(ValueError, match="50 baseline and 1 candidate"):
        compare_values(list(losses), [1.0])
    assert compare_values([1.0, 2.0], [1.0, 3.0], ["a", "a"], Resampling(draws=100)).low is None


def simulate_against_a_teacher(generator: np.random.Generator, seeds: int) -> tuple[GroupSums, GroupSums]:
    """A teacher's errors in 60 groups of 20 words, and those of seeds that are worse by 0.05, give or take 0.03."""
    chance_G = generator.beta(4, 12, 60)
    teacher = generator.binomial(20, chance_G, (1, 60))
    own_S1 = generator.normal(0.05, 0.03, (seeds, 1))
    return tuple(
        GroupSums(errors.astype(float), np.full(60, 20.0))
        for errors in (teacher, generator.binomial(20, np.clip(chance_G + own_S1, 0, 1), (seeds, 60)))
    )  # type: ignore[return-value]


def test_a_teacher_held_fixed_against_seeds_has_an_interval_that_covers() -> None:
    """For new seeds of the students and new groups; 200 experiments give a standard error of 1.5 %."""
    generator, hits = np.random.default_rng(3), 0
    for _ in range(200):
        found = compare_sums("wer", *simulate_against_a_teacher(generator, 5), Resampling(draws=200)).difference
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.05 <= found.high
    assert 0.91 <= hits / 200 <= 0.995


def test_which_arm_has_no_seeds_is_no_difference() -> None:
    teacher, students = simulate_against_a_teacher(np.random.default_rng(0), 5)
    one, other = (compare_sums("wer", *pair, Resampling()) for pair in ((teacher, students), (students, teacher)))
    assert one.difference.value == pytest.approx(-other.difference.value)
    assert "5 seeds" in one.difference.method
    assert "seeds" not in one.baseline.method
    assert one.status == other.status
    three = GroupSums(students.errors_SG[:3], students.units_G)
    assert compare_sums("wer", teacher, three, Resampling()).status.kind == "few-seeds"
    with pytest.raises(InputError, match="not paired"):
        compare_sums("wer", three, students, Resampling())
