"""Features and encoder outputs of clips that are made when they are asked for, because they cannot be kept.

Covers log-mel features for an encoder that is trained, and the outputs of an encoder as it is now. Does not cover a
frozen encoder, whose outputs are made once (`teachers.prefix_cache`).

Shape letters: M mel bins, F frames, S encoder positions, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from tutelage.tasks.speech.audio import read_audio
from tutelage.tasks.speech.features import FrozenEncoder, log_mel
from tutelage.tasks.speech.manifest import Utterance


class ClipFeatures(Mapping[str, Tensor]):
    """Log-mel features (M, F) by utterance id, read from the audio at each look.

    Args:
        clips: Each of at most the window.
        feature_extractor: A WhisperFeatureExtractor.
        window_seconds: Seconds to pad to.
    """

    def __init__(self, clips: Sequence[Utterance], feature_extractor: Any, window_seconds: float) -> None:
        self._clips = {clip.id: clip for clip in clips}
        self._extractor, self._window = feature_extractor, window_seconds

    def __getitem__(self, name: str) -> Tensor:
        """Of one clip."""
        return log_mel(self._extractor, [read_audio(self._clips[name].audio)], self._window)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clips)

    def __len__(self) -> int:
        return len(self._clips)


class CurrentOutputs(Mapping[str, Tensor]):
    """Outputs (S, H) by utterance id of an encoder as it is when they are looked at.

    Args:
        clips: Each of at most the encoder's window.
        encoder: Its weights may change between looks; its identity is not used.
    """

    def __init__(self, clips: Sequence[Utterance], encoder: FrozenEncoder) -> None:
        self._clips = {clip.id: clip for clip in clips}
        self._encoder = encoder

    def __getitem__(self, name: str) -> Tensor:
        """Of one clip."""
        return self._encoder([read_audio(self._clips[name].audio)])[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clips)

    def __len__(self) -> int:
        return len(self._clips)
