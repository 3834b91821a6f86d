"""Point-wise alignments of projected student states with teacher states: every kept position is one point.

Covers the angle and its square, cosine distance and mean squared error. Does not cover projectors
(`students.projection`), metrics over sets of positions (`sets`), or the baselines that an angle is read beside
(`objectives.baselines`).

Shape letters: H hidden, N positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.objectives.members import ZERO, Alignment

if TYPE_CHECKING:
    from torch import Tensor

# Added to both squared chords so that the angle's gradient is finite at 0 and pi. The price is a floor: equal vectors
# have angle 2*atan(sqrt(eps)/2) = 1e-6 rad, not 0 (measured 1.0000002e-6 in float32 at every width from 8 to 1280).
ANGLE_EPSILON = 1e-12
ZERO_OF_ANGLE = 2 * ZERO
_SHORTEST = 1e-12  # length below which a vector is left short when it is brought to unit length


def angle(z_NH: Tensor, h_NH: Tensor) -> Tensor:
    """Angle between projected student and teacher states, in radians from 0 to pi, a position.

    Equation: 2 * atan2(sqrt(|u - v|^2 + eps), sqrt(|u + v|^2 + eps)) with unit u, v and eps = 1e-12. Equal to
    arccos(u.v), but accurate for small angles, and with a finite gradient at 0 and pi, where that of arccos is not.

    Source:
        yang2026 (reconstruction: the paper's abstract names a point-wise mapping, the formula is ours).

    Example:
        >>> import torch
        >>> round(float(angle(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]))), 4)
        1.5708
    """
    u_NH, v_NH = unit(z_NH), unit(h_NH)
    apart_N = ((u_NH - v_NH).square().sum(-1) + ANGLE_EPSILON).sqrt()
    together_N = ((u_NH + v_NH).square().sum(-1) + ANGLE_EPSILON).sqrt()
    return 2.0 * apart_N.atan2(together_N)


def angle2(z_NH: Tensor, h_NH: Tensor) -> Tensor:
    """Square of the angle, in rad^2: unlike the angle's, its gradient fades as the states come together."""
    return angle(z_NH, h_NH).square()


def cosine(z_NH: Tensor, h_NH: Tensor) -> Tensor:
    """Cosine distance 1 - cos, from 0 to 2, a position.

    Equation: |u - v|^2 / 2 for unit u, v, which equals 1 - u.v and is exactly 0 at equality and never negative.
    """
    return 0.5 * (unit(z_NH) - unit(h_NH)).square().sum(-1)


def mse(z_NH: Tensor, h_NH: Tensor) -> Tensor:
    """Squared difference, mean over the hidden units, a position.

    The mean over units (not the sum) keeps one weight meaningful across widths.

    Source:
        romero2015 (FitNets), Eq. 3, up to the mean and the factor 1/2.
    """
    return (z_NH - h_NH).square().mean(-1)


def unit(x_NH: Tensor) -> Tensor:
    """Rows of length 1; a zero row stays zero."""
    length_N1: Tensor = x_NH.norm(dim=-1, keepdim=True)
    return x_NH / length_N1.clamp_min(_SHORTEST)


MEMBERS = (
    Alignment("angle", angle, zero=ZERO_OF_ANGLE),
    Alignment("angle2", angle2),
    Alignment("cosine", cosine),
    Alignment("mse", mse),
)
