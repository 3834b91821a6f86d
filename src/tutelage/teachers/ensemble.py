"""Teachers as one model that is called like any of them: to be judged, and to write text, as the student hears them.

The answer is the average that `committee` teaches, in the student's classes. One member is itself, translated. Covers
calls of language models and of Whisper over encoder outputs that lie side by side, with the key-value cache. Does not
cover training from it (`committee`, which also hands on states) or making encoder outputs.

Shape letters: B batch, T positions, S encoder positions, H hidden, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from tutelage.teachers.committee import LOGIT_AVERAGE, UNIFORM, Mean, shares
from tutelage.teachers.vocabulary import SharedVocabulary

_IDS = ("input_ids", "decoder_input_ids")


@dataclass(frozen=True)
class Voice:
    """One member.

    Args:
        model: In evaluation mode, on any device, in any dtype.
        shared: From `share_vocabulary`; None where its ids mean the same.
        heard: Its part of the encoder outputs' width; None takes all of it.
    """

    model: Any
    shared: SharedVocabulary | None = None
    heard: slice | None = None


class Ensemble(nn.Module):
    """Members that answer together.

    Args:
        voices: By name.
        config: The configuration that stands for all, since callers read positions and vocabulary from it.
        generation: The student's generation settings, whose ids these are.
        space: As of `Committee`; one member is the same in both.
        weights: As of `Committee`.
    """

    def __init__(
        self,
        voices: Mapping[str, Voice],
        config: Any,
        generation: Any,
        space: str = LOGIT_AVERAGE,
        weights: str | Mapping[str, float] = UNIFORM,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(voice.model for voice in voices.values())
        self.config = copy.deepcopy(config)
        self.generation_config = generation
        self._voices = tuple(voices.values())
        self._space = space
        given = shares(weights, voices)
        self._weights = [given.get(name) for name in voices]

    @property
    def device(self) -> torch.device:
        """Of the first member; answers are there."""
        return next(self.parameters()).device

    def get_encoder(self) -> nn.Module:
        """The encoder of the first member: the one there is, where audio is read and there is one member."""
        encoder: nn.Module = self._voices[0].model.get_encoder()
        return encoder

    @torch.no_grad()
    def forward(self, past_key_values: Sequence[Any] | None = None, **inputs: Any) -> SimpleNamespace:
        """The average's `logits` (B, T, V), float32, and the members' key-value caches."""
        mean, memories = Mean(self._space), []
        for place, voice in enumerate(self._voices):
            memory = None if past_key_values is None else past_key_values[place]
            found = self.members[place](past_key_values=memory, **_as_asked(voice, self.members[place], inputs))
            logits_BTV = found.logits.float().to(self.device)
            mean.add(logits_BTV if voice.shared is None else voice.shared.spread(logits_BTV), self._weights[place])
            memories.append(found.past_key_values)
        return SimpleNamespace(logits=mean.taken(), past_key_values=tuple(memories))


def _as_asked(voice: Voice, model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's inputs as one member takes them: its ids, its part of the encoders' outputs, its device and dtype."""
    parameter = next(model.parameters())

    def fit(values: Any) -> Any:
        if not isinstance(values, Tensor):
            return values
        return values.to(parameter.device, parameter.dtype if values.is_floating_point() else values.dtype)

    asked = {name: fit(values) for name, values in inputs.items()}
    if "encoder_outputs" in inputs:
        output_BSH = inputs["encoder_outputs"].last_hidden_state
        part_BSH = output_BSH if voice.heard is None else output_BSH[..., voice.heard]
        asked["encoder_outputs"] = BaseModelOutput(last_hidden_state=fit(part_BSH))
    if voice.shared is not None:
        asked |= {name: voice.shared.translate(asked[name]) for name in _IDS if name in asked}
    return asked
