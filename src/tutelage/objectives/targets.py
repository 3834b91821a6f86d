"""Sparse targets: a few classes a position with weights, made from a teacher's logits, from labels, or mixed.

Covers the value, and the samplers top-k, multinomial and systematic. Does not cover the loss against them (`sparse`) or
files of them.

Top-k keeps the likely classes and is biased whatever is done with the rest. Sampled targets are unbiased: the mean of
their weights is the teacher's distribution.

Shape letters: V vocabulary, N positions, K kept classes, D draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutelage.errors import InputError

CHUNK_BYTES = 64 << 20  # of float64 probabilities that a sampler holds at once


@dataclass(frozen=True)
class SparseTargets:
    """A few classes a position, with weights.

    The leading shape N may be (B, T), that of a batch; then dropped positions hold anything.

    Args:
        ids_NK: Classes, int64. An entry of weight 0 is padding and may repeat a class.
        weights_NK: 0 or more, float32.
        floor_N: What the cross-entropy with these targets is when the student equals the teacher, in nats: what is
            taken off to report a divergence. For sampled targets that is the teacher's entropy (in expectation), for
            top-k the entropy of the target itself, for labels 0.
        entropy_N: The teacher's entropy at `temperature`, in nats.
        gold_N: The teacher's log-probability of the label at temperature 1, in nats; its mean is minus the teacher's
            loss.
        vocabulary: V.
        temperature: That the teacher's distribution was softened by.
        rest_N: Weight of all classes that `ids_NK` leaves out, as one bucket; None has no bucket.
    """

    ids_NK: Tensor
    weights_NK: Tensor
    floor_N: Tensor
    entropy_N: Tensor
    gold_N: Tensor
    vocabulary: int
    temperature: float = 1.0
    rest_N: Tensor | None = None

    def __getitem__(self, index: tuple[Tensor, ...]) -> SparseTargets:
        """The positions of an index of the leading shape."""
        return self.map(lambda values: values[index])

    def map(self, change: Callable[[Tensor], Tensor]) -> SparseTargets:
        """The same targets with every tensor changed, for example moved to another device."""
        return replace(
            self,
            ids_NK=change(self.ids_NK),
            weights_NK=change(self.weights_NK),
            floor_N=change(self.floor_N),
            entropy_N=change(self.entropy_N),
            gold_N=change(self.gold_N),
            rest_N=None if self.rest_N is None else change(self.rest_N),
        )


def label_targets(labels_N: Tensor, vocabulary: int) -> SparseTargets:
    """Hard labels as targets of weight 1."""
    zero_N = torch.zeros(labels_N.shape, device=labels_N.device)
    ones_N1 = torch.ones((*labels_N.shape, 1), device=labels_N.device)
    return SparseTargets(labels_N[..., None], ones_N1, zero_N, zero_N, zero_N, vocabulary)


def mix_with_labels(targets: SparseTargets, labels_N: Tensor, share: float) -> SparseTargets:
    """(1 - share) of the targets and `share` of the labels, in one pass of the loss.

    Args:
        targets: Without a rest bucket.
        labels_N: int64.
        share: In [0, 1].

    Raises:
        ValueError: The targets have a rest bucket, whose classes a label might be among, or share is out of range.
    """
    if targets.rest_N is not None or not 0 <= share <= 1:
        raise ValueError(f"targets are mixed with labels by a share from 0 to 1 ({share}), and without a rest bucket")
    gold_N1 = torch.full((*labels_N.shape, 1), share, device=labels_N.device)
    return replace(
        targets,
        ids_NK=torch.cat([targets.ids_NK, labels_N[..., None]], -1),
        weights_NK=torch.cat([(1.0 - share) * targets.weights_NK, gold_N1], -1),
        floor_N=(1.0 - share) * targets.floor_N,
    )


def top_k(logits_NV: Tensor, labels_N: Tensor, kept: int, temperature: float = 1.0, rest: bool = True) -> SparseTargets:
    """The teacher's `kept` most likely classes.

    Args:
        logits_NV: Of the teacher.
        labels_N: int64.
        kept: K, from 1 to V.
        temperature: Above 0.
        rest: Keep the mass of all other classes as one bucket: the loss is then the divergence between distributions
            over K + 1 outcomes, never above the full one, and says nothing about how the rest is divided. Without it
            the teacher's K probabilities are scaled up to sum to 1, and the student is drawn to that distribution
            (the student itself is never renormalised).

    Raises:
        InputError: `kept` is out of range.
    """
    vocabulary = logits_NV.shape[-1]
    if not 1 <= kept <= vocabulary:
        raise InputError(f"top-k needs k from 1 to the vocabulary's {vocabulary}, not {kept}")

    def choose(p_NV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights_NK, ids_NK = p_NV.topk(kept, dim=-1)
        rest_N = (1.0 - weights_NK.sum(-1)).clamp_min(0.0) if kept < vocabulary else torch.zeros_like(p_NV[:, 0])
        if not rest:
            weights_NK = weights_NK / weights_NK.sum(-1, keepdim=True)
            rest_N = torch.zeros_like(rest_N)
        return ids_NK, weights_NK, rest_N

    targets = _choose(logits_NV, labels_N, temperature, choose)
    if targets.rest_N is None:
        raise AssertionError("the rest is chosen above")
    floor_N = -torch.xlogy(targets.weights_NK, targets.weights_NK).sum(-1)
    floor_N = floor_N - torch.xlogy(targets.rest_N, targets.rest_N)
    return replace(targets, floor_N=floor_N, rest_N=targets.rest_N if rest else None)


def multinomial(
    logits_NV: Tensor, labels_N: Tensor, draws: int, generator: torch.Generator, temperature: float = 1.0
) -> SparseTargets:
    """`draws` independent draws a position from the teacher; weight = count / draws. Unbiased. See `systematic`."""
    return _sample(
        logits_NV,
        labels_N,
        temperature,
        lambda n: torch.rand(n, draws, generator=generator, dtype=torch.float64).sort(dim=-1).values,
    )


def systematic(
    logits_NV: Tensor, labels_N: Tensor, draws: int, generator: torch.Generator, temperature: float = 1.0
) -> SparseTargets:
    """Equally spaced points of the teacher's cumulative distribution, shifted at random; weight = count / draws.

    Unbiased like `multinomial`, in the same format, with a lower variance: a class of probability p is drawn either
    floor(p draws) or ceil(p draws) times. Each position has a shift of its own, since a shared one would correlate
    their errors. Cumulative sums are float64: near 1, float32 moves in steps of 6e-8, more than a rare class
    has.

    Args:
        logits_NV: Of the teacher.
        labels_N: int64.
        draws: D; a position keeps at most that many classes, and all positions are padded to the largest number kept.
        generator: Of the shifts, on the CPU.
        temperature: Above 0.

    Source:
        anshumann2025 (sampled targets); the systematic draw is ours here.

    Example:
        >>> import torch
        >>> logits, labels = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([0])
        >>> found = systematic(logits, labels, 4, torch.Generator().manual_seed(0))
        >>> found.ids_NK.tolist(), found.weights_NK.tolist()
        ([[0, 1, 2]], [[0.5, 0.25, 0.25]])
    """

    def points(n: int) -> Tensor:
        shift_N1 = torch.rand(n, 1, generator=generator, dtype=torch.float64)
        return (shift_N1 + torch.arange(draws, dtype=torch.float64)) / draws

    return _sample(logits_NV, labels_N, temperature, points)


def _sample(logits_NV: Tensor, labels_N: Tensor, temperature: float, points: Callable[[int], Tensor]) -> SparseTargets:
    """The classes that rising points in [0, 1) fall on, with the share of points that each got."""

    def choose(p_NV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cumulative_NV = p_NV.cumsum(-1)
        total_N1 = cumulative_NV[:, -1:]
        # A point that rounding put at the very top would fall behind the last class.
        points_ND = torch.minimum(points(len(p_NV)).to(p_NV.device) * total_N1, total_N1 * (1.0 - 2.0**-53))
        return *_count_runs(torch.searchsorted(cumulative_NV, points_ND, right=True)), torch.zeros_like(p_NV[:, 0])

    targets = _choose(logits_NV, labels_N, temperature, choose)
    used = int((targets.weights_NK > 0).sum(-1).max()) if targets.weights_NK.numel() else 0
    return replace(
        targets,
        ids_NK=targets.ids_NK[:, :used].contiguous(),
        weights_NK=targets.weights_NK[:, :used].contiguous(),
        floor_N=targets.entropy_N,
        rest_N=None,
    )


def _count_runs(ids_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Each distinct class of rising rows once, in front, with its share of the row; zeros behind."""
    new_ND = torch.ones_like(ids_ND, dtype=torch.bool)
    new_ND[:, 1:] = ids_ND[:, 1:] != ids_ND[:, :-1]
    slot_ND = new_ND.cumsum(-1) - 1
    share_ND = torch.full(ids_ND.shape, 1.0 / ids_ND.shape[1], dtype=torch.float64, device=ids_ND.device)
    weights_NK = torch.zeros_like(share_ND).scatter_add_(1, slot_ND, share_ND)
    return torch.zeros_like(ids_ND).scatter_(1, slot_ND, ids_ND), weights_NK


