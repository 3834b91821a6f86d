from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluation.speed import FourCorners, Timings, split_saving, time_alternately
from tutelage.records.document import jsonable

CORNERS = FourCorners("stock", "window", "layers", "both")


class Clock:
    """Time that passes only when a system works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def system(self, name: str, seconds: float | Callable[[float], float]) -> Callable[[float], None]:
        def work(item: float) -> None:
            self.calls.append(name)
            self.now += seconds(item) if callable(seconds) else seconds

        return work


def timings(**totals: Sequence[float]) -> Timings:
    """One round; a number a clip."""
    return Timings({name: np.array([values], dtype=float) for name, values in totals.items()})


def test_systems_take_turns_and_the_order_rotates() -> None:
    clock = Clock()
    found = time_alternately(
        {"a": clock.system("a", 1.0), "b": clock.system("b", 2.0)}, [0.0, 0.0], rounds=2, warm_up=1, clock=clock
    )
    assert clock.calls == ["a", "b", "a", "b", "b", "a", "b", "a", "a", "b"]
    assert found.seconds["a"].tolist() == [[1, 1], [1, 1]]
    assert (found.total("a"), found.total("b")) == (2, 4)
    assert found.ratio("b", "a").value == 2


def test_warm_up_is_not_timed() -> None:
    clock = Clock()
    first = iter([100.0])
    found = time_alternately({"a": clock.system("a", lambda _: next(first, 1.0))}, [0.0], rounds=3, clock=clock)
    assert found.seconds["a"].ravel().tolist() == [1, 1, 1]


def test_a_drifting_machine_slows_all_alike() -> None:
    """Every call takes longer than the one before; timed one system after the other, the ratio would be 2.9."""
    clock = Clock()
    items = [1.0] * 20
    systems = {name: clock.system(name, lambda _: 1.0 + clock.now / 50) for name in ("a", "b")}
    found = time_alternately(systems, items, rounds=4, clock=clock)
    assert found.ratio("b", "a").value == pytest.approx(1.0, abs=0.05)


def test_one_hiccup_does_not_move_the_median() -> None:
    seconds = np.ones((5, 3))
    seconds[2, 1] = 60.0
    assert Timings({"a": seconds}).total("a") == 3.0


def test_spread_over_rounds() -> None:
    seconds = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
    assert Timings({"a": seconds}).spread("a") == 2.0
    assert Timings({"a": seconds[:2]}).spread("a") is None


def test_real_time_factor_is_a_ratio_of_sums() -> None:
    found = timings(a=[1.0, 4.0])
    factor = found.real_time_factor("a", [10.0, 10.0])
    assert factor.value == 5 / 20
    assert factor.low is not None
    for durations in ([10.0], [10.0, 0.0], [10.0, float("nan")]):
        with pytest.raises(ValueError, match="positive duration"):
            found.real_time_factor("a", durations)


def test_one_item_is_resampled_over_rounds() -> None:
    found = Timings({"a": np.array([[1.0], [1.1], [0.9], [1.0]]), "b": np.array([[2.0], [2.1], [1.9], [2.2]])})
    ratio = found.ratio("b", "a")
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < ratio.value < ratio.high
    assert found.real_time_factor("a", [10.0]).value == pytest.approx(0.1)


def test_an_interval_narrows_with_more_clips() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for clips in (10, 160):
        base = generator.gamma(4, 1, clips)
        found = timings(a=base, b=base * generator.normal(0.5, 0.1, clips)).ratio("b", "a")
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


positive = st.floats(0.01, 100)


@given(stock=positive, window=positive, layers=positive, both=positive)
def test_shares_sum_to_the_whole(stock: float, window: float, layers: float, both: float) -> None:
    found = split_saving(timings(stock=[stock], window=[window], layers=[layers], both=[both]), CORNERS)
    if both >= stock:
        assert found.status.kind == "no-saving"
        assert math.isnan(found.window.value)
    else:
        assert found.window.value + found.layers.value == pytest.approx(1)
        assert found.saving.value == pytest.approx(1 - both / stock)


def test_factors_that_add_up_keep_their_own_savings() -> None:
    found = split_saving(timings(stock=[10.0], window=[7.0], layers=[9.0], both=[6.0]), CORNERS)
    assert (found.window.value, found.layers.value) == pytest.approx((3 / 4, 1 / 4))


def test_factors_that_meet_share_what_they_save_together() -> None:
    """Window: 4 alone, 1 after the layers. Layers: 4 alone, 1 after the window. Each (4 + 1) / 2 of 5."""
    found = split_saving(timings(stock=[10.0], window=[6.0], layers=[6.0], both=[5.0]), CORNERS)
    assert (found.window.value, found.layers.value) == pytest.approx((1 / 2, 1 / 2))
    uneven = split_saving(timings(stock=[10.0], window=[4.0], layers=[8.0], both=[3.0]), CORNERS)
    assert (uneven.window.value, uneven.layers.value) == pytest.approx((5.5 / 7, 1.5 / 7))


def test_names_swapped_swap_the_shares() -> None:
    times = timings(stock=[10.0, 9.0], window=[4.0, 5.0], layers=[8.0, 6.0], both=[3.0, 3.5])
    found = split_saving(times, CORNERS)
    swapped = split_saving(times, FourCorners("stock", "layers", "window", "both"))
    assert (found.window.value, found.window.low, found.window.high) == pytest.approx(
        (swapped.layers.value, swapped.layers.low, swapped.layers.high)
    )


def test_a_saving_that_may_be_none_is_said() -> None:
    generator = np.random.default_rng(0)
    base = generator.gamma(4, 1, 12)
    noisy = base + generator.normal(-0.01, 1.0, 12)
    found = split_saving(timings(stock=base, window=base, layers=base, both=noisy), CORNERS)
    assert found.status.kind == "no-saving"
    assert json.dumps(jsonable(found), allow_nan=False)


def test_a_busy_machine_is_said() -> None:
    seconds = {"a": np.ones((1, 2))}
    assert Timings(seconds, others_share=0.5).status.kind == "busy"
    assert Timings(seconds, others_share=0.01).status.kind == "done"
    assert Timings(seconds, others_share=None).status.kind == "done"
    body = json.loads(json.dumps(jsonable(Timings(seconds, others_share=0.5))))
    assert body["status"]["remedy"]
    assert body["seconds"]["a"] == {"total": 2.0, "spread": None}


def test_the_watch_counts_others_and_not_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of two processors over 10 s: 8 busy, 5 of them ours, so others used 3 of 20."""
    from tutelage.evaluation import speed

    readings = iter([(0.0, 0.0, 0.0), (8.0, 20.0, 5.0)])
    monkeypatch.setattr(speed._MachineWatch, "_read", staticmethod(lambda: next(readings)))
    assert speed._MachineWatch().others_share() == pytest.approx(0.15)


@pytest.mark.parametrize(("systems", "items", "rounds"), [({}, [1], 1), ({"a": print}, [], 1), ({"a": print}, [1], 0)])
def test_nothing_to_time(systems: dict[str, Callable[[int], None]], items: list[int], rounds: int) -> None:
    with pytest.raises(ValueError, match="nothing to time"):
        time_alternately(systems, items, rounds=rounds)
