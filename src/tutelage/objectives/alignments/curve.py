"""The curve term, an ablation: where states go from position to position, not where they are.

Covers angles between first and second differences along time. Does not cover differences across dropped positions.

Shape letters: H hidden, N positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.objectives.alignments.pointwise import ZERO_OF_ANGLE, angle
from tutelage.objectives.members import Alignment

if TYPE_CHECKING:
    from torch import Tensor


def curve(z_NH: Tensor, h_NH: Tensor) -> Tensor:
    """Angles, in radians from 0 to pi, between the first and between the second differences of one run of positions.

    n positions have n - 1 first and n - 2 second differences; the term is the mean over all of them.

    Source:
        yang2026 (reconstruction).
    """
    import torch

    first = [x_NH.diff(dim=0) for x_NH in (z_NH, h_NH)]
    second = [x_NH.diff(dim=0) for x_NH in first]
    return torch.cat([angle(*first), angle(*second)])


MEMBERS = (Alignment("curve", curve, "run", lambda n: 2 * n - 3, smallest=2, centring="pointless", zero=ZERO_OF_ANGLE),)
