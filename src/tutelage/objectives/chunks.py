"""Losses over the kept positions of a batch, a few at a time, so that nothing of size positions x vocabulary stays.

Covers walking over positions, from logits that a model already made or from final states with their head, with every
gradient made inside its chunk. Does not cover the losses (`likelihood`, `position_terms`).

From final states, logits and their gradient exist for one chunk only: the gradients of the states (and of a trained
head) are made in the forward pass, and the backward pass scales them. From logits, which autograd must be handed a
gradient of full size for, that gradient is made in the backward pass, chunk by chunk, and nothing is kept between.

Shape letters: B batch, T positions, V vocabulary, H hidden, N kept positions, n positions of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.reduction import Reduced, require_mask

Index: TypeAlias = tuple[Tensor, ...]
"""Where the positions of a chunk are: one index tensor for each leading dimension of the batch."""
Losses: TypeAlias = Callable[[Tensor, Index], Tensor]
"""From a chunk's logits (n, V), in the model's dtype, and their index, to one loss a position, (n,)."""

CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
"""Float32 logits of one chunk, by device: on a CPU what stays near its cores, on a GPU enough to fill it."""


def sum_over_positions(
    losses: Losses, scores: Tensor | DeferredLogits, keep_BT: Tensor, chunk_bytes: int | None = None
) -> Reduced:
    """Sum and count of one loss per kept position.

    Args:
        losses: Evaluated chunk by chunk, and again for gradients of `scores`; must not draw random numbers.
        scores: Logits (B, T, V) or what they are made of; gradients flow into them and into a trained head.
        keep_BT: True where a position counts; its shape is the leading shape of the scores.
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
    walk = _Walk(losses, head, index, max(1, chunk_bytes // (4 * max(1, vocabulary))), torch.is_grad_enabled())
    trained = () if head is None else head.trained
    total: Tensor = _SumOverPositions.apply(walk, source, *trained)  # type: ignore[no-untyped-call]
    return Reduced(total, index[0].shape[0])


@dataclass(frozen=True)
class _Walk:
    losses: Losses
    head: Head | None
    index: Index
    rows: int
    learning: bool

    def chunks(self) -> Iterator[Index]:
        yield from zip(*(torch.split(part, self.rows) for part in self.index), strict=True)

    def total(self, source: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(source.device.type, enabled=False):
            sums = [self._loss(source[index], index) for index in self.chunks()]
        return torch.stack(sums).sum() if sums else torch.zeros((), device=source.device)

    def total_and_gradients(
        self, source: Tensor, trained: tuple[Tensor, ...], slope: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The sum, and `slope` (1) times its gradient on the source and on the head's trained parameters."""
        sums: list[Tensor] = []
        on_source = torch.zeros_like(source)
        # In float32: a sum over many chunks in bfloat16 would lose most of them.
        on_trained = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in trained]
        for index in self.chunks():
            with torch.enable_grad(), torch.autocast(source.device.type, enabled=False):
                leaf = source[index].detach().requires_grad_()
                loss = self._loss(leaf, index)
                found = torch.autograd.grad(loss, [leaf, *trained], slope, allow_unused=True)
            sums.append(loss.detach())
            if found[0] is not None:
                on_source[index] = found[0]
            for whole, part in zip(on_trained, found[1:], strict=True):
                if part is not None:
                    whole += part
        total = torch.stack(sums).sum() if sums else torch.zeros((), device=source.device)
        return total, [on_source, *(g.to(p.dtype) for g, p in zip(on_trained, trained, strict=True))]

    def _loss(self, chunk: Tensor, index: Index) -> Tensor:
        return self.losses(chunk if self.head is None else self.head.logits(chunk), index).sum()


class _SumOverPositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, walk: _Walk, source: Tensor, *trained: Tensor) -> Tensor:
        ctx.walk = walk
        if walk.head is None or not walk.learning or not any(ctx.needs_input_grad):
            ctx.save_for_backward(source)
            return walk.total(source)
        total, gradients = walk.total_and_gradients(source, trained)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        if ctx.walk.head is None:
            return None, *ctx.walk.total_and_gradients(gradients[0], (), slope)[1]
        return None, *(slope.to(gradient.dtype) * gradient for gradient in gradients)
