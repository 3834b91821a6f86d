"""How a law is fitted: the loss, how many starts and bootstrap draws, what is kept fixed.

Covers: the frozen settings with their ranges. Does not cover: which runs (`tutelage.laws.table`), which family
(`tutelage.laws.families`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tutelage.laws.compute import ForwardCost

_FEWEST_STARTS, _MOST_STARTS = 64, 1024
_FEWEST_POLISHED, _MOST_POLISHED = 16, 128
_STARTS_PER_POLISHED = 8


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit.

    Args:
        delta: Where Huber's loss on log losses turns from quadratic to linear.
        starts: Starting points; None gives 2^(fitted parameters + 1), at least 64 and at most 1,024.
        bootstrap: Bootstrap draws; 0 gives no intervals.
        level: Coverage of the intervals, in (0, 1).
        seed: Of the starting points and the draws.
        fixed: Coefficients that are not fitted, by name, as the equation has them (not their logarithms).
        name: Name of the resulting law.
        forward: The forward cost that goes with the runs' parameter count; the default makes training cost 6ND.
        compute: FLOPs at which the compute-optimal size is reported; None takes the largest compute of the runs.
        modality: What the runs' models read.

    Raises:
        ValueError: A value is out of its range.
    """

    delta: float = 1e-3
    starts: int | None = None
    bootstrap: int = 4096
    level: float = 0.9
    seed: int = 0
    fixed: Mapping[str, float] = field(default_factory=dict)
    name: str = "law"
    forward: ForwardCost = field(default_factory=lambda: ForwardCost(context=0, vocabulary=0))
    compute: float | None = None
    modality: str = "text"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.delta) and self.delta > 0):
            raise ValueError(f"delta is {self.delta}; it must be a finite number greater than 0")
        if self.starts is not None and self.starts < 1:
            raise ValueError(f"starts is {self.starts}; there must be 1 or more")
        if self.bootstrap < 0 or self.bootstrap == 1:
            raise ValueError(f"bootstrap is {self.bootstrap}; it must be 0 (no intervals) or 2 and more draws")
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level}; it must be between 0 and 1")
        if self.compute is not None and not (math.isfinite(self.compute) and self.compute > 0):
            raise ValueError(f"compute is {self.compute}; it must be a finite number of FLOPs greater than 0")

    def start_count(self, parameters: int) -> int:
        """Starting points of a fit of `parameters` constants."""
        if self.starts is not None:
            return self.starts
        return int(min(max(2 ** (parameters + 1), _FEWEST_STARTS), _MOST_STARTS))


def polished_count(starts: int) -> int:
    """How many of the best starts are followed to their minimum."""
    return int(min(starts, max(_FEWEST_POLISHED, min(starts // _STARTS_PER_POLISHED, _MOST_POLISHED))))
