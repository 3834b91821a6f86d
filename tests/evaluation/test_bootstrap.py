from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from tutelage.evaluation.bootstrap import (
    GroupSums,
    Resampling,
    draw_ratios,
    expanded_tail,
    group_interval,
    group_intervals,
    judge_sample,
    seed_interval,
    stack_seeds,
    sum_by_group,
)
from tutelage.records.estimate import Estimate

Floats = npt.NDArray[np.float64]

MONTE_CARLO = 0.004
"""Two independent sets of 20,000 draws: ends of a 95 % interval 0.2 wide differ by about 0.001."""

CORPORA = 300
COVERAGE_BAND = (0.92, 0.98)
"""Nominal 95 %: 300 corpora give a standard error of 1.3 %, and the expanded interval may fall 1 % short."""


def covers(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= truth <= estimate.high


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def simulate_groups(generator: np.random.Generator, groups: int) -> tuple[Floats, Floats, list[str]]:
    """Utterances of 2-8 words, 1-5 of them a group; a group shares its chance of an error, whose mean is 2/7."""
    index = np.repeat(np.arange(groups), generator.integers(1, 6, groups))
    words = generator.integers(2, 9, index.size)
    errors = generator.binomial(words, generator.beta(2, 5, groups)[index])
    return errors.astype(float), words.astype(float), [str(i) for i in index]


def simulate_seeds(generator: np.random.Generator, groups: int, seeds: int, spread: float) -> GroupSums:
    """As above, with loops of 8-24 words whose frequency differs between seeds."""
    words = generator.integers(3, 20, groups)
    often = 1 / (1 + np.exp(3.5 - generator.normal(0, spread, (seeds, 1))))
    errors = generator.binomial(words, generator.beta(2, 5, groups), (seeds, groups))
    loops = (generator.random((seeds, groups)) < often) * generator.integers(8, 25, (seeds, groups))
    return GroupSums((errors + loops).astype(float), words.astype(float))


def coverage(draw: Callable[[np.random.Generator], Estimate], truth: float) -> float:
    generator = np.random.default_rng(20260131)
    return float(np.mean([covers(draw(generator), truth) for _ in range(CORPORA)]))


def test_agrees_with_scipy() -> None:
    """Same statistic, same (expanded) level, plain percentiles: ends differ by chance alone."""
    generator = np.random.default_rng(3)
    words = generator.integers(2, 9, 60).astype(float)
    errors = generator.binomial(words.astype(int), 0.3).astype(float)
    ours = group_interval(sum_by_group(errors, words, None), Resampling(draws=20_000))
    theirs = bootstrap(
        (errors, words),
        lambda e, w, axis: e.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        confidence_level=1 - 2 * expanded_tail(59, 0.95, factor=float(np.sqrt(60 / 59))),
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=MONTE_CARLO)


def test_weights_are_draws_with_replacement() -> None:
    """Against drawing indices one by one."""
    generator = np.random.default_rng(5)
    sums = GroupSums(generator.integers(0, 5, (1, 12)).astype(float), generator.integers(5, 9, 12).astype(float))
    ours = draw_ratios([sums], Resampling(draws=20_000))[0][:, 0]
    index = generator.integers(0, 12, (20_000, 12))
    plain = sums.errors_SG[0][index].sum(axis=1) / sums.units_G[index].sum(axis=1)
    ends = [0.025, 0.5, 0.975]
    assert np.quantile(ours, ends) == pytest.approx(np.quantile(plain, ends), abs=2 * MONTE_CARLO)


def test_blocks_of_draws_are_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = GroupSums(np.arange(20.0)[None, :], np.full(20, 30.0))
    whole = draw_ratios([sums], Resampling(draws=500))[0]
    monkeypatch.setattr("tutelage.evaluation.bootstrap._WEIGHTS_AT_ONCE", 130)
    np.testing.assert_allclose(draw_ratios([sums], Resampling(draws=500))[0], whole, rtol=1e-12)


@pytest.mark.parametrize("groups", [20, 60])
def test_the_interval_covers_what_it_says(groups: int) -> None:
    def draw(generator: np.random.Generator) -> Estimate:
        return group_interval(sum_by_group(*simulate_groups(generator, groups)), Resampling(draws=400))

    assert COVERAGE_BAND[0] <= coverage(draw, truth=2 / 7) <= COVERAGE_BAND[1]


def test_utterances_in_place_of_groups_cover_too_little() -> None:
    """Why groups are resampled: five like utterances a group, taken for independent, lose a third of the width."""

    def draw(generator: np.random.Generator) -> Estimate:
        chances = np.repeat(generator.beta(1, 2, 40), 5)
        errors = generator.binomial(6, chances).astype(float)
        return group_interval(sum_by_group(errors, np.full(200, 6.0), None), Resampling(draws=200))

    assert coverage(draw, truth=1 / 3) < 0.85


@pytest.mark.parametrize(("seeds", "spread"), [(5, 0.0), (5, 1.0)])
def test_the_interval_over_seeds_covers_new_seeds(seeds: int, spread: float) -> None:
    """Too wide where seeds do not differ (an upper limit of 100 %), at least about 95 % where they do."""
    samples = np.random.default_rng(5).normal(0, spread, 1_000_000)
    truth = 2 / 7 + float((1 / (1 + np.exp(3.5 - samples))).mean()) * 16 / 11

    def draw(generator: np.random.Generator) -> Estimate:
        return seed_interval(simulate_seeds(generator, 80, seeds, spread), Resampling(draws=400))

    assert coverage(draw, truth) >= COVERAGE_BAND[0]


def test_groups_alone_miss_the_spread_of_seeds() -> None:
    truth = 2 / 7 + float((1 / (1 + np.exp(3.5 - np.random.default_rng(5).normal(0, 1, 1_000_000)))).mean()) * 16 / 11

    def draw(generator: np.random.Generator) -> Estimate:
        return group_interval(simulate_seeds(generator, 150, 5, 1.0), Resampling(draws=200))

    assert coverage(draw, truth) < 0.8


def test_seeds_that_differ_widen_the_interval() -> None:
    same = GroupSums(np.tile(np.arange(40.0) % 4, (5, 1)), np.full(40, 8.0))
    shift = np.linspace(-1, 1, 5)[:, None]
    differ = GroupSums(same.errors_SG + shift, same.units_G)
    assert differ.ratio == pytest.approx(same.ratio)
    assert width(seed_interval(differ, Resampling())) > 2 * width(seed_interval(same, Resampling()))


def test_one_seed_is_the_interval_over_groups() -> None:
    sums = GroupSums(np.arange(1.0, 41.0)[None, :], np.full(40, 50.0))
    assert seed_interval(sums, Resampling()) == group_interval(sums, Resampling())


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=2, max_size=20), st.integers(1, 9))
def test_scaling_and_copies_of_all_groups(pairs: list[tuple[int, int]], factor: int) -> None:
    errors, units = np.array(pairs, dtype=float).T
    once = group_interval(sum_by_group(errors, units, None), Resampling(draws=100))
    scaled = group_interval(sum_by_group(errors * factor, units * factor, None), Resampling(draws=100))
    assert (once.value, once.low, once.high) == pytest.approx((scaled.value, scaled.low, scaled.high))


