from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from simulated_predictions import VOCABULARY, simulate, take
from tutelage.errors import InputError
from tutelage.evaluation.predictions import join, read_logits

ROUNDING = 1e-12
"""Float64 sums over a vocabulary of 12."""

LOGITS = np.random.default_rng(0).normal(0, 3, (4, 6, VOCABULARY))
LABELS = np.random.default_rng(1).integers(0, VOCABULARY, (4, 6))
KEEP = np.arange(6) < np.array([6, 2, 0, 5])[:, None]
NAMES = ["a", "b", "c", "d"]


def test_parts_are_those_of_the_distribution() -> None:
    found = read_logits(LOGITS, LABELS, KEEP, NAMES)
    chances = np.exp(log_softmax(LOGITS, axis=-1))[KEEP]
    truth = np.eye(VOCABULARY)[LABELS[KEEP]]
    np.testing.assert_allclose(found.nats_N, -np.log((chances * truth).sum(axis=1)), rtol=ROUNDING)
    np.testing.assert_allclose(found.brier_N, ((chances - truth) ** 2).sum(axis=1), rtol=ROUNDING)
    np.testing.assert_allclose(found.confidence_N, chances.max(axis=1), rtol=ROUNDING)
    assert found.guesses_N.tolist() == chances.argmax(axis=1).tolist()
    assert found.groups_N.tolist() == ["a"] * 6 + ["b"] * 2 + ["d"] * 5


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e300])
def test_garbage_at_dropped_positions_changes_nothing(garbage: float) -> None:
    logits, labels = LOGITS.copy(), LABELS.copy()
    logits[~KEEP] = garbage
    labels[~KEEP] = -100
    found, clean = read_logits(logits, labels, KEEP, NAMES), read_logits(LOGITS, LABELS, KEEP, NAMES)
    assert found.positions == KEEP.sum()
    np.testing.assert_array_equal(found.nats_N, clean.nats_N)
    np.testing.assert_array_equal(found.confidence_N, clean.confidence_N)


def test_chunks_joined_are_the_whole() -> None:
    whole = read_logits(LOGITS, LABELS, KEEP, NAMES)
    parts = [read_logits(LOGITS[rows], LABELS[rows], KEEP[rows], NAMES[rows]) for rows in (slice(0, 1), slice(1, 4))]
    np.testing.assert_array_equal(join(parts).nats_N, whole.nats_N)
    assert join(parts).by_group("nats").errors_SG.tolist() == whole.by_group("nats").errors_SG.tolist()


def test_a_row_may_hold_several_groups() -> None:
    names = np.where(np.arange(6) < 3, "first", "second")[None, :].repeat(4, axis=0)
    found = read_logits(LOGITS, LABELS, KEEP, names)
    assert found.group_names == ("first", "second")
    assert found.by_group("right").units_G.tolist() == [3 + 2 + 3, 3 + 2]


def test_huge_logits_overflow_nothing() -> None:
    found = read_logits([[[1e4, -1e4, -np.inf]]], [[1]], [[True]], ["a"])
    assert found.nats_N.tolist() == [2e4]
    assert found.confidence_N.tolist() == [1.0]
    assert found.brier_N.tolist() == [2.0]


def test_agreement_is_of_guesses_not_of_labels() -> None:
    one, other = simulate(400), simulate(400, sharpness=3)
    assert one.agreeing(other).all()
    assert not one.correct.all()


class TestWhatIsRefused:
    def test_a_label_of_probability_zero(self) -> None:
        with pytest.raises(InputError, match="1 of 2 labels have probability zero"):
            read_logits([[[0.0, -np.inf], [0.0, 0.0]]], [[1, 1]], [[True, True]], ["a"])

    def test_no_supervised_position(self) -> None:
        with pytest.raises(InputError, match="no position is supervised"):
            read_logits(LOGITS, LABELS, np.zeros_like(KEEP), NAMES)

    @pytest.mark.parametrize("logit", [np.nan, np.inf])
    def test_a_kept_logit_that_is_no_number(self, logit: float) -> None:
        with pytest.raises(ValueError, match="NaN or positive infinity"):
            read_logits([[[0.0, logit]]], [[0]], [[True]], ["a"])

    @pytest.mark.parametrize("label", [-100, VOCABULARY])
    def test_a_kept_label_outside_the_vocabulary(self, label: int) -> None:
        with pytest.raises(ValueError, match="ids of a vocabulary of 12"):
            read_logits(LOGITS, np.full_like(LABELS, label), KEEP, NAMES)

    def test_other_positions(self) -> None:
        one = simulate(400)
        with pytest.raises(InputError, match="not judged at the same"):
            one.check_same_positions(take(one, np.arange(400)[::-1]))
        with pytest.raises(InputError, match="not judged at the same"):
            one.check_same_positions(simulate(400, seed=1))  # the same groups, other labels
        assert not one.same_positions(replace(one, groups_N=one.groups_N[::-1]))  # the same labels, other groups