@torch.no_grad()
def _choose(
    logits_NV: Tensor,
    labels_N: Tensor,
    temperature: float,
    choose: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
) -> SparseTargets:
    """Probabilities in float64 a few positions at a time, chosen from; with entropy and gold log-probability."""
    vocabulary = logits_NV.shape[-1]
    rows = max(1, CHUNK_BYTES // (8 * vocabulary))
    parts = []
    for logits_nV, labels_n in zip(torch.split(logits_NV, rows), torch.split(labels_N, rows), strict=True):
        plain_nV = torch.log_softmax(logits_nV.double(), -1)
        gold_n = plain_nV.gather(1, labels_n[:, None])[:, 0]
        log_p_nV = plain_nV if temperature == 1.0 else torch.log_softmax(logits_nV.double() / temperature, -1)
        p_nV = log_p_nV.exp()
        entropy_n = -torch.where(p_nV > 0, p_nV * log_p_nV, 0.0).sum(-1)
        parts.append((*choose(p_nV), entropy_n, gold_n))
    ids_NK, weights_NK, rest_N, entropy_N, gold_N = (torch.cat(column) for column in zip(*parts, strict=True))
    return SparseTargets(
        ids_NK,
        weights_NK.float(),
        entropy_N.float(),
        entropy_N.float(),
        gold_N.float(),
        vocabulary,
        temperature,
        rest_N.float(),
    )
