"""Where the search for a law's constants starts.

Covers: points spread over the ranges that a family names, half of them moved to the data. Does not cover: how many
(`settings`), how they are followed (`search`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from tutelage.laws.fitting.objective import Objective
from tutelage.laws.numbers import FloatArray


@dataclass(frozen=True)
class Term:
    """One power-law term, scale / input^exponent, by the names that the families share."""

    scale: str
    exponent: str
    outer: str
    letter: str


TERMS = (
    Term("A", "alpha", "gamma", "N"),
    Term("B", "beta", "gamma", "D"),
    Term("A_prime", "alpha_prime", "gamma_prime", "N_S"),
    Term("B_prime", "beta_prime", "gamma_prime", "D_S"),
)
_TOP_OF_FLOOR = 0.98
"""E starts at up to this much of the lowest loss."""
_LOWEST_FLOOR = 0.3
_LEAST_SHARE, _MOST_SHARE = 0.02, 1.0
"""A term starts as this part of the reducible loss at the middle of the runs."""


def draw_starts(objective: Objective, count: int, seed: int) -> FloatArray:
    """Starting points in the fitted scale, shape (count, parameters), the data-driven ones first.

    A scrambled Halton sequence over `Parameter.starts`. In every first half the terms' scales are those at which the
    terms matter at the middle of the runs, and E lies below the lowest loss: a point that predicts e^15 nats, or where
    a term is nothing, has no slope to follow.
    """
    parameters = objective.family.parameters
    ranges = np.array([parameter.starts for parameter in parameters])
    unit = qmc.Halton(len(parameters), seed=seed).random(count)
    points: FloatArray = ranges[:, 0] + unit * (ranges[:, 1] - ranges[:, 0])
    driven = (count + 1) // 2
    _move_to_data(points[:driven], unit[:driven], objective)
    return np.clip(points, *objective.bounds)


def _move_to_data(points: FloatArray, unit: FloatArray, objective: Objective) -> None:
    """Replace the scales of `points` in place; `unit` are the same points in the unit cube."""
    place = {parameter.name: index for index, parameter in enumerate(objective.family.parameters)}
    lowest, middle = float(np.exp(objective.y.min())), float(np.exp(objective.y.mean()))
    reducible = np.full(len(points), np.log(middle))
    if "E" in place:
        floor = lowest * (_LOWEST_FLOOR + (_TOP_OF_FLOOR - _LOWEST_FLOOR) * unit[:, place["E"]])
        points[:, place["E"]] = np.log(floor)
        reducible = np.log(middle - floor)
    if "c0" in place:
        reducible += points[:, place["c0"]] * np.log(objective.columns["L_T"]).mean()
    for term in TERMS:
        if term.scale not in place or term.exponent not in place:
            continue
        outer = points[:, place[term.outer]] if term.outer in place else 1.0
        share = np.log(_LEAST_SHARE) + np.log(_MOST_SHARE / _LEAST_SHARE) * unit[:, place[term.scale]]
        centre = np.log(objective.columns[term.letter]).mean()
        points[:, place[term.scale]] = points[:, place[term.exponent]] * centre + (reducible + share) / outer
