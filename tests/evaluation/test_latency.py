from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluation.bootstrap import Resampling
from tutelage.evaluation.latency import estimate_percentile, measure_latency
from tutelage.evaluation.speed import Timings
from tutelage.records.document import jsonable

SAMPLES = 2_000
BINOMIAL_SLACK = 0.015
"""Three standard errors of a coverage of 95 % over 2,000 samples."""


def timed(seconds: np.ndarray) -> Timings:
    return Timings({"s": np.atleast_2d(seconds)})


@pytest.mark.parametrize(("share", "count"), [(0.5, 25), (0.9, 120), (0.99, 500)])
def test_the_interval_of_a_percentile_covers_at_least_what_it_says(share: float, count: int) -> None:
    """Of long-tailed times; ranks are whole numbers, so that it may cover more, but not much."""
    generator = np.random.default_rng(0)
    truth = (-np.log(1 - share)) ** 3
    found = [estimate_percentile(generator.exponential(size=count) ** 3, share) for _ in range(SAMPLES)]
    hits = np.mean([e.low is not None and e.high is not None and e.low <= truth <= e.high for e in found])
    assert 0.95 - BINOMIAL_SLACK <= hits <= 0.985


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=80),
    st.sampled_from([0.1, 0.5, 0.9, 0.99]),
    st.sampled_from([0.5, 0.9, 0.95]),
)
def test_ends_are_values_on_either_side(values: list[float], share: float, level: float) -> None:
    found = estimate_percentile(values, share, level)
    assert found.value in values
    assert np.mean(np.array(values) <= found.value) >= share - 1e-9
    if found.low is not None:
        assert found.high is not None
        assert found.low <= found.value <= found.high
        assert {found.low, found.high} <= set(values)


@pytest.mark.parametrize(("share", "enough"), [(0.5, 6), (0.9, 36), (0.99, 368)])
def test_too_few_items_have_no_interval_and_are_told_how_many_would(share: float, enough: int) -> None:
    few = estimate_percentile(np.arange(enough - 1), share)
    assert few.low is None
    assert f"{enough - 1} items are too few for an interval, {enough} bound it" in few.method
    assert estimate_percentile(np.arange(enough), share).high == enough - 1


def test_percentiles_are_over_items_each_the_median_of_its_rounds() -> None:
    rounds = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 300.0], [100.0, 2.0, 3.0]])
    found = measure_latency(timed(rounds), "s")
    assert (found.items, found.p50.value, found.p99.value) == (3, 2.0, 3.0)
    assert found.tokens_per_second is None
    assert found.real_time_factor is None


def test_rates_are_ratios_of_sums() -> None:
    seconds = np.array([1.0, 3.0] * 20)
    found = measure_latency(
        timed(seconds), "s", tokens=[10, 90] * 20, audio_seconds=[20.0, 20.0] * 20, resampling=Resampling(draws=300)
    )
    assert found.tokens_per_second is not None
    assert found.real_time_factor is not None
    assert found.tokens_per_second.value == pytest.approx(25)
    assert found.tokens_per_second.low is not None
    assert found.tokens_per_second.low < 25
    assert found.real_time_factor.value == pytest.approx(0.1)


def test_a_token_a_second_is_a_rate_like_any_other() -> None:
    found = measure_latency(timed(np.array([1.0, 2.0, 3.0])), "s", tokens=[1, 2, 3]).tokens_per_second
    assert found is not None
    assert (found.low, found.high) == pytest.approx((1, 1))
    assert "bootstrap" in found.method


def test_one_item_is_resampled_by_its_rounds() -> None:
    found = measure_latency(timed(np.array([[1.0], [2.0], [3.0]])), "s", tokens=[4])
    assert found.items == 3
    assert found.p50.value == 2
    assert found.tokens_per_second is not None
    assert found.tokens_per_second.value == pytest.approx(2)


def test_order_of_items_is_no_difference() -> None:
    generator = np.random.default_rng(0)
    seconds = generator.exponential(size=50)
    one, other = (measure_latency(timed(some), "s") for some in (seconds, seconds[::-1]))
    assert one == other


def test_the_document() -> None:
    busy = Timings({"s": np.ones((1, 10))}, others_share=0.5)
    body = json.loads(json.dumps(jsonable(measure_latency(busy, "s"))))
    assert set(body) == {"items", "p50", "p90", "p99", "tokens_per_second", "real_time_factor", "status"}
    assert body["p99"]["low"] is None
    assert body["status"]["kind"] == "busy"


class TestWhatIsRefused:
    @pytest.mark.parametrize("values", [[], [np.nan], [np.inf]])
    def test_no_times(self, values: list[float]) -> None:
        with pytest.raises(ValueError, match="finite numbers"):
            estimate_percentile(values, 0.5)

    @pytest.mark.parametrize(("share", "level"), [(0, 0.95), (1, 0.95), (0.5, 1)])
    def test_shares(self, share: float, level: float) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            estimate_percentile([1.0], share, level)

    @pytest.mark.parametrize("tokens", [[1], [0, 0], [1, -1]])
    def test_tokens(self, tokens: list[int]) -> None:
        with pytest.raises(ValueError, match="2 items were timed"):
            measure_latency(timed(np.ones(2)), "s", tokens=tokens)
