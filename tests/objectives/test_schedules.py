"""Weights over the steps of a training, and settings that mean nothing."""

from __future__ import annotations

import math

import pytest

from tutelage.objectives.schedules import Schedule
from tutelage.objectives.terms import Term


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Schedule(), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (Schedule("constant", end=0.5), [0.5] * 6),
        (Schedule("linear", start=0.0, end=1.0, from_step=1, to_step=3), [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]),
        (Schedule("linear", start=2.0, end=0.0, from_step=0, to_step=4), [2.0, 1.5, 1.0, 0.5, 0.0, 0.0]),
        (Schedule("stages", stages=((0, 1.0), (2, 0.0), (5, 0.25))), [1.0, 1.0, 0.0, 0.0, 0.0, 0.25]),
    ],
    ids=["none", "constant", "warm-up", "decay", "stages"],
)
def test_the_factor_at_every_step(schedule: Schedule, factors: list[float]) -> None:
    assert [schedule.factor(step) for step in range(1, 7)] == pytest.approx(factors)
    term = Term("kl", 0.5, schedule=schedule)
    assert [term.weight_at(step) for step in range(1, 7)] == pytest.approx([0.5 * factor for factor in factors])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cosine"}, 'a schedule is "constant", "linear" or "stages"'),
        ({"kind": "linear", "end": -1.0, "to_step": 2}, "0 or more"),
        ({"kind": "linear", "start": math.nan, "to_step": 2}, "0 or more"),
        ({"kind": "linear", "from_step": 3, "to_step": 3}, "from_step < to_step, not 3 and 3"),
        ({"kind": "linear", "from_step": -1, "to_step": 3}, "from_step < to_step"),
        ({"kind": "constant", "start": 0.0}, "belong to a linear schedule"),
        ({"kind": "stages"}, "stages are given as"),
        ({"kind": "constant", "stages": ((0, 1.0),)}, "stages are given as"),
        ({"kind": "stages", "stages": ((1, 1.0),)}, "begin at 0 and rise"),
        ({"kind": "stages", "stages": ((0, 1.0), (0, 2.0))}, "begin at 0 and rise"),
        ({"kind": "stages", "stages": ((0, 0.0),)}, "0 at every step"),
        ({"kind": "linear", "start": 0.0, "end": 0.0, "to_step": 2}, "0 at every step"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**settings)
