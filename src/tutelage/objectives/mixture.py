"""The logarithm of a mixture of two distributions, relative to one of them.

Covers the one formula that divergences from mixtures need. Does not cover the divergences. Loads without torch.

Shape letters: V vocabulary, N positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def log_mixture_ratio(log_p_NV: Tensor, log_q_NV: Tensor, share: float) -> Tensor:
    """The log-ratio log m - log p for m = share p + (1 - share) q, exactly 0 where p = q.

    Equation: with d = log q - log p, log1p((1 - share) expm1(d)) for d <= 0 and d + log1p(share expm1(-d)) for d > 0.
    Neither logarithms of sums nor sums of exponentials: no overflow at log-probabilities of -1e6, no loss of digits
    where p and q nearly agree, and at share 0 and 1 the limits d and 0.

    Args:
        log_p_NV: Log-probabilities, finite.
        log_q_NV: Log-probabilities, finite.
        share: Of p in the mixture, in [0, 1].

    Example:
        >>> import torch
        >>> p, q = torch.tensor([0.75]), torch.tensor([0.25])
        >>> round(float(log_mixture_ratio(p.log(), q.log(), 0.5)), 4)  # log(0.5 / 0.75)
        -0.4055
    """
    d_NV = log_q_NV - log_p_NV
    if share == 0.0:
        return d_NV
    below_NV, above_NV = d_NV.where(d_NV <= 0, 0.0), d_NV.where(d_NV > 0, 0.0)
    return ((1.0 - share) * below_NV.expm1()).log1p() + above_NV + (share * (-above_NV).expm1()).log1p()
