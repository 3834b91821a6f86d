"""Cross-entropy with sparse targets: one kernel for hard labels, top-k, sampled targets and mixtures of them.

Covers losses of a chunk of positions with their gradient, softmax * sum(w) - scatter(w), which all losses of one
temperature make together. Does not cover making targets (`targets`) or walking over positions (`chunks`).

Shape letters: V vocabulary, N positions, K kept classes.
"""

from __future__ import annotations

from dataclasses import dataclass
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


class Softmax:
    """softmax(logits / temperature) at a few positions, for every sparse loss of that temperature.

    Each loss hands in what its own gradient is made of, and the last one's backward pass is followed by one for all of
    them: q times the sum of their slopes, and what each adds at its own classes.

    Args:
        logits_NV: Of the student, any float dtype; gradients flow into these.
        temperature: Above 0.
    """

    def __init__(self, logits_NV: Tensor, temperature: float = 1.0) -> None:
        scaled_NV = logits_NV.detach().float()
        if temperature != 1.0:
            scaled_NV = scaled_NV / temperature
        self.temperature = temperature
        self.log_q_NV = torch.log_softmax(scaled_NV, -1)  # four times as fast as logsumexp on a CPU; not clipped
        self.parts: list[_Part] = []
        self.has_rest = False
        # What losses hang on instead of the logits. Its node holds the parts and not this object: no cycle to collect.
        self.anchor_N: Tensor = _Gradient.apply(logits_NV, self.log_q_NV, self.parts)  # type: ignore[no-untyped-call]


def sparse_cross_entropy(
    logits_NV: Tensor, targets: SparseTargets, temperature: float = 1.0, softmax: Softmax | None = None
) -> Tensor:
    """Cross-entropy of each position with its target, in nats, (N,), float32.

    Equation: -sum over k of w_k log q(id_k) - rest log(1 - sum over k of q(id_k)), q = softmax(logits / temperature):
    the student is never renormalised over the kept classes, so mass that it moves outside of them always costs.

    Args:
        logits_NV: Of the student, any float dtype.
        targets: Of the same positions. With a rest bucket the ids must be distinct.
        temperature: Of the student.
        softmax: Of these logits at this temperature, where other losses share it (`chunks.Chunk.softmax`).

    Example:
        >>> import torch
        >>> from tutelage.objectives.targets import label_targets
        >>> logits = torch.tensor([[0.75, 0.25]]).log()
        >>> round(float(sparse_cross_entropy(logits, label_targets(torch.tensor([1]), 2))), 4)  # log 4
        1.3863
    """
    if softmax is None or (softmax.has_rest and targets.rest_N is not None):  # it serves one rest bucket
        softmax = Softmax(logits_NV, temperature)
    softmax.has_rest |= targets.rest_N is not None
    losses_N: Tensor = _SparseCrossEntropy.apply(  # type: ignore[no-untyped-call]
        softmax.anchor_N, softmax, targets.ids_NK, targets.weights_NK, targets.rest_N
    )
    return losses_N


@dataclass(frozen=True)
class _Part:
    """What one loss adds to the gradient at its own classes, and beside them if it has a rest bucket."""

    ids_NK: Tensor
    kept_NK: Tensor
    rest: _Rest | None = None


@dataclass(frozen=True)
class _Rest:
    """q beside a loss's own classes, as `others_NV` times `share_N`, and at them.

    `slopes_N` is what this loss alone multiplies `others_NV` by: too large a number to add where q is added too.
    """

    others_NV: Tensor
    share_N: Tensor
    q_NK: Tensor
    slopes_N: Tensor


class _Gradient(torch.autograd.Function):
    """From every loss's part to the one gradient of the logits; runs after all losses that hang on the anchor."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, log_q_NV: Tensor, parts: list[_Part]) -> Tensor:
        ctx.dtype, ctx.parts = logits_NV.dtype, parts
        ctx.save_for_backward(log_q_NV)
        return log_q_NV.new_zeros(len(log_q_NV))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes_N: Tensor) -> tuple[Tensor | None, ...]:
        """`slopes_N` is what q is multiplied by, summed over the losses without a rest bucket."""
        (log_q_NV,), parts = ctx.saved_tensors, list(ctx.parts)
        ctx.parts.clear()
        rest = next((part.rest for part in parts if part.rest is not None), None)
        if rest is None:
            gradient_NV = log_q_NV.exp().mul_(slopes_N[:, None])
        else:
            gradient_NV = rest.others_NV * (slopes_N * rest.share_N + rest.slopes_N)[:, None]
        for part in parts:
            kept_NK = part.kept_NK if part.rest is None else part.kept_NK + slopes_N[:, None] * part.rest.q_NK
            gradient_NV.scatter_add_(1, part.ids_NK, kept_NK)
        return gradient_NV.to(ctx.dtype), None, None


class _SparseCrossEntropy(torch.autograd.Function):
    """Hands its part of the gradient to `_Gradient`, behind the anchor."""

    @staticmethod
    def forward(
        ctx: Any, anchor_N: Tensor, softmax: Softmax, ids_NK: Tensor, weights_NK: Tensor, rest_N: Tensor | None
    ) -> Tensor:
        ctx.parts, ctx.temperature, log_q_NV = softmax.parts, softmax.temperature, softmax.log_q_NV
        log_q_NK = log_q_NV.gather(1, ids_NK)
        losses_N = anchor_N - (weights_NK * log_q_NK.clamp_min(LOG_PROBABILITY_FLOOR)).sum(-1)
        weights_NK = weights_NK * (log_q_NK >= LOG_PROBABILITY_FLOOR)  # clipped entries have gradient 0
        mass_N = weights_NK.sum(-1)
        if rest_N is None:
            ctx.save_for_backward(ids_NK, -weights_NK, mass_N)
            return losses_N
        others_NV, others_N, log_others_N = _others(log_q_NV, ids_NK)
        losses_N = losses_N - rest_N * log_others_N.clamp_min(LOG_PROBABILITY_FLOOR)
        rest_N = rest_N * (log_others_N >= LOG_PROBABILITY_FLOOR)
        mass_N = mass_N + rest_N
        # Beside the kept classes, whose gradient is added apart, mass q - rest q / (sum of the others' q).
        share_N, q_NK = log_others_N.exp() / others_N, log_q_NK.exp()
        slopes_N = mass_N * share_N - rest_N / others_N
        ctx.save_for_backward(ids_NK, mass_N[:, None] * q_NK - weights_NK, slopes_N, others_NV, share_N, q_NK)
        return losses_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_N: Tensor) -> tuple[Tensor | None, ...]:
        ids_NK, kept_NK, slopes_N, *others = ctx.saved_tensors
        slope_N = slope_N / ctx.temperature
        slopes_N, kept_NK = slopes_N * slope_N, kept_NK * slope_N[:, None]
        if not others:
            ctx.parts.append(_Part(ids_NK, kept_NK))
            return slopes_N, None, None, None, None
        others_NV, share_N, q_NK = others
        ctx.parts.append(_Part(ids_NK, kept_NK, _Rest(others_NV, share_N, q_NK, slopes_N)))
        return torch.zeros_like(slopes_N), None, None, None, None


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
