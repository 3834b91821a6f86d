"""Any file becomes float32 mono at 16 kHz, and its hash is of what is heard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tutelage.errors import InputError
from tutelage.tasks.speech.audio import SAMPLE_RATE, content_hash, read_audio


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_a_tone_keeps_pitch_level_and_duration(rate: int, write_tone: Callable[..., Path]) -> None:
    samples = read_audio(write_tone("tone.wav", 1.0, pitch=1000, rate=rate))
    assert samples.dtype == np.float32
    assert len(samples) == SAMPLE_RATE
    spectrum = np.abs(np.fft.rfft(samples)) / len(samples) * 2
    assert int(spectrum.argmax()) == 1000
    assert spectrum.max() == pytest.approx(0.5, abs=0.01)  # a percent for the filter's edges


def test_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
    soundfile.write(tmp_path / "s.wav", stereo, SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "s.wav"), np.full(100, 0.125, np.float32))


def test_the_hash_is_of_samples_not_of_files(write_tone: Callable[..., Path]) -> None:
    wav, flac = write_tone("a.wav"), write_tone("b.flac")
    assert content_hash(read_audio(wav)) == content_hash(read_audio(flac))
    assert content_hash(read_audio(wav)) != content_hash(read_audio(write_tone("c.wav", pitch=441)))


def test_what_cannot_be_heard(tmp_path: Path, write_tone: Callable[..., Path]) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="cannot be read as audio"):
        read_audio(tmp_path / "text.wav")
    with pytest.raises(InputError, match="cannot be read as audio"):
        read_audio(tmp_path / "gone.wav")
    with pytest.raises(InputError, match="not finite"):
        read_audio(tmp_path / "nan.wav")
    with pytest.raises(InputError, match="holds no audio"):
        read_audio(write_tone("empty.wav", 0.0))
