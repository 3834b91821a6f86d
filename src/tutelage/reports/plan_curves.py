"""The curves of a plan along compute, as its document holds them.

Covers: reading them, which ways and which budgets are drawn. Does not cover: drawing (`plan_figures`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.laws.numbers import FloatArray
from tutelage.records.estimate import Estimate
from tutelage.reports.plan_document import Part

ORDER = ("best", "inference", "pretraining", "both", "shared", "existing")
"""The ways in the order of their colours."""
_MARGIN = 1.5
"""Decades of compute that are drawn on either side of the question and the break-even."""


@dataclass(frozen=True)
class Curves:
    """The curves of a plan along compute; series have shape (budgets,), NaN where nothing can be paid for.

    Args:
        compute: Budgets, FLOPs.
        scenarios: By way.
        supervised: Ordinary training of the same size.
        free: Loss of ordinary training of the best size, or None.
        way: The way that the verdict is about, or None.
        budget: What the verdict's way costs, FLOPs, or None.
        breaks: Where each way stops, or begins, to beat ordinary training.
        texts: The same in words.
    """

    compute: FloatArray
    scenarios: dict[str, Part]
    supervised: Part
    free: FloatArray | None
    way: str | None
    budget: float | None
    breaks: dict[str, tuple[Estimate, ...]]
    texts: dict[str, str]

    def series(self, way: str, key: str) -> FloatArray:
        """One series of a way."""
        return self.scenarios[way].series(key, len(self.compute))

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways with a curve, in a fixed order so that each keeps its colour."""
        return (*(name for name in ORDER if name in self.scenarios), *sorted(set(self.scenarios) - set(ORDER)))

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Which budgets are drawn: around the question and the break-even of the verdict's way."""
        centres = [self.budget] if self.budget else []
        centres += [
            end for each in self.breaks.get(self.way or "", ()) for end in (each.low, each.value, each.high) if end
        ]
        if not centres:
            return np.full(len(self.compute), True)
        low, high = min(centres) / 10**_MARGIN, max(centres) * 10**_MARGIN
        shown = (self.compute >= low) & (self.compute <= high)
        return shown if shown.sum() > 1 else np.full(len(self.compute), True)


def read_curves(document: Part) -> Curves | None:
    """The curves of a document; None where it has none."""
    if not document.has("curves"):
        return None
    curves = document.part("curves")
    compute = curves.series("compute")
    way = document.part("verdict").text("way") or None
    scenario = document.parts("scenarios").get(way or "")
    free = curves.part("compute_optimal") if curves.has("compute_optimal") else None
    crossover = document.parts("crossover")
    return Curves(
        compute,
        curves.parts("scenarios"),
        curves.part("supervised"),
        free.series("loss", len(compute)) if free is not None else None,
        way,
        scenario.needed("compute").value if scenario is not None else None,
        {
            name: tuple(end for key in ("begins", "ends") if (end := each.estimate(key)) is not None)
            for name, each in crossover.items()
        },
        {name: each.text("text") for name, each in crossover.items()},
    )
