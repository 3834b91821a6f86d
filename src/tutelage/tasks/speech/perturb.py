"""Clips changed as a variant says: played slower or faster, and masked.

Covers speed, SpecAugment's masks, a frozen encoder over changed clips (with an identity of its own, so that caches
tell the copies apart), and features for an encoder that is trained. Does not cover which copy is heard when
(`augment`).

Shape letters: B batch, M mel bins, F frames, S encoder positions, H hidden.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.errors import MissingExtraError
from tutelage.records.hashing import sha256_json
from tutelage.tasks.speech.audio import SAMPLE_RATE, Samples, content_hash, read_audio
from tutelage.tasks.speech.augment import SpecAugment, Variant
from tutelage.tasks.speech.features import FrozenEncoder, encode_clips, log_mel
from tutelage.tasks.speech.manifest import Utterance

MOST_OF_A_CLIP = 5
"""A stretch of time takes at most one part in this of the clip, so that short ones are not masked away."""


def change_speed(samples: Samples, speed: float) -> Samples:
    """A clip played at a speed: pitch changes with it, and it lasts 1/speed as long (soxr, HQ).

    Raises:
        MissingExtraError: soxr is not installed.
    """
    if speed == 1.0:
        return samples
    try:
        import soxr
    except ImportError as error:
        raise MissingExtraError("soxr", "speech") from error
    return np.asarray(soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE, quality="HQ"), dtype=np.float32)


def mask(features_MF: Tensor, frames: int, settings: SpecAugment, seed: str) -> Tensor:
    """SpecAugment's masks over one clip's features; what is masked takes the mean of the clip's own sound.

    Args:
        features_MF: Log-mel features, padded with silence.
        frames: Frames of the clip's own sound.
        settings: How much is masked.
        seed: Decides where.

    Source: `park2019`, without time warping.
    """
    drawing = random.Random(seed)
    bins = features_MF.shape[0]
    masked_MF = features_MF.clone()
    mean = features_MF[:, :frames].mean()
    for _ in range(settings.time_masks):
        start, width = _stretch(drawing, frames, min(settings.time_width, frames // MOST_OF_A_CLIP))
        masked_MF[:, start : start + width] = mean
    for _ in range(settings.freq_masks):
        start, width = _stretch(drawing, bins, min(settings.freq_width, bins))
        masked_MF[start : start + width, :frames] = mean
    return masked_MF


def _stretch(drawing: random.Random, size: int, widest: int) -> tuple[int, int]:
    width = drawing.randint(0, widest)
    return drawing.randint(0, size - width), width


@dataclass(frozen=True)
class Perturbation:
    """A variant with what it is drawn from.

    Args:
        variant: Which.
        settings: The masks; None for none.
        seed: Of the masks, together with the recording and the variant's number.
    """

    variant: Variant
    settings: SpecAugment | None
    seed: int

    @property
    def identity(self) -> Mapping[str, str]:
        """Everything that a changed clip depends on beside its samples."""
        found = {"speed": f"{self.variant.speed:g}"}
        if self.settings is not None and self.variant.masks is not None:
            amounts = {name: value for name, value in vars(self.settings).items() if name != "variants"}
            found["masks"] = sha256_json({**amounts, "drawing": self.variant.masks, "seed": self.seed})
        return found

    def features(self, extractor: Any, clips: Sequence[Samples], window_seconds: float) -> Tensor:
        """Log-mel features (B, M, F) of changed clips.

        Raises:
            ValueError: A changed clip is longer than the window.
        """
        played = [change_speed(clip, self.variant.speed) for clip in clips]
        features_BMF = log_mel(extractor, played, window_seconds)
        if self.settings is None or self.variant.masks is None:
            return features_BMF
        return torch.stack(
            [
                mask(
                    features_MF,
                    min(features_MF.shape[1], len(sound) // extractor.hop_length + 1),
                    self.settings,
                    f"masks/{self.seed}/{self.variant.masks}/{content_hash(clip)}",
                )
                for features_MF, sound, clip in zip(features_BMF, played, clips, strict=True)
            ]
        )


class PerturbedEncoder:
    """A frozen encoder over changed clips, for `teachers.prefix_cache`.

    Args:
        model: As in `FrozenEncoder`.
        feature_extractor: As there.
        perturbation: What is changed.

    Attributes:
        identity: The encoder's with the perturbation's; the encoder's own where nothing is changed.
    """

    def __init__(self, model: nn.Module, feature_extractor: Any, perturbation: Perturbation) -> None:
        self._encoder = FrozenEncoder(model, feature_extractor)
        self._model, self._extractor, self._perturbation = model, feature_extractor, perturbation
        changes = perturbation.variant.changes
        self.identity: Mapping[str, str] = {
            **self._encoder.identity,
            **({f"augment_{name}": value for name, value in perturbation.identity.items()} if changes else {}),
        }

    def __call__(self, clips: Sequence[Samples]) -> Tensor:
        """Encoder output (B, S, H) of changed clips, float32.

        Raises:
            ValueError: A changed clip is longer than the window.
        """
        window = self._encoder.window_seconds
        return encode_clips(self._model, self._perturbation.features(self._extractor, clips, window))


class PerturbedFeatures(Mapping[str, Tensor]):
    """Log-mel features (M, F) by id of copies of clips, made from the audio at each look.

    Args:
        copies: Clips with their perturbations.
        feature_extractor: A WhisperFeatureExtractor.
        window_seconds: Seconds to pad to.
    """

    def __init__(
        self, copies: Sequence[tuple[Utterance, Perturbation]], feature_extractor: Any, window_seconds: float
    ) -> None:
        self._copies = {clip.id: (clip, perturbation) for clip, perturbation in copies}
        self._extractor, self._window = feature_extractor, window_seconds

    def __getitem__(self, name: str) -> Tensor:
        """Of one copy."""
        clip, perturbation = self._copies[name]
        return perturbation.features(self._extractor, [read_audio(clip.audio)], self._window)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._copies)

    def __len__(self) -> int:
        return len(self._copies)