def test_groups_are_summed_whatever_their_order() -> None:
    sums = sum_by_group([1, 2, 3, 4], [10, 20, 30, 40], ["b", "a", "b", "a"])
    assert sums.errors_SG.tolist() == [[6, 4]]
    assert sums.units_G.tolist() == [60, 40]


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    sums = GroupSums(np.arange(1.0, 41.0)[None, :], np.full(40, 50.0))
    first = group_interval(sums, Resampling(seed=1))
    assert first == group_interval(sums, Resampling(seed=1))
    assert first != group_interval(sums, Resampling(seed=2))


def test_no_error_at_all_still_has_an_upper_end() -> None:
    """Thirty clips without a loop do not prove that there is none: exact binomial (Clopper-Pearson), 0 of 30."""
    found = group_interval(sum_by_group(np.zeros(30), np.ones(30), None), Resampling())
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(0.1157, abs=5e-5)
    both_sides = group_interval(sum_by_group(np.zeros(30), np.ones(30), None), Resampling(), signed=True)
    assert (both_sides.low, both_sides.high) == (-found.high, found.high)  # type: ignore[operator]


def test_nothing_but_errors_still_has_a_lower_end() -> None:
    """A student before training may loop on every clip."""
    found = group_interval(sum_by_group(np.ones(30), np.ones(30), None), Resampling())
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(1 - 0.1157, abs=5e-5)
    differs = group_interval(sum_by_group(np.ones(30), np.ones(30), None), Resampling(), signed=True)
    assert differs.low == differs.high == 1, "a difference of 1 is no extreme"


