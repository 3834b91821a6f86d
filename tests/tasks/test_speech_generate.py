"""Our greedy search says what the library's says, clip by clip and in batches, and stops where it is told to."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tiny import shared_tiny_whisper
from tutelage.errors import InputError
from tutelage.tasks.speech.audio import SAMPLE_RATE, read_audio
from tutelage.tasks.speech.beams import search_beams
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.generate import TokenCap, Transcript, from_audio, from_outputs, transcribe
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.manifest import Utterance

FIXED = TokenCap(base=12, per_second=0)


@pytest.fixture(scope="module")
def speech_model() -> Any:
    """Random weights that say different tokens for different clips, and change their mind within one."""
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(shared_tiny_whisper(seed=3)).eval()
    # The library takes a timestamp for the end of a segment and goes on with the next; trained models say none here.
    settings = model.generation_config
    settings.suppress_tokens += range(settings.no_timestamps_token_id + 1, model.config.vocab_size)
    return model


@pytest.fixture
def clips(write_tone: Callable[..., Path]) -> list[Utterance]:
    seconds = (1.0, 3.2, 0.4, 2.1, 1.7)
    return [
        Utterance(f"u{i}", write_tone(f"{i}.wav", s, pitch=200 * (i + 1)), "x", s, f"u{i}")
        for i, s in enumerate(seconds)
    ]


@pytest.fixture
def encode(speech_model: Any, processor: Any) -> Any:
    return from_audio(FrozenEncoder(speech_model, processor.feature_extractor))


def stopping_at(codec: LabelCodec, token: int) -> LabelCodec:
    """The codec with another end-of-text: random weights hardly ever say the real one."""
    other = copy.copy(codec)
    other.end_of_text = token
    return other


def test_equal_to_the_librarys_generate(
    speech_model: Any, processor: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    ours = transcribe(speech_model, clips, encode, codec, cap=FIXED, batch_size=1)
    for clip, transcript in zip(clips, ours, strict=True):
        features = processor.feature_extractor(
            read_audio(clip.audio), sampling_rate=SAMPLE_RATE, return_tensors="pt"
        ).input_features
        theirs = speech_model.generate(
            input_features=features, language="es", task="transcribe", return_timestamps=False, max_new_tokens=12
        )[0].tolist()
        prompt = list(codec.prompt)
        theirs = theirs[len(prompt) :] if theirs[: len(prompt)] == prompt else theirs
        assert list(transcript.tokens) == [token for token in theirs if token != codec.end_of_text]
    assert len({transcript.tokens for transcript in ours}) > 2, "all clips sound alike: the test would prove nothing"


@pytest.mark.parametrize("batch_size", [2, 3, 16])
def test_a_batch_says_what_single_clips_say(
    batch_size: int, speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    alone = transcribe(speech_model, clips, encode, codec, batch_size=1)
    assert transcribe(speech_model, clips, encode, codec, batch_size=batch_size) == alone


def test_each_clip_stops_at_its_own_end(
    speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    endless = transcribe(speech_model, clips, encode, codec, cap=FIXED)
    assert all(transcript.hit_cap and len(transcript.tokens) == 12 for transcript in endless)
    said = {token for transcript in endless for token in transcript.tokens}
    assert len(said) > 5
    for end in said:
        stopped = transcribe(speech_model, clips, encode, stopping_at(codec, end), cap=FIXED)
        for before, after in zip(endless, stopped, strict=True):
            length = before.tokens.index(end) if end in before.tokens else len(before.tokens)
            assert after.tokens == before.tokens[:length]
            assert after.hit_cap == (end not in before.tokens)


def test_the_cap_follows_the_duration(
    speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    cap = TokenCap(base=2, per_second=2.5)
    found = transcribe(speech_model, clips, encode, codec, cap=cap, batch_size=5)
    assert [len(transcript.tokens) for transcript in found] == [math.ceil(2 + 2.5 * clip.duration) for clip in clips]
    assert all(transcript.hit_cap for transcript in found)


def test_the_decoders_positions_bound_the_cap(
    speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    found = transcribe(speech_model, clips[:1], encode, codec, cap=TokenCap(base=1000))
    assert len(found[0].tokens) <= speech_model.config.max_target_positions - len(codec.prompt)


def test_suppressed_tokens_are_never_said(
    speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    free = transcribe(speech_model, clips, encode, codec, cap=FIXED)
    settings = copy.deepcopy(speech_model.generation_config)
    first, often = free[0].tokens[0], free[0].tokens[-1]
    other = copy.copy(speech_model)
    other.generation_config = settings
    settings.suppress_tokens = [*settings.suppress_tokens, often]
    assert all(often not in transcript.tokens for transcript in transcribe(other, clips, encode, codec, cap=FIXED))
    settings.suppress_tokens = None
    # Barred at the first position: its own opening word goes, a word that comes later stays.
    settings.begin_suppress_tokens = [first]
    assert all(t.tokens[0] != first for t in transcribe(other, clips, encode, codec, cap=FIXED))
    middle = next(t for transcript in free for t in transcript.tokens if t not in {f.tokens[0] for f in free})
    settings.suppress_tokens = speech_model.generation_config.suppress_tokens
    settings.begin_suppress_tokens = [middle]
    assert [t.tokens for t in transcribe(other, clips, encode, codec, cap=FIXED)] == [t.tokens for t in free]


def test_precomputed_outputs_say_the_same(
    speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    outputs = {clip.id: encode([clip])[0].half() for clip in clips}
    exact = {clip.id: outputs[clip.id].float() for clip in clips}
    assert transcribe(speech_model, clips, from_outputs(outputs), codec) == transcribe(
        speech_model, clips, from_outputs(exact), codec
    )


def test_an_adapted_model_transcribes(
    speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=r".*decoder.*\.(q_proj|v_proj)")
    wrapped = get_peft_model(copy.deepcopy(speech_model), config)  # B starts at zero: nothing changes
    assert transcribe(wrapped, clips, encode, codec) == transcribe(speech_model, clips, encode, codec)


def test_mode_and_no_clips(speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any) -> None:
    model = copy.deepcopy(speech_model).train()
    transcribe(model, clips, encode, codec, cap=FIXED, batch_size=2)
    assert model.training
    assert transcribe(model, [], encode, codec) == []


def test_no_gradient_is_kept(speech_model: Any, codec: LabelCodec, clips: list[Utterance]) -> None:
    output = torch.randn(200, 32, requires_grad=True)
    found = transcribe(speech_model, clips[:1], from_outputs({"u0": output}), codec, cap=FIXED)
    assert isinstance(found[0], Transcript)
    assert output.grad is None


def test_token_cap() -> None:
    assert TokenCap(3, 2).tokens(1.2) == 6
    assert TokenCap(0, 0.1).tokens(0.1) == 1
    for bad in ((-1, 1), (1, -1), (0, 0), (math.nan, 1), (math.inf, 1)):
        with pytest.raises(ValueError, match="token cap"):
            TokenCap(*bad)


def test_missing_suppression_settings_are_no_obstacle(
    speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    other = copy.copy(speech_model)
    other.generation_config = SimpleNamespace()
    assert transcribe(other, clips[:1], encode, codec, cap=FIXED)[0].tokens


def test_beams_are_the_librarys(
    speech_model: Any, processor: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    ours = transcribe(speech_model, clips, encode, codec, cap=FIXED, batch_size=1, beams=3)
    for clip, transcript in zip(clips, ours, strict=True):
        features = processor.feature_extractor(
            read_audio(clip.audio), sampling_rate=SAMPLE_RATE, return_tensors="pt"
        ).input_features
        theirs = speech_model.generate(
            input_features=features,
            language="es",
            task="transcribe",
            return_timestamps=False,
            max_new_tokens=12,
            num_beams=3,
        )[0].tolist()
        prompt = list(codec.prompt)
        theirs = theirs[len(prompt) :] if theirs[: len(prompt)] == prompt else theirs
        assert list(transcript.tokens) == [token for token in theirs if token != codec.end_of_text]
    greedy = transcribe(speech_model, clips, encode, codec, cap=FIXED, batch_size=1)
    assert [t.tokens for t in ours] != [t.tokens for t in greedy], "beams that change nothing would prove nothing"


def test_beams_in_a_batch_end_at_every_clips_own_cap(
    speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    found = transcribe(speech_model, clips, encode, codec, cap=TokenCap(base=2, per_second=2), batch_size=5, beams=2)
    assert [len(transcript.tokens) for transcript in found] == [
        TokenCap(base=2, per_second=2).tokens(clip.duration) for clip in clips
    ]
    assert all(transcript.hit_cap for transcript in found)


def test_beams_stop_at_end_of_text(speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any) -> None:
    (free,) = transcribe(speech_model, clips[:1], encode, codec, cap=FIXED, beams=2)
    (stopped,) = transcribe(speech_model, clips[:1], encode, stopping_at(codec, free.tokens[3]), cap=FIXED, beams=2)
    assert free.hit_cap
    assert not stopped.hit_cap
    assert free.tokens[3] not in stopped.tokens


def test_beams_of_an_average_are_refused(codec: LabelCodec, clips: list[Utterance], encode: Any) -> None:
    with pytest.raises(InputError, match=r"take beams: 1 \(greedy\)"):
        search_beams(torch.nn.Linear(1, 1), torch.zeros(1, 2, 32), codec, [3], beams=2)


def test_beams_keep_what_the_model_must_not_say_first(
    speech_model: Any, codec: LabelCodec, clips: list[Utterance], encode: Any
) -> None:
    (free,) = transcribe(speech_model, clips[:1], encode, codec, cap=FIXED, beams=2)
    other = copy.deepcopy(speech_model)
    other.generation_config.begin_suppress_tokens = [*other.generation_config.begin_suppress_tokens, free.tokens[0]]
    (held,) = transcribe(other, clips[:1], encode, codec, cap=FIXED, beams=2)
    assert held.tokens[0] != free.tokens[0]
