"""A model that listens hears what its encoder says, from features made at each look, with gradients to the encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tiny import shared_tiny_whisper
from tiny_run import SENTENCES, write_manifest
from tutelage.models.load import SpeechModel, load_speech_model
from tutelage.tasks.speech.audio import read_audio
from tutelage.tasks.speech.batch import SpeechExamples
from tutelage.tasks.speech.features import FrozenEncoder, log_mel
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.live import ClipFeatures, CurrentOutputs
from tutelage.tasks.speech.manifest import Utterance, read_manifest

SAME = 1e-5  # float32: an encoder's batch of two against two of one


@pytest.fixture
def speech() -> SpeechModel:
    return load_speech_model(shared_tiny_whisper())


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Utterance, ...]:
    return read_manifest(write_manifest(tmp_path, "two.jsonl", list(enumerate(SENTENCES[:2])))).utterances


def test_listening_is_decoding_over_the_encoder_s_own_outputs(
    speech: SpeechModel, clips: tuple[Utterance, ...]
) -> None:
    extractor = speech.processor.feature_extractor
    outputs = CurrentOutputs(clips, FrozenEncoder(speech.model, extractor))
    features = ClipFeatures(clips, extractor, speech.window_seconds)
    batch = SpeechExamples(clips, outputs, LabelCodec(speech.processor.tokenizer, "es"), 64, features).batch([0, 1])
    assert batch.features_BMF is not None
    assert batch.features_BMF.shape == (2, 80, 400)
    with torch.no_grad():
        read, heard = decode(speech.model, batch).logits_BTV, decode(speech.model, batch, listen=True).logits_BTV
    assert float((read - heard).abs().max()) < SAME * float(read.abs().max())
    assert batch.heard_BS is not None
    assert batch.heard_BS.sum(1).tolist() == [40, 45]  # clips of 0.8 s and 0.9 s, 50 positions a second
    assert batch.heard_BS[0, 39:41].tolist() == [True, False]
    moved = batch.to("meta").features_BMF
    assert moved is not None
    assert moved.is_meta


def test_gradients_reach_the_encoder_only_when_it_listens(speech: SpeechModel, clips: tuple[Utterance, ...]) -> None:
    extractor = speech.processor.feature_extractor
    outputs = CurrentOutputs(clips, FrozenEncoder(speech.model, extractor))
    features = ClipFeatures(clips, extractor, speech.window_seconds)
    batch = SpeechExamples(clips, outputs, LabelCodec(speech.processor.tokenizer, "es"), 64, features).batch([0, 1])
    weight = speech.model.model.encoder.layers[0].fc1.weight
    for listen in (False, True):
        signal = decode(speech.model, batch, listen=listen)
        (found,) = torch.autograd.grad(signal.logits_BTV.square().sum(), [weight], allow_unused=not listen)
        assert (found is not None) == listen
    plain = SpeechExamples(clips, outputs, LabelCodec(speech.processor.tokenizer, "es"), 64).batch([0])
    with pytest.raises(ValueError, match="no features"):
        decode(speech.model, plain, listen=True)


def test_outputs_are_those_of_the_encoder_as_it_is_now(speech: SpeechModel, clips: tuple[Utterance, ...]) -> None:
    encoder = FrozenEncoder(speech.model, speech.processor.feature_extractor)
    outputs = CurrentOutputs(clips, encoder)
    name = clips[0].id
    before = outputs[name]
    assert (list(outputs), len(outputs)) == ([clip.id for clip in clips], 2)
    assert torch.equal(before, outputs[name])
    with torch.no_grad():
        speech.model.model.encoder.layer_norm.weight.mul_(2)
    assert not torch.equal(before, outputs[name])
    features = ClipFeatures(clips, speech.processor.feature_extractor, 2.0)
    expected = log_mel(speech.processor.feature_extractor, [read_audio(clips[1].audio)], 2.0)[0]
    assert torch.equal(features[clips[1].id], expected)
    assert (list(features), len(features)) == ([clip.id for clip in clips], 2)
