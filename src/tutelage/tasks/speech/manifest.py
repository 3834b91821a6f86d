"""Speech manifests: JSON lines that name recordings and what is said in them, read and checked before anything heavy.

Covers: the product's own rows `{"id", "audio", "text", "duration"[, "group"]}` and NeMo's and lhotse's
`audio_filepath`; rows of datasets; all faults at once, with their lines; groups where the rows name none; a hash of the
content.
Does not cover: decoding whole clips (`audio`), tokens (`batch`), or segments of long recordings (`offset` is refused).

Torch-free. soundfile is imported when the first file is opened.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tutelage.errors import InputError, MissingExtraError
from tutelage.progress import Progress, no_progress
from tutelage.records.hashing import sha256_file, sha256_json
from tutelage.tasks.sources import AudioSource
from tutelage.tasks.speech.dataset import read_audio_rows
from tutelage.tasks.speech.groups import group_utterances

DURATION_TOLERANCE = 0.1
"""Seconds by which a row may depart from its file: rounding and codec padding are below, another file is above."""

MOST_FAULTS = 20
"""Faults written out; the rest are counted."""

_OWN = ("id", "audio", "audio_filepath", "text", "duration", "group")
"""Columns with a meaning here; what others hold is kept as it is."""

_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell them, UTF-8 and tokenizers cannot


@dataclass(frozen=True)
class Utterance:
    """One recording with its transcript.

    Args:
        id: Unique in the manifest.
        audio: The file.
        text: The transcript as written, surrounding space removed.
        duration: Seconds, as the file has them (the manifest's figure is only checked).
        group: What must stay on one side of a split and is resampled together; never None after `read_manifest`.
        columns: Further columns of its row that hold a text, such as a speaker.
        sha256: Of the file's bytes; empty where nobody read them.
    """

    id: str
    audio: Path
    text: str
    duration: float
    group: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    sha256: str = ""

    @property
    def selectable(self) -> dict[str, str]:
        """What it can be selected by: its group and its further columns."""
        return {"group": str(self.group), **self.columns}


@dataclass(frozen=True)
class Dropped:
    """A row that was left out because the caller asked for it.

    Args:
        id: The row's id.
        line: Its line in the manifest, from 1.
        duration: Seconds.
        reason: One sentence.
    """

    id: str
    line: int
    duration: float
    reason: str


@dataclass(frozen=True)
class Manifest:
    """A manifest without faults.

    Args:
        utterances: In the order of the file.
        dropped: Rows left out, in the order of the file.
        sha256: Hash of what was kept: ids, transcripts, groups, further columns and the bytes of the audio files, in
            order. The same on every machine; where the files lie does not matter.
    """

    utterances: tuple[Utterance, ...]
    dropped: tuple[Dropped, ...]
    sha256: str

    @property
    def seconds(self) -> float:
        """Total duration in seconds."""
        return sum(utterance.duration for utterance in self.utterances)

    def spread(self, count: int) -> tuple[Utterance, ...]:
        """`count` utterances at even distances in the order of the file, always the same ones; all, if fewer."""
        size = len(self.utterances)
        chosen = min(count, size)
        return tuple(self.utterances[index * size // chosen] for index in range(chosen))


@dataclass(frozen=True)
class _Row:
    line: int
    utterance: Utterance


def read_manifest(
    path: Path | AudioSource,
    *,
    window_seconds: float | None = None,
    overlong: Literal["error", "drop"] = "error",
    normalise: Callable[[str], str] | None = None,
    progress: Progress = no_progress,
    slowest: float = 1.0,
    needs_text: bool = True,
) -> Manifest:
    """Read a manifest, check every row and every audio file, and report all faults together.

    A file is opened, its header read and its last frame decoded, which finds files that were cut off; its bytes are
    hashed. A row without `id` is called by its path as written (NeMo's rows have none).

    Args:
        path: JSON lines in UTF-8, whose paths are relative to its folder; or a dataset, whose rows name no duration.
        window_seconds: The longest clip that the model takes; None for no limit.
        overlong: What a longer clip is: an error, or a row that is dropped and counted.
        normalise: Makes the text that will be scored; a transcript that it empties is a fault.
        progress: Told of each row.
        slowest: The lowest speed that clips are played at; at it they must fit the window.
        needs_text: Whether a row without a transcript is a fault; without, its text is empty.

    Returns:
        The utterances, each with a group: the row's own, or else the id of the first utterance that shares its
        recording or has a near-duplicate transcript.

    Raises:
        InputError: With up to 20 faults, one line each, and the number of the others.
        MissingExtraError: soundfile is not installed.
    """
    lines = _lines_of(path, needs_text=needs_text)
    folder, place = (path.parent, "line") if isinstance(path, Path) else (Path(), "row")
    check = _Check(folder, normalise, needs_text)
    faults: list[str] = []
    rows: list[_Row] = []
    dropped: list[Dropped] = []
    first_line: dict[str, int] = {}
    with progress(f"read {path.name}", total=len(lines), unit="row") as advance:
        for number, raw in lines:
            row, found = check.row(number, raw)
            if row is not None:
                utterance = row.utterance
                first = first_line.setdefault(utterance.id, number)
                if first != number:
                    found.append(f"id {utterance.id!r} is also on {place} {first}.")
                elif window_seconds is not None and utterance.duration / slowest > window_seconds:
                    reason = _overlong(utterance, slowest, window_seconds)
                    if overlong == "drop":
                        dropped.append(Dropped(utterance.id, number, utterance.duration, reason))
                    else:
                        found.append(reason)
                    row = None
            faults += [f"{path}, {place} {number}: {fault}" for fault in found]
            if row is not None:
                rows.append(row)
            advance(1)
    faults += _faults_of_groups(f"{path}, {place}", rows)
    if not rows and not faults:
        faults.append(_nothing_left(path, dropped))
    if faults:
        raise InputError(_at_most(faults))
    utterances = _with_groups(rows)
    return Manifest(utterances, tuple(dropped), _hash_of(utterances))


def _overlong(utterance: Utterance, slowest: float, window_seconds: float) -> str:
    played = "" if slowest >= 1 else f", {utterance.duration / slowest:.2f} s at speed {slowest:g}"
    return f"{utterance.id} lasts {utterance.duration:.2f} s{played}, over the window of {window_seconds:g} s."


def _lines_of(path: Path | AudioSource, *, needs_text: bool) -> list[tuple[int, Any]]:
    """The rows that are not blank, with their numbers."""
    if isinstance(path, AudioSource):
        return list(read_audio_rows(path, needs_text=needs_text))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"The manifest {path} cannot be read: {error.strerror}.") from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    return [(number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]


@dataclass(frozen=True)
class _Check:
    """How rows are checked."""

    folder: Path
    normalise: Callable[[str], str] | None
    needs_text: bool

    def row(self, line: int, raw: bytes | Mapping[str, Any] | str) -> tuple[_Row | None, list[str]]:
        """The row (a line of JSON, a row of a dataset, or what is wrong with it) if it can be used, and its faults."""
        if isinstance(raw, str):
            return None, [raw]
        value = raw
        if isinstance(raw, bytes):
            try:
                value = json.loads(raw.decode("utf-8"))
            except UnicodeDecodeError as error:
                return None, [f"byte {error.start} is not UTF-8."]
            except json.JSONDecodeError as error:
                return None, [f"not JSON: {error.msg} at column {error.colno}."]
            except RecursionError:
                return None, ["not JSON that can be read: nested too deep."]
        if not isinstance(value, Mapping):
            return None, [f"a row is an object with id, audio, text and duration, not a {type(value).__name__}."]
        optional = {*(() if self.needs_text else ("text",)), *(() if isinstance(raw, bytes) else ("duration",))}
        faults = list(_faults_of_fields(value, optional))
        return (None, faults) if faults else self._hear(line, value)

    def _hear(self, line: int, value: Mapping[str, Any]) -> tuple[_Row | None, list[str]]:
        """The row of sound fields, if its text and its file are sound too."""
        written = str(value.get("audio", value.get("audio_filepath")))
        audio, text, faults = self.folder / written, str(value.get("text", "")).strip(), []
        if (text or self.needs_text) and not (self.normalise(text) if self.normalise else text).strip():
            faults.append(f"no words are left of the text {text!r} after normalisation.")
        try:
            seconds = _duration_of(audio)
            sha256 = sha256_file(audio)
        except InputError as error:
            return None, [*faults, *error.faults]
        except OSError as error:
            return None, [*faults, f"{audio} cannot be read: {error.strerror}."]
        if abs(seconds - (claimed := float(value.get("duration", seconds)))) > DURATION_TOLERANCE:
            faults.append(f"the duration is {claimed:g} s, but {audio.name} lasts {seconds:.3f} s.")
        columns = {name: text for name, text in value.items() if name not in _OWN and isinstance(text, str)}
        return _Row(
            line,
            Utterance(str(value.get("id", written)), audio, text, seconds, value.get("group"), columns, sha256),
        ), faults


def _faults_of_fields(value: Mapping[str, Any], optional: Collection[str] = ()) -> Iterator[str]:
    """Missing keys and wrong types."""
    audio = "audio" if "audio" in value or "audio_filepath" not in value else "audio_filepath"
    if "audio" in value and "audio_filepath" in value:
        yield "audio and audio_filepath are both given; keep one."
    needed = [audio, "duration", "text", *(["id"] if audio == "audio" else [])]
    missing = [key for key in sorted(needed) if key not in value and key not in optional]
    if missing:
        yield f"missing: {', '.join(missing)}."
    for key in ("id", audio, "text", "group"):
        if key not in value or (key == "group" and value[key] is None):
            continue
        if not isinstance(value[key], str):
            yield f"{key} is {value[key]!r}, not a text."
        elif key != "text" and not value[key]:
            yield f"{key} is empty."
        elif _SURROGATE.search(str(value[key])):
            yield f"{key} holds half of a character (a lone surrogate): {value[key]!r}."
    if "duration" in value:
        yield from _faults_of_duration(value["duration"])
    if value.get("offset"):
        yield f"offset is {value['offset']!r}; segments of longer files are not supported, cut the audio first."


def _faults_of_duration(duration: object) -> Iterator[str]:
    if isinstance(duration, bool) or not isinstance(duration, int | float):
        yield f"duration is {duration!r}, not a number of seconds."
    elif not math.isfinite(duration) or duration <= 0:
        yield f"duration is {duration} s; it must be a positive number."


def _duration_of(audio: Path) -> float:
    """Seconds in a file, after decoding its last frame."""
    try:
        import soundfile
    except ImportError as error:
        raise MissingExtraError("soundfile", "speech") from error
    if not audio.is_file():
        raise InputError(f"the file {audio} does not exist." if not audio.exists() else f"{audio} is not a file.")
    try:
        with soundfile.SoundFile(audio) as file:
            if file.frames <= 0:
                raise InputError(f"{audio} holds no audio.")
            file.seek(file.frames - 1)
            if len(file.read(1)) != 1:
                raise InputError(f"{audio} is cut off: its header promises {file.frames} frames.")
            return float(file.frames / file.samplerate)
    except (OSError, RuntimeError, ValueError) as error:  # libsndfile's errors are RuntimeErrors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{audio} cannot be read as audio: {reason}") from error


def _faults_of_groups(place: str, rows: list[_Row]) -> list[str]:
    """Groups are given by all rows or by none: half of them would put near-duplicates on both sides."""
    without = [row.line for row in rows if row.utterance.group is None]
    if not without or len(without) == len(rows):
        return []
    return [f"{place} {without[0]}: no group, though other rows name one ({len(without)} of {len(rows)} lack it)."]


def _with_groups(rows: list[_Row]) -> tuple[Utterance, ...]:
    utterances = [row.utterance for row in rows]
    if all(utterance.group is not None for utterance in utterances):
        return tuple(utterances)
    said = [utterance.text or utterance.sha256 for utterance in utterances]  # without a text: by recording alone
    firsts = group_utterances(said, [utterance.sha256 for utterance in utterances])
    return tuple(
        replace(utterance, group=utterances[first].id) for utterance, first in zip(utterances, firsts, strict=True)
    )


def _hash_of(utterances: tuple[Utterance, ...]) -> str:
    return sha256_json(
        [[u.id, u.text, u.group, u.sha256, *([dict(u.columns)] if u.columns else [])] for u in utterances]
    )


def _nothing_left(path: Path | AudioSource, dropped: list[Dropped]) -> str:
    if dropped:
        return f"{path} has no utterance left: all {len(dropped)} are longer than the model's window."
    return f"{path} holds no utterance."


def _at_most(faults: list[str]) -> list[str]:
    if len(faults) <= MOST_FAULTS:
        return faults
    return [*faults[:MOST_FAULTS], f"and {len(faults) - MOST_FAULTS} more faults."]
