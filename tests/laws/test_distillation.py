"""The distillation law: published values, the capacity gap, the best teacher, stability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from tutelage.laws.families.distillation import DistillationLaw
from tutelage.laws.law import make_equation
from tutelage.laws.published import PUBLISHED

# Half a unit of the last digit of the reference values.
SIX_DECIMALS = 5e-7
FOUR_DECIMALS = 5e-5
THREE_DECIMALS = 5e-4
# Float64 through a few logarithms.
ROUND_OFF = 1e-12
# The minimum is quadratic: a minimiser is known to about the square root of float64's precision.
MINIMISER = 1e-6

TEACHER_LOSSES = np.array([1.6, 1.8, 2.0, 2.2, 2.4, 2.6])
TABLE = [
    (3e8, 2e10, 2.533308, [2.502357, 2.444235, 2.440441, 2.454968, 2.496561, 2.614548], 1.9156, 2.438449),
    (1e9, 2.5e11, 2.190752, [2.235377, 2.191513, 2.171606, 2.230453, 2.400726, 2.600000], 1.9909, 2.171530),
    (1e10, 2.5e11, 1.952021, [1.902647, 1.916182, 2.012663, 2.200071, 2.400000, 2.600000], 1.5916, 1.902634),
]


@pytest.mark.parametrize(("params", "tokens", "supervised", "losses", "best", "reached"), TABLE)
def test_the_reference_table(
    distillation: DistillationLaw,
    params: float,
    tokens: float,
    supervised: float,
    losses: list[float],
    best: float,
    reached: float,
) -> None:
    assert distillation.supervised.predict(params, tokens) == pytest.approx(supervised, abs=SIX_DECIMALS)
    assert distillation.predict(params, tokens, TEACHER_LOSSES) == pytest.approx(np.array(losses), abs=SIX_DECIMALS)
    teacher, student = distillation.best_teacher_loss(params, tokens)
    assert teacher == pytest.approx(best, abs=FOUR_DECIMALS)
    assert student == pytest.approx(reached, abs=SIX_DECIMALS)


def test_the_run_that_the_paper_made(distillation: DistillationLaw) -> None:
    teacher = distillation.supervised.predict(1.82e9, 20 * 1.82e9)
    assert distillation.predict(546e6, 20 * 546e6, teacher) == pytest.approx(2.4238, abs=FOUR_DECIMALS)


def test_outside_its_range_the_law_is_absurd(distillation: DistillationLaw) -> None:
    assert distillation.predict(1e10, 0.15e9, 1.43) == pytest.approx(1.9868, abs=FOUR_DECIMALS)
    assert distillation.supervised.predict(1e10, 0.15e9) == pytest.approx(3.4200, abs=FOUR_DECIMALS)


def test_the_knee(distillation: DistillationLaw) -> None:
    assert distillation.knee == pytest.approx(0.930, abs=THREE_DECIMALS)


@pytest.mark.parametrize(("ratio", "low", "high"), [(20.0, 0.65, 0.79), (500.0, 0.90, 0.94), (5000.0, 0.90, 0.94)])
def test_where_the_best_teacher_lies(distillation: DistillationLaw, ratio: float, low: float, high: float) -> None:
    params = np.geomspace(3e8, 1e10, 8)
    teacher, _ = distillation.best_teacher_loss(params, ratio * params)
    x = teacher / distillation.supervised.predict(params, ratio * params)
    assert np.all((low <= x) & (x <= high))


def test_infinite_data_and_the_best_teacher_come_within_a_percent_of_the_floor(distillation: DistillationLaw) -> None:
    params = np.geomspace(1e8, 1e11, 13)
    _, student = distillation.best_teacher_loss(params, np.inf)
    excess = student / distillation.supervised.floor(params) - 1.0
    assert np.all(np.abs(excess) < 0.008)


@given(
    params=st.floats(min_value=1e7, max_value=1e12),
    tokens=st.floats(min_value=1e7, max_value=1e15),
    teacher=st.floats(min_value=1.25, max_value=6.0),
)
def test_the_log_space_form_is_the_printed_form(params: float, tokens: float, teacher: float) -> None:
    law = PUBLISHED["busbridge2025"].require_distillation()
    own = law.supervised.predict(params, tokens)
    capacity = (law.A_prime / params**law.alpha_prime + law.B_prime / tokens**law.beta_prime) ** law.gamma_prime
    gap = (1 + (teacher / (own * law.d1)) ** (1 / law.f1)) ** (-law.c1 * law.f1)
    printed = teacher + teacher**-law.c0 * gap * capacity
    assert law.predict(params, tokens, teacher) == pytest.approx(printed, rel=ROUND_OFF)
    assert law.predict(params, tokens, teacher) >= teacher


@given(
    params=st.floats(min_value=1e7, max_value=1e12),
    tokens=st.floats(min_value=1e7, max_value=1e15),
    teacher=st.floats(min_value=1.3, max_value=4.0),
)
def test_more_student_tokens_never_hurt(params: float, tokens: float, teacher: float) -> None:
    law = PUBLISHED["busbridge2025"].require_distillation()
    assert law.predict(params, tokens * 1.5, teacher) <= law.predict(params, tokens, teacher)


@pytest.mark.parametrize("teacher", [1e-6, 1e3, 1e30])
def test_nothing_overflows(distillation: DistillationLaw, teacher: float) -> None:
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(distillation.log_predict(1e9, 1e11, teacher))
        assert np.isfinite(distillation.log_predict(1e17, np.inf, teacher))


def test_arrays_broadcast_and_equal_the_scalars(distillation: DistillationLaw) -> None:
    params, tokens = np.geomspace(1e8, 1e10, 3)[:, None], np.geomspace(1e9, 1e12, 4)[None]
    losses = distillation.predict(params, tokens, 2.0)
    teachers, students = distillation.best_teacher_loss(params, tokens)
    assert losses.shape == teachers.shape == students.shape == (3, 4)
    for index in np.ndindex(3, 4):
        size, data = float(params[index[0], 0]), float(tokens[0, index[1]])
        assert losses[index] == distillation.predict(size, data, 2.0)
        assert (teachers[index], students[index]) == distillation.best_teacher_loss(size, data)


@pytest.mark.parametrize("tokens", [1e9, 2e10, 1e13])
def test_the_best_teacher_is_the_one_that_scipy_finds(distillation: DistillationLaw, tokens: float) -> None:
    teacher, student = distillation.best_teacher_loss(1e9, tokens)
    found = minimize_scalar(
        lambda loss: float(distillation.predict(1e9, tokens, loss)),
        bounds=(1.22, 4.0),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert student <= found.fun * (1 + ROUND_OFF)
    assert teacher == pytest.approx(found.x, rel=MINIMISER)


def test_an_ensemble_of_laws_has_a_best_teacher_for_each(distillation: DistillationLaw) -> None:
    coefficients = distillation.coefficients()
    several = [{**coefficients, "E": E, "c0": c0} for E, c0 in ((1.22, 2.549), (1.18, 2.6), (1.25, 2.4))]
    together = make_equation({name: np.array([[one[name]] for one in several]) for name in coefficients})  # type: ignore[misc]
    assert isinstance(together, DistillationLaw)
    teachers, students = together.best_teacher_loss(1e9, np.array([2e10, 2.5e11]))
    assert teachers.shape == students.shape == (3, 2)
    assert together.best_teacher_loss(1e9, 2e10)[0].shape == (3, 1)
    for draw, one in enumerate(several):
        alone = make_equation(one)
        assert isinstance(alone, DistillationLaw)
        for point, tokens in enumerate((2e10, 2.5e11)):
            teacher, student = alone.best_teacher_loss(1e9, tokens)
            assert teachers[draw, point] == pytest.approx(teacher, rel=MINIMISER)
            assert students[draw, point] == pytest.approx(student, rel=ROUND_OFF)
