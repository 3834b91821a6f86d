"""FLOPs as hours, money, energy and CO2e."""

from __future__ import annotations

import pytest

from tutelage.planning.cost import added, cost_of
from tutelage.planning.hardware import Hardware, find_hardware
from tutelage.records.estimate import Estimate

FLOPS = Estimate(1.8e18, 0.9e18, 3.6e18, 0.9, "bootstrap, 1000 draws")
DEVICE = Hardware("mine", peak=1e15, mfu=0.5, watts=1000, price=4.0, pue=1.25, carbon=400)


def test_every_part_is_the_flops_in_another_unit_with_their_interval() -> None:
    cost = cost_of(FLOPS, DEVICE)
    assert cost.flops == FLOPS
    for part, expected in ((cost.gpu_hours, 1.0), (cost.money, 4.0), (cost.energy_kwh, 1.25), (cost.co2e_kg, 0.5)):
        assert part is not None
        assert part.value == pytest.approx(expected)
        assert part.low == pytest.approx(expected / 2)
        assert part.high == pytest.approx(expected * 2)
        assert (part.level, part.method) == (0.9, "bootstrap, 1000 draws")


def test_what_is_not_known_is_null() -> None:
    bare = cost_of(FLOPS, None)
    assert bare.flops == FLOPS
    assert bare.gpu_hours is bare.money is bare.energy_kwh is bare.co2e_kg is None
    unpriced = cost_of(FLOPS, find_hardware("mine", {"peak": 1e15, "mfu": 0.5}))
    assert unpriced.gpu_hours is not None
    assert unpriced.money is unpriced.energy_kwh is unpriced.co2e_kg is None
    assert cost_of(None, DEVICE).gpu_hours is None


def test_a_known_number_moves_the_whole_interval() -> None:
    moved = added(FLOPS, 1e18)
    assert (moved.value, moved.low, moved.high) == pytest.approx((2.8e18, 1.9e18, 4.6e18))
    assert added(Estimate(1.0), 1.0) == Estimate(2.0)
