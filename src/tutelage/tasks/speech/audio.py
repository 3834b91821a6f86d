"""Recorded audio as the model takes it: float32, mono, 16 kHz.

Covers: reading any format that libsndfile reads at any rate, and the hash that names a recording by its content.
Does not cover: checking a manifest's files (`manifest`), log-mel features (`features`).

soundfile and soxr are imported when the first clip is read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import InputError, MissingExtraError

SAMPLE_RATE = 16_000
"""Samples a second of everything that this package hears."""

Samples = NDArray[np.float32]


def read_audio(path: Path) -> Samples:
    """One clip at 16 kHz: channels averaged, resampled by soxr (HQ) where the file has another rate.

    Args:
        path: Any file that libsndfile reads.

    Returns:
        Shape (samples,), about -1 to 1.

    Raises:
        InputError: The file cannot be read as audio, holds nothing, or holds numbers that are not finite.
        MissingExtraError: soundfile or soxr is not installed.
    """
    try:
        import soundfile
    except ImportError as error:
        raise MissingExtraError("soundfile", "speech") from error
    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:  # libsndfile's errors are RuntimeErrors
        raise InputError(f"{path} cannot be read as audio: {error}") from error
    mono = np.ascontiguousarray(channels.mean(axis=1), dtype=np.float32)
    if mono.size == 0:
        raise InputError(f"{path} holds no audio.")
    if not np.isfinite(mono).all():
        raise InputError(f"{path} holds samples that are not finite numbers.")
    return resample(mono, rate)


def resample(mono: Samples, rate: int) -> Samples:
    """`mono` at 16 kHz; as it is when `rate` is 16 kHz already.

    Raises:
        MissingExtraError: soxr is not installed.
    """
    if rate == SAMPLE_RATE:
        return mono
    try:
        import soxr
    except ImportError as error:
        raise MissingExtraError("soxr", "speech") from error
    resampled: Samples = np.asarray(soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ"), dtype=np.float32)
    return resampled


def content_hash(samples: Samples) -> str:
    """SHA-256 (hex) of the samples as little-endian float32: the name of a recording, whatever its file is called."""
    return hashlib.sha256(np.ascontiguousarray(samples, dtype="<f4").tobytes()).hexdigest()
