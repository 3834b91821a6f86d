"""Tones as recordings, a tiny Whisper and its label codec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tiny import shared_tiny_whisper


@pytest.fixture
def write_tone(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tone of a pitch and a duration, in the format of the file's suffix."""

    def write(name: str, seconds: float = 1.0, pitch: float = 440.0, rate: int = 16_000, **settings: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
        # Whole numbers, because formats differ in how they round a float.
        soundfile.write(path, np.round(samples * 2**15).astype(np.int16), rate, **settings)
        return path

    return write


@pytest.fixture(scope="session")
def speech_model() -> Any:
    """A tiny random Whisper with a 4 s window and four decoder blocks. Shared: leave it as it is."""
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(shared_tiny_whisper()).eval()


@pytest.fixture(scope="session")
def processor() -> Any:
    from transformers import WhisperProcessor

    return WhisperProcessor.from_pretrained(shared_tiny_whisper())


@pytest.fixture(scope="session")
def codec(processor: Any) -> Any:
    from tutelage.tasks.speech.labels import LabelCodec

    return LabelCodec(processor.tokenizer, "es")
