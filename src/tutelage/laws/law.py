"""A law as users meet it: an equation with its name, source, units, range and what is known of its uncertainty.

Covers: the frozen object that `published`, a law file and a fit all yield, and the many laws that its joint draws
stand for. Does not cover: the equations (`families`), reading and writing (`files`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from tutelage.errors import InputError
from tutelage.laws.compute import ForwardCost
from tutelage.laws.families import families
from tutelage.laws.families.distillation import DistillationLaw
from tutelage.laws.families.supervised import SupervisedLaw
from tutelage.laws.family import Equation, Family
from tutelage.laws.table import RunTable
from tutelage.records.document import Status

Range: TypeAlias = tuple[float, float]

IDENTIFIED = ("done", "converged", "weakly-identified")
"""The kinds of status under which a law may be used without being told to."""


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
        draws: Joint draws of the coefficients by name, where the fit left them; a name without draws is fixed.
        note: What else users of this law must know.
        status: Whether the fit determined the law: done (published), converged, weakly-identified, not-identified or
            stuck, with the remedy.
        diagnostics: What the fit said of itself, as JSON values (`docs/cli.md`, the document of `tutelage fit`).
        runs: The runs that it was fitted on.
        provenance: Versions, machine, commit and command of the fit, as JSON values.
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
    status: Status = field(default_factory=Status)
    diagnostics: Mapping[str, object] = field(default_factory=dict)
    runs: RunTable | None = None
    provenance: Mapping[str, object] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        """The family that the equation belongs to."""
        return families()[self.equation.family]

    @property
    def supervised(self) -> SupervisedLaw:
        """The supervised law: the equation itself, or the one inside it."""
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

    def require_identified(self) -> Law:
        """The law itself, where its fit determined it.

        Raises:
            InputError: The fit did not; with its status and remedy.
        """
        if self.status.kind not in IDENTIFIED:
            raise InputError(
                f"the law {self.name} is {self.status.kind}: {self.status.text} {self.status.remedy} "
                "Use it all the same with --accept-unidentified."
            )
        return self

    def ensemble(self, most: int = 1000) -> Equation | None:
        """The joint draws as one equation, whose coefficients are arrays of shape (draws, 1); None without draws.

        Args:
            most: Draws that are taken, evenly spread over those of the fit.
        """
        if not self.draws:
            return None
        count = len(next(iter(self.draws.values())))
        chosen = np.linspace(0, count - 1, min(most, count)).round().astype(int)
        point = self.equation.coefficients()
        drawn: dict[str, Any] = {
            name: np.asarray(self.draws.get(name, np.full(count, value)), dtype=np.float64)[chosen, None]
            for name, value in point.items()
        }
        return self.family.build(drawn)


def make_equation(coefficients: Mapping[str, float]) -> Equation:
    """The equation that has these coefficients, of the family that has these names.

    Raises:
        KeyError: No family has exactly these names.
    """
    names = set(coefficients)
    for family in families().values():
        if set(family.names) == names:
            return family.build(coefficients)
    raise KeyError(f"no family has the coefficients {', '.join(sorted(names))}")


def supervised_part(law: Law) -> Law:
    """The supervised law inside a distillation law, with what is known of it; a supervised law as it is."""
    if law.distillation is None:
        return law
    names = set(law.supervised.coefficients())
    own: dict[str, Any] = {
        part: {name: values for name, values in getattr(law, part).items() if name in names}
        for part in ("rounding", "intervals")
    }
    draws = {name: values for name, values in (law.draws or {}).items() if name in names}
    return replace(law, equation=law.supervised, draws=draws or None, **own)


def with_coefficients(law: Law, changes: Mapping[str, float]) -> Law:
    """`law` with some coefficients replaced; what was known of their uncertainty stays with it."""
    return replace(law, equation=make_equation({**law.equation.coefficients(), **changes}))
