"""The objective of one fit: the runs as the minimiser reads them, with its bounds and its machine code.

Covers: checking the runs, fixed constants, minimising from many starts in calls short enough to be interrupted, and the
Jacobian at a point. Does not cover: the algorithm (`solver`), where to start (`starts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import InputError
from tutelage.laws.families.supervised import SupervisedLaw
from tutelage.laws.family import Columns, Equation, Family
from tutelage.laws.fitting.compilation import Solve, compile_solver
from tutelage.laws.fitting.settings import FitSettings
from tutelage.laws.numbers import FloatArray
from tutelage.laws.table import RunTable
from tutelage.progress import Advance

TOLERANCE = 1e-9
"""A descent ends where two steps in a row gain less than this part of the objective."""
_RUN_STEPS_A_CALL = 1_000_000
"""About 0.2 s of machine code: Ctrl-C is answered between calls."""


@dataclass(frozen=True)
class Objective:
    """The sum over runs of weight times Huber's loss on log loss, as a function of a family's fitted constants.

    Args:
        family: The family.
        columns: The runs, by letter.
        supervised: The frozen supervised law; None where the family has none.
        x: Features, shape (versions, runs, features); version 0 belongs to `supervised`.
        y: Log losses, shape (runs,).
        bounds: Lowest and highest value of each constant in the fitted scale, shape (2, parameters); equal where fixed.
        delta: Huber's, in log loss.
    """

    family: Family
    columns: Columns
    supervised: SupervisedLaw | None
    x: FloatArray
    y: FloatArray
    bounds: FloatArray
    delta: float

    @property
    def free(self) -> NDArray[np.bool_]:
        """Which constants are fitted, shape (parameters,)."""
        fitted: NDArray[np.bool_] = self.bounds[0] < self.bounds[1]
        return fitted

    @property
    def free_names(self) -> tuple[str, ...]:
        """The names of the fitted constants."""
        return tuple(p.name for p, free in zip(self.family.parameters, self.free, strict=True) if free)

    @property
    def solve(self) -> Solve:
        """The minimiser as machine code."""
        return compile_solver(self.family).solve

    def minimise(
        self,
        starts: FloatArray,
        steps: int,
        weights: FloatArray | None = None,
        pairs: NDArray[np.int64] | None = None,
        advance: Advance | None = None,
        tolerance: float = TOLERANCE,
    ) -> tuple[FloatArray, FloatArray]:
        """The points that `starts` descend to, shape (starts, parameters), and their objectives, shape (starts,).

        Args:
            starts: Shape (starts, parameters); they are clipped to the bounds.
            steps: Most steps of each; 0 evaluates the objective alone.
            weights: Weightings of the runs, shape (weightings, runs); None weighs each run 1.
            pairs: For each start the version of `x` and the weighting; None takes the first ones.
            advance: Told of finished starts.
            tolerance: Part of the objective that a step must gain.
        """
        points = np.ascontiguousarray(np.clip(starts, *self.bounds))
        weights = np.ones((1, len(self.y))) if weights is None else weights
        pairs = np.zeros((len(points), 2), dtype=np.int64) if pairs is None else pairs
        options = np.array([self.delta, steps, tolerance], dtype=np.float64)
        values = np.empty(len(points))
        chunk = max(1, _RUN_STEPS_A_CALL // (len(self.y) * (steps + 1) + 1))
        for first in range(0, len(points), chunk):
            part = slice(first, min(first + chunk, len(points)))
            values[part] = self.solve(points[part], self.x, self.y, weights, pairs[part], self.bounds, options)
            if advance is not None:
                advance(part.stop - part.start)
        return points, np.where(np.isfinite(values), values, np.inf)

    def linearise(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The residuals in log loss, shape (runs,), and their Jacobian, shape (runs, parameters), at `theta`."""
        slopes = np.empty((len(self.y), len(theta)))
        pairs = zip(self.x[0], slopes, strict=True)
        predicted = np.array([self.family.kernel(theta, row, slope) for row, slope in pairs])
        return predicted - self.y, slopes

    def coefficients(self, theta: FloatArray) -> dict[str, float]:
        """Every coefficient of the family at `theta`; arrays where `theta` has shape (draws, parameters)."""
        own = {
            parameter.name: np.exp(value) if parameter.log else value
            for parameter, value in zip(self.family.parameters, np.moveaxis(theta, -1, 0), strict=True)
        }
        frozen = {} if self.supervised is None else self.supervised.coefficients()
        return {**{name: frozen[name] for name in self.family.frozen}, **own, **self.family.constants}

    def equation(self, theta: FloatArray) -> Equation:
        """The equation at `theta`."""
        return self.family.build({name: float(value) for name, value in self.coefficients(theta).items()})

    def restricted(self, chosen: NDArray[np.bool_]) -> Objective:
        """The same objective on the runs that `chosen`, of shape (runs,), marks as True."""
        columns = {letter: values[chosen] for letter, values in self.columns.items()}
        return replace(self, columns=columns, x=np.ascontiguousarray(self.x[:, chosen]), y=self.y[chosen])


def make_objective(
    runs: RunTable, family: Family, settings: FitSettings, supervised: SupervisedLaw | None = None
) -> Objective:
    """The objective of fitting `family` to `runs`.

    Raises:
        InputError: The runs lack a column or hold a number that is not finite and positive; a fixed coefficient is not
            one of the family's; a supervised law is missing or superfluous. All faults together.
    """
    faults = _column_faults(runs, family)
    if family.frozen and supervised is None:
        faults.append(f"the family {family.name} is fitted on a supervised law; fit or name one first")
    if supervised is not None and not family.frozen:
        faults.append(f"the family {family.name} has no supervised law inside; leave it out")
    parameters = {parameter.name: parameter for parameter in family.parameters}
    bounds = np.array([[p.low for p in family.parameters], [p.high for p in family.parameters]])
    for name, value in settings.fixed.items():
        if name not in parameters:
            faults.append(f"fixed: {name} is not fitted by {family.name}; it may be one of {', '.join(parameters)}")
        elif not (np.isfinite(value) and value > 0):
            faults.append(f"fixed: {name} is {value}; it must be a finite number greater than 0")
        else:
            bounds[:, list(parameters).index(name)] = np.log(value) if parameters[name].log else value
    if faults:
        raise InputError(faults)
    columns = runs.arrays()
    x = np.ascontiguousarray(family.features(columns, supervised))[None]
    return Objective(family, columns, supervised, x, np.log(columns[family.loss]), bounds, settings.delta)


def _column_faults(runs: RunTable, family: Family) -> list[str]:
    wanted: Mapping[str, str] = {**{c.letter: c.unit for c in family.inputs}, family.loss: "nats per token"}
    faults = [
        f"the runs have no column {letter} ({unit}); {family.name} needs {', '.join(wanted)}"
        for letter, unit in wanted.items()
        if letter not in runs.columns
    ]
    for letter in (letter for letter in wanted if letter in runs.columns):
        bad = [(row, value) for row, value in enumerate(runs.columns[letter], 1) if not 0 < value < np.inf]
        faults += [
            f"run {row}: {letter} is {value}; it must be a finite number greater than 0, as its logarithm is fitted"
            for row, value in bad[:10]
        ]
        faults += [f"and {len(bad) - 10} more in column {letter}"] if len(bad) > 10 else []
    if not faults and len(runs) == 0:
        faults.append("there are no runs to fit; give a table with rows")
    return faults
