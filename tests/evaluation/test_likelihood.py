from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulated_predictions import simulate
from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import Resampling
from tutelage.evaluation.likelihood import LessIsBetter, Likelihood, compare_likelihoods, to_perplexity
from tutelage.records.document import jsonable
from tutelage.records.estimate import Estimate

ROUNDING = 1e-12
"""Float64 sums over a few hundred documents."""

FEW_DRAWS = Resampling(draws=300)
COVERAGE_BAND = (0.91, 0.99)
"""Nominal 95 %: 200 corpora give a standard error of 1.5 %."""


def corpus(seed: int = 0, documents: int = 40, shift: float = 0.0) -> Likelihood:
    """Documents of 5 to 40 tokens whose mean loss varies about 2 nats; `shift` nats a token are added."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(5, 41, documents).astype(float)
    own = generator.normal(2, 0.3, documents)
    return Likelihood(
        nats_U=tokens * (np.abs(own) + shift),
        tokens_U=tokens,
        groups=[f"g{n:03}" for n in range(documents)],
        bytes_U=4 * tokens,
        characters_U=3 * tokens,
        right_U=generator.binomial(tokens.astype(int), 0.6).astype(float),
        agreeing_U=generator.binomial(tokens.astype(int), 0.8).astype(float),
    )


def test_a_corpus_is_a_ratio_of_sums() -> None:
    found = Likelihood(np.array([1.0, 30.0]), np.array([1.0, 9.0]), None, np.array([4.0, 36.0]), np.array([2.0, 30.0]))
    metrics = found.estimates(FEW_DRAWS)
    assert metrics["nats_per_token"].value == pytest.approx(3.1)
    assert metrics["perplexity"].value == pytest.approx(math.exp(3.1))
    assert metrics["bits_per_byte"].value == pytest.approx(31 / math.log(2) / 40)
    assert metrics["bits_per_character"].value == pytest.approx(31 / math.log(2) / 32)
    assert set(metrics) == {"nats_per_token", "perplexity", "bits_per_byte", "bits_per_character"}


def test_perplexity_has_the_losss_interval() -> None:
    metrics = corpus().estimates(FEW_DRAWS)
    loss, perplexity = metrics["nats_per_token"], metrics["perplexity"]
    assert loss.low is not None
    assert loss.high is not None
    assert (perplexity.low, perplexity.high) == pytest.approx((math.exp(loss.low), math.exp(loss.high)))
    assert perplexity.level == loss.level


def test_a_loss_of_chance_has_the_perplexity_of_its_vocabulary() -> None:
    found = Likelihood(np.full(3, 50 * math.log(256)), np.full(3, 50.0), None, np.full(3, 50.0))
    metrics = found.estimates(FEW_DRAWS)
    assert metrics["perplexity"].value == pytest.approx(256)
    assert metrics["bits_per_byte"].value == pytest.approx(8)


def test_positions_give_the_same_as_documents() -> None:
    model, teacher = simulate(400), simulate(400, sharpness=2)
    found = Likelihood.of(model, teacher).estimates(FEW_DRAWS)
    assert found["nats_per_token"].value == pytest.approx(float(model.nats_N.mean()), abs=ROUNDING)
    assert found["accuracy"].value == pytest.approx(float(model.correct.mean()), abs=ROUNDING)
    assert found["agreement"].value == 1
    assert "nothing but errors" in found["agreement"].method


def test_the_interval_of_a_loss_covers_what_it_says() -> None:
    """The ratio's truth is 2: the loss of a token does not depend on the document's length."""
    hits = 0
    for seed in range(200):
        loss = corpus(seed).estimates(Resampling(draws=200))["nats_per_token"]
        assert loss.low is not None
        assert loss.high is not None
        hits += loss.low <= 2 <= loss.high
    assert COVERAGE_BAND[0] <= hits / 200 <= COVERAGE_BAND[1]


@given(st.permutations(range(12)))
def test_order_of_documents_is_no_difference(order: list[int]) -> None:
    one = corpus(documents=12)
    parts = ("nats_U", "tokens_U", "bytes_U", "characters_U", "right_U", "agreeing_U")
    assert one.groups is not None
    other = Likelihood(**{name: getattr(one, name)[order] for name in parts}, groups=[one.groups[i] for i in order])
    for metric, estimate in one.estimates(FEW_DRAWS).items():
        found = other.estimates(FEW_DRAWS)[metric]
        assert (found.value, found.low, found.high) == pytest.approx(
            (estimate.value, estimate.low, estimate.high), abs=ROUNDING
        )


def test_groups_may_be_renamed() -> None:
    """Other names in the same order give the same numbers; in another order the draws differ by chance alone."""
    one = corpus()
    assert one.groups is not None
    same = replace(one, groups=[f"h{name}" for name in one.groups]).estimates(FEW_DRAWS)
    assert same == one.estimates(FEW_DRAWS)
    turned = replace(one, groups=one.groups[::-1]).estimates(FEW_DRAWS)
    for metric, estimate in one.estimates(FEW_DRAWS).items():
        assert turned[metric].value == pytest.approx(estimate.value, abs=ROUNDING)


class TestUndefinedCases:
    def test_no_token(self) -> None:
        with pytest.raises(InputError, match="no token is supervised"):
            Likelihood(np.zeros(2), np.zeros(2))

    def test_text_without_bytes(self) -> None:
        found = Likelihood(np.ones(2), np.ones(2), None, np.zeros(2)).estimates(FEW_DRAWS)["bits_per_byte"]
        assert math.isnan(found.value)
        assert found.method == "undefined: the text has no byte"
        assert jsonable(found)["value"] is None

    def test_a_label_of_probability_zero(self) -> None:
        with pytest.raises(InputError, match="1 of 2 documents hold a label of probability zero"):
            Likelihood(np.array([1.0, np.inf]), np.ones(2))

    def test_a_perplexity_past_the_largest_number(self) -> None:
        found = to_perplexity(Estimate(800.0, 700.0, 900.0, 0.95))
        assert found.value == math.inf
        assert found.low is not None
        assert math.isfinite(found.low)
        assert jsonable(found)["high"] is None

    def test_equal_losses_have_a_difference_and_no_interval(self) -> None:
        """No bound of a binomial rate holds for a loss."""
        found = compare_likelihoods([corpus()], [corpus()])
        assert (found.difference.value, found.difference.low) == (0, None)
        assert found.verdict == "undecided"

    @pytest.mark.parametrize("name", ["right_U", "agreeing_U"])
    def test_more_right_than_there_are(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name} must lie between"):
            Likelihood(np.ones(2), np.ones(2), **{name: np.array([0.0, 2.0])})  # type: ignore[arg-type]

    @pytest.mark.parametrize("loss", [-1.0, np.nan])
    def test_a_loss_that_is_none(self, loss: float) -> None:
        with pytest.raises(ValueError, match="numbers from 0"):
            Likelihood(np.array([1.0, loss]), np.ones(2))


class TestComparisons:
    def test_a_steady_gain_is_seen_by_pairing(self) -> None:
        found = compare_likelihoods([corpus()], [corpus(shift=-0.02)], resampling=FEW_DRAWS)
        assert found.verdict == "better"
        assert found.difference.value == pytest.approx(-0.02)

    @pytest.mark.parametrize("metric", ["error_rate", "disagreement"])
    def test_more_right_is_better(self, metric: LessIsBetter) -> None:
        one = corpus()
        assert one.right_U is not None
        assert one.agreeing_U is not None
        other = replace(one, right_U=np.minimum(one.right_U + 1, one.tokens_U), agreeing_U=one.tokens_U)
        assert compare_likelihoods([one], [other], metric, FEW_DRAWS).verdict == "better"

    def test_seeds_are_a_second_source_of_spread(self) -> None:
        baseline = [corpus()] * 5
        candidate = [corpus(shift=shift) for shift in (-0.2, -0.1, -0.1, 0.1, 0.2)]
        assert compare_likelihoods(baseline[:1], candidate[:1], resampling=FEW_DRAWS).verdict == "better"
        found = compare_likelihoods(baseline, candidate, resampling=FEW_DRAWS)
        assert found.verdict == "undecided"
        assert "40 groups and 5 seeds" in found.difference.method

    def test_a_teacher_without_seeds_is_held_fixed(self) -> None:
        shifts = (0.1, 0.2, 0.2, 0.3, 0.2)
        arm = [corpus(shift=shift) for shift in shifts]
        found = compare_likelihoods([corpus()], arm, resampling=FEW_DRAWS)
        assert found.verdict == "worse"
        assert found.difference.value == pytest.approx(0.2)
        assert "5 seeds" in found.difference.method
        assert "5 seeds" not in found.baseline.method
        turned = compare_likelihoods(arm, [corpus()], resampling=FEW_DRAWS)
        assert (turned.difference.value, turned.verdict) == (pytest.approx(-0.2), "better")

    def test_other_tokenizers_are_compared_in_bytes_alone(self) -> None:
        one = corpus()
        other = replace(one, tokens_U=one.tokens_U + 1)
        with pytest.raises(InputError, match="nats_per_token is not paired"):
            compare_likelihoods([one], [other])
        assert compare_likelihoods([one], [other], "bits_per_byte").difference.value == 0

    def test_what_cannot_be_compared(self) -> None:
        one = corpus()
        assert one.groups is not None
        with pytest.raises(InputError, match="0 baseline and 1 candidate"):
            compare_likelihoods([], [one])
        with pytest.raises(InputError, match="different groups"):
            compare_likelihoods([one], [replace(one, groups=one.groups[::-1])])
        with pytest.raises(InputError, match="no disagreement"):
            compare_likelihoods([one], [replace(one, agreeing_U=None)], "disagreement")
        with pytest.raises(InputError, match="not measured on the same data and seeds"):
            compare_likelihoods([one] * 3, [one] * 2)
        with pytest.raises(InputError, match="cannot be pooled"):
            compare_likelihoods([one], [one, replace(one, tokens_U=one.tokens_U + 1)])
