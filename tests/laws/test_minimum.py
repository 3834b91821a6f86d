"""The batched minimiser: known minima, bounds, points that are not allowed."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.laws.minimum import minimise
from tutelage.laws.numbers import FloatArray

# The smallest step of the search in these boxes, with room.
PLACE = 1e-6


def test_each_row_finds_its_own_minimum() -> None:
    targets = np.linspace(-3.0, 3.0, 11)[:, None]
    best, least = minimise(
        lambda points: (points[..., 0] - targets) ** 2 + targets, np.full((11, 1), -5.0), np.full((11, 1), 5.0)
    )
    assert best == pytest.approx(targets, abs=PLACE)
    assert least == pytest.approx(targets[:, 0], abs=PLACE**2)


def test_a_flat_diagonal_valley_is_followed_to_its_end() -> None:
    def valley(points: FloatArray) -> FloatArray:
        along, across = points[..., 0] + points[..., 1], points[..., 0] - points[..., 1]
        return 1e-4 * (along - 1.234) ** 2 + 10.0 * (across - 0.321) ** 2

    best, _ = minimise(valley, np.full((1, 2), -6.0), np.full((1, 2), 6.0))
    assert best[0].sum() == pytest.approx(1.234, abs=1e-4)
    assert best[0, 0] - best[0, 1] == pytest.approx(0.321, abs=PLACE)


# The wide box has grid cells far larger than the valley is: it has to be walked.
@pytest.mark.parametrize("box", [3.0, 30.0])
def test_a_curved_valley_is_followed_to_its_end(box: float) -> None:
    def rosenbrock(points: FloatArray) -> FloatArray:
        return (1.0 - points[..., 0]) ** 2 + 100.0 * (points[..., 1] - points[..., 0] ** 2) ** 2

    best, _ = minimise(rosenbrock, np.full((1, 2), -box), np.full((1, 2), 1.37 * box))
    assert best[0] == pytest.approx(np.ones(2), abs=PLACE)


def test_a_minimum_outside_is_put_on_the_bound() -> None:
    best, _ = minimise(lambda points: points.sum(axis=-1), np.array([[1.0, -2.0]]), np.array([[3.0, 5.0]]))
    assert best[0] == pytest.approx(np.array([1.0, -2.0]), abs=0.0)


def test_points_that_are_not_allowed_are_left_alone() -> None:
    best, least = minimise(
        lambda points: np.where(points[..., 0] >= 0.25, points[..., 0], np.inf), np.zeros((1, 1)), np.ones((1, 1))
    )
    assert best[0, 0] == pytest.approx(0.25, abs=PLACE)
    assert least[0] >= 0.25
    _, nothing = minimise(lambda points: np.full(points.shape[:2], np.inf), np.zeros((2, 2)), np.ones((2, 2)))
    assert np.all(np.isinf(nothing))


def test_a_start_competes_with_a_coarse_grid_alone() -> None:
    calls, deep = [], np.array([[-3.0], [3.0]])

    def valleys(points: FloatArray) -> FloatArray:
        calls.append(points.shape[1])
        first, second = (points[..., 0] + 3.0) ** 2, (points[..., 0] - 3.0) ** 2
        # Both valleys have a bottom near -3 and 3; `deep` says which one lies lower.
        return np.minimum(first, second) + 0.1 * (points[..., 0] - deep) ** 2 + (points[..., 1] - 0.234) ** 2

    box = np.full((2, 2), -5.0), np.full((2, 2), 5.0)
    best, _ = minimise(valleys, *box, start=np.full((2, 2), [-2.9, 0.2]), smallest_step=1e-2)
    assert best == pytest.approx(np.array([[-3.0, 0.234], [3.0, 0.234]]), abs=PLACE)
    assert max(calls) < 41**2
