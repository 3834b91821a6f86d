"""A sample's targets and states as flat columns of small numbers, and back.

Covers the encoding: ids of 16 or 32 bits, counts of 8, log-probabilities, entropies and states of float16, of kept
positions only. Does not cover files (`shards`) or finding samples (`cache`).

Where a position's list of drawn classes ends is not stored: its counts add up to the number of draws.

Rounding: a float16 is within 2^-11 of its value. A top-k probability p is then within |ln p| 2^-11 of itself, the
rest bucket within the entropy times 2^-11; drawn weights are exact; a replayed logit is within 2^-11 |h| |w|.

Shape letters: B batch, T positions, V vocabulary, H hidden, N kept positions, K kept classes, E entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.errors import InputError, TutelageError
from tutelage.objectives.logits import DeferredLogits
from tutelage.objectives.signal import Signal
from tutelage.objectives.targets import SparseTargets, multinomial, systematic, top_k
from tutelage.teachers.target_cache.contents import CacheSettings, SampleKey, sample_generator

Values = NDArray[np.generic]

FINAL = "final"
SHORT_VOCABULARY = 1 << 16  # ids of a larger one take 32 bits


@dataclass(frozen=True)
class Answer:
    """A teacher's pass over a batch.

    Args:
        signal: Logits, or final states with their head; and the states of blocks.
        labels_BT: The token that follows each position.
        keep_BT: True where a position is supervised; nothing is kept of the others.
    """

    signal: Signal
    labels_BT: Tensor
    keep_BT: Tensor


@dataclass(frozen=True)
class Row:
    """What is kept of one sample.

    Args:
        key: The sample.
        positions: N.
        columns: Flat values by column.
    """

    key: SampleKey
    positions: int
    columns: Mapping[str, Values]


def block_column(layer: int) -> str:
    """The column of a block's states."""
    return f"block_{layer}"


def target_columns(kind: str) -> tuple[str, ...]:
    """The columns of sparse targets."""
    return ("ids", "log_p" if kind == "topk" else "counts", "entropy", "gold")


@torch.no_grad()
def encode(answer: Answer, place: int, key: SampleKey, settings: CacheSettings) -> Row:
    """What is kept of the sample at row `place` of a batch.

    Raises:
        InputError: The settings ask for what the teacher's pass does not give, or for more classes than it has.
        TutelageError: A number is not finite, or does not fit float16.
    """
    keep_T = answer.keep_BT[place]
    scores = answer.signal.scores
    columns: dict[str, Values] = {}
    if isinstance(scores, SparseTargets):
        raise InputError("sparse targets cannot be made from sparse targets; a cache is built from a live teacher.")
    if settings.kind == "hidden":
        if not isinstance(scores, DeferredLogits):
            raise InputError("hidden keeps final states, and this teacher's pass gives logits; keep sparse targets.")
        columns[FINAL] = _half(scores.states_BTH[place][keep_T], key, "the final states")
    else:
        if isinstance(scores, DeferredLogits):
            logits_NV = scores.head.logits(scores.states_BTH[place][keep_T])
        else:
            logits_NV = scores[place][keep_T]
        columns |= _encode_targets(logits_NV, answer.labels_BT[place][keep_T], key, settings)
    for layer in sorted(settings.layers):
        if layer not in answer.signal.states:
            raise InputError(f"the teacher's pass gives no states of block {layer}, which the cache is to keep.")
        states_NH = answer.signal.states[layer][place][keep_T]
        columns[block_column(layer)] = _half(states_NH, key, f"the states of block {layer}")
    return Row(key, int(keep_T.sum()), columns)


