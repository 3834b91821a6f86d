"""What a family of laws is: an equation, the runs it needs, and how its constants are searched for.

Covers: the frozen description that every module of `tutelage.laws.families` gives as `FAMILY` or `FAMILIES`. Does not
cover: fitting (`tutelage.laws.fitting`), nor what is known of one fitted or published instance (`tutelage.laws.law`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from tutelage.laws.numbers import FloatArray

if TYPE_CHECKING:
    from tutelage.laws.families.supervised import SupervisedLaw

Columns: TypeAlias = Mapping[str, FloatArray]
"""Runs by column letter, each of shape (runs,)."""


class Equation(Protocol):
    """A law's equation: frozen, its coefficients plain floats.

    Coefficients may also be arrays of shape (draws, 1): one object then stands for many laws at once, and inputs of
    shape (points,) give predictions of shape (draws, points).
    """

    @property
    def family(self) -> str:
        """Name of the family in a law file."""

    @property
    def supervised(self) -> SupervisedLaw:
        """The supervised law: itself, or the one inside."""

    def coefficients(self) -> dict[str, float]:
        """Every coefficient by name, those of a frozen supervised law included."""


@dataclass(frozen=True)
class Parameter:
    """One constant that a fit searches for.

    Args:
        name: The coefficient's name.
        low: Lower bound of the search, in the fitted scale.
        high: Upper bound, in the fitted scale.
        starts: Range that starting points are drawn from, in the fitted scale.
        log: Whether the fitted scale is the natural logarithm of the coefficient.
    """

    name: str
    low: float
    high: float
    starts: tuple[float, float]
    log: bool = False


@dataclass(frozen=True)
class Column:
    """One column that runs must have.

    Args:
        letter: The paper's letter, and the key of a column map.
        name: The name of this input in `Law.fitted`.
        unit: What it counts.
    """

    letter: str
    name: str
    unit: str


@dataclass(frozen=True)
class Family:
    """A family of laws.

    Args:
        name: What users and law files call it.
        formula: The equation in one line, in the paper's letters.
        source: Key of `docs/references.yaml` with the equation.
        parameters: The fitted constants, in the order of the kernel's `theta`.
        inputs: The columns that a prediction needs.
        loss: The letter of the fitted column, nats per token.
        features: Takes columns and the frozen supervised law (None where there is none); returns what the kernel reads,
            shape (runs, features), in logarithms.
        kernel: `kernel(theta, x, slope) -> log loss` of one run. Writes d log loss / d theta into `slope`. Plain Python
            on floats and arrays, because it is compiled by the fit; it may call nothing but `math`.
        build: Takes every coefficient of `names`; returns the equation.
        predict: Takes an equation of this family and columns; returns losses in nats per token.
        constants: Coefficients that the family fixes.
        frozen: Coefficients of the supervised law that is fitted first and then kept.
    """

    name: str
    formula: str
    source: str
    parameters: tuple[Parameter, ...]
    inputs: tuple[Column, ...]
    loss: str
    features: Callable[[Columns, SupervisedLaw | None], FloatArray]
    kernel: Callable[[FloatArray, FloatArray, FloatArray], float]
    build: Callable[[Mapping[str, float]], Equation]
    predict: Callable[[Equation, Columns], FloatArray]
    constants: Mapping[str, float] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every coefficient of an instance: frozen, fitted and fixed ones."""
        return (*self.frozen, *(parameter.name for parameter in self.parameters), *self.constants)
