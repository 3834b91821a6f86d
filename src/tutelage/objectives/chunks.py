"""Losses over the kept positions of a batch, a few at a time, so that nothing of size positions x vocabulary stays.

Covers one walk over positions for all losses of the same scores, from logits that a model already made or from final
states with their head, with every gradient made inside its chunk. Does not cover the losses (`likelihood`,
`position_terms`).

From final states, logits and their gradient exist for one chunk only, and the head is run once for all losses: the
gradients of the states (and of a trained head) are made in the forward pass, for the slopes that the caller expects,
and the backward pass scales them; for other slopes it walks again. From logits, which autograd must be handed a
gradient of full size for, that gradient is made in the backward pass, chunk by chunk, and nothing is kept between.

Shape letters: B batch, T positions, V vocabulary, H hidden, K losses, N kept positions, n positions of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.reduction import Reduced, require_mask
from tutelage.objectives.sparse import Softmax

Index: TypeAlias = tuple[Tensor, ...]
"""Where the positions of a chunk are: one index tensor for each leading dimension of the batch."""

CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
"""Float32 logits of one chunk, by device: on a CPU what stays near its cores, on a GPU enough to fill it."""

# Slopes that differ by no more than this, relative, are the expected ones: float32 rounds each of them by 6e-8.
SAME_SLOPE = 1e-6


class Chunk:
    """The student's scores at a few positions, as every loss reads them.

    Args:
        logits_NV: (n, V), in the model's dtype; gradients flow into these.
        index: Where they are.
    """

    def __init__(self, logits_NV: Tensor, index: Index) -> None:
        self.logits_NV, self.index = logits_NV, index
        self._softmaxes: dict[float, Softmax] = {}

    def softmax(self, temperature: float = 1.0) -> Softmax:
        """Of logits / temperature, made once for all losses."""
        if temperature not in self._softmaxes:
            self._softmaxes[temperature] = Softmax(self.logits_NV, temperature)
        return self._softmaxes[temperature]


Losses: TypeAlias = Callable[[Chunk], Tensor]
"""From a chunk to one loss a position, (n,)."""


def sum_over_positions(
    losses: Sequence[Losses],
    scores: Tensor | DeferredLogits,
    keep_BT: Tensor,
    slopes: Sequence[float] | None = None,
    chunk_bytes: int | None = None,
) -> list[Reduced]:
    """Sum and count of each loss per kept position, in one walk over them.

    Args:
        losses: At least one. Evaluated chunk by chunk, and again for gradients that were not made in the forward pass;
            must not draw random numbers.
        scores: Logits (B, T, V) or what they are made of; gradients flow into them and into a trained head.
        keep_BT: True where a position counts; its shape is the leading shape of the scores.
        slopes: What the sums will be multiplied by in what is minimised, up to a common factor: from states, the
            gradient of that is made in the forward pass. Any other gradient is right as well, and costs a second walk.
            None is 1 for each.
        chunk_bytes: Of a chunk's float32 logits; None takes `CHUNK_BYTES`.

    Raises:
        ValueError: The mask is not boolean, or shapes disagree.
    """
    head = scores.head if isinstance(scores, DeferredLogits) else None
    source = scores.states_BTH if isinstance(scores, DeferredLogits) else scores
    require_mask(source, keep_BT)
    vocabulary = source.shape[-1] if head is None else head.vocabulary
    if chunk_bytes is None:
        chunk_bytes = CHUNK_BYTES.get(source.device.type, CHUNK_BYTES["cuda"])
    index = keep_BT.nonzero(as_tuple=True)
    rows = max(1, chunk_bytes // (4 * max(1, vocabulary)))
    walk = _Walk(tuple(losses), head, index, rows, tuple(slopes or [1.0] * len(losses)), torch.is_grad_enabled())
    trained = () if head is None else head.trained
    totals_K: Tensor = _SumOverPositions.apply(walk, source, *trained)  # type: ignore[no-untyped-call]
    return [Reduced(total, index[0].shape[0]) for total in totals_K.unbind()]


@dataclass(frozen=True)
class _Walk:
    losses: tuple[Losses, ...]
    head: Head | None
    index: Index
    rows: int
    slopes: tuple[float, ...]
    learning: bool

    def chunks(self) -> Iterator[Index]:
        yield from zip(*(torch.split(part, self.rows) for part in self.index), strict=True)

    def totals(self, source: Tensor) -> Tensor:
        """(K,)."""
        found = torch.zeros(len(self.losses), device=source.device)
        with torch.no_grad(), torch.autocast(source.device.type, enabled=False):
            for index in self.chunks():
                found += self._sums(source[index], index)
        return found

    def totals_and_gradients(
        self, source: Tensor, trained: Sequence[Tensor], slopes: Sequence[float]
    ) -> tuple[Tensor, list[Tensor]]:
        """The sums, and the gradient of `slopes` times them on the source and on the head's trained parameters."""
        totals_K = torch.zeros(len(self.losses), device=source.device)
        slopes_K = torch.tensor(slopes, device=source.device)
        on_source = torch.zeros_like(source)
        # In float32: a sum over many chunks in bfloat16 would lose most of them.
        on_trained = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in trained]
        for index in self.chunks():
            with torch.enable_grad(), torch.autocast(source.device.type, enabled=False):
                leaf = source[index].detach().requires_grad_()
                sums_K = self._sums(leaf, index)
                found = torch.autograd.grad(sums_K, [leaf, *trained], slopes_K, allow_unused=True)
            totals_K += sums_K.detach()
            if found[0] is not None:
                on_source[index] = found[0]
            for whole, part in zip(on_trained, found[1:], strict=True):
                if part is not None:
                    whole += part
        return totals_K, [on_source, *(g.to(p.dtype) for g, p in zip(on_trained, trained, strict=True))]

    def _sums(self, rows: Tensor, index: Index) -> Tensor:
        chunk = Chunk(rows if self.head is None else self.head.logits(rows), index)
        return torch.stack([losses(chunk).sum() for losses in self.losses])


