"""Bias and variance of sparse targets against the teacher's whole distribution: the arithmetic of `caches.py`, part c.

Everything is float64. A sparse target acts on a student as a distribution t over the vocabulary: the gradient of the
loss on the student's logits is q - t, and that of the dense loss q - p, so e = t - p is the whole error. (A rest bucket
is divided as the student divides it, so that t depends on q.) `errors_of` gives e, or e carried on to the weights of
the student's head, averaged over positions, where independent errors of positions cancel and a bias does not.

Shape letters: N positions, V vocabulary, H hidden, R draws, F flattened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tutelage.objectives.targets import SparseTargets, multinomial, systematic, top_k

SPARSE_BYTES = {"topk": 4, "topk, no rest": 4, "systematic": 3, "multinomial": 3}  # of an entry, ids of 16 bits
EXTRA_BYTES = 4  # of a position: the teacher's entropy and the gold log-probability
MOST_DRAWS = 255
BLOCKS = 8  # of draws, for the standard error

Draw = Callable[[int], SparseTargets]


@dataclass(frozen=True)
class Moments:
    """Squared bias and variance of an estimate of a vector, summed over its entries.

    Args:
        bias: Squared norm of E[e], estimated without bias from pairs of draws, so that it may fall below 0.
        bias_error: Its standard error, over blocks of draws; 0 where one draw is all there is.
        variance: E of the squared norm of e - E[e].
    """

    bias: float
    bias_error: float
    variance: float


def make_draw(kind: str, logits_NV: Tensor, labels_N: Tensor, size: int) -> Draw:
    """Targets of a kind as a function of a seed, which plays no part in top-k."""
    if kind.startswith("topk"):
        return lambda _: top_k(logits_NV, labels_N, size, rest=kind == "topk")
    sampler = {"systematic": systematic, "multinomial": multinomial}[kind]
    return lambda seed: sampler(logits_NV, labels_N, size, torch.Generator().manual_seed(seed))


def dense(targets: SparseTargets, q_NV: Tensor) -> Tensor:
    """The distribution that the targets act as, (N, V)."""
    t_NV = torch.zeros_like(q_NV).scatter_add_(1, targets.ids_NK, targets.weights_NK.double())
    if targets.rest_N is None:
        return t_NV
    others_NV = q_NV.scatter(1, targets.ids_NK, 0.0)
    return t_NV + targets.rest_N.double()[:, None] * others_NV / others_NV.sum(-1, keepdim=True)


def entries(targets: SparseTargets) -> float:
    """Entries kept a position."""
    return float((targets.weights_NK > 0).sum(-1).double().mean())


def bytes_of(kind: str, targets: SparseTargets) -> float:
    """Bytes a position, without Arrow's own."""
    return SPARSE_BYTES[kind] * entries(targets) + EXTRA_BYTES


def size_for_bytes(kind: str, logits_NV: Tensor, labels_N: Tensor, wanted: float) -> int:
    """The largest k, or number of draws, whose mean position takes at most so many bytes."""
    if kind.startswith("topk"):
        return int((wanted - EXTRA_BYTES) // SPARSE_BYTES[kind])
    low, high = 1, MOST_DRAWS
    while low < high:
        middle = (low + high + 1) // 2
        fits = bytes_of(kind, make_draw(kind, logits_NV, labels_N, middle)(0)) <= wanted
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def errors_of(draw: Draw, p_NV: Tensor, q_NV: Tensor, draws: int, states_NH: Tensor | None = None) -> Iterable[Tensor]:
    """The flat error of every draw: on the distributions, or, with the student's states, on its head's gradient."""
    for seed in range(draws):
        error_NV = dense(draw(seed), q_NV) - p_NV
        yield error_NV.flatten() if states_NH is None else (error_NV.T @ states_NH / len(p_NV)).flatten()


def moments(errors: Iterable[Tensor]) -> Moments:
    """Squared bias from pairs of different draws (the product of two independent errors has the mean bias squared)."""
    drawn = [error_F.double().numpy() for error_F in errors]
    if len(drawn) == 1:
        return Moments(float(drawn[0] @ drawn[0]), 0.0, 0.0)
    found = [_pairs(drawn[block::BLOCKS]) for block in range(BLOCKS)]
    whole = _pairs(drawn)
    second = float(np.mean([one @ one for one in drawn]))
    return Moments(whole, float(np.std(found, ddof=1) / np.sqrt(BLOCKS)), second - whole)


def _pairs(drawn: list[np.ndarray]) -> float:
    total, count = np.sum(drawn, axis=0), len(drawn)
    return float((total @ total - sum(float(one @ one) for one in drawn)) / (count * (count - 1)))