@pytest.mark.parametrize(("groups", "tail"), [(5, 0.0010), (10, 0.0086), (20, 0.0159), (40, 0.0203), (100, 0.0231)])
def test_the_expanded_tail(groups: int, tail: float) -> None:
    """Phi(-sqrt(n / (n - 1)) t_{n-1, 0.025}), to the four digits of a table of t."""
    factor = float(np.sqrt(groups / (groups - 1)))
    assert expanded_tail(groups - 1, 0.95, factor) == pytest.approx(tail, abs=5e-5)


def test_sums_given_together_get_what_they_get_alone() -> None:
    one, other = (GroupSums(np.arange(n, n + 40.0)[None, :], np.full(40, 90.0)) for n in (1, 7))
    together = group_intervals([one, other], Resampling())
    assert together == [group_interval(one, Resampling()), group_interval(other, Resampling())]


def test_one_group_has_no_interval() -> None:
    found = group_interval(sum_by_group([1, 2], [5, 5], ["a", "a"]), Resampling())
    assert found == Estimate(0.3, method="point: one group has no interval")


def test_draws_without_units_are_left_out() -> None:
    """Two of three groups have empty references: some draws have nothing to divide by."""
    found = group_interval(GroupSums(np.array([[1.0, 0.0, 0.0]]), np.array([4.0, 0.0, 0.0])), Resampling())
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("errors", "units", "groups"),
    [
        ([1, 2], [1], None),
        ([1], [1], ["a", "b"]),
        ([float("nan")], [1], None),
        ([1], [float("inf")], None),
        ([1], [-1], None),
        ([0, 1], [0, 0], None),
    ],
)
def test_counts_that_are_none(errors: list[float], units: list[float], groups: list[str] | None) -> None:
    with pytest.raises(ValueError, match=r"one entry an utterance|finite|undefined"):
        sum_by_group(errors, units, groups)


@pytest.mark.parametrize("options", [{"draws": 10}, {"level": 1.0}, {"level": 0.0}])
def test_settings_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"draws|level"):
        Resampling(**options)  # type: ignore[arg-type]


def test_a_small_sample_is_said_with_a_remedy() -> None:
    assert judge_sample(30).kind == "done"
    assert judge_sample(29).kind == "few-groups"
    assert judge_sample(100, seeds=4).kind == "few-seeds"
    assert judge_sample(100, seeds=5).kind == "done"
    assert all(status.remedy for status in (judge_sample(1), judge_sample(99, seeds=1)))


def test_seeds_are_stacked_over_the_same_units() -> None:
    one, other = (GroupSums(np.full((1, 4), float(n)), np.full(4, 8.0), bounded=False) for n in (1, 2))
    both = stack_seeds([one, other])
    assert both.errors_SG.tolist() == [[1] * 4, [2] * 4]
    assert not both.bounded
    with pytest.raises(ValueError, match="2 runs do not have the same units"):
        stack_seeds([one, GroupSums(np.ones((1, 4)), np.full(4, 9.0))])
    with pytest.raises(ValueError, match="0 runs"):
        stack_seeds([])


def test_what_has_no_bound_gets_none_from_groups_that_agree() -> None:
    """A loss may exceed 1 a unit: 0 in every group says nothing of the next one, and 1 in every group is no end."""
    nothing = sum_by_group(np.zeros(40), np.ones(40), None, bounded=False)
    for found in (group_interval(nothing, Resampling()), seed_interval(nothing, Resampling(), signed=True)):
        assert (found.value, found.low, found.high) == (0, None, None)
    ones = group_interval(sum_by_group(np.ones(40), np.ones(40), None, bounded=False), Resampling())
    assert "bootstrap" in ones.method
    assert group_interval(sum_by_group(np.zeros(40), np.ones(40), None), Resampling()).high is not None
