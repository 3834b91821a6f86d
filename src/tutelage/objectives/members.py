"""What a divergence, or an alignment of states, declares about itself: the one value that each of their files gives.

Covers the descriptions that modules of `objectives.divergences` and `objectives.alignments` list as `MEMBERS`. Does not
cover how they are summed (`position_terms`, `state_terms`) or weighed (`objective`). Loads without torch, and so must
those modules, because a recipe is checked before torch is loaded: tensor methods need no import, and a function of
torch's is imported inside the function that calls it.

Shape letters: V vocabulary, H hidden, N positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

ZERO = 1e-6
"""What a divergence or an alignment may be at equality, in its own unit a position (or set)."""


@dataclass(frozen=True)
class Divergence:
    """A divergence of the student's next-token distribution from the teacher's: zero exactly when they agree.

    Args:
        kind: Its name in a recipe.
        losses: From the teacher's and the student's log-probabilities, (N, V) each, in nats, float32, not below
            `sparse.LOG_PROBABILITY_FLOOR`, to one loss in nats a position, (N,). A divergence with a mixing weight
            takes it as third argument. Gradients are autograd's.
        mix: Default of the mixing weight, in [0, 1]; None where there is none.
        vanishes_at: Mixing weights at which it is zero whatever the student says, so that nothing would be learned.
        linear: Whether it is the cross-entropy less what the teacher alone decides. Then its gradient on the logits is
            q - p, and sparse targets serve.
    """

    kind: str
    losses: Callable[..., Tensor]
    mix: float | None = None
    vanishes_at: tuple[float, ...] = ()
    linear: bool = False


@dataclass(frozen=True)
class Alignment:
    """A distance of the student's states from the teacher's at kept positions.

    Args:
        kind: Its name in a recipe.
        losses: From student and teacher states of one group, (N, width) each in float32, the teacher's detached, to
            its losses, (units(N),). One that takes a temperature has it as third argument.
        group: What positions are compared together: each "position" alone, a "set" (all kept positions of one
            utterance or document), or a "run" (kept positions that follow each other without a gap).
        units: How many losses a group of n positions has; their number over the whole step is the term's divisor.
        smallest: Positions that a group needs at least to say anything; one more with centring, which takes one away.
        projected: Whether the student's states go through the projector. One that compares states of different width
            as they are needs none, and then no projector can absorb the loss.
        centring: Whether taking each set's mean away is an "option" of the term, done "always", or "pointless".
        takes_temperature: Whether the term's temperature divides its similarities; there is no factor T^2.
        zero: What it may be at equality, a unit; None where equality is not zero: a contrast, not a distance.
    """

    kind: str
    losses: Callable[..., Tensor]
    group: Literal["position", "set", "run"] = "position"
    units: Callable[[int], int] = int
    smallest: int = 1
    projected: bool = True
    centring: Literal["option", "always", "pointless"] = "option"
    takes_temperature: bool = False
    zero: float | None = ZERO
