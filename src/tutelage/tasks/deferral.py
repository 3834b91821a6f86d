"""A pass that leaves out the model's head, whose logits are then made where they are read, a few positions at a time.

Covers which models' heads are known, and the pass without them. Does not cover the head itself (`objectives.logits`) or
the walk over positions (`objectives.chunks`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.models.architectures import ARCHITECTURES
from tutelage.objectives.logits import DeferredLogits, Head


@contextmanager
def without_head(model: nn.Module) -> Iterator[Head | None]:
    """Within this context the model's own call answers with final states in the place of logits.

    The head stands still and everything else stays on the path: adapters, hooks, recomputed blocks. Other threads must
    not run the same model meanwhile.

    Args:
        model: Plain or PEFT-wrapped.

    Returns:
        The head; None where it is not known or not to be deferred, and the model then answers with logits: another
        model type, a data-parallel wrapper, or a head that drops units at random.
    """
    module = _head_module(model)
    if module is None:
        yield None
        return
    device = next(module.parameters()).device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    own = module.__dict__.get("forward")  # of whoever replaced it before
    module.forward = _same
    try:
        yield Head(module, _plain(model).config.vocab_size, tuple(module.parameters()), autocast=autocast)
    finally:
        if own is None:
            del module.forward  # the class's own shows again
        else:
            module.forward = own


def scores_of(answer: Tensor, head: Head | None) -> Tensor | DeferredLogits:
    """What a pass within `without_head` says of its positions."""
    return answer if head is None else DeferredLogits(answer, head)


def _same(h: Tensor) -> Tensor:
    return h


def _plain(model: nn.Module) -> Any:
    unwrap: Any = getattr(model, "get_base_model", None)  # PEFT's
    return model if unwrap is None else unwrap()


def _head_module(model: nn.Module) -> Any:
    plain = _plain(model)
    if getattr(getattr(plain, "config", None), "model_type", "") not in ARCHITECTURES:
        return None
    module = plain.get_output_embeddings()
    drops = any(isinstance(part, nn.Dropout) and part.p > 0 and part.training for part in module.modules())
    return None if drops else module
