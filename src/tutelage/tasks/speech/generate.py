"""Greedy transcription, the same for a stock teacher at 30 s and a student with a shorter window.

Covers: batched greedy search over encoder outputs with the model's own suppressed tokens, without timestamps, new
tokens capped by the clip's duration. Does not cover: beam search, long-form audio, timestamps, scoring.

Why not `model.generate`: its long-form logic wants input features of the full window, takes precomputed encoder
outputs in some versions only, and has one cap a batch. On features of one clip the result is the same (tested).

Shape letters: B batch, T decoder positions, S encoder positions, V vocabulary, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from tutelage.progress import Progress, no_progress
from tutelage.tasks.speech.audio import read_audio
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.manifest import Utterance

EncodeClips = Callable[[Sequence[Utterance]], Tensor]
"""Encoder outputs (B, S, H) of some utterances."""


@dataclass(frozen=True)
class TokenCap:
    """How many new tokens a clip may take, end-of-text included: ceil(base + per_second * seconds).

    A model that does not stop repeats itself, and repetitions dominate a word error rate; so every system that is
    compared gets this one cap.

    The defaults leave every one of the 489 training transcripts of the Spanish captions at least 1.4 times its length
    (Whisper's tokenizer; the fastest takes 12.4 tokens a second, 99.9 % fewer than 11.6; least squares 1.8 + 4.3 a
    second).

    Args:
        base: Tokens for a clip of no length.
        per_second: Tokens a second.

    Raises:
        ValueError: A number is negative, or both are 0.
    """

    base: float = 10.0
    per_second: float = 10.0

    def __post_init__(self) -> None:
        if not (self.base >= 0 and self.per_second >= 0 and math.isfinite(self.base + self.per_second)):
            raise ValueError(
                f"the token cap {self.base} + {self.per_second} per second must be finite and not negative."
            )
        if self.base + self.per_second == 0:
            raise ValueError("the token cap is 0 for every clip: nothing could be transcribed.")

    def tokens(self, seconds: float) -> int:
        """The cap of a clip of this duration, at least 1."""
        return max(1, math.ceil(self.base + self.per_second * seconds))


@dataclass(frozen=True)
class Transcript:
    """What a model heard.

    Args:
        text: Without special tokens and outer space.
        tokens: Generated ids, without prompt and end-of-text.
        hit_cap: True when the model was cut off before it said end-of-text.
    """

    text: str
    tokens: tuple[int, ...]
    hit_cap: bool


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
    progress: Progress = no_progress,
) -> list[Transcript]:
    """Greedy transcripts, in the order of `utterances`.

    Clips are batched with others of about their length, longest first. A clip's transcript does not depend on its
    batch (up to the last bits of the arithmetic).

    Args:
        model: A Whisper model, plain or PEFT-wrapped; used in evaluation mode and left in the mode it was in.
        utterances: What to transcribe.
        encode: Gives the encoder outputs of a batch: `from_outputs` or `from_audio`.
        codec: Prompt, end-of-text and decoding.
        cap: New tokens by duration; None for the default `TokenCap`.
        batch_size: Clips a batch.
        progress: Told of each clip.
    """
    cap = cap or TokenCap()
    config: Any = model.config
    room = config.max_target_positions - len(codec.prompt)
    longest_first = sorted(range(len(utterances)), key=lambda position: -utterances[position].duration)
    transcripts: dict[int, Transcript] = {}
    was_training = model.training
    model.eval()
    try:
        with progress("transcribe", total=len(utterances), unit="clip") as advance:
            for start in range(0, len(longest_first), batch_size):
                positions = longest_first[start : start + batch_size]
                clips = [utterances[position] for position in positions]
                caps = [min(room, cap.tokens(clip.duration)) for clip in clips]
                found = _search(model, encode(clips), codec, caps)
                transcripts.update(zip(positions, found, strict=True))
                advance(len(positions))
    finally:
        model.train(was_training)
    return [transcripts[position] for position in range(len(utterances))]


@torch.no_grad()
def _search(model: nn.Module, encoder_BSH: Tensor, codec: LabelCodec, caps: Sequence[int]) -> list[Transcript]:
    """Greedy search of one batch; all prompts have one length, so nothing is padded."""
    parameter = next(model.parameters())
    encoder = BaseModelOutput(last_hidden_state=encoder_BSH.to(parameter.device, parameter.dtype))
    always, at_first = _suppressed(model)
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


def _suppressed(model: nn.Module) -> tuple[list[int], list[int]]:
    """Ids that the model's generation settings forbid: at every position, and at the first one in addition."""
    settings: Any = model.generation_config
    always = getattr(settings, "suppress_tokens", None) or []
    at_first = getattr(settings, "begin_suppress_tokens", None) or []
    return list(always), list(at_first)
