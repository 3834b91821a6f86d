"""The generalised Jensen-Shannon divergence: both distributions against their mixture.

Covers the divergence with its weight beta. Does not cover Kullback-Leibler, its limit divided by beta or (1 - beta).

Shape letters: V vocabulary, N positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.objectives.members import Divergence
from tutelage.objectives.mixture import log_mixture_ratio

if TYPE_CHECKING:
    from torch import Tensor


def jensen_shannon(log_p_NV: Tensor, log_q_NV: Tensor, beta: float) -> Tensor:
    """The divergence in nats a position, p the teacher's.

    Equation: beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q.

    At most the entropy of (beta, 1 - beta), so log 2 at 0.5: bounded even where the student masks what the teacher
    says. It goes to 0 as beta goes to 0 or 1, where some implementations jump to a Kullback-Leibler divergence; divided
    by beta it tends to KL(p || q) at 0, divided by (1 - beta) to KL(q || p) at 1.

    Args:
        log_p_NV: Of the teacher.
        log_q_NV: Of the student.
        beta: Weight of the teacher, in [0, 1].

    Source:
        agarwal2024 (generalised JSD); no special case at the ends.

    Example:
        >>> import torch
        >>> teacher, student = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]])
        >>> round(float(jensen_shannon(teacher.log(), student.log(), 0.5)), 4)
        0.1308
    """
    m_over_p_NV = log_mixture_ratio(log_p_NV, log_q_NV, beta)
    m_over_q_NV = log_mixture_ratio(log_q_NV, log_p_NV, 1.0 - beta)
    return -(beta * log_p_NV.exp() * m_over_p_NV + (1.0 - beta) * log_q_NV.exp() * m_over_q_NV).sum(-1)


MEMBERS = (Divergence("jsd", jensen_shannon, mix=0.5, vanishes_at=(0.0, 1.0)),)
