"""A law as users meet it: an equation with its name, source, units, range and what is known of its uncertainty.

Covers: the frozen object that `published`, a law file and a fit all yield. Does not cover: the equations (`supervised`,
`distillation`), reading and writing (`files`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tutelage.errors import InputError
from tutelage.laws.compute import ForwardCost
from tutelage.laws.distillation import DistillationLaw
from tutelage.laws.supervised import SupervisedLaw

Equation: TypeAlias = SupervisedLaw | DistillationLaw
Range: TypeAlias = tuple[float, float]

_SUPERVISED_NAMES = ("E", "A", "B", "alpha", "beta", "gamma")
_DISTILLATION_NAMES = ("c0", "c1", "f1", "d1", "A_prime", "B_prime", "alpha_prime", "beta_prime", "gamma_prime")
FAMILIES: dict[str, tuple[str, ...]] = {
    "hoffmann": _SUPERVISED_NAMES,
    "gamma": _SUPERVISED_NAMES,
    "distillation": _SUPERVISED_NAMES + _DISTILLATION_NAMES,
}
"""The coefficients of each family; those of the distillation law include its frozen supervised law."""


@dataclass(frozen=True)
class Counting:
    """What a law counts as a parameter and as a token; numbers counted otherwise do not belong into it."""

    params: str
    tokens: str


@dataclass(frozen=True)
class Law:
    """An equation with everything that a consumer must know to use it.

    Args:
        name: What users call it.
        equation: The frozen equation.
        source: Key of `docs/references.yaml` with the equation, or the data that it was fitted to.
        counting: What it counts as parameters and tokens.
        forward: The forward cost that goes with its parameter count.
        fitted: The range of each input that the fitted runs span; keys of `tutelage.laws.validity`.
        modality: What the fitted models read; the law says nothing of another one.
        rounding: Half a unit of the last printed digit of each coefficient, where the coefficients were printed.
        intervals: Interval of each coefficient by itself; they say nothing of the coefficients jointly.
        interval_level: Coverage of those intervals.
        draws: Joint draws of the coefficients by name, where the fit left them.
        note: What else users of this law must know.
    """

    name: str
    equation: Equation
    source: str
    counting: Counting
    forward: ForwardCost
    fitted: Mapping[str, Range]
    modality: str = "text"
    rounding: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Range] = field(default_factory=dict)
    interval_level: float | None = None
    draws: Mapping[str, tuple[float, ...]] | None = None
    note: str = ""

    @property
    def supervised(self) -> SupervisedLaw:
        """The supervised law: the equation itself, or the one inside a distillation law."""
        return self.equation.supervised

    @property
    def distillation(self) -> DistillationLaw | None:
        """The distillation law, or None where this is a supervised law."""
        return self.equation if isinstance(self.equation, DistillationLaw) else None

    def require_distillation(self) -> DistillationLaw:
        """The distillation law.

        Raises:
            InputError: This is a supervised law.
        """
        if self.distillation is None:
            raise InputError(
                f"{self.name} is a supervised law and says nothing of distillation; use a distillation law such as "
                "busbridge2025"
            )
        return self.distillation


def make_equation(coefficients: Mapping[str, float]) -> Equation:
    """The equation that has these coefficients: a distillation law where there are those of one.

    Args:
        coefficients: The names of one row of `FAMILIES`.
    """
    supervised = SupervisedLaw(**{name: coefficients[name] for name in _SUPERVISED_NAMES})
    if "c0" not in coefficients:
        return supervised
    return DistillationLaw(supervised, **{name: coefficients[name] for name in _DISTILLATION_NAMES})


def with_coefficients(law: Law, changes: Mapping[str, float]) -> Law:
    """`law` with some coefficients replaced; what was known of their uncertainty stays with it."""
    return replace(law, equation=make_equation({**law.equation.coefficients(), **changes}))
