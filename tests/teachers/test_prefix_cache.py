"""Encoder outputs are found by content alone, verified when read, and the work goes on when the disk does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tiny import shared_tiny_whisper
from tutelage.errors import TutelageError
from tutelage.tasks.speech.audio import read_audio
from tutelage.tasks.speech.manifest import Utterance
from tutelage.teachers import entries
from tutelage.teachers.prefix_cache import EncoderOutputs, PrefixCache

HALF = 2.0**-11  # float16 rounds to within this share of a normal number
TINIEST = 2.0**-25  # and to within this of one near zero


class CountingEncoder:
    """Output = mean of the samples plus an offset; counts the clips it is given."""

    def __init__(self, offset: float = 0.0, weights: str = "w") -> None:
        self.identity: Mapping[str, str] = {"encoder": weights, "window_seconds": "4"}
        self.offset = offset
        self.batches: list[int] = []

    def __call__(self, clips: Sequence[Any]) -> torch.Tensor:
        self.batches.append(len(clips))
        return torch.stack([torch.linspace(0, 1, 12).view(4, 3) * float(c.std()) + self.offset for c in clips])


def recording(path: Path, level: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.sin(np.arange(1600)) * level, 16_000, subtype="FLOAT")
    return path


@pytest.fixture
def clips(tmp_path: Path) -> list[Utterance]:
    paths = [recording(tmp_path / "audio" / f"{i}.wav", 0.1 * (i + 1)) for i in range(5)]
    return [Utterance(f"u{i}", path, "x", 0.1, None) for i, path in enumerate(paths)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def entry(folder: Path, clips: list[Utterance]) -> Path:
    """The file of the first clip, in a full cache."""
    cache = PrefixCache(CountingEncoder(), folder)
    cache.get_or_compute(clips)
    return cache.path(read_audio(clips[0].audio))


def values(outputs: EncoderOutputs) -> torch.Tensor:
    return torch.stack([outputs[name] for name in outputs])


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_second_run_computes_nothing_and_sees_the_same_numbers(folder: Path, clips: list[Utterance]) -> None:
    encoder = CountingEncoder(offset=1 / 3)
    first = PrefixCache(encoder, folder).get_or_compute(clips, batch_size=2)
    assert encoder.batches == [2, 2, 1]
    assert (first.use.hits, first.use.misses, first.use.in_memory) == (0, 5, 0)
    second = PrefixCache(encoder, folder).get_or_compute(list(reversed(clips)), batch_size=2)
    assert encoder.batches == [2, 2, 1]
    assert (second.use.hits, second.use.misses, second.use.bytes_written) == (5, 0, 0)
    assert second.use.bytes_read == first.use.bytes_written == sum(path.stat().st_size for path in files(folder))
    assert all(torch.equal(first[clip.id], second[clip.id]) for clip in clips)
    assert first["u0"].dtype == torch.float32
    exact = encoder([read_audio(clip.audio) for clip in clips])
    assert ((values(first) - exact).abs() <= HALF * exact.abs() + TINIEST).all()
    assert not torch.equal(values(first), exact), "nothing was rounded: the first run did not read what it stored"


def test_a_cached_output_is_the_live_one_within_the_bound(tmp_path: Path, folder: Path) -> None:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    from tutelage.tasks.speech.features import FrozenEncoder

    model = WhisperForConditionalGeneration.from_pretrained(shared_tiny_whisper()).eval()
    extractor = WhisperProcessor.from_pretrained(shared_tiny_whisper()).feature_extractor
    encoder = FrozenEncoder(model, extractor)
    clips = [Utterance(f"{i}", recording(tmp_path / f"{i}.wav", 0.2 + i / 5), "x", 0.1, None) for i in range(3)]
    live = encoder([read_audio(clip.audio) for clip in clips])
    for _ in range(2):
        cached = values(PrefixCache(encoder, folder).get_or_compute(clips, batch_size=3))
        assert ((cached - live).abs() <= HALF * live.abs() + TINIEST).all()


def test_names_play_no_part(folder: Path, clips: list[Utterance], tmp_path: Path) -> None:
    encoder = CountingEncoder()
    before = PrefixCache(encoder, folder).get_or_compute(clips[:1])
    moved = Utterance("other", recording(tmp_path / "elsewhere.wav", 0.1), "y", 0.1, None)
    assert PrefixCache(encoder, folder).get_or_compute([moved]).use.hits == 1
    # The same id and path with another recording, as happened when a cache was found by name.
    recording(clips[0].audio, 0.9)
    after = PrefixCache(encoder, folder).get_or_compute(clips[:1])
    assert after.use.misses == 1
    assert not torch.equal(after["u0"], before["u0"])


def test_another_encoder_never_finds_these(folder: Path, clips: list[Utterance]) -> None:
    PrefixCache(CountingEncoder(), folder).get_or_compute(clips)
    other = CountingEncoder(offset=1, weights="retrained")
    outputs = PrefixCache(other, folder).get_or_compute(clips)
    assert outputs.use.misses == 5
    assert outputs["u0"][0, 0] == 1
    other.identity = {**other.identity, "window_seconds": "10"}
    assert PrefixCache(other, folder).get_or_compute(clips).use.misses == 5


def test_a_recording_that_comes_twice_is_encoded_once(folder: Path, clips: list[Utterance], tmp_path: Path) -> None:
    twin = Utterance("twin", recording(tmp_path / "twin.wav", 0.1), "x", 0.1, None)
    encoder = CountingEncoder()
    outputs = PrefixCache(encoder, folder).get_or_compute([clips[0], twin, clips[1]], batch_size=8)
    assert encoder.batches == [2]
    assert torch.equal(outputs["twin"], outputs["u0"])
    assert len(outputs) == 3
    assert PrefixCache(encoder, folder).get_or_compute([clips[0], twin]).use.hits == 1


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit_of_a_value(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def take_another_entrys_file(path: Path) -> None:
    other = next(candidate for candidate in files(path.parents[1]) if candidate != path)
    path.write_bytes(other.read_bytes())


DAMAGES = [cut_off, empty, flip_a_bit_of_a_value, take_another_entrys_file]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_named_computed_again_and_the_rest_kept(
    damage: Callable[[Path], None], entry: Path, folder: Path, clips: list[Utterance]
) -> None:
    good = values(PrefixCache(CountingEncoder(), folder).get_or_compute(clips))
    damage(entry)
    said: list[str] = []
    encoder = CountingEncoder()
    outputs = PrefixCache(encoder, folder, said.append).get_or_compute(clips)
    assert encoder.batches == [1]
    assert (outputs.use.hits, outputs.use.misses, outputs.use.damaged) == (4, 1, (entry,))
    assert len(said) == 1
    assert said[0].startswith(f"{entry} is damaged (")
    repaired = PrefixCache(CountingEncoder(), folder).get_or_compute(clips)
    assert repaired.use.hits == 5
    assert torch.equal(values(repaired), good)


def test_damage_during_a_run_is_an_error_not_a_wrong_number(entry: Path, folder: Path, clips: list[Utterance]) -> None:
    outputs = PrefixCache(CountingEncoder(), folder).get_or_compute(clips)
    flip_a_bit_of_a_value(entry)
    with pytest.raises(TutelageError, match=r"is damaged .* run again"):
        outputs["u0"]
    entry.unlink()
    with pytest.raises(TutelageError, match=r"is not there.* run again"):
        outputs["u0"]
    with pytest.raises(KeyError):
        outputs["nobody"]


def test_a_killed_run_keeps_what_it_had(folder: Path, clips: list[Utterance]) -> None:
    class Dying(CountingEncoder):
        def __call__(self, clips: Sequence[Any]) -> torch.Tensor:
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().__call__(clips)

    with pytest.raises(KeyboardInterrupt):
        PrefixCache(Dying(), folder).get_or_compute(clips, batch_size=2)
    assert PrefixCache(CountingEncoder(), folder).get_or_compute(clips).use.hits == 4


def test_a_full_disk_is_said_once_and_memory_serves(
    folder: Path, clips: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[Path] = []

    def fail_later(path: Path, content: bytes) -> int:
        writes.append(path)
        if len(writes) > 2:
            with path.open("wb") as file:
                file.write(content[:10])
            raise OSError(28, "No space left on device")
        with path.open("wb") as file:
            return file.write(content)

    monkeypatch.setattr(Path, "write_bytes", fail_later)
    said: list[str] = []
    encoder = CountingEncoder(offset=1 / 3)
    outputs = PrefixCache(encoder, folder, said.append).get_or_compute(clips, batch_size=2)
    assert (outputs.use.misses, outputs.use.in_memory) == (5, 3)
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert "kept in memory" in said[0]
    assert len(files(folder)) == 2, "a half-written file was left"
    monkeypatch.undo()
    again = PrefixCache(encoder, folder).get_or_compute(clips)
    assert again.use.hits == 2
    assert torch.equal(values(again), values(outputs)), "memory and disk must give the same numbers"


def test_room_is_left_for_checkpoints(folder: Path, clips: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "SPARE_BYTES", 1 << 62)
    said: list[str] = []
    outputs = PrefixCache(CountingEncoder(), folder, said.append).get_or_compute(clips)
    assert outputs.use.in_memory == 5
    assert len(said) == 1
    assert not folder.exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path, clips: list[Utterance]) -> None:
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    outputs = PrefixCache(CountingEncoder(), tmp_path / "file", said.append).get_or_compute(clips)
    assert outputs.use.in_memory == 5
    assert len(said) == 1


def test_what_float16_cannot_hold_keeps_float32(folder: Path, clips: list[Utterance]) -> None:
    outputs = PrefixCache(CountingEncoder(offset=1e6), folder).get_or_compute(clips[:1])
    assert outputs["u0"][0, 0] == 1e6


def test_the_default_folder_is_the_users(
    clips: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "chosen"))
    PrefixCache(CountingEncoder()).get_or_compute(clips[:1])
    assert len(files(tmp_path / "chosen" / "encoder_outputs")) == 1
