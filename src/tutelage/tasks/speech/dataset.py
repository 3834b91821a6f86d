"""Recordings of a dataset as files, so that all that reads clips reads them alike.

A recording that a dataset holds as bytes is written once to `<cache>/recordings`, named by its hash; one that it names
by a path stays where it is. Covers that. Does not cover opening a dataset (`tasks.sources`) or checking clips
(`manifest`). Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tutelage.records.files import write_atomically
from tutelage.records.locations import cache_folder
from tutelage.tasks.sources import AudioSource, read_rows

LENGTH = 6
"""Digits of a row's number where it names the row, so that names sort as rows do."""


def read_audio_rows(source: AudioSource, *, needs_text: bool) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number from 0, row as a manifest has it but for the duration, or what is wrong with it) of every row.

    Raises:
        InputError: There is no such dataset, split or column, or a recording cannot be kept.
        MissingExtraError: `datasets` is not installed.
    """
    for number, row in read_rows(source, () if needs_text else ("text",)):
        audio = row.pop("audio", None)
        path = _file_of(audio)
        if path is None:
            held = "nothing" if audio is None else type(audio).__name__
            yield number, f"the column {source.audio!r} holds no recording (bytes or a path) but {held}."
            continue
        named = {"id": str(row.pop("id", f"{number:0{LENGTH}}")), "audio": str(path)}
        group = {"group": str(row.pop("group"))} if "group" in row else {}
        yield number, {**row, **named, **group}


def _file_of(audio: Any) -> Path | None:
    """The file of a recording; None where there is none."""
    if isinstance(audio, str):
        return Path(audio).absolute()
    if isinstance(audio, bytes):
        return _kept(audio, "")
    if not isinstance(audio, Mapping):
        return None
    content, path = audio.get("bytes"), audio.get("path")
    if content:
        return _kept(content, Path(path).suffix if path else "")
    return Path(path).absolute() if path else None


def _kept(content: bytes, suffix: str) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    path = cache_folder() / "recordings" / digest[:2] / f"{digest}{suffix or '.audio'}"
    if not path.is_file() or path.stat().st_size != len(content):
        write_atomically(path, content)
    return path
