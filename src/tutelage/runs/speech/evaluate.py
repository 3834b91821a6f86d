"""Judging Whisper models that exist on a manifest: the same conditions for all, any two compared.

Covers what is examined, its faults, and the document. Models are folders, runs' folders or hub names. Does not cover
loading and judging (`examine`) or a run's own rows (`distil`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tutelage.errors import InputError
from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.models.layout import window_seconds
from tutelage.models.resolve import ResolvedModel
from tutelage.models.verify import read_config
from tutelage.progress import Progress, Talk, no_progress, say_nothing
from tutelage.records.document import Document
from tutelage.records.provenance import collect_provenance
from tutelage.runs.scoreboard import compare_systems
from tutelage.runs.speech.reading import Reading
from tutelage.runs.systems import Conditions, find_systems
from tutelage.tasks.sources import AudioSource
from tutelage.tasks.speech.manifest import Manifest, read_manifest

COMPARED = ("wer", "capped_wer", "nats_per_token", "brier")


@dataclass(frozen=True, kw_only=True)
class Examination(Conditions):
    """What is judged, and on what.

    Args:
        manifest: The clips.
        language: Language code as in Whisper's tokens; None for English-only models.
        beams: Transcripts that the search keeps; 1 is greedy.
        long: What a clip longer than a model's window is: refused, or read in overlapping pieces.
    """

    manifest: Path | AudioSource
    language: str | None = None
    beams: int = 1
    long: Literal["refuse", "chunk"] = "refuse"


def evaluate(examination: Examination, *, progress: Progress = no_progress, talk: Talk = say_nothing) -> Document:
    """Judge every model, then compare, paired by clip and by seed.

    Raises:
        InputError: Bad manifest or model.
        TutelageError: A model could not be fetched.
    """
    normaliser = whisper_normaliser(examination.language or "en")
    manifest = read_manifest(examination.manifest, normalise=normaliser, progress=progress)
    found, cautions = find_systems(examination.systems, "speech", talk)
    models = [model for system in found for model in system.models]
    if examination.long == "refuse":
        _require_room(manifest, models)
    long = tuple(clip.id for clip in manifest.utterances if clip.duration > _shortest_window(models))
    reading = Reading(examination.language, examination.beams, long)
    from tutelage.runs.speech.examine import SpeechExaminer  # loads torch: only after data and folders were checked

    examined = SpeechExaminer(examination, manifest, reading, progress).examine(found)
    resampling, pairs = examination.resampling, examination.systems.pairs()
    comparisons, doubts = compare_systems(examined.systems, pairs, COMPARED, resampling)
    return Document(
        "evaluate",
        {
            "task": "speech",
            "models": examined.rows(resampling),
            "comparisons": comparisons,
            "teacher": None if long else examination.systems.taught_by,
            "decoding": {"beams": examination.beams, "long": examination.long, "long_clips": len(long)},
            "timing": examined.timing,
            "data": {
                "clips": len(manifest.utterances),
                "seconds": manifest.seconds,
                "sha256": manifest.sha256,
                "language": examination.language,
            },
            "provenance": collect_provenance().to_dict(),
        },
        warnings=(*cautions, *examined.cautions, *doubts),
    )


def _shortest_window(found: Sequence[ResolvedModel]) -> float:
    return min(window_seconds(read_config(model.path)) for model in found)


def _require_room(manifest: Manifest, found: Sequence[ResolvedModel]) -> None:
    """Every clip must fit every model's window: nothing is cut off silently."""
    faults = []
    for model in found:
        window = window_seconds(read_config(model.path))
        long = [clip.id for clip in manifest.utterances if clip.duration > window]
        if long:
            faults.append(
                f"{len(long)} clips are longer than the {window:g} s window of {model.reference}, such as {long[0]}; "
                "cut them, leave them out of the manifest, or have them read in pieces (--long chunk)."
            )
    if faults:
        raise InputError(faults)
