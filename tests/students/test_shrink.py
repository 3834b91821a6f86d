"""A smaller model is the larger one without the removed layers: same numbers where they meet, sound everywhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiny import shared_tiny_whisper
from tutelage.errors import InputError
from tutelage.models.load import SpeechModel, count_params, load_meta, load_speech_model
from tutelage.students.depth import spaced_layers
from tutelage.students.shrink import shrink_speech_model

LOGIT_TOLERANCE = 1e-5
"""Two float32 paths that multiply the same numbers in another order; logits here are of order 1."""


@pytest.fixture(scope="module")
def teacher() -> SpeechModel:
    return load_speech_model(shared_tiny_whisper())


def features(speech: Any, seconds: float = 1.5, seed: int = 0) -> torch.Tensor:
    wave = np.random.default_rng(seed).normal(scale=0.1, size=int(seconds * 16_000)).astype(np.float32)
    extracted = speech.processor.feature_extractor(wave, sampling_rate=16_000, return_tensors="pt")
    return torch.as_tensor(extracted.input_features)


def generate(speech: Any, **settings: Any) -> Any:
    options = {"language": "es", "task": "transcribe", "max_new_tokens": 10, "force_unique_generate_call": True}
    with torch.no_grad():
        return speech.model.generate(features(speech), **{**options, **settings})


@given(layers=st.integers(1, 40), data=st.data())
def test_kept_layers_are_spaced_as_widely_as_possible(layers: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, layers))
    chosen = spaced_layers(layers, kept)
    assert len(set(chosen)) == kept
    assert chosen[-1] == layers - 1
    if kept > 1:
        assert chosen[0] == 0
        gaps = np.diff(chosen)
        assert gaps.max() - gaps.min() <= 1


def test_the_layers_of_the_demo_and_of_published_students() -> None:
    assert spaced_layers(6, 2) == (0, 5)
    assert spaced_layers(6, 3) == (0, 3, 5)
    assert spaced_layers(6, 4) == (0, 2, 3, 5)
    assert spaced_layers(32, 2) == (0, 31)
    for wrong in (0, 7, -1):
        with pytest.raises(InputError, match="has 6"):
            spaced_layers(6, wrong)


def test_nothing_cut_is_the_same_model(teacher: SpeechModel) -> None:
    same = shrink_speech_model(teacher)
    assert same.origins == (0, 1, 2, 3)
    assert torch.equal(generate(same), generate(teacher))


def test_the_student_shares_no_memory_with_its_source(teacher: SpeechModel) -> None:
    student = shrink_speech_model(teacher, 2, 2)
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.fill_(7)
    student.model.generation_config.alignment_heads = []
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.model.state_dict().items())
    assert teacher.model.config.decoder_layers == 4
    assert teacher.model.generation_config.alignment_heads
    assert teacher.processor.feature_extractor.n_samples == 64_000


def test_removed_layers_are_skipped_and_nothing_else(teacher: SpeechModel) -> None:
    """Equal to the source with its removed blocks replaced by the identity."""
    student = shrink_speech_model(teacher, (0, 2))
    ids = torch.tensor([[305, 309, 314, 318, 10, 20]])
    encoded = teacher.model.model.encoder(features(teacher))
    skipping = load_speech_model(shared_tiny_whisper()).model
    kept = [skipping.model.decoder.layers[layer] for layer in (0, 2)]
    skipping.model.decoder.layers = torch.nn.ModuleList(kept)
    with torch.no_grad():
        expected = skipping(encoder_outputs=encoded, decoder_input_ids=ids, use_cache=False).logits
        found = student.model(encoder_outputs=encoded, decoder_input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(found, expected, atol=LOGIT_TOLERANCE, rtol=0)


@pytest.mark.parametrize("layers", [1, 2, 3, (1, 2), (3,)])
def test_generation_with_the_cache_equals_generation_without(teacher: SpeechModel, layers: Any) -> None:
    student = shrink_speech_model(teacher, layers, 2)
    assert torch.equal(generate(student), generate(student, use_cache=False))


def test_layer_numbers_of_the_cache_are_consecutive(teacher: SpeechModel) -> None:
    student = shrink_speech_model(teacher, (1, 3))
    for number, block in enumerate(student.model.model.decoder.layers):
        assert block.self_attn.layer_idx == block.encoder_attn.layer_idx == number


def test_the_window_slices_positions_and_the_features(teacher: SpeechModel) -> None:
    student = shrink_speech_model(teacher, None, 2)
    assert student.speech.window_seconds == 2
    assert features(student).shape[-1] == 200
    weight = student.model.model.encoder.embed_positions.weight
    assert torch.equal(weight, teacher.model.model.encoder.embed_positions.weight[:100])
    assert student.processor.feature_extractor.n_samples == 32_000
    assert torch.equal(features(student), features(teacher)[..., :200])


@pytest.mark.parametrize("window", [2.5, 0.5, 5.0])
def test_a_window_that_cannot_be(teacher: SpeechModel, window: float) -> None:
    with pytest.raises(InputError, match=f"{window:g} s"):
        shrink_speech_model(teacher, None, window)


@pytest.mark.parametrize("layers", [5, (0, 4), (-1,)])
def test_layers_that_do_not_exist(teacher: SpeechModel, layers: Any) -> None:
    with pytest.raises(InputError, match=r"decoder (layers|has layers)"):
        shrink_speech_model(teacher, layers)


def test_alignment_heads_follow_their_layers_and_word_timestamps_work(teacher: SpeechModel) -> None:
    assert teacher.model.generation_config.alignment_heads == [[2, 2], [3, 3]]
    student = shrink_speech_model(teacher, (0, 3), 2)
    assert student.word_timestamps
    assert student.model.generation_config.alignment_heads == [[1, 3]]
    made = generate(student, return_token_timestamps=True, force_unique_generate_call=None)
    assert made["token_timestamps"].shape == made["sequences"].shape


def test_alignment_heads_are_removed_where_none_survives(teacher: SpeechModel) -> None:
    student = shrink_speech_model(teacher, (0, 1))
    assert not student.word_timestamps
    assert getattr(student.model.generation_config, "alignment_heads", None) is None
    with pytest.raises(ValueError, match="alignment_heads"):
        generate(student, return_token_timestamps=True)


def test_shapes_alone_can_be_cut(teacher: SpeechModel) -> None:
    meta = SpeechModel(load_meta(shared_tiny_whisper()), None)
    real, shape = shrink_speech_model(teacher, 2, 2), shrink_speech_model(meta, 2, 2)
    assert count_params(real.model) == count_params(shape.model)
    assert all(parameter.is_meta for parameter in shape.model.parameters())


def test_the_head_stays_tied_to_the_embedding(teacher: SpeechModel) -> None:
    model = shrink_speech_model(teacher, 2).model
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
