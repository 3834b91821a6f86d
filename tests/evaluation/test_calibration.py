from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulated_predictions import simulate, take
from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import Resampling
from tutelage.evaluation.calibration import (
    BINNINGS,
    Binning,
    compare_calibration,
    decompose_brier,
    measure_calibration,
    measure_calibration_error,
    measure_reliability,
)
from tutelage.records.document import jsonable
from tutelage.records.estimate import Estimate

ROUNDING = 1e-12
"""Float64 sums over hundreds of positions."""

FEW_DRAWS = Resampling(draws=300)
each_binning = pytest.mark.parametrize("binning", BINNINGS)
guesses = st.lists(
    st.tuples(st.floats(0, 1, allow_subnormal=False) | st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()),
    min_size=1,
    max_size=60,
)


def test_by_hand() -> None:
    """Bins (0, 1/2] and (1/2, 1]: 3/10 |1/3 - 0.4| ... worked out on paper."""
    confidence = [0.2, 0.5, 0.5, 0.6, 0.8, 1.0]
    correct = [False, True, False, True, False, True]
    table = measure_reliability(confidence, correct, bins=2)
    assert table.counts_M.tolist() == [3, 3]
    assert table.confidence_M == pytest.approx([0.4, 0.8])
    assert table.accuracy_M == pytest.approx([1 / 3, 2 / 3])
    assert table.error == pytest.approx(0.5 * (0.4 - 1 / 3) + 0.5 * (0.8 - 2 / 3))


def test_bins_of_equal_mass_by_hand() -> None:
    table = measure_reliability([0.91, 0.92, 0.93, 0.94, 0.95, 0.96], [True] * 6, bins=3, binning="equal-mass")
    assert table.counts_M.tolist() == [2, 2, 2]
    assert table.edges.tolist() == [0, 0.92, 0.94, 1]
    assert table.error == pytest.approx(0.065)


def test_equal_confidences_share_a_bin() -> None:
    table = measure_reliability([0.5] * 9 + [0.9], [True] * 10, bins=5, binning="equal-mass")
    assert table.counts_M.tolist() == [9, 1]


@given(guesses, st.integers(1, 20))
def test_no_bin_of_equal_mass_is_empty(cases: list[tuple[float, bool]], bins: int) -> None:
    table = measure_reliability([c for c, _ in cases], [r for _, r in cases], bins, "equal-mass")
    assert table.counts_M.min() >= 1
    assert table.counts_M.sum() == len(cases)
    assert table.counts_M.size <= bins


def test_an_empty_bin_counts_nothing_and_is_shown() -> None:
    table = measure_reliability([0.95, 0.95], [True, False], bins=10)
    assert table.error == pytest.approx(0.45)
    rows = json.loads(json.dumps(jsonable(table)))["bins"]
    assert [row["count"] for row in rows] == [0] * 9 + [2]
    assert rows[0]["accuracy"] is None
    assert rows[9] == {"low": 0.9, "high": 1.0, "count": 2, "confidence": 0.95, "accuracy": 0.5}


@each_binning
def test_a_calibrated_model_shows_its_null_and_tends_to_zero(binning: Binning) -> None:
    """Errors of 20 calibrated models stay under what 95 % of the null stays under about as often, and shrink as
    1 / sqrt(N).
    """
    errors = {}
    for positions in (400, 10_000):
        models = [simulate(positions, seed) for seed in range(20)]
        found = [measure_calibration_error(m.confidence_N, m.correct, binning=binning, draws=100) for m in models]
        errors[positions] = np.mean([error.value.value for error in found])
        null = np.mean([error.null.value for error in found])
        assert errors[positions] == pytest.approx(null, rel=0.15)  # 20 errors, each spread by a quarter of the mean
        assert sum(error.exceeds_null for error in found) <= 4  # 1 expected; more than 4 has a chance of 0.3 %
    assert errors[10_000] == pytest.approx(errors[400] / 5, rel=0.25)


@each_binning
@pytest.mark.parametrize("sharpness", [0.5, 1.6])
def test_a_model_that_is_too_sure_or_too_unsure_exceeds_its_null(binning: Binning, sharpness: float) -> None:
    model = simulate(2_000, sharpness=sharpness)
    found = measure_calibration_error(model.confidence_N, model.correct, binning=binning)
    assert found.exceeds_null
    assert found.value.value > 3 * found.null.value


def test_the_gap_tells_too_sure_from_too_unsure() -> None:
    for sharpness, sign in ((0.5, -1), (1.6, 1)):
        gap = measure_calibration(simulate(2_000, sharpness=sharpness), draws=20, resampling=FEW_DRAWS).gap
        assert gap.low is not None
        assert gap.high is not None
        assert min(sign * gap.low, sign * gap.high) > 0


@given(guesses, st.integers(1, 20), st.sampled_from(BINNINGS))
def test_the_parts_of_the_brier_score_add_up(cases: list[tuple[float, bool]], bins: int, binning: Binning) -> None:
    confidence, correct = np.array([c for c, _ in cases]), np.array([r for _, r in cases])
    parts = decompose_brier(confidence, correct, bins, binning)
    assert parts.total == pytest.approx(float(((confidence - correct) ** 2).mean()), abs=ROUNDING)
    assert min(parts.reliability, parts.resolution, parts.uncertainty) >= 0