def decode_targets(
    columns: Mapping[str, Values], kind: str, size: int, vocabulary: int, rest: bool = True
) -> SparseTargets:
    """The targets of N positions from their flat columns, on the CPU.

    Args:
        columns: As `encode` made them; of any number of samples, one after the other.
        kind: Of the cache.
        size: k, or draws.
        vocabulary: V.
        rest: For top-k: keep what the k classes leave as one bucket, or scale them up to sum to 1.
    """
    entropy_N, gold_N = (torch.from_numpy(columns[name].astype(np.float32)) for name in ("entropy", "gold"))
    ids_E = torch.from_numpy(columns["ids"].astype(np.int64))
    if kind != "topk":
        ids_NK, weights_NK = _pad_draws(ids_E, torch.from_numpy(columns["counts"].astype(np.int64)), size, len(gold_N))
        return SparseTargets(ids_NK, weights_NK, entropy_N, entropy_N, gold_N, vocabulary)
    p_NK = torch.from_numpy(columns["log_p"].astype(np.float64)).exp().view(-1, size)
    total_N1 = p_NK.sum(-1, keepdim=True)
    # Rounding may lift the sum above 1, or leave a rest where every class is kept: the target stays a distribution.
    p_NK = p_NK / (total_N1 if size == vocabulary or not rest else total_N1.clamp_min(1.0))
    rest_N = (1.0 - p_NK.sum(-1)).clamp_min(0.0)
    if size == vocabulary or not rest:
        rest_N = torch.zeros_like(rest_N)
    floor_N = -torch.xlogy(p_NK, p_NK).sum(-1) - torch.xlogy(rest_N, rest_N)
    return SparseTargets(
        ids_E.view(-1, size),
        p_NK.float(),
        floor_N.float(),
        entropy_N,
        gold_N,
        vocabulary,
        rest_N=rest_N.float() if rest else None,
    )


def spread(values_N: Tensor, keep_BT: Tensor) -> Tensor:
    """Values of kept positions, in reading order, at their places in a batch; 0 elsewhere; on the mask's device."""
    values_N = values_N.to(keep_BT.device)
    values_BT = values_N.new_zeros((*keep_BT.shape, *values_N.shape[1:]))
    values_BT[keep_BT] = values_N
    return values_BT


def _encode_targets(logits_NV: Tensor, labels_N: Tensor, key: SampleKey, settings: CacheSettings) -> dict[str, Values]:
    vocabulary = logits_NV.shape[-1]
    if settings.kind == "topk":
        targets = top_k(logits_NV, labels_N, settings.size)
        # The probabilities of the k classes came from float64; their logarithms are taken before float16 rounds them.
        second = {"log_p": targets.weights_NK.double().log().cpu().numpy().astype(np.float16).ravel()}
        used_NK = torch.ones_like(targets.weights_NK, dtype=torch.bool)
    else:
        draw = systematic if settings.kind == "systematic" else multinomial
        targets = draw(logits_NV, labels_N, settings.size, sample_generator(settings.seed, key))
        used_NK = targets.weights_NK > 0
        counts_E = (targets.weights_NK[used_NK] * settings.size).round()
        second = {"counts": counts_E.cpu().numpy().astype(np.uint8)}
    whole = targets.entropy_N.isfinite() & ~targets.gold_N.isnan()
    if not bool(whole.all()):
        raise TutelageError(f"the teacher's logits of sample {key.id!r} are not numbers; nothing of it was kept.")
    short = np.uint16 if vocabulary <= SHORT_VOCABULARY else np.uint32
    return {
        "ids": targets.ids_NK[used_NK].cpu().numpy().astype(short),
        **second,
        "entropy": targets.entropy_N.cpu().numpy().astype(np.float16),
        "gold": targets.gold_N.cpu().numpy().astype(np.float16),
    }


def _pad_draws(ids_E: Tensor, counts_E: Tensor, draws: int, positions: int) -> tuple[Tensor, Tensor]:
    """(N, K) ids and weights from lists that end where their counts add up to `draws`."""
    position_E = (counts_E.cumsum(0) - 1).div(draws, rounding_mode="floor")
    lengths_N = torch.bincount(position_E, minlength=positions)
    slot_E = torch.arange(len(ids_E)) - (lengths_N.cumsum(0) - lengths_N)[position_E]
    most = int(lengths_N.max()) if positions else 0
    ids_NK = torch.zeros(positions, most, dtype=torch.int64)
    weights_NK = torch.zeros(positions, most)
    ids_NK[position_E, slot_E] = ids_E
    weights_NK[position_E, slot_E] = counts_E / draws
    return ids_NK, weights_NK


def _half(states_NH: Tensor, key: SampleKey, what: str) -> Values:
    half_NH = states_NH.half()
    if not bool(half_NH.isfinite().all()):
        largest = float(states_NH.float().abs().max())
        raise TutelageError(
            f"{what} of sample {key.id!r} do not fit float16 (the largest is {largest:g}, float16 ends at 65504); "
            "keep sparse targets, or another block."
        )
    values: Values = half_NH.cpu().contiguous().numpy().reshape(-1)
    return values
