"""The Kullback-Leibler divergence in both directions.

Covers KL(teacher || student), which covers all that the teacher says, and KL(student || teacher), which seeks a mode of
it. Does not cover mixtures (`skew`, `jensen_shannon`), temperature or T^2 (`position_terms`, `objective`).

Shape letters: V vocabulary, N positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.objectives.members import Divergence

if TYPE_CHECKING:
    from torch import Tensor


def forward_kl(log_p_NV: Tensor, log_q_NV: Tensor) -> Tensor:
    """KL(p || q) in nats a position: sum over v of p(v) (log p(v) - log q(v)), p the teacher's.

    The soft cross-entropy less the teacher's entropy, so its gradient is that of soft cross-entropy.

    Source:
        hinton2015, section 2.

    Example:
        >>> import torch
        >>> teacher, student = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.5, 0.5]])
        >>> round(float(forward_kl(teacher.log(), student.log())), 4)
        0.1308
    """
    return (log_p_NV.exp() * (log_p_NV - log_q_NV)).sum(-1)


def reverse_kl(log_p_NV: Tensor, log_q_NV: Tensor) -> Tensor:
    """KL(q || p) in nats a position: sum over v of q(v) (log q(v) - log p(v)), p the teacher's.

    Source:
        gu2024.

    Example:
        >>> import torch
        >>> teacher, student = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.5, 0.5]])
        >>> round(float(reverse_kl(teacher.log(), student.log())), 4)
        0.1438
    """
    return (log_q_NV.exp() * (log_q_NV - log_p_NV)).sum(-1)


MEMBERS = (Divergence("kl", forward_kl, linear=True), Divergence("reverse_kl", reverse_kl))