class _SumOverPositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, walk: _Walk, source: Tensor, *trained: Tensor) -> Tensor:
        ctx.walk, ctx.trained = walk, len(trained)
        if walk.head is None or not walk.learning or not any(ctx.needs_input_grad):
            ctx.save_for_backward(source, *trained)
            return walk.totals(source)
        totals_K, gradients = walk.totals_and_gradients(source, trained, walk.slopes)
        ctx.save_for_backward(source, *trained, *gradients)
        return totals_K

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes_K: Tensor) -> tuple[Tensor | None, ...]:
        source, *saved = ctx.saved_tensors
        trained, gradients = saved[: ctx.trained], saved[ctx.trained :]
        slopes = slopes_K.tolist()
        factor = _common_factor(slopes, ctx.walk.slopes) if gradients else None
        if factor is None:
            wanted = [k for k, slope in enumerate(slopes) if slope != 0.0] or [0]  # one is enough for a gradient of 0
            walk = replace(ctx.walk, losses=tuple(ctx.walk.losses[k] for k in wanted))
            return None, *walk.totals_and_gradients(source, trained, [slopes[k] for k in wanted])[1]
        return None, *(factor * gradient for gradient in gradients)


def _common_factor(slopes: Sequence[float], expected: Sequence[float]) -> float | None:
    """What all expected slopes are multiplied by; None where there is no such factor."""
    largest = max(range(len(expected)), key=lambda k: abs(expected[k]))
    if expected[largest] == 0.0:
        return None
    factor = slopes[largest] / expected[largest]
    same = all(
        abs(slope - factor * before) <= SAME_SLOPE * abs(slope) for slope, before in zip(slopes, expected, strict=True)
    )
    return factor if same else None
