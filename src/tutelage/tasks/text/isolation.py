"""Whether a model that is told to keep documents apart does so, measured.

Covers one number for one batch. Does not cover what is done about it (`runs.text.classroom` refuses the run).

Shape letters: B batch, T positions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import transformers
from torch import Tensor

from tutelage.errors import InputError
from tutelage.models.load import first_line
from tutelage.tasks.text.batch import TextBatch
from tutelage.tasks.text.forward import read


@torch.no_grad()
def leak_between_pieces(model: Any, batch: TextBatch, seed: int = 0) -> float:
    """How far other tokens in the first piece of every row move the logits of its other pieces, as a share of them.

    0 for a batch whose rows have one piece each.

    Args:
        model: A causal language model; its mode is put back.
        batch: Rows whose pieces are to be kept apart.
        seed: Of the other tokens.

    Raises:
        InputError: The model takes no mask that keeps pieces apart.
    """
    later_BT = batch.pieces_BT > 1
    if not bool(later_BT.any()):
        return 0.0
    training = model.training
    model.eval()
    try:
        return _leak(model, batch, later_BT, seed)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:  # GPT-2 of transformers 4.48 on a mask a row
        raise InputError(
            f"This {model.config.model_type} model cannot keep the documents of a row apart under transformers "
            f"{transformers.__version__} ({first_line(error)}). Choose data.packing: stream, or install a "
            "newer transformers."
        ) from error
    finally:
        model.train(training)


def _leak(model: Any, batch: TextBatch, later_BT: Tensor, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    drawn_BT = torch.randint(int(model.config.vocab_size), batch.input_ids_BT.shape, generator=generator)
    other_BT = torch.where(batch.pieces_BT == 1, drawn_BT.to(batch.input_ids_BT.device), batch.input_ids_BT)
    before, after = (
        read(model, dataclasses.replace(batch, input_ids_BT=ids_BT)).logits_BTV[later_BT].float()
        for ids_BT in (batch.input_ids_BT, other_BT)
    )
    return float((before - after).abs().max() / before.abs().max())
