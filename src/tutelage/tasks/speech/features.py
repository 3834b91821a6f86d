"""Log-mel features for a window of any length, and the frozen encoder that reads them.

Covers: Whisper's features padded to the model's own window (10 s give 1000 frames and 500 encoder positions), one
encoder pass without gradients, and the identity of that computation, which caches are keyed by.
Does not cover: cutting a model's window (`students.shrink`), keeping outputs (`teachers.prefix_cache`).

Shape letters: B batch, M mel bins, F frames, S encoder positions, H hidden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.tasks.speech.audio import SAMPLE_RATE, Samples

FRAMES_PER_POSITION = 2  # the stride of the encoder's second convolution


def log_mel(feature_extractor: Any, clips: Sequence[Samples], window_seconds: float) -> Tensor:
    """Log-mel features of clips, padded with silence to the window.

    The extractor's own chunk length is not used and not changed, so one extractor serves a 30 s teacher and a 10 s
    student.

    Args:
        feature_extractor: A WhisperFeatureExtractor.
        clips: float32 mono at 16 kHz.
        window_seconds: Seconds to pad to.

    Returns:
        (B, M, F) float32, F = 100 frames a second of the window.

    Raises:
        ValueError: A clip is longer than the window; nothing is ever cut off silently.
    """
    samples = round(window_seconds * SAMPLE_RATE)
    longest = max(len(clip) for clip in clips)
    if longest > samples:
        raise ValueError(f"a clip of {longest / SAMPLE_RATE:.2f} s does not fit a window of {window_seconds:g} s.")
    features: Tensor = feature_extractor(
        list(clips), sampling_rate=SAMPLE_RATE, padding="max_length", max_length=samples, return_tensors="pt"
    )["input_features"]
    return features


def encode_clips(model: nn.Module, features_BMF: Tensor) -> Tensor:
    """One pass of the encoder, without gradients and dropout.

    Args:
        model: A Whisper model, PEFT-wrapped or not, whose encoder has F / 2 positions.
        features_BMF: From `log_mel`.

    Returns:
        (B, S, H) float32 on the model's device.
    """
    encoder: Any = model.get_encoder()  # type: ignore[operator]  # nn.Module hides what a Whisper model has
    parameter = next(encoder.parameters())
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            output: Tensor = encoder(features_BMF.to(parameter.device, parameter.dtype)).last_hidden_state
    finally:
        encoder.train(was_training)
    return output.float()


def fingerprint(module: nn.Module) -> str:
    """SHA-256 (hex) of a module's weights: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FrozenEncoder:
    """A Whisper encoder as a function of audio, together with what identifies it.

    Args:
        model: A Whisper model, PEFT-wrapped or not. Its encoder must not change while this is used.
        feature_extractor: A WhisperFeatureExtractor with as many mel bins.

    Attributes:
        window_seconds: The model's own window, from its encoder positions.
        identity: Everything that the output depends on beside the samples, as text by name.

    Raises:
        ValueError: The extractor's mel bins are not the encoder's.
    """

    def __init__(self, model: nn.Module, feature_extractor: Any) -> None:
        config: Any = model.config
        if feature_extractor.feature_size != config.num_mel_bins:
            raise ValueError(
                f"the feature extractor makes {feature_extractor.feature_size} mel bins, the encoder reads "
                f"{config.num_mel_bins}."
            )
        self._model = model
        self._feature_extractor = feature_extractor
        frame_seconds = feature_extractor.hop_length / SAMPLE_RATE
        self.window_seconds: float = config.max_source_positions * FRAMES_PER_POSITION * frame_seconds
        encoder: Any = model.get_encoder()  # type: ignore[operator]
        settings = {name: getattr(feature_extractor, name, None) for name in ("n_fft", "hop_length", "dither")}
        self.identity: Mapping[str, str] = {
            "encoder": fingerprint(encoder),
            "dtype": str(next(encoder.parameters()).dtype),
            "heads": str(config.encoder_attention_heads),
            "activation": str(config.activation_function),
            "window_seconds": f"{self.window_seconds:g}",
            "mel_bins": str(feature_extractor.feature_size),
            "mel_filters": hashlib.sha256(feature_extractor.mel_filters.astype("<f8").tobytes()).hexdigest(),
            **{name: str(value) for name, value in settings.items()},
        }

    def __call__(self, clips: Sequence[Samples]) -> Tensor:
        """Encoder output (B, S, H) of clips of at most the window, float32.

        Raises:
            ValueError: A clip is longer than the window.
        """
        return encode_clips(self._model, log_mel(self._feature_extractor, clips, self.window_seconds))
