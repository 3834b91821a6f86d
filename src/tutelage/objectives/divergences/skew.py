"""Skewed Kullback-Leibler divergences: one distribution against its mixture with the other.

Covers both directions. Does not cover the symmetric mixture (`jensen_shannon`).

Shape letters: V vocabulary, N positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.objectives.members import Divergence
from tutelage.objectives.mixture import log_mixture_ratio

if TYPE_CHECKING:
    from torch import Tensor


def skew_kl(log_p_NV: Tensor, log_q_NV: Tensor, alpha: float) -> Tensor:
    """KL(p || alpha p + (1 - alpha) q) in nats a position, p the teacher's; at most -log alpha.

    KL(p || q) at alpha 0. The mixture keeps the gradient bounded where the student gives almost no mass.

    Args:
        log_p_NV: Of the teacher.
        log_q_NV: Of the student.
        alpha: Share of the first distribution in the mixture, in [0, 1]; 0 everywhere at 1.

    Source:
        ko2024 (skew KLD).

    Example:
        >>> import torch
        >>> teacher, student = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]])
        >>> round(float(skew_kl(teacher.log(), student.log(), 0.5)), 4)
        0.1308
    """
    return -(log_p_NV.exp() * log_mixture_ratio(log_p_NV, log_q_NV, alpha)).sum(-1)


def skew_reverse_kl(log_p_NV: Tensor, log_q_NV: Tensor, alpha: float) -> Tensor:
    """KL(q || alpha q + (1 - alpha) p) in nats a position, p the teacher's. See `skew_kl`, with the roles exchanged."""
    return skew_kl(log_q_NV, log_p_NV, alpha)


MEMBERS = (
    Divergence("skew_kl", skew_kl, mix=0.1, vanishes_at=(1.0,)),
    Divergence("skew_reverse_kl", skew_reverse_kl, mix=0.1, vanishes_at=(1.0,)),
)
