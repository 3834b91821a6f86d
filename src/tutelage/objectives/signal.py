"""What a model says about a batch: its logits, or what they are made of, and the states of some of its blocks.

Covers the value that students and teachers hand to objectives. Does not cover how a model produces it
(`tasks.speech.forward`, `teachers.live`).

Shape letters: B batch, T positions, V vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutelage.errors import InputError
from tutelage.objectives.logits import DeferredLogits
from tutelage.objectives.targets import SparseTargets


@dataclass(frozen=True)
class Signal:
    """One teacher-forced pass.

    Args:
        scores: Of the next token at every position; no shifting is left to do. Logits (B, T, V); or final states with
            their head, whose logits are then made a few positions at a time; or, from a cached teacher, the sparse
            targets that are left of them.
        states: Output of decoder block l under key l, 1-based, each (B, T, H). Key 0 is the embedding output. The
            last block's is taken after the final layer norm, as transformers reports `decoder_hidden_states`.
        classes: Where a teacher shares a part of the student's classes only: which ones its scores are of, as the
            student numbers them; (V,), rising. None is all of them. Divergences then compare these classes alone.
        heard_BSH: What the encoder put out, (B, S, H); None where nothing compares it.
        heard_BS: True where it is of sound and not of the silence that fills the window.
    """

    scores: Tensor | DeferredLogits | SparseTargets
    states: Mapping[int, Tensor]
    classes: Tensor | None = None
    heard_BSH: Tensor | None = None
    heard_BS: Tensor | None = None

    @property
    def logits_BTV(self) -> Tensor:  # noqa: N802  (shape letters)
        """All logits; made here if they were not.

        Raises:
            InputError: Sparse targets are all that is left.
        """
        if isinstance(self.scores, SparseTargets):
            raise InputError(
                "this teacher is cached as sparse targets, and its logits are asked for; use kl, or a live teacher"
            )
        return self.scores.made() if isinstance(self.scores, DeferredLogits) else self.scores

    @property
    def device(self) -> torch.device:
        """Where the scores are."""
        if isinstance(self.scores, DeferredLogits):
            return self.scores.states_BTH.device
        return self.scores.device if isinstance(self.scores, Tensor) else self.scores.ids_NK.device

    def map(self, change: Callable[[Tensor], Tensor]) -> Signal:
        """The same with every float tensor of a position changed; sparse targets and what was heard stay."""
        scores = self.scores
        if isinstance(scores, DeferredLogits):
            scores = replace(scores, states_BTH=change(scores.states_BTH))
        elif isinstance(scores, Tensor):
            scores = change(scores)
        return replace(self, scores=scores, states={layer: change(state) for layer, state in self.states.items()})

    def tensors(self) -> list[Tensor]:
        """What `map` changes."""
        found: list[Tensor] = []

        def note(values: Tensor) -> Tensor:
            found.append(values)
            return values

        self.map(note)
        return found
