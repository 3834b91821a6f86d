"""The terms that an objective is made of, as settings: kinds, weights, temperatures, and the layers they compare.

Covers what a recipe says. Does not cover the equations (`likelihood`, `divergence`, `alignment`) nor how terms are
combined (`objective`). Loads without torch, so that a bad recipe is refused before torch is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["cross_entropy", "kl", "angle", "angle2", "cosine", "mse"]
Family = Literal["likelihood", "divergence", "alignment"]

# likelihood: student logits against labels. divergence: student logits against the teacher's; zero at equality.
# alignment: projected student states against the teacher's, at mapped layers; zero at equality.
TERM_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "cross_entropy": "likelihood",
        "kl": "divergence",
        "angle": "alignment",
        "angle2": "alignment",
        "cosine": "alignment",
        "mse": "alignment",
    }
)


@dataclass(frozen=True)
class Term:
    """One weighted term of an objective.

    Args:
        kind: A key of `TERM_FAMILIES`.
        weight: Factor of the term's mean over supervised positions; 0 keeps it as a logged number only.
        temperature: Softening of both distributions; divergences only. The factor temperature**2 is not part of
            the term: `Objective.combine` applies it.

    Raises:
        ValueError: The kind is unknown, or a number is out of range.
    """

    kind: Kind
    weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in TERM_FAMILIES:
            raise ValueError(f"term kind {self.kind!r} is unknown; choose one of {', '.join(TERM_FAMILIES)}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight {self.weight} of term {self.kind} must be a finite number, 0 or more")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature {self.temperature} of term {self.kind} must be a finite number above 0")
        if self.temperature != 1.0 and self.family != "divergence":
            raise ValueError(f"term {self.kind} has no temperature, yet {self.temperature} was given; only kl has one")

    @property
    def family(self) -> Family:
        """Which signals the term compares."""
        return TERM_FAMILIES[self.kind]


@dataclass(frozen=True, order=True)
class LayerPair:
    """A student block and the teacher block whose output it is compared with.

    Args:
        student: 1-based number of the student's decoder block.
        teacher: 1-based number of the teacher's decoder block.
    """

    student: int
    teacher: int

    @property
    def name(self) -> str:
        """Key of the pair's projector; no dots, as `torch.nn.ModuleDict` refuses them."""
        return f"{self.student}-{self.teacher}"
