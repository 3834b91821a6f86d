"""Cross-entropy with sparse targets: one kernel for hard labels, top-k, sampled targets and mixtures of them.

Covers losses of a chunk of positions with their gradient, softmax * sum(w) - scatter(w). Does not cover making targets
(`targets`) or walking over positions (`chunks`).

Shape letters: V vocabulary, N positions, K kept classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tutelage.objectives.targets import SparseTargets

# A class masked with -inf has log-probability -inf; if the target gives it mass, the loss is infinite. It is counted as
# this many nats instead: far below what finite logits reach (+-1e4 gives -2e4), small enough to sum in float32.
LOG_PROBABILITY_FLOOR = -1e6

# Below this sum of probabilities a class that matters in it may be less than the smallest normal float32 (1e-38).
FAINT = 1e-25


def sparse_cross_entropy(
    logits_NV: Tensor, targets: SparseTargets, temperature: float = 1.0, log_q_NV: Tensor | None = None
) -> Tensor:
    """Cross-entropy of each position with its target, in nats, (N,), float32.

    Equation: -sum over k of w_k log q(id_k) - rest log(1 - sum over k of q(id_k)), q = softmax(logits / temperature):
    the student is never renormalised over the kept classes, so mass that it moves outside of them always costs.

    Args:
        logits_NV: Of the student, any float dtype.
        targets: Of the same positions. With a rest bucket the ids must be distinct.
        temperature: Of the student.
        log_q_NV: Its log-probabilities, where they are made already (`chunks.Chunk.log_q_NV`).

    Example:
        >>> import torch
        >>> from tutelage.objectives.targets import label_targets
        >>> logits = torch.tensor([[0.75, 0.25]]).log()
        >>> round(float(sparse_cross_entropy(logits, label_targets(torch.tensor([1]), 2))), 4)  # log 4
        1.3863
    """
    if log_q_NV is None:
        scaled_NV = logits_NV.detach().float() if temperature == 1.0 else logits_NV.detach().float() / temperature
        log_q_NV = torch.log_softmax(scaled_NV, -1)  # four times as fast as logsumexp on a CPU
    losses_N: Tensor = _SparseCrossEntropy.apply(  # type: ignore[no-untyped-call]
        logits_NV, log_q_NV, temperature, targets.ids_NK, targets.weights_NK, targets.rest_N
    )
    return losses_N


class _SparseCrossEntropy(torch.autograd.Function):
    """Keeps one tensor of size V for the backward pass: log q, or with a rest bucket the q of its classes."""

    @staticmethod
    def forward(
        ctx: Any,
        logits_NV: Tensor,
        log_q_NV: Tensor,
        temperature: float,
        ids_NK: Tensor,
        weights_NK: Tensor,
        rest_N: Tensor | None,
    ) -> Tensor:
        ctx.temperature, ctx.dtype, ctx.bucket = temperature, logits_NV.dtype, rest_N is not None
        log_q_NK = log_q_NV.gather(1, ids_NK)
        losses_N = -(weights_NK * log_q_NK.clamp_min(LOG_PROBABILITY_FLOOR)).sum(-1)
        weights_NK = weights_NK * (log_q_NK >= LOG_PROBABILITY_FLOOR)  # clipped entries have gradient 0
        mass_N = weights_NK.sum(-1)
        if rest_N is None:
            ctx.save_for_backward(log_q_NV, ids_NK, -weights_NK, mass_N)
            return losses_N
        others_NV, others_N, log_others_N = _others(log_q_NV, ids_NK)
        losses_N = losses_N - rest_N * log_others_N.clamp_min(LOG_PROBABILITY_FLOOR)
        rest_N = rest_N * (log_others_N >= LOG_PROBABILITY_FLOOR)
        mass_N = mass_N + rest_N
        # Beside the kept classes, whose gradient is added apart, mass q - rest q / (sum of the others' q).
        slopes_N = mass_N * log_others_N.exp() / others_N - rest_N / others_N
        ctx.save_for_backward(others_NV, ids_NK, mass_N[:, None] * log_q_NK.exp() - weights_NK, slopes_N)
        return losses_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_N: Tensor) -> tuple[Tensor | None, ...]:
        saved_NV, ids_NK, kept_NK, slopes_N = ctx.saved_tensors
        slope_N = slope_N / ctx.temperature
        factor_N1 = (slopes_N * slope_N)[:, None]
        gradient_NV = saved_NV * factor_N1 if ctx.bucket else saved_NV.exp().mul_(factor_N1)
        gradient_NV.scatter_add_(1, ids_NK, kept_NK * slope_N[:, None])
        return gradient_NV.to(ctx.dtype), None, None, None, None, None


def _others(log_q_NV: Tensor, ids_NK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the classes that are not kept: in proportion to q (0 at kept ones), their sum, and the logarithm of q's sum.

    A sum of q itself, one pass where logsumexp takes three; rows whose sum float32 cannot hold go through logarithms.
    """
    others_NV = log_q_NV.exp().scatter_(1, ids_NK, 0.0)
    others_N = others_NV.sum(-1)
    log_others_N = others_N.log()
    faint = (others_N < FAINT).nonzero(as_tuple=True)[0]
    if len(faint):
        log_q_nV = log_q_NV[faint].scatter_(1, ids_NK[faint], -torch.inf)
        log_others_N[faint] = log_q_nV.logsumexp(-1)
        lowest = torch.finfo(log_q_NV.dtype).min  # no class is left where k = V
        others_NV[faint] = log_q_nV.sub_(log_others_N[faint].clamp_min(lowest)[:, None]).exp_()
        others_N[faint] = 1.0
    return others_NV, others_N, log_others_N
