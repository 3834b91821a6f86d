"""Transcription, greedy or by beams, the same for a stock teacher at 30 s and a student with a shorter window.

Covers: batched greedy search over encoder outputs with the model's own suppressed tokens, without timestamps, new
tokens capped by the clip's duration; beam search by the library (`beams`). Does not cover: audio longer than the window
(`long`), timestamps, scoring.

Why not `model.generate`: its long-form logic wants input features of the full window, takes precomputed encoder
outputs in some versions only, and has one cap a batch. On features of one clip the result is the same (tested).

Shape letters: B batch, T decoder positions, S encoder positions, V vocabulary, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from tutelage.tasks.speech.audio import read_audio
from tutelage.tasks.speech.beams import search_beams, suppressed
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.manifest import Utterance
from tutelage.tasks.speech.transcript import TokenCap, Transcript

EncodeClips = Callable[[Sequence[Utterance]], Tensor]
"""Encoder outputs (B, S, H) of some utterances."""

__all__ = ["EncodeClips", "TokenCap", "Transcript", "from_audio", "from_outputs", "transcribe"]


def from_outputs(outputs: Mapping[str, Tensor]) -> EncodeClips:
    """Encoder outputs that were computed before, by utterance id (`teachers.prefix_cache`)."""
    return lambda utterances: torch.stack([outputs[utterance.id].float() for utterance in utterances])


def from_audio(encoder: FrozenEncoder) -> EncodeClips:
    """Encoder outputs computed when they are needed."""
    return lambda utterances: encoder([read_audio(utterance.audio) for utterance in utterances])


def transcribe(
    model: nn.Module,
    utterances: Sequence[Utterance],
    encode: EncodeClips,
    codec: LabelCodec,
    *,
    cap: TokenCap | None = None,
    batch_size: int = 16,
    beams: int = 1,
) -> list[Transcript]:
    """Transcripts, in the order of `utterances`.

    Clips are batched with others of about their length, longest first. A clip's transcript does not depend on its
    batch (up to the last bits of the arithmetic).

    Args:
        model: A Whisper model, plain or PEFT-wrapped; used in evaluation mode and left in the mode it was in.
        utterances: What to transcribe.
        encode: Gives the encoder outputs of a batch: `from_outputs` or `from_audio`.
        codec: Prompt, end-of-text and decoding.
        cap: New tokens by duration; None for the default `TokenCap`.
        batch_size: Clips a batch.
        beams: Transcripts that the search keeps (`beams.search_beams`); 1 is greedy.

    Raises:
        InputError: Beams are asked of a model that the library cannot search with.
    """
    cap = cap or TokenCap()
    config: Any = model.config
    room = config.max_target_positions - len(codec.prompt)
    longest_first = sorted(range(len(utterances)), key=lambda position: -utterances[position].duration)
    transcripts: dict[int, Transcript] = {}
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(longest_first), batch_size):
            positions = longest_first[start : start + batch_size]
            clips = [utterances[position] for position in positions]
            caps = [min(room, cap.tokens(clip.duration)) for clip in clips]
            search = _search if beams == 1 else partial(search_beams, beams=beams)
            found = search(model, encode(clips), codec, caps)
            transcripts.update(zip(positions, found, strict=True))
    finally:
        model.train(was_training)
    return [transcripts[position] for position in range(len(utterances))]


@torch.no_grad()
def _search(model: nn.Module, encoder_BSH: Tensor, codec: LabelCodec, caps: Sequence[int]) -> list[Transcript]:
    """Greedy search of one batch; all prompts have one length, so nothing is padded."""
    parameter = next(model.parameters())
    encoder = BaseModelOutput(last_hidden_state=encoder_BSH.to(parameter.device, parameter.dtype))
    always, at_first = suppressed(model)
    next_BT = torch.tensor([codec.prompt] * len(caps), device=parameter.device)
    said: list[list[int]] = [[] for _ in caps]
    stopped = [False] * len(caps)
    memory = None
    for step in range(max(caps)):
        outputs = model(
            encoder_outputs=encoder, decoder_input_ids=next_BT, past_key_values=memory, use_cache=True, return_dict=True
        )
        memory = outputs.past_key_values
        scores_BV = outputs.logits[:, -1].float()
        scores_BV[:, always if step else always + at_first] = -math.inf
        next_BT = scores_BV.argmax(dim=-1, keepdim=True)
        for row, token in enumerate(next_BT[:, 0].tolist()):
            if stopped[row] or len(said[row]) == caps[row]:
                continue
            if token == codec.end_of_text:
                stopped[row] = True
            else:
                said[row].append(token)
        if all(stopped[row] or len(said[row]) == caps[row] for row in range(len(caps))):
            break
    return [
        Transcript(codec.decode(tokens), tuple(tokens), not stop) for tokens, stop in zip(said, stopped, strict=True)
    ]
