"""Changed copies of clips: which is heard when, what is masked, and that caches tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tutelage.tasks.sampler import EpochSampler
from tutelage.tasks.speech.audio import SAMPLE_RATE, read_audio
from tutelage.tasks.speech.augment import Augment, SpecAugment, Variant, VariantSampler, draw_all
from tutelage.tasks.speech.features import FrozenEncoder, log_mel
from tutelage.tasks.speech.manifest import Utterance
from tutelage.tasks.speech.perturb import Perturbation, PerturbedEncoder, PerturbedFeatures, change_speed, mask

NAMES = ("a", "b", "c", "d", "e")
WINDOW = 4.0
HERTZ = 2.0  # a tone of two seconds: its spectrum is told to half a hertz


def sampler(batch_size: int = 3, seed: int = 0, places: Any = None) -> VariantSampler:
    return VariantSampler(EpochSampler(len(NAMES), batch_size, seed), NAMES, 4, seed, places)


def test_every_speed_comes_with_every_drawing_of_the_masks() -> None:
    both = Augment((0.9, 1.0), SpecAugment(variants=2))
    assert [str(one) for one in both.variants] == ["x0.9-m0", "x0.9-m1", "x1-m0", "x1-m1"]
    assert both.slowest == 0.9
    assert [str(one) for one in Augment((1.0, 1.1)).variants] == ["x1", "x1.1"]
    assert Augment((1.1,)).slowest == 1.0


def test_a_clip_is_one_copy_an_epoch_whatever_the_batches() -> None:
    def epochs(batch_size: int) -> list[Any]:
        order = sampler(batch_size)
        return [heard for _ in range(60 // batch_size) for heard in order.next_heard()]

    one_by_one = epochs(1)
    assert one_by_one == epochs(3) == epochs(20)
    for start in range(0, 60, 5):
        assert sorted(heard.clip for heard in one_by_one[start : start + 5]) == [0, 1, 2, 3, 4]
    variants = {name: {heard.variant for heard in one_by_one if heard.clip == name} for name in range(5)}
    assert all(len(found) > 1 for found in variants.values()), "a clip's copies change from epoch to epoch"
    assert len({heard.variant for heard in one_by_one[:5]}) > 1, "clips of one epoch are not all alike"


def test_positions_are_of_what_is_heard_and_resume() -> None:
    drawn = draw_all(sampler(), 4)
    assert len(drawn.heard) == len(set(drawn.heard)) <= 12
    order = sampler(places=drawn.places)
    straight = [order.next_batch() for _ in range(4)]
    reference = sampler()
    assert [[drawn.heard[place] for place in batch] for batch in straight] == [
        list(reference.next_heard()) for _ in range(4)
    ]
    first, second = sampler(places=drawn.places), sampler(places=drawn.places)
    first.next_batch(), first.next_batch()
    second.load_state_dict(first.state_dict())
    assert [second.next_batch() for _ in range(2)] == straight[2:]


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_a_faster_clip_is_shorter_and_higher(write_tone: Callable[..., Path], speed: float) -> None:
    clip = read_audio(write_tone("tone.wav", 2.0, pitch=440.0))
    changed = change_speed(clip, speed)
    assert len(changed) == pytest.approx(len(clip) / speed, abs=2)
    loudest = np.abs(np.fft.rfft(changed)).argmax() * SAMPLE_RATE / len(changed)
    assert loudest == pytest.approx(440 * speed, abs=HERTZ)
    assert change_speed(clip, 1.0) is clip


def test_masks_are_stretches_of_the_clips_own_mean() -> None:
    features = torch.arange(20 * 100, dtype=torch.float32).reshape(20, 100)
    settings = SpecAugment(time_masks=1, time_width=40, freq_masks=1, freq_width=5)
    mean = features[:, :50].mean()
    for number in range(30):
        masked = mask(features, 50, settings, f"seed {number}")
        changed = masked != features
        assert (masked[changed] == mean).all()
        assert not changed[:, 50:].any(), "the silence behind the clip stays"
        columns = changed.all(dim=0).nonzero().flatten().tolist()
        rows = changed[:, :50].all(dim=1).nonzero().flatten().tolist()
        assert len(columns) <= 10, "at most a fifth of the clip"
        assert len(rows) <= 5
        for found in (columns, rows):
            assert not found or found == list(range(found[0], found[-1] + 1))
        assert int(changed.sum()) == len(columns) * 20 + len(rows) * (50 - len(columns))
        assert torch.equal(masked, mask(features, 50, settings, f"seed {number}"))
    drawn = {mask(features, 50, settings, f"seed {number}").sum().item() for number in range(30)}
    assert len(drawn) > 20
    assert features[0, 1] == 1.0, "the features themselves stay"


def test_caches_tell_copies_apart(speech_model: Any, processor: Any) -> None:
    def identity(variant: Variant, settings: SpecAugment | None, seed: int = 0) -> Any:
        encoder = PerturbedEncoder(speech_model, processor.feature_extractor, Perturbation(variant, settings, seed))
        return tuple(sorted(encoder.identity.items()))

    masks = SpecAugment()
    plain = tuple(sorted(FrozenEncoder(speech_model, processor.feature_extractor).identity.items()))
    found = [
        identity(Variant(0.9), None),
        identity(Variant(1.1), None),
        identity(Variant(1.0, 0), masks),
        identity(Variant(1.0, 1), masks),
        identity(Variant(0.9, 0), masks),
        identity(Variant(1.0, 0), masks, seed=1),
        identity(Variant(1.0, 0), SpecAugment(time_width=41)),
    ]
    assert len({plain, *found}) == len(found) + 1
    assert identity(Variant(), None) == identity(Variant(), None, seed=1) == plain
    more = SpecAugment(variants=9)
    assert identity(Variant(1.0, 0), more) == found[2], "how many drawings there are changes none of them"


def test_encoder_and_features_hear_the_same_copy(
    write_tone: Callable[..., Path], speech_model: Any, processor: Any
) -> None:
    from tutelage.tasks.speech.features import encode_clips

    extractor = processor.feature_extractor
    perturbation = Perturbation(Variant(0.9, 1), SpecAugment(), 0)
    clip = Utterance("a", write_tone("a.wav", 1.0), "x", 1.0)
    features = PerturbedFeatures([(clip, perturbation)], extractor, WINDOW)
    samples = read_audio(clip.audio)
    heard = PerturbedEncoder(speech_model, extractor, perturbation)([samples])
    assert torch.equal(heard[0], encode_clips(speech_model, features["a"][None])[0])
    assert not torch.equal(features["a"], log_mel(extractor, [samples], WINDOW)[0])
    with pytest.raises(ValueError, match="does not fit a window"):
        PerturbedEncoder(speech_model, extractor, perturbation)([np.zeros(round(3.8 * SAMPLE_RATE), np.float32)])
