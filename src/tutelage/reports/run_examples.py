"""What the systems wrote: transcripts aligned with what was said, differing words marked; continuations of texts.

Covers: choosing clips (evenly spread, and the worst), the alignment, marks as pieces of text. Does not cover: error
rates, which come from the result. Words are compared in lower case and without punctuation, which is what Whisper's
basic normaliser does to them; the English one does more, so that marks may be more than the errors that it counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tutelage.errors import MissingExtraError
from tutelage.evaluation.aligned import AlignedWord, align_words
from tutelage.reports import words
from tutelage.reports.content import Example, Line, Piece, Section
from tutelage.reports.run_files import RunFiles

SPREAD = 4
WORST = 4
_BESIDE = re.compile(r"[^\w\s]|_")
_BRACKETED = re.compile(r"[<\[][^>\]]*[>\]]|\([^)]*\)")


def example_section(files: RunFiles) -> Section:
    """Examples of the task; empty where the run kept none."""
    if files.result is None:
        return Section("Examples")
    if files.task == "text":
        return _continuations(files)
    systems = [system.text("name") for system in files.result.rows("systems")]
    written = _by_system(files.transcripts)
    shown = [name for name in systems if name in written][-3:]
    letters = any(each.text("normaliser").endswith("split-letters") for each in files.result.rows("systems"))
    student = next((name for name in reversed(systems) if name in written), None)
    if student is None:
        return Section("Examples")
    try:
        return _transcripts(written, shown, student, letters)
    except MissingExtraError as error:
        return Section("Examples", (f"Left out: {error}.",))


def _transcripts(
    written: Mapping[str, Mapping[str, Mapping[str, Any]]], shown: Sequence[str], student: str, letters: bool
) -> Section:
    clips = list(written[student])
    errors = {clip: _errors(written[student][clip], letters) for clip in clips}
    spread = [clips[index] for index in np.unique(np.linspace(0, len(clips) - 1, SPREAD).round().astype(int))]
    ranked = sorted((clip for clip in clips if clip not in spread), key=lambda clip: (-errors[clip], clip))
    worst = [clip for clip in ranked if errors[clip]][:WORST]
    examples = [
        _example(f"{why}: {clip}", [(name, written[name][clip]) for name in shown if clip in written[name]], letters)
        for why, chosen in (("Evenly spread", spread), ("Worst", worst))
        for clip in chosen
    ]
    told = (
        f"{words.sentence(words.plural(len(spread), 'clip'))} evenly spread over the held-out data in their order, "
        f"whatever came of them, and the {words.plural(len(worst), 'other clip')} with the most word errors of "
        f"{student}. "
        f"{sum(1 for found in errors.values() if not found)} of {len(clips)} clips have none. Struck out: said and not "
        "written. Underlined: written and not said. Words are compared in lower case and without punctuation."
    )
    return Section("Aligned examples", (told,), examples=tuple(examples))


def _example(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]], letters: bool) -> Example:
    lines = [Line("said", (Piece(str(rows[0][1].get("reference", ""))),))] if rows else []
    for name, row in rows:
        aligned = _align(row, letters)
        count = sum(word.kind != "equal" for word in aligned)
        lines.append(Line(f"{name}, {words.plural(count, 'error')}", pieces_of(aligned)))
    return Example(title, tuple(lines))


def pieces_of(aligned: Sequence[AlignedWord]) -> tuple[Piece, ...]:
    """An alignment as pieces: equal words together, of a substitution what was said before what was written."""
    pieces: list[Piece] = []

    def add(text: str | None, kind: Literal["", "lost", "added"]) -> None:
        if text is None:
            return
        if pieces and pieces[-1].kind == kind == "":
            pieces[-1] = Piece(f"{pieces[-1].text} {text}")
        else:
            pieces.append(Piece(text, kind))

    for word in aligned:
        if word.kind == "equal":
            add(word.said, "")
        else:
            add(word.said, "lost")
            add(word.written, "added")
    return tuple(pieces) or (Piece("(nothing)", "none"),)


def plain_words(text: str, letters: bool = False) -> str:
    """The text in lower case without brackets' content and punctuation, words (or letters) separated by one space."""
    folded = unicodedata.normalize("NFKC", _BRACKETED.sub("", text.lower()))
    found = _BESIDE.sub(" ", folded)
    return " ".join(found.replace(" ", "") if letters else found.split())


def _align(row: Mapping[str, Any], letters: bool) -> tuple[AlignedWord, ...]:
    said, wrote = (plain_words(str(row.get(key, "")), letters) for key in ("reference", "transcript"))
    return align_words(said, wrote)


def _errors(row: Mapping[str, Any], letters: bool) -> int:
    return sum(word.kind != "equal" for word in _align(row, letters))


def _by_system(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for line in lines:
        found.setdefault(str(line.get("system")), {})[str(line.get("id"))] = line
    return found


def _continuations(files: RunFiles) -> Section:
    assert files.result is not None
    samples = files.result.rows("samples")
    examples = []
    for sample in samples:
        lines = [Line("beginning", (Piece(_flat(sample.text("prompt"))),))]
        for key, label in (("reference", "text"), ("teacher", "teacher"), ("student", "student")):
            if sample.has(key):
                lines.append(Line(label, (Piece(_flat(sample.text(key))),)))
        examples.append(Example(sample.text("id"), tuple(lines)))
    told = (
        f"The beginnings of {words.plural(len(samples), 'held-out document')} evenly spread over the held-out data, "
        "how the text goes on, and how each model does, taking the likeliest token at each position."
    )
    return Section("Continuations", (told,) if examples else (), examples=tuple(examples))


def _flat(text: str) -> str:
    return " ".join(text.split())
