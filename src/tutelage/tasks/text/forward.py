"""One pass of a causal language model over a batch.

Covers the pass that students and teachers share, through the model's public call, so wrappers (PEFT, DDP) stay on the
path, and the mask that keeps documents apart. Does not cover generation (`generate`), losses, or shifting labels.

Shape letters: B batch, T positions, V vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.objectives.signal import Signal
from tutelage.tasks.deferral import scores_of, without_head
from tutelage.tasks.text.batch import TextBatch


def read(model: nn.Module, batch: TextBatch, layers: Collection[int] = (), *, defer: bool = False) -> Signal:
    """Logits of every position, and the states of some blocks.

    Right padding needs no mask: positions look back only, so kept ones never see it.

    Args:
        model: A causal language model, plain, PEFT-wrapped or in a data-parallel wrapper.
        batch: On the model's device.
        layers: Blocks whose output is wanted, 1-based; 0 is the embedding output. Empty: none is kept.
        defer: Leave out the head, where it is known: logits are then made when and where they are read.

    Returns:
        Logits (B, T, V) aligned with `batch.labels_BT`, and one (B, T, H) tensor a layer. The last block's state is
        taken after the final norm, as transformers reports it.

    Raises:
        ValueError: A layer that the model does not have.
    """
    apart: dict[str, Any] = {}
    if batch.isolated and bool((batch.pieces_BT > 1).any()):
        apart = {
            "attention_mask": attention_bias(batch.pieces_BT, next(model.parameters()).dtype),
            "position_ids": positions_in_piece(batch.pieces_BT),
        }
    with without_head(model) if defer else nullcontext() as head:
        outputs = model(
            input_ids=batch.input_ids_BT, output_hidden_states=bool(layers), use_cache=False, return_dict=True, **apart
        )
    scores = scores_of(outputs.logits, head)
    if not layers:
        return Signal(scores, {})
    states = outputs.hidden_states
    beyond = sorted(layer for layer in layers if not 0 <= layer < len(states))
    if beyond:
        raise ValueError(f"the model has blocks 1 to {len(states) - 1} (0: embeddings), not {beyond}.")
    return Signal(scores, {layer: states[layer] for layer in sorted(layers)})


def attention_bias(pieces_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, T, T), 0 where a position may attend to another and the lowest number of `dtype` where not.

    It may where the other is not later and of the same piece. Added to the scores by every attention of transformers.
    """
    same_BTT = pieces_BT[:, :, None] == pieces_BT[:, None, :]
    allowed_BTT = same_BTT & torch.ones_like(same_BTT[0]).tril()
    bias_BTT = torch.zeros(allowed_BTT.shape, dtype=dtype, device=pieces_BT.device)
    return bias_BTT.masked_fill(~allowed_BTT, torch.finfo(dtype).min)[:, None]


def positions_in_piece(pieces_BT: Tensor) -> Tensor:
    """(B, T) positions that begin at 0 in every piece.

    Example: pieces 1 1 1 2 2 0 give 0 1 2 0 1 0.
    """
    steps_T = torch.arange(pieces_BT.shape[1], device=pieces_BT.device)
    begins_BT = torch.ones_like(pieces_BT, dtype=torch.bool)
    begins_BT[:, 1:] = pieces_BT[:, 1:] != pieces_BT[:, :-1]
    return steps_T - torch.where(begins_BT, steps_T, 0).cummax(dim=1).values
