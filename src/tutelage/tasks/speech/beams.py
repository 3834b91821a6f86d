"""Beam search over encoder outputs by the library's own `generate`, under the same rules as greedy search.

Covers one batch. Does not cover batching (`generate`) or models that are averages of several, which the library cannot
search with.

Shape letters: B batch, T decoder positions, S encoder positions, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput

from tutelage.errors import InputError
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.transcript import Transcript


@torch.no_grad()
def search_beams(
    model: nn.Module, encoder_BSH: Tensor, codec: LabelCodec, caps: Sequence[int], *, beams: int
) -> list[Transcript]:
    """The most likely transcript (log-probability a token) of each clip among those that `beams` kept.

    The whole batch is searched to its largest cap, and what passes a clip's own cap is cut off it.

    Args:
        model: A Whisper model in evaluation mode, plain or PEFT-wrapped.
        encoder_BSH: Encoder outputs.
        codec: Prompt, end-of-text and decoding.
        caps: New tokens of each clip, end-of-text included.
        beams: From 2.

    Raises:
        InputError: The model is an average of several.
    """
    wrapped: Any = model
    plain: Any = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
    if not isinstance(plain, GenerationMixin):
        raise InputError(
            "Beam search takes one model with the student's tokens; committees, and teachers with another vocabulary, "
            "take beams: 1 (greedy)."
        )
    parameter = next(model.parameters())
    always, at_first = suppressed(model)
    settings = GenerationConfig(
        num_beams=beams,
        do_sample=False,
        max_new_tokens=max(caps),
        eos_token_id=codec.end_of_text,
        pad_token_id=codec.end_of_text,
        decoder_start_token_id=codec.prompt[0],
        suppress_tokens=always or None,
        begin_suppress_tokens=at_first or None,
    )
    # Whisper's own `generate` is for audio of any length and wants features; the general one takes encoder outputs.
    found_BT = GenerationMixin.generate(
        plain,
        generation_config=settings,
        encoder_outputs=BaseModelOutput(last_hidden_state=encoder_BSH.to(parameter.device, parameter.dtype)),
        decoder_input_ids=torch.tensor([codec.prompt] * len(caps), device=parameter.device),
    )
    rows = found_BT[:, len(codec.prompt) :].tolist()
    return [_transcript(row, cap, codec) for row, cap in zip(rows, caps, strict=True)]


def _transcript(row: Sequence[int], cap: int, codec: LabelCodec) -> Transcript:
    stopped = codec.end_of_text in row[:cap]
    tokens = tuple(row[: row.index(codec.end_of_text)] if stopped else row[:cap])
    return Transcript(codec.decode(tokens), tokens, not stopped)


def suppressed(model: nn.Module) -> tuple[list[int], list[int]]:
    """Ids that the model's generation settings forbid: at every position, and at the first one in addition."""
    settings: Any = model.generation_config
    always = getattr(settings, "suppress_tokens", None) or []
    at_first = getattr(settings, "begin_suppress_tokens", None) or []
    return list(always), list(at_first)
