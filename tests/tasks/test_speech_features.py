"""Features fill the model's window, nothing is cut off, and an encoder is known by its weights and window."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import shared_tiny_whisper
from tutelage.tasks.speech.audio import SAMPLE_RATE, read_audio
from tutelage.tasks.speech.features import FrozenEncoder, encode_clips, fingerprint, log_mel

SAME = 1e-5  # float32 sums in another order, values of about 1


def test_the_window_sets_the_frames(processor: Any, write_tone: Callable[..., Path]) -> None:
    samples = read_audio(write_tone("a.wav", 1.0))
    chunk = processor.feature_extractor.chunk_length
    for seconds, frames in ((2.0, 200), (4.0, 400), (10.0, 1000), (2.5, 250)):
        assert log_mel(processor.feature_extractor, [samples, samples], seconds).shape == (2, 80, frames)
    assert processor.feature_extractor.chunk_length == chunk


def test_features_equal_the_librarys_default_call(processor: Any, write_tone: Callable[..., Path]) -> None:
    samples = read_audio(write_tone("a.wav", 1.3, pitch=700))
    ours = log_mel(processor.feature_extractor, [samples], 4.0)
    theirs = processor.feature_extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    torch.testing.assert_close(ours, theirs)


def test_a_clip_longer_than_the_window_is_never_cut(processor: Any) -> None:
    clip = np.zeros(SAMPLE_RATE * 4 + 1, np.float32)
    with pytest.raises(ValueError, match=r"does not fit a window of 4 s"):
        log_mel(processor.feature_extractor, [clip], 4.0)
    assert log_mel(processor.feature_extractor, [clip[:-1]], 4.0).shape[-1] == 400


def test_encoding_needs_no_gradient_and_leaves_the_mode(speech_model: Any, processor: Any) -> None:
    model = copy.deepcopy(speech_model).train()
    model.config.dropout = model.model.encoder.dropout = 0.5
    features = torch.randn(2, 80, 400, generator=torch.Generator().manual_seed(0))
    output = encode_clips(model, features)
    assert output.shape == (2, 200, 32)
    assert not output.requires_grad
    assert model.model.encoder.training
    assert torch.equal(output, encode_clips(model, features)), "dropout was on"


def test_an_encoder_hears_clips_as_the_model_does(
    speech_model: Any, processor: Any, write_tone: Callable[..., Path]
) -> None:
    samples = [read_audio(write_tone(f"{p}.wav", 0.2 + p / 1000, pitch=p)) for p in (300, 900)]
    encoder = FrozenEncoder(speech_model, processor.feature_extractor)
    assert encoder.window_seconds == 4.0
    features = processor.feature_extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    with torch.no_grad():
        direct = speech_model.model.encoder(features).last_hidden_state
    torch.testing.assert_close(encoder(samples), direct, atol=SAME, rtol=SAME)
    torch.testing.assert_close(encoder(samples[1:])[0], direct[1], atol=SAME, rtol=SAME)


def test_identity_follows_weights_window_and_features(speech_model: Any, processor: Any) -> None:
    def identity(model: Any, extractor: Any = processor.feature_extractor) -> dict[str, str]:
        return dict(FrozenEncoder(model, extractor).identity)

    base = identity(speech_model)
    assert identity(copy.deepcopy(speech_model)) == base
    assert all(isinstance(value, str) for value in base.values())

    retrained = copy.deepcopy(speech_model)
    with torch.no_grad():
        retrained.model.encoder.layers[0].fc1.bias[3] += 1e-6
    decoder_only = copy.deepcopy(speech_model)
    with torch.no_grad():
        decoder_only.model.decoder.layers[0].fc1.bias[3] += 1
    assert identity(retrained) != base
    assert identity(decoder_only) == base
    assert identity(copy.deepcopy(speech_model).double()) != base

    dithered = copy.deepcopy(processor.feature_extractor)
    dithered.dither = 1e-4
    assert identity(speech_model, dithered) != base


def test_mel_bins_must_agree(speech_model: Any) -> None:
    from transformers import WhisperProcessor

    other = WhisperProcessor.from_pretrained(shared_tiny_whisper(mel_bins=128))
    with pytest.raises(ValueError, match="makes 128 mel bins, the encoder reads 80"):
        FrozenEncoder(speech_model, other.feature_extractor)


def test_a_fingerprint_depends_on_names_and_types() -> None:
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(torch.nn.Sequential(one)) != fingerprint(one)
    assert fingerprint(other.double()) != fingerprint(one)
