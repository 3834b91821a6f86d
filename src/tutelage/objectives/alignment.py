"""Point-wise alignments of projected student states with teacher states: every kept position is one point.

Covers the angle and its square, cosine distance and mean squared error, and the two dumb baselines that an angle is
read beside. Does not cover projectors (`students.projection`), nor metrics over sets of positions.

Shape letters: B batch, T positions, H hidden, N kept positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.errors import InputError
from tutelage.objectives.reduction import Reduced, gather_kept, sum_rows

# Added to both squared chords so that the angle's gradient is finite at 0 and pi. The price is a floor: equal vectors
# have angle 2*atan(sqrt(eps)/2) = 1e-6 rad, not 0.
ANGLE_EPSILON = 1e-12


def angle(z_BTH: Tensor, h_BTH: Tensor, keep_BT: Tensor) -> Reduced:
    """Angle between projected student and teacher states, in radians from 0 to pi, summed over kept positions.

    Equation: 2 * atan2(sqrt(|u - v|^2 + eps), sqrt(|u + v|^2 + eps)) with unit u, v in float32 and eps = 1e-12. Equal
    to arccos(u.v), but accurate for small angles, and with a finite gradient at 0 and pi, where that of arccos is not.

    Args:
        z_BTH: Projected student states, teacher width.
        h_BTH: Teacher states; detached.
        keep_BT: True where a position counts.

    Returns:
        Sum in radians and the number of kept positions; 1e-6 a position at equality.

    Raises:
        InputError: Widths differ.

    Source:
        yang2026 (reconstruction: the paper's abstract names a point-wise mapping, the formula is ours).

    Example:
        >>> import torch
        >>> z, h = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
        >>> round(float(angle(z, h, torch.tensor([[True]])).total), 4)
        1.5708
    """
    return _reduce(_angle_rows, z_BTH, h_BTH, keep_BT)


def angle2(z_BTH: Tensor, h_BTH: Tensor, keep_BT: Tensor) -> Reduced:
    """Square of the angle, in rad^2: unlike the angle's, its gradient fades as the states come together.

    See `angle` for arguments and errors.
    """
    return _reduce(lambda z_NH, h_NH: _angle_rows(z_NH, h_NH).square(), z_BTH, h_BTH, keep_BT)


def cosine(z_BTH: Tensor, h_BTH: Tensor, keep_BT: Tensor) -> Reduced:
    """Cosine distance 1 - cos, from 0 to 2, summed over kept positions.

    Equation: |u - v|^2 / 2 for unit u, v, which equals 1 - u.v and is exactly 0 at equality and never negative.
    See `angle` for arguments and errors.
    """
    return _reduce(_cosine_rows, z_BTH, h_BTH, keep_BT)


def mse(z_BTH: Tensor, h_BTH: Tensor, keep_BT: Tensor) -> Reduced:
    """Squared difference, mean over the hidden units, summed over kept positions.

    The mean over units (not the sum) keeps one weight meaningful across widths. See `angle` for arguments and errors.

    Source:
        romero2015 (FitNets), Eq. 3, up to the mean and the factor 1/2.
    """
    return _reduce(lambda z_NH, h_NH: (z_NH - h_NH).square().mean(-1), z_BTH, h_BTH, keep_BT)


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
def alignment_baselines(z_BTH: Tensor, h_BTH: Tensor, keep_BT: Tensor, seed: int = 0) -> AlignmentBaselines:
    """The mean angle of an alignment beside a mean-vector and a shuffled baseline, for logging.

    Args:
        z_BTH: Projected student states, teacher width.
        h_BTH: Teacher states.
        keep_BT: True where a position counts; at least one.
        seed: Of the permutation.

    Raises:
        InputError: Widths differ.
        ValueError: No position is kept.
    """
    z_NH, h_NH = _paired_rows(z_BTH, h_BTH, keep_BT)
    positions = z_NH.shape[0]
    if positions == 0:
        raise ValueError("no position is kept, so there is no angle to report")
    mean_NH = h_NH.mean(0).expand_as(h_NH)
    shuffled = math.nan
    if positions > 1:
        # Neighbours along a random cycle: a permutation under which no position meets itself.
        cycle_N = torch.randperm(positions, generator=torch.Generator().manual_seed(seed)).to(z_NH.device)
        shuffled = float(_angle_rows(z_NH[cycle_N], h_NH[cycle_N.roll(1)]).mean())
    return AlignmentBaselines(
        angle=float(_angle_rows(z_NH, h_NH).mean()),
        mean_vector=float(_angle_rows(mean_NH, h_NH).mean()),
        shuffled=shuffled,
    )


def _paired_rows(z_BTH: Tensor, h_BTH: Tensor, keep_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Kept rows of both in float32; the teacher's detached."""
    if z_BTH.shape[-1] != h_BTH.shape[-1]:
        raise InputError(
            f"alignment: projected student states are {z_BTH.shape[-1]} wide and the teacher's {h_BTH.shape[-1]}; "
            "choose a projector (linear, bottleneck or mlp) that maps the one width to the other."
        )
    return gather_kept(z_BTH, keep_BT).float(), gather_kept(h_BTH.detach(), keep_BT).float()


def _reduce(rows: Callable[[Tensor, Tensor], Tensor], z_BTH: Tensor, h_BTH: Tensor, keep_BT: Tensor) -> Reduced:
    return sum_rows(rows(*_paired_rows(z_BTH, h_BTH, keep_BT)))


def _angle_rows(z_NH: Tensor, h_NH: Tensor) -> Tensor:
    u_NH, v_NH = _unit(z_NH), _unit(h_NH)
    apart_N = ((u_NH - v_NH).square().sum(-1) + ANGLE_EPSILON).sqrt()
    together_N = ((u_NH + v_NH).square().sum(-1) + ANGLE_EPSILON).sqrt()
    return 2.0 * torch.atan2(apart_N, together_N)


def _cosine_rows(z_NH: Tensor, h_NH: Tensor) -> Tensor:
    return 0.5 * (_unit(z_NH) - _unit(h_NH)).square().sum(-1)


def _unit(x_NH: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x_NH, dim=-1)
