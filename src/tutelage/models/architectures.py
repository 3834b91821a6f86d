"""The model types that this package reads, one row each: what they are for and where their blocks are.

Covers names and paths only. Does not cover loading (`load`, `causal`), FLOPs (`laws.architecture`) or layers inside a
block: adapters find those by looking. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Task = Literal["speech", "text"]


@dataclass(frozen=True)
class Architecture:
    """One model type.

    Args:
        model_type: Its name in config.json.
        task: What such a model does.
        blocks: Path of the list of blocks inside the model; of the decoder, where there are two lists.
        encoder_blocks: Path of the encoder's blocks, or None.
    """

    model_type: str
    task: Task
    blocks: str
    encoder_blocks: str | None = None


_ROWS = (
    Architecture("whisper", "speech", "model.decoder.layers", "model.encoder.layers"),
    Architecture("llama", "text", "model.layers"),
    Architecture("mistral", "text", "model.layers"),
    Architecture("qwen2", "text", "model.layers"),
    Architecture("qwen3", "text", "model.layers"),
    Architecture("gpt_neox", "text", "gpt_neox.layers"),
    Architecture("gpt2", "text", "transformer.h"),
)
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({row.model_type: row for row in _ROWS})
"""By model type. Logits of each are its head's product alone, without a factor or a cap (`tasks.deferral`)."""


def architectures_of(task: Task | None) -> tuple[str, ...]:
    """Model types of a task; of every task for None."""
    return tuple(name for name, row in ARCHITECTURES.items() if task in (None, row.task))
