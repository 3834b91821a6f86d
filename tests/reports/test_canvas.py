"""Labels that keep apart, ticks that are round."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.reports.canvas import apart, round_ticks

# Floating-point error of sums of a dozen numbers near 1.
SLACK = 1e-9


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.2))
def test_labels_keep_their_order_and_their_distance(wanted: list[float], gap: float) -> None:
    placed = apart(np.array(sorted(wanted)), gap)
    assert len(placed) == len(wanted)
    assert all(high - low >= gap - SLACK for low, high in itertools.pairwise(placed))
    assert np.mean(placed) == pytest.approx(np.mean(wanted))


def test_labels_with_room_stay_where_they_belong() -> None:
    assert apart(np.array([0.1, 0.5, 0.9]), 0.1) == [0.1, 0.5, 0.9]


@given(st.floats(-3, 24), st.floats(0.3, 9), st.sampled_from([4, 7]))
def test_ticks_are_few_round_and_inside(start: float, decades: float, most: int) -> None:
    low, high = 10.0**start, 10.0 ** (start + decades)
    ticks = round_ticks(low, high, most)
    assert len(ticks) <= most
    assert all(low <= tick * (1 + SLACK) and tick <= high * (1 + SLACK) for tick in ticks)
    assert all(float(f"{tick:.0e}") == pytest.approx(tick) for tick in ticks)


def test_many_decades_have_one_tick_each_or_fewer() -> None:
    assert round_ticks(1e18, 1e26, 7) == [1e18, 1e20, 1e22, 1e24, 1e26]
    assert round_ticks(1e20, 2e21, 7) == [1e20, 2e20, 5e20, 1e21, 2e21]
