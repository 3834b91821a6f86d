"""What an angle is read beside: the angles that two predictors which know nothing achieve.

Covers the mean-vector and the shuffled baseline. Does not cover the angle as a loss (`alignments.pointwise`).

Shape letters: H hidden, N positions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.objectives.alignments.pointwise import angle
from tutelage.objectives.state_terms import require_widths


class AlignmentBaselines(NamedTuple):
    """Mean angles in radians: the one achieved, and what two predictors that know nothing achieve.

    Attributes:
        angle: Between z and h, position by position.
        mean_vector: If every position predicted the mean teacher vector of these same positions. States share a large
            common direction, so this can be small: an angle that is not clearly below it has learned nothing local.
        shuffled: Between z and the h of another position; NaN when there is only one position.
    """

    angle: float
    mean_vector: float
    shuffled: float


@torch.no_grad()
def alignment_baselines(z_NH: Tensor, h_NH: Tensor, seed: int = 0) -> AlignmentBaselines:
    """The mean angle of an alignment beside a mean-vector and a shuffled baseline, for logging.

    Args:
        z_NH: Projected student states at kept positions, teacher width; at least one.
        h_NH: Teacher states.
        seed: Of the permutation.

    Raises:
        InputError: Widths differ.
        ValueError: There is no position.
    """
    require_widths(z_NH, h_NH)
    z_NH, h_NH = z_NH.float(), h_NH.float()
    positions = z_NH.shape[0]
    if positions == 0:
        raise ValueError("no position is kept, so there is no angle to report")
    mean_NH = h_NH.mean(0).expand_as(h_NH)
    shuffled = math.nan
    if positions > 1:
        # Neighbours along a random cycle: a permutation under which no position meets itself.
        cycle_N = torch.randperm(positions, generator=torch.Generator().manual_seed(seed)).to(z_NH.device)
        shuffled = float(angle(z_NH[cycle_N], h_NH[cycle_N.roll(1)]).mean())
    return AlignmentBaselines(
        angle=float(angle(z_NH, h_NH).mean()),
        mean_vector=float(angle(mean_NH, h_NH).mean()),
        shuffled=shuffled,
    )
