"""Judging models that exist on a manifest: the same conditions for all, each compared with the first.

Covers folders and hub names of Whisper models. Does not cover a run's own rows (`distil`) or speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import Resampling
from tutelage.evaluation.compare import compare_scores
from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.models.layout import window_seconds
from tutelage.models.resolve import ResolvedModel, resolve_model
from tutelage.models.verify import read_config
from tutelage.progress import Progress, Talk, no_progress, say_nothing
from tutelage.records.document import Document
from tutelage.records.provenance import collect_provenance
from tutelage.tasks.speech.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from tutelage.runs.speech.judge import Verdict


@dataclass(frozen=True)
class Examination:
    """What is judged, and on what.

    Args:
        models: Folders or hub names; the first is what the others are compared with.
        manifest: The clips.
        language: Language code as in Whisper's tokens; None for English-only models.
        device: torch device; "auto" takes a GPU where there is one.
        seed: Of the bootstrap.
        draws: Resamples behind each interval.
        batch_size: Clips decoded together.
    """

    models: tuple[str, ...]
    manifest: Path
    language: str | None = None
    device: str = "auto"
    seed: int = 0
    draws: int = 2000
    batch_size: int = 16

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("There is no model to evaluate; name a folder or a hub name.")
        twice = sorted({name for name in self.models if self.models.count(name) > 1})
        if twice:
            raise InputError(f"{', '.join(twice)} is named more than once; each model is judged once.")


def evaluate(examination: Examination, *, progress: Progress = no_progress, talk: Talk = say_nothing) -> Document:
    """Judge every model, then compare each with the first, paired by clip.

    Raises:
        InputError: Bad manifest or model.
        TutelageError: A model could not be fetched.
    """
    normaliser = whisper_normaliser(examination.language or "en")
    manifest = read_manifest(examination.manifest, normalise=normaliser, progress=progress)
    found = [resolve_model(reference, talk=talk) for reference in examination.models]
    _require_room(manifest, found)
    verdicts = _judge(examination, manifest, found, progress)
    resampling = Resampling(draws=examination.draws, seed=examination.seed)
    comparisons = [
        {
            "baseline_name": verdicts[0].name,
            "candidate_name": verdict.name,
            **compare_scores(verdicts[0].score, verdict.score, "wer", resampling).to_dict(),
        }
        for verdict in verdicts[1:]
    ]
    return Document(
        "evaluate",
        {
            "models": [verdict.to_dict() for verdict in verdicts],
            "comparisons": comparisons,
            "data": {
                "clips": len(manifest.utterances),
                "seconds": manifest.seconds,
                "sha256": manifest.sha256,
                "language": examination.language,
            },
            "provenance": collect_provenance().to_dict(),
        },
    )


def _require_room(manifest: Manifest, found: Sequence[ResolvedModel]) -> None:
    """Every clip must fit every model's window: nothing is cut off silently."""
    faults = []
    for model in found:
        window = window_seconds(read_config(model.path))
        long = [clip.id for clip in manifest.utterances if clip.duration > window]
        if long:
            faults.append(
                f"{len(long)} clips are longer than the {window:g} s window of {model.reference}, such as {long[0]}; "
                "cut them, or leave them out of the manifest."
            )
    if faults:
        raise InputError(faults)


def _judge(
    examination: Examination, manifest: Manifest, found: Sequence[ResolvedModel], progress: Progress
) -> list[Verdict]:
    # Heavy: only once the data and the folders are known to be good.
    from tutelage.models.load import load_speech_model
    from tutelage.runs.speech.judge import Bench, judge
    from tutelage.tasks.speech.features import FrozenEncoder
    from tutelage.tasks.speech.generate import from_audio
    from tutelage.tasks.speech.labels import LabelCodec, require_language
    from tutelage.training.device import open_accelerator

    device = str(open_accelerator(examination.device).device)
    verdicts = []
    for model in found:
        speech = load_speech_model(model.path, device)
        require_language(speech.model.generation_config, examination.language)
        bench = Bench(
            manifest.utterances,
            LabelCodec(speech.processor.tokenizer, examination.language),
            whisper_normaliser(examination.language or "en", model.path),
            Resampling(draws=examination.draws, seed=examination.seed),
            examination.batch_size,
            progress=progress,
        )
        encode = from_audio(FrozenEncoder(speech.model, speech.processor.feature_extractor))
        verdicts.append(judge(model.reference, speech, encode, bench))
    return verdicts
