"""A teacher's pass in the student's terms: asked in its own ids, on its own device, answered in the student's.

Covers the way there and back for one batch. Does not cover which classes are shared (`vocabulary`) or the pass itself
(`tasks.*.forward`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import torch
from torch import nn

from tutelage.objectives.signal import Signal
from tutelage.teachers.live import Forward
from tutelage.teachers.vocabulary import SharedVocabulary

BatchT = TypeVar("BatchT")


def translated(
    forward: Forward[BatchT],
    shared: SharedVocabulary | None,
    ids: str,
    prepare: Callable[[BatchT], BatchT] | None = None,
) -> Forward[BatchT]:
    """A pass for a `LiveTeacher` that may live elsewhere, in another dtype, with other ids.

    Args:
        forward: The pass.
        shared: From `share_vocabulary`; None where ids mean the same.
        ids: The batch's field of input ids.
        prepare: Changes the batch before (the part of the encoders' outputs that is the teacher's).
    """

    def run(model: nn.Module, batch: Any, layers: Collection[int]) -> Signal:
        home, place = batch.labels_BT.device, next(model.parameters()).device
        asked: Any = batch if prepare is None else prepare(batch)
        asked = asked.to(place)
        if shared is not None:
            asked = dataclasses.replace(asked, **{ids: shared.translate(getattr(asked, ids))})
        signal = forward(model, asked, layers)
        return moved(signal if shared is None else shared.cut(signal), home)

    return run


def moved(signal: Signal, device: torch.device) -> Signal:
    """A signal on another device; logits that were not made yet are made where their head is."""
    if signal.device == device:
        return signal
    states = {layer: state.to(device) for layer, state in signal.states.items()}
    parts = {name: getattr(signal, name) for name in ("classes", "heard_BSH", "heard_BS")}
    there = {name: None if part is None else part.to(device) for name, part in parts.items()}
    return dataclasses.replace(signal, scores=signal.logits_BTV.to(device), states=states, **there)