def test_nothing_is_hidden_where_bins_hold_one_confidence_each() -> None:
    """Murphy's three parts alone, where each bin has one confidence."""
    confidence = np.array([0.2] * 5 + [0.6] * 5)
    correct = np.array([1, 0, 0, 0, 0, 1, 1, 1, 1, 0], dtype=bool)
    parts = decompose_brier(confidence, correct, bins=5)
    assert parts.within_bins == pytest.approx(0, abs=ROUNDING)
    assert parts.reliability == pytest.approx(0.5 * 0.2**2)
    assert parts.resolution == pytest.approx(0.3**2)
    assert parts.uncertainty == pytest.approx(0.25)


@given(guesses, st.sampled_from(BINNINGS), st.randoms(use_true_random=False))
def test_order_is_no_difference(cases: list[tuple[float, bool]], binning: Binning, random: object) -> None:
    shuffled = list(cases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        measure_calibration_error([c for c, _ in some], [r for _, r in some], 7, binning, draws=20)
        for some in (cases, shuffled)
    )
    assert one.value.value == pytest.approx(other.value.value, abs=ROUNDING)
    assert one.null.value == pytest.approx(other.null.value, abs=ROUNDING)


def test_names_of_groups_and_order_of_documents_are_no_difference() -> None:
    model = simulate(800)
    order = np.random.default_rng(0).permutation(800)
    renamed = take(model, order)
    object.__setattr__(renamed, "groups_N", np.char.add("z", renamed.groups_N))  # the same order of names
    one, other = (measure_calibration(m, draws=20, resampling=FEW_DRAWS) for m in (model, renamed))
    for name in ("nats_per_token", "brier", "top_brier", "gap"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left.value, left.low, left.high) == pytest.approx((right.value, right.low, right.high), abs=ROUNDING)


def test_models_are_compared_on_proper_scores_though_the_error_says_otherwise() -> None:
    """A model that knows nothing but the labels' frequencies is calibrated, and worse than one that is too sure."""
    sure = simulate(4_000, sharpness=1.3)
    frequencies = np.bincount(sure.labels_N, minlength=12) / sure.positions
    ignorant = take(sure, np.arange(sure.positions))
    object.__setattr__(ignorant, "confidence_N", np.full(sure.positions, frequencies.max()))
    object.__setattr__(ignorant, "guesses_N", np.full(sure.positions, frequencies.argmax()))
    object.__setattr__(ignorant, "nats_N", -np.log(frequencies)[sure.labels_N])
    brier = 1 - 2 * frequencies[sure.labels_N] + (frequencies**2).sum()
    object.__setattr__(ignorant, "brier_N", brier)
    errors = [measure_calibration(m, draws=20, resampling=FEW_DRAWS).errors["equal-width"] for m in (sure, ignorant)]
    assert errors[0].value.value > errors[1].value.value
    found = compare_calibration([sure], [ignorant], FEW_DRAWS)
    assert set(found) == {"nats_per_token", "brier"}
    assert [comparison.verdict for comparison in found.values()] == ["worse", "worse"]


def test_a_small_loss_of_calibration_is_seen_by_pairing() -> None:
    found = compare_calibration([simulate(2_000)], [simulate(2_000, sharpness=1.3)], FEW_DRAWS)
    for comparison in found.values():
        assert comparison.verdict == "worse"
        assert comparison.baseline.high is not None
        assert comparison.candidate.low is not None
        assert comparison.baseline.high > comparison.candidate.low  # unpaired intervals overlap


def test_seeds_widen_the_comparison() -> None:
    """Against a fixed teacher: five seeds whose sharpness differs are a source of spread of their own."""
    teacher = [simulate(2_000)]
    arm = [simulate(2_000, sharpness=sharpness) for sharpness in (1.1, 1.1, 1.2, 1.6, 2.0)]
    assert compare_calibration(teacher, arm[2:3], FEW_DRAWS)["nats_per_token"].verdict == "worse"
    found = compare_calibration(teacher, arm, FEW_DRAWS)["nats_per_token"]
    assert "5 seeds" in found.difference.method
    assert width(found.difference) > 2 * width(compare_calibration(teacher, arm[2:3], FEW_DRAWS)["brier"].difference)


def test_the_document_has_bins_counts_and_the_null() -> None:
    body = json.loads(json.dumps(jsonable(measure_calibration(simulate(400), bins=10, draws=50))))
    assert body["positions"] == 400
    assert set(body) == {"positions", "ece", "ece_null", "bins", "brier", "top_brier", "gap", "equal_mass"}
    for error in (body, body["equal_mass"]):
        assert sum(row["count"] for row in error["bins"]) == 400
        assert error["ece_null"]["low"] < error["ece_null"]["value"] < error["ece_null"]["high"]
        assert error["ece_null"]["method"] == "50 draws of labels from the confidences"
        assert not error["ece_null"]["exceeded"]
        assert error["ece"]["low"] is None
    assert (body["bins"][0]["low"], body["bins"][-1]["high"], len(body["bins"])) == (0, 1, 10)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("confidence", "correct", "bins"),
        [([], [], 5), ([0.5], [True, False], 5), ([0.5], [True], 0), ([1.1], [True], 5), ([np.nan], [True], 5)],
    )
    def test_tables(self, confidence: list[float], correct: list[bool], bins: int) -> None:
        with pytest.raises(ValueError, match=r"bins|confidences"):
            measure_reliability(confidence, correct, bins)

    def test_a_null_of_few_draws(self) -> None:
        with pytest.raises(ValueError, match="take 20 or more"):
            measure_calibration_error([0.5], [True], draws=5)

    def test_arms_that_cannot_be_paired(self) -> None:
        with pytest.raises(InputError, match="not judged at the same 400 and 200 positions"):
            compare_calibration([simulate(400)], [simulate(200)])
        with pytest.raises(InputError, match="0 baseline and 1 candidate"):
            compare_calibration([], [simulate(200)])


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low
