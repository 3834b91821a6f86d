"""The terms that an objective is made of, as settings: kinds, weights, options, and the layers they compare.

Covers what a recipe says. Does not cover the equations (`likelihood`, `divergences`, `alignments`) nor how terms are
combined (`objective`). Loads without torch, so that a bad recipe is refused before torch is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

from tutelage.objectives.alignments import alignments
from tutelage.objectives.divergences import divergences
from tutelage.objectives.schedules import Schedule

Family = Literal["likelihood", "divergence", "alignment", "contrast"]

# likelihood: student logits against labels. divergence: student logits against the teacher's; zero at equality.
# alignment: the student's states against the teacher's, at mapped layers; zero at equality. contrast: likewise, but
# with other positions to tell apart, so not zero at equality.
TERM_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "cross_entropy": "likelihood",
        **dict.fromkeys(divergences(), "divergence"),
        **{kind: "alignment" if member.zero is not None else "contrast" for kind, member in alignments().items()},
    }
)

if TYPE_CHECKING:
    Kind: TypeAlias = str
else:
    Kind = Literal[tuple(TERM_FAMILIES)]  # so that a recipe's parser names the choices


@dataclass(frozen=True)
class Term:
    """One weighted term of an objective.

    Args:
        kind: A key of `TERM_FAMILIES`.
        weight: Factor of the term's mean over what it counts; 0 keeps it as a logged number only.
        temperature: Softening of both distributions in a divergence, whose factor temperature**2 is not part of the
            term (`Objective.combine` applies it); divisor of the similarities in a contrast, without such a factor.
        mix: Mixing weight of a divergence from a mixture (`beta` of jsd, `alpha` of the skew ones), in [0, 1]; None
            takes the kind's own default.
        standardise: Divergences only: bring each position's logits to mean 0 and standard deviation 1 first.
        centre: Alignments only: take the mean over the utterance or document away from both sides' states first.
        schedule: How the weight changes over training; None keeps it.

    Raises:
        ValueError: The kind is unknown, a number is out of range, or an option does not belong to the kind.
    """

    kind: Kind
    weight: float = 1.0
    temperature: float = 1.0
    mix: float | None = None
    standardise: bool = False
    centre: bool = False
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if self.kind not in TERM_FAMILIES:
            raise ValueError(f"term kind {self.kind!r} is unknown; choose one of {', '.join(TERM_FAMILIES)}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight {self.weight} of term {self.kind} must be a finite number, 0 or more")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature {self.temperature} of term {self.kind} must be a finite number above 0")
        takes = [kind for kind, family in TERM_FAMILIES.items() if family in ("divergence", "contrast")]
        if self.temperature != 1.0 and self.kind not in takes:
            raise ValueError(
                f"term {self.kind} has no temperature, yet {self.temperature} was given; {_listed(takes)} one"
            )
        if self.standardise and self.family != "divergence":
            raise ValueError(f"term {self.kind} compares no logits to standardise; {_listed(divergences())} such")
        self._refuse_mix()
        self._refuse_centre()

    @property
    def family(self) -> Family:
        """Which signals the term compares."""
        return TERM_FAMILIES[self.kind]

    @property
    def compares_states(self) -> bool:
        """Whether hidden states are compared, so that a layer map is needed."""
        return self.kind in alignments()

    @property
    def projected(self) -> bool:
        """Whether the student's states go through projectors."""
        return self.compares_states and alignments()[self.kind].projected

    @property
    def mixing_weight(self) -> float | None:
        """The mixing weight in force; None where the kind has none."""
        member = divergences().get(self.kind)
        return self.mix if self.mix is not None or member is None else member.mix

    def weight_at(self, step: int) -> float:
        """The weight at an optimiser step; the first is 1."""
        return self.weight if self.schedule is None else self.weight * self.schedule.factor(step)

    def _refuse_mix(self) -> None:
        if self.mix is None:
            return
        mixed = [kind for kind, member in divergences().items() if member.mix is not None]
        if self.kind not in mixed:
            raise ValueError(
                f"term {self.kind} has no mixing weight, yet mix {self.mix} was given; {_listed(mixed)} one"
            )
        if not 0 <= self.mix <= 1:  # false for NaN
            raise ValueError(f"mix {self.mix} of term {self.kind} must be a number from 0 to 1")
        if self.mix in divergences()[self.kind].vanishes_at:
            raise ValueError(
                f"term {self.kind} is 0 at mix {self.mix:g} whatever the student says, so nothing would be learned; "
                "use kl or reverse_kl for the ends, or a mix between them"
            )

    def _refuse_centre(self) -> None:
        if not self.centre:
            return
        if not self.compares_states:
            raise ValueError(f"term {self.kind} compares no states to centre; only alignments do")
        centring = alignments()[self.kind].centring
        if centring != "option":
            why = "centres by definition" if centring == "always" else "compares differences, which no centring changes"
            raise ValueError(f"term {self.kind} {why}; leave centre out")


@dataclass(frozen=True, order=True)
class LayerPair:
    """A student block and the teacher block whose output it is compared with.

    Args:
        student: 1-based number of the student's block.
        teacher: 1-based number of the teacher's block.
        side: Which half of the models the blocks are in; of an encoder only the last ones are compared.
    """

    student: int
    teacher: int
    side: Literal["decoder", "encoder"] = "decoder"

    @property
    def name(self) -> str:
        """Key of the pair's projector; no dots, as `torch.nn.ModuleDict` refuses them."""
        return f"{self.student}-{self.teacher}" if self.side == "decoder" else f"encoder-{self.student}-{self.teacher}"


def _listed(kinds: Mapping[str, object] | list[str]) -> str:
    names = list(kinds)
    return f"only {names[0]} has" if len(names) == 1 else f"only {', '.join(names[:-1])} and {names[-1]} have"
