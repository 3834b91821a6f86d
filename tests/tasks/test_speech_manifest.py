"""Every bad row is reported, together, with its line; a good manifest becomes utterances with groups."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tutelage.errors import InputError
from tutelage.tasks.speech.manifest import MOST_FAULTS, Manifest, Utterance, read_manifest

WriteTone = Callable[..., Path]


@pytest.fixture
def write_manifest(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: dict[str, Any] | str | bytes, name: str = "data.jsonl") -> Path:
        lines = [
            row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode()
            for row in rows
        ]
        path = tmp_path / name
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path

    return write


def row(name: str, audio: str = "a.wav", text: str = "", duration: float = 1.0, **more: Any) -> dict[str, Any]:
    # Distinct words by default, so that texts do not group by accident.
    return {"id": name, "audio": audio, "text": text or f"word{name} other{name}", "duration": duration, **more}


def faults_of(path: Path, **settings: Any) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        read_manifest(path, **settings)
    return caught.value.faults


def test_reads_formats_rates_and_relative_paths(write_tone: WriteTone, write_manifest: Callable[..., Path]) -> None:
    write_tone("audio/a.wav", 1.0)
    write_tone("audio/b.flac", 2.0, pitch=300, rate=44_100)
    write_tone("audio/c.ogg", 1.5, pitch=200, rate=8_000)
    path = write_manifest(
        row("a", "audio/a.wav"), row("b", "audio/b.flac", duration=2.0), row("c", "audio/c.ogg", duration=1.5)
    )
    manifest = read_manifest(path, window_seconds=2.0)
    assert [u.id for u in manifest.utterances] == ["a", "b", "c"]
    assert manifest.utterances[1].duration == pytest.approx(2.0, abs=0.01)
    assert manifest.utterances[0].audio == path.parent / "audio/a.wav"
    assert manifest.seconds == pytest.approx(4.5, abs=0.05)
    assert manifest.dropped == ()


def test_reads_nemo_rows_without_id(write_tone: WriteTone, write_manifest: Callable[..., Path]) -> None:
    write_tone("x.wav")
    path = write_manifest({"audio_filepath": "x.wav", "text": "hola", "duration": 1.0, "offset": 0})
    assert read_manifest(path).utterances[0].id == "x.wav"


def test_byte_order_mark_blank_lines_and_carriage_returns_are_fine(
    write_tone: WriteTone, write_manifest: Callable[..., Path]
) -> None:
    write_tone("a.wav")
    path = write_manifest(b"\xef\xbb\xbf" + json.dumps(row("a")).encode() + b"\r", b"", b"  ", row("b"))
    assert [u.id for u in read_manifest(path).utterances] == ["a", "b"]


GOOD = '{"id": "g", "audio": "a.wav", "text": "hola", "duration": 1.0}'
BAD_ROWS = {
    "not UTF-8": b'{"id": "\xff"}',
    "not JSON": '{"id": "a",',
    "an object": "[1, 2]",
    "missing: audio, duration, id, text": "{}",
    "missing: id": '{"audio": "a.wav", "text": "x", "duration": 1}',
    "missing: text": '{"audio_filepath": "a.wav", "duration": 1}',
    "both given": '{"id": "a", "audio": "a.wav", "audio_filepath": "a.wav", "text": "x", "duration": 1}',
    "id is 3": '{"id": 3, "audio": "a.wav", "text": "x", "duration": 1}',
    "id is empty": '{"id": "", "audio": "a.wav", "text": "x", "duration": 1}',
    "text is None": '{"id": "a", "audio": "a.wav", "text": null, "duration": 1}',
    "group is 1": '{"id": "a", "audio": "a.wav", "text": "x", "duration": 1, "group": 1}',
    "lone surrogate": '{"id": "a", "audio": "a.wav", "text": "\\ud800", "duration": 1}',
    "duration is '1'": '{"id": "a", "audio": "a.wav", "text": "x", "duration": "1"}',
    "duration is True": '{"id": "a", "audio": "a.wav", "text": "x", "duration": true}',
    "duration is nan": '{"id": "a", "audio": "a.wav", "text": "x", "duration": NaN}',
    "duration is inf": '{"id": "a", "audio": "a.wav", "text": "x", "duration": Infinity}',
    "duration is -1": '{"id": "a", "audio": "a.wav", "text": "x", "duration": -1}',
    "offset is 2": '{"id": "a", "audio": "a.wav", "text": "x", "duration": 1, "offset": 2}',
    "does not exist": '{"id": "a", "audio": "gone.wav", "text": "x", "duration": 1}',
    "is not a file": '{"id": "a", "audio": ".", "text": "x", "duration": 1}',
    "no words are left": '{"id": "a", "audio": "a.wav", "text": "...", "duration": 1}',
    "lasts 1.000 s": '{"id": "a", "audio": "a.wav", "text": "x", "duration": 1.2}',
    "cannot be read as audio": '{"id": "a", "audio": "text.wav", "text": "x", "duration": 1}',
    "holds no audio": '{"id": "a", "audio": "empty.wav", "text": "x", "duration": 1}',
    "window of 1.5 s": '{"id": "a", "audio": "long.wav", "text": "x", "duration": 2}',
    "also on line 1": GOOD,
}


@pytest.fixture
def recordings(write_tone: WriteTone, tmp_path: Path) -> None:
    write_tone("a.wav")
    write_tone("empty.wav", 0.0)
    write_tone("long.wav", 2.0)
    (tmp_path / "text.wav").write_text("not audio at all")


def strip_points(text: str) -> str:
    return text.replace(".", "")


@pytest.mark.usefixtures("recordings")
@pytest.mark.parametrize("fault", BAD_ROWS)
def test_a_bad_row_is_named_with_its_line(fault: str, write_manifest: Callable[..., Path]) -> None:
    path = write_manifest(GOOD, BAD_ROWS[fault])
    faults = faults_of(path, window_seconds=1.5, normalise=strip_points)
    assert len(faults) == 1
    assert faults[0].startswith(f"{path}, line 2: ")
    assert fault in faults[0]


@pytest.mark.usefixtures("recordings")
def test_all_faults_come_at_once(write_manifest: Callable[..., Path]) -> None:
    rows = [
        bad.replace('"id": "a"', f'"id": "a{n}"') if isinstance(bad, str) else bad
        for n, bad in enumerate(BAD_ROWS.values())
    ]
    path = write_manifest(GOOD, *rows)
    faults = faults_of(path, window_seconds=1.5, normalise=strip_points)
    assert len(faults) == MOST_FAULTS + 1
    assert faults[-1] == f"and {len(BAD_ROWS) - MOST_FAULTS} more faults."
    assert [fault.split(", line ")[1].split(":")[0] for fault in faults[:3]] == ["2", "3", "4"]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_file_that_was_cut_off_is_found(
    suffix: str, write_tone: WriteTone, write_manifest: Callable[..., Path]
) -> None:
    audio = write_tone(f"cut.{suffix}", 3.0)
    audio.write_bytes(audio.read_bytes()[: audio.stat().st_size * 6 // 10])
    assert len(faults_of(write_manifest(row("a", f"cut.{suffix}", duration=3.0)))) == 1


def test_overlong_clips_are_dropped_and_counted_when_asked(
    write_tone: WriteTone, write_manifest: Callable[..., Path]
) -> None:
    write_tone("a.wav", 1.0)
    write_tone("b.wav", 3.0)
    path = write_manifest(row("b", "b.wav", duration=3.0), row("a"))
    manifest = read_manifest(path, window_seconds=2.0, overlong="drop")
    assert [u.id for u in manifest.utterances] == ["a"]
    assert [(d.id, d.line) for d in manifest.dropped] == [("b", 1)]
    assert "3.00 s" in manifest.dropped[0].reason


def test_the_window_itself_fits(write_tone: WriteTone, write_manifest: Callable[..., Path]) -> None:
    write_tone("a.wav", 2.0)
    assert read_manifest(write_manifest(row("a", duration=2.0)), window_seconds=2.0).utterances


def test_nothing_left_is_an_error(write_tone: WriteTone, write_manifest: Callable[..., Path]) -> None:
    write_tone("a.wav", 2.0)
    assert "holds no utterance" in faults_of(write_manifest())[0]
    path = write_manifest(row("a", duration=2.0))
    assert "all 1 are longer" in faults_of(path, window_seconds=1.0, overlong="drop")[0]


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in faults_of(tmp_path / "none.jsonl")[0]
    assert "cannot be read" in faults_of(tmp_path)[0]


def test_groups_join_recordings_and_near_duplicates(write_tone: WriteTone, write_manifest: Callable[..., Path]) -> None:
    for name, pitch in (("a", 200), ("b", 300), ("c", 400)):
        write_tone(f"{name}.wav", pitch=pitch)
    write_tone("copy-of-a.wav", pitch=200)
    path = write_manifest(
        row("a", "a.wav", "un perro blanco grande"),
        row("b", "b.wav", "dos gatos"),
        row("c", "c.wav", "Un perro blanco, grande y feliz."),
        row("d", "copy-of-a.wav", "tres trenes"),
    )
    assert [u.group for u in read_manifest(path).utterances] == ["a", "b", "a", "a"]


def test_given_groups_stand_and_half_given_ones_are_refused(
    write_tone: WriteTone, write_manifest: Callable[..., Path]
) -> None:
    write_tone("a.wav")
    assert read_manifest(write_manifest(row("a", group="g"), row("b", group="h"))).utterances[1].group == "h"
    assert "(1 of 2 lack it)" in faults_of(write_manifest(row("a", group="g"), row("b")))[0]


def test_the_hash_is_of_the_content(write_tone: WriteTone, write_manifest: Callable[..., Path]) -> None:
    def read(*rows: dict[str, Any]) -> Manifest:
        return read_manifest(write_manifest(*rows))

    write_tone("a.wav", pitch=200)
    write_tone("elsewhere/b.wav", pitch=200)
    write_tone("c.wav", pitch=210)
    base = read(row("x", "a.wav", "hola")).sha256
    assert read(row("x", "elsewhere/b.wav", "hola", duration=1.05)).sha256 == base
    assert read(row("x", "c.wav", "hola")).sha256 != base
    assert read(row("x", "a.wav", "hola!")).sha256 != base
    assert read(row("y", "a.wav", "hola")).sha256 != base


def test_reading_loads_no_torch(write_tone: WriteTone, write_manifest: Callable[..., Path]) -> None:
    write_tone("a.wav")
    program = (
        "import sys, pathlib; from tutelage.tasks.speech.manifest import read_manifest; "
        "read_manifest(pathlib.Path(sys.argv[1])); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'scipy', 'soxr')))"
    )
    subprocess.run([sys.executable, "-c", program, str(write_manifest(row("a")))], check=True)


def test_channels_do_not_change_the_duration(tmp_path: Path, write_manifest: Callable[..., Path]) -> None:
    soundfile.write(tmp_path / "s.wav", np.zeros((16_000, 2)), 16_000)
    assert read_manifest(write_manifest(row("a", "s.wav"))).utterances[0].duration == 1.0


@pytest.mark.parametrize(
    ("size", "count", "chosen"), [(10, 5, [0, 2, 4, 6, 8]), (10, 3, [0, 3, 6]), (3, 32, [0, 1, 2]), (7, 0, [])]
)
def test_a_subset_is_spread_over_the_file_and_always_the_same(size: int, count: int, chosen: list[int]) -> None:
    utterances = tuple(Utterance(str(index), Path("a.wav"), "text", 1.0, str(index)) for index in range(size))
    spread = Manifest(utterances, (), "").spread(count)
    assert [int(utterance.id) for utterance in spread] == chosen
