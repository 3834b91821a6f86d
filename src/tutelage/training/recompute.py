"""Gradient checkpointing: activations are recomputed in the backward pass, for less memory and more time.

Covers switching it on and off on a transformers model, plain or PEFT-wrapped. The gradients stay the same, dropout
included: the random state is put back for the second pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from tutelage.errors import InputError

# The method's name, and that of its argument: from transformers 5, and before.
_NAMES = (
    ("activation_checkpointing_enable", "activation_checkpointing_disable", "activation_checkpointing_kwargs"),
    ("gradient_checkpointing_enable", "gradient_checkpointing_disable", "gradient_checkpointing_kwargs"),
)


@contextmanager
def recompute_activations(student: nn.Module, wanted: bool) -> Iterator[None]:
    """Train `student` with gradient checkpointing inside this context, if it is wanted.

    Without re-entrance: the re-entrant kind gives adapters a gradient of zero, silently, because the inputs of a block
    of frozen weights require none.

    Raises:
        InputError: If the model does not offer it.
    """
    if not wanted:
        yield
        return
    names = next((names for names in _NAMES if hasattr(student, names[0])), None)
    if names is None:
        raise InputError(
            f"optimisation.gradient_checkpointing is on, but {type(student).__name__} does not offer it; switch it off."
        )
    enable, disable, argument = names
    getattr(student, enable)(**{argument: {"use_reentrant": False}})
    try:
        yield
    finally:
        getattr(student, disable)()
