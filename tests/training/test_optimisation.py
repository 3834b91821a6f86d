"""The settings' ranges and the learning rate at the ends and in between."""

import math
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.training.optimisation import Optimisation, learning_rate_at

EXACT = 1e-15  # a handful of float64 operations on numbers of order 1
WIGGLE = 1 + 1e-12  # float64 rounding of a product and a cosine


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps", 0),
        ("steps", -3),
        ("steps", 2.0),
        ("steps", True),
        ("batch_size", 0),
        ("accumulate", 0),
        ("checkpoint_every", 0),
        ("threads", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("final_learning_rate", -1e-6),
        ("final_learning_rate", 1.0),
        ("warmup_steps", -1),
        ("warmup_steps", 10),
        ("weight_decay", -0.1),
        ("weight_decay", math.inf),
        ("clip_norm", 0.0),
        ("clip_norm", math.nan),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(setting, value):
    with pytest.raises(ValueError, match=setting) as caught:
        Optimisation(**{"steps": 10, setting: value})
    assert str(caught.value).endswith(f"not {value!r}.")
    assert "\n" not in str(caught.value)


def test_the_ends_of_the_schedule():
    settings = Optimisation(steps=100, warmup_steps=10, learning_rate=2e-3, final_learning_rate=1e-6)
    assert learning_rate_at(0, settings) == pytest.approx(2e-3 / 11, rel=EXACT)
    assert learning_rate_at(9, settings) == pytest.approx(2e-3 * 10 / 11, rel=EXACT)
    assert learning_rate_at(10, settings) == 2e-3
    assert learning_rate_at(99, settings) == 1e-6


def test_the_middle_of_the_cosine_is_the_mean_of_its_ends():
    settings = Optimisation(steps=101, learning_rate=1.0, final_learning_rate=0.2)
    assert learning_rate_at(50, settings) == pytest.approx(0.6, rel=EXACT)


@pytest.mark.parametrize("step", [-1, 5])
def test_a_step_outside_the_schedule_is_refused(step):
    with pytest.raises(ValueError, match=f"Step {step} lies outside the schedule of 5 steps"):
        learning_rate_at(step, Optimisation(steps=5))


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 1)])
def test_a_schedule_without_room_for_a_cosine_stays_at_the_highest_rate(steps, warmup):
    settings = Optimisation(steps=steps, warmup_steps=warmup, learning_rate=0.5)
    assert learning_rate_at(steps - 1, settings) == 0.5


@given(st.data())
def test_the_rate_rises_to_the_highest_and_falls_to_the_final_one(data):
    steps = data.draw(st.integers(1, 60))
    warmup = data.draw(st.integers(0, steps - 1))
    highest = data.draw(st.floats(1e-6, 1.0))
    final = data.draw(st.floats(0.0, 1.0)) * highest
    settings = Optimisation(steps=steps, warmup_steps=warmup, learning_rate=highest, final_learning_rate=final)
    rates = [learning_rate_at(step, settings) for step in range(steps)]
    assert max(rates) == rates[warmup] == highest
    assert all(early < late for early, late in pairwise(rates[: warmup + 1]))
    falling = rates[warmup:]
    assert all(early * WIGGLE >= late for early, late in pairwise(falling))
    assert all(rate * WIGGLE >= final for rate in falling)


def test_the_settings_load_without_torch():
    code = "import sys, tutelage.training.optimisation; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
