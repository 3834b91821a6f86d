"""Cuts a speech model down: fewer decoder layers, a shorter audio window. `depth` cuts language models.

Covers Whisper's decoder depth and its audio window, and everything that refers to them: layer numbers in the key-value
cache, alignment heads of the word timestamps, encoder positions, the feature extractor. Does not cover narrower layers
or fewer encoder layers. The source is left as it was; the student shares no memory with it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import WhisperFeatureExtractor, WhisperProcessor

from tutelage.errors import InputError
from tutelage.models.layout import POSITIONS_PER_SECOND
from tutelage.models.load import SpeechModel, build_meta
from tutelage.students.depth import choose_layers, renumber
from tutelage.students.design import Keep

_LAYERS = "model.decoder.layers."
_POSITIONS = "model.encoder.embed_positions.weight"


@dataclass(frozen=True)
class ShrunkModel:
    """A student cut out of a larger model.

    Args:
        model: A WhisperForConditionalGeneration of its own.
        processor: Its processor, whose feature extractor has the student's window.
        origins: For each decoder layer in order, the index from 0 of the layer that it was copied from.
        word_timestamps: Whether an alignment head survived; without one word timestamps are refused by the model.
    """

    model: Any
    processor: Any
    origins: tuple[int, ...]
    word_timestamps: bool

    @property
    def speech(self) -> SpeechModel:
        """Model and processor together."""
        return SpeechModel(self.model, self.processor)


def shrink_speech_model(
    source: SpeechModel,
    decoder_layers: int | tuple[int, ...] | None = None,
    window_seconds: float | None = None,
    keep: Keep = "spaced",
) -> ShrunkModel:
    """A smaller copy of a Whisper model.

    Works on the meta device too, where it only has shapes.

    Args:
        source: The model to cut; it is not changed. Its processor may be None (a configuration alone).
        decoder_layers: How many stay, or which, counted from 0; None keeps all.
        window_seconds: The student's window; None keeps it. Whole seconds, since feature extractors count in them.
        keep: Which ones, where their number is given (`depth.choose_layers`).

    Raises:
        InputError: Layers that do not exist, or a window that is no whole number of seconds or longer than before.
    """
    config = copy.deepcopy(source.model.config)
    origins = choose_layers(int(config.decoder_layers), decoder_layers, keep)
    seconds = _whole_seconds(source.window_seconds, window_seconds)
    config.decoder_layers = len(origins)
    if seconds is not None:
        config.max_source_positions = seconds * POSITIONS_PER_SECOND

    model = build_meta(config)
    if not source.model.proj_out.weight.is_meta:
        state = _kept_weights(source.model.state_dict(), origins, int(config.max_source_positions))
        # Built from its own configuration, so layer numbers and positions are right by construction.
        model.load_state_dict(state, strict=True, assign=True)
        model.tie_weights()
    model.train(source.model.training)
    model.generation_config = copy.deepcopy(source.model.generation_config)
    aligned = _remap_alignment_heads(model.generation_config, origins)
    return ShrunkModel(model, _with_window(source.processor, seconds), origins, aligned)


def _whole_seconds(before: float, wanted: float | None) -> int | None:
    if wanted is None:
        return None
    if wanted != int(wanted) or wanted < 1:
        raise InputError(f"The student's window must be whole seconds from 1, not {wanted:g} s.")
    if wanted > before:
        raise InputError(f"The student's window of {wanted:g} s is longer than the model's {before:g} s.")
    return int(wanted)


def _kept_weights(
    state: Mapping[str, torch.Tensor], origins: tuple[int, ...], positions: int
) -> dict[str, torch.Tensor]:
    """Copies of the weights that stay, under their new names."""
    kept = renumber(state, _LAYERS, origins)
    kept[_POSITIONS] = kept[_POSITIONS][:positions].clone()
    return kept


def _remap_alignment_heads(generation: Any, origins: tuple[int, ...]) -> bool:
    """Renumber the heads that survive; remove the setting where none does. True if word timestamps still work."""
    heads = getattr(generation, "alignment_heads", None)
    if heads is None:
        return False
    new_number = {old: new for new, old in enumerate(origins)}
    kept = [[new_number[layer], head] for layer, head in heads if layer in new_number]
    if kept:
        generation.alignment_heads = kept
        return True
    # Heads of removed layers would fail with an IndexError; without the setting the model says what it lacks.
    del generation.alignment_heads
    return False


def _with_window(processor: Any, seconds: int | None) -> Any:
    if processor is None or seconds is None:
        return processor
    settings = processor.feature_extractor.to_dict()
    derived = ("n_samples", "nb_max_frames", "mel_filters", "feature_extractor_type", "processor_class")
    kept = {name: value for name, value in settings.items() if name not in derived}
    features = WhisperFeatureExtractor(**{**kept, "chunk_length": seconds})
    return WhisperProcessor(feature_extractor=features, tokenizer=copy.deepcopy(processor.tokenizer))
