"""What a model says about a batch: its logits and the states of some of its blocks.

Covers the value that students and teachers hand to objectives. Does not cover how a model produces it
(`tasks.speech.forward`, `teachers.live`).

Shape letters: B batch, T positions, V vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Signal:
    """One teacher-forced pass.

    Args:
        logits_BTV: Scores of the next token at every position; no shifting is left to do.
        states: Output of decoder block l under key l, 1-based, each (B, T, H). Key 0 is the embedding output. The
            last block's is taken after the final layer norm, as transformers reports `decoder_hidden_states`.
    """

    logits_BTV: Tensor
    states: Mapping[int, Tensor]
