"""The teacher's transcripts as training labels (pseudo-labels), with a filter by word error rate.

The teacher, with its own window, transcribes every training clip once (greedy); where a clip has a transcript of its
own and the two differ by more than `max_wer`, the clip is left out. Without a transcript there is nothing to compare:
such a clip is left out only when the teacher hears no words, or had to be stopped. Covers transcribing, the cache, the
filter and its counts. Does not cover the losses: cross-entropy on these labels is the recipe's `cross_entropy`.

Transcripts are kept in `<cache>/pseudo_labels`, a file for each teacher and its settings, a line a clip by the hash of
its file; a line that is damaged is made again.

Source: `gandhi2023`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import Resampling
from tutelage.evaluation.wer import Normaliser, count_edits, score_transcripts
from tutelage.records.estimate import Estimate
from tutelage.records.files import explain_write_failure
from tutelage.records.hashing import sha256_json
from tutelage.records.locations import cache_folder
from tutelage.runs.attempt import Attempt
from tutelage.runs.speech.materials import SpeechMaterials
from tutelage.runs.speech.recipe import PseudoLabels
from tutelage.runs.speech.teachers import load_teacher
from tutelage.runs.teacher_folders import answer_sha256
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.generate import TokenCap, Transcript, from_audio, transcribe
from tutelage.tasks.speech.labels import LabelCodec, require_language
from tutelage.tasks.speech.manifest import Dropped, Utterance
from tutelage.teachers.placement import place_teacher

LAYOUT = 1
"""Part of every file's name; raised when the meaning of a line changes."""

_CAP = TokenCap()


class TranscriptCache:
    """One teacher's transcripts by the hash of the clip's file, a JSON line each.

    Args:
        path: The file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Transcript]:
        """All transcripts; lines that were cut off or changed are passed over."""
        if not self._path.is_file():
            return {}
        found = {}
        for line in self._path.read_bytes().split(b"\n"):
            try:
                row = json.loads(line)
                claimed = row.pop("sha256")
                if claimed == sha256_json(row):
                    tokens = tuple(int(token) for token in row["tokens"])
                    found[str(row["audio"])] = Transcript(str(row["text"]), tokens, bool(row["hit_cap"]))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        return found

    def add(self, clips: Sequence[Utterance], transcripts: Sequence[Transcript]) -> None:
        """Append; what was torn by an earlier end is closed by the line break in front.

        Raises:
            TutelageError: The file cannot be written.
        """
        lines = []
        for clip, transcript in zip(clips, transcripts, strict=True):
            row = {"audio": clip.sha256, **asdict(transcript)}
            lines.append("\n" + json.dumps({**row, "sha256": sha256_json(row)}))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write("".join(lines))
        except OSError as error:
            raise explain_write_failure(error, self._path) from error


def label_by_teacher(materials: SpeechMaterials, attempt: Attempt, device: str) -> SpeechMaterials:
    """The materials with the teacher's transcripts as training labels; as they are where the recipe asks for none.

    Raises:
        InputError: No clip is left, or the teacher does not know the language.
    """
    recipe = materials.recipe
    if recipe.data.pseudo_labels is None:
        return materials
    clips = materials.train.utterances
    cache = TranscriptCache(cache_folder() / "pseudo_labels" / f"{key_of(materials)}.jsonl")
    found = cache.read()
    missing = list({clip.sha256: clip for clip in clips if clip.sha256 not in found}.values())
    attempt.talk(f"pseudo-labels: {len(clips) - len(missing)} found in the cache, {len(missing)} to transcribe")
    if missing:
        found |= _transcribe(materials, missing, cache, attempt, device)
    labelled = choose_labels(
        clips, [found[clip.sha256] for clip in clips], recipe.data.pseudo_labels, materials.normaliser
    )
    attempt.talk(f"pseudo-labels: {labelled.describe()}")
    if not labelled.clips:
        raise InputError(
            f"No training clip is left with the teacher's transcripts as labels: {labelled.describe()}. Raise "
            "data.pseudo_labels.max_wer, or see whether the teacher knows the language."
        )
    dropped = (*materials.train.dropped, *labelled.dropped)
    train = replace(materials.train, utterances=labelled.clips, dropped=dropped)
    return replace(materials, train=train, labelling=labelled.to_dict())


@dataclass(frozen=True)
class Labelled:
    """Clips with the teacher's transcripts.

    Args:
        clips: Those that are learned from.
        dropped: Those that are not, each with its reason.
        total: Clips before.
        over: How many were dropped for their word error rate.
        wordless: How many of which the teacher heard no words.
        stopped: How many on which the teacher had to be stopped.
        wer: Of the teacher on all clips with transcripts of their own (dropped ones among them); None without any.
        kept_wer: Of the teacher on those that are learned from.
        max_wer: The limit.
        normaliser: Behind the word error rates.
    """

    clips: tuple[Utterance, ...]
    dropped: tuple[Dropped, ...]
    total: int
    over: int
    wordless: int
    stopped: int
    wer: Estimate | None
    kept_wer: Estimate | None
    max_wer: float | None
    normaliser: str

    def describe(self) -> str:
        """One line."""
        heard = (
            "no clip has a transcript to compare with" if self.wer is None else f"teacher's WER {self.wer.value:.1%}"
        )
        limit = "no limit" if self.max_wer is None else f"{self.over} over {self.max_wer:.0%} WER"
        return (
            f"{len(self.clips)} of {self.total} clips kept ({limit}, {self.wordless} without words, {self.stopped} "
            f"that did not end); {heard} ({self.normaliser})"
        )

    def to_dict(self) -> dict[str, Any]:
        """For `result.json`."""
        return {
            "max_wer": self.max_wer,
            "normaliser": self.normaliser,
            "clips": self.total,
            "kept": len(self.clips),
            "dropped": {"wer": self.over, "no_words": self.wordless, "hit_cap": self.stopped},
            "wer": None if self.wer is None else self.wer.to_dict(),
            "kept_wer": None if self.kept_wer is None else self.kept_wer.to_dict(),
        }


def choose_labels(
    clips: Sequence[Utterance], transcripts: Sequence[Transcript], settings: PseudoLabels, normalise: Normaliser
) -> Labelled:
    """Put the teacher's transcripts in place of the given ones, and leave out clips that it got wrong.

    Args:
        clips: With their own transcripts, or an empty text.
        transcripts: The teacher's, in the same order.
        settings: The limit.
        normalise: Applied to both before they are compared.
    """
    compared = {clip.id: number for number, clip in enumerate(clips) if normalise(clip.text).strip()}
    rates = _rates(clips, transcripts, list(compared.values()), normalise)
    kept: list[int] = []
    dropped: list[Dropped] = []
    counts = dict.fromkeys(("over", "wordless", "stopped"), 0)
    for number, (clip, transcript) in enumerate(zip(clips, transcripts, strict=True)):
        rate = rates.get(number)
        if not normalise(transcript.text).strip():
            kind, reason = "wordless", "the teacher heard no words in it."
        elif transcript.hit_cap:
            kind, reason = "stopped", "the teacher did not end its transcript."
        elif rate is not None and settings.max_wer is not None and rate > settings.max_wer:
            kind, reason = "over", f"the teacher's transcript has a WER of {rate:.0%}, over {settings.max_wer:.0%}."
        else:
            kept.append(number)
            continue
        counts[kind] += 1
        dropped.append(Dropped(clip.id, number + 1, clip.duration, f"{clip.id}: {reason}"))
    return Labelled(
        tuple(replace(clips[number], text=transcripts[number].text) for number in kept),
        tuple(dropped),
        len(clips),
        **counts,
        wer=_pooled(clips, transcripts, list(compared.values()), normalise),
        kept_wer=_pooled(clips, transcripts, [number for number in kept if number in rates], normalise),
        max_wer=settings.max_wer,
        normaliser=normalise.name,
    )


def _rates(
    clips: Sequence[Utterance], transcripts: Sequence[Transcript], numbers: Sequence[int], normalise: Normaliser
) -> dict[int, float]:
    """Normalised word error rate of each clip that has words to compare with."""
    found = {}
    for number in numbers:
        edits = count_edits(normalise(clips[number].text), normalise(transcripts[number].text), "words")
        found[number] = edits.errors / edits.length
    return found


def _pooled(
    clips: Sequence[Utterance], transcripts: Sequence[Transcript], numbers: Sequence[int], normalise: Normaliser
) -> Estimate | None:
    """Word error rate of some clips together, with its interval over groups; None of none."""
    if not numbers:
        return None
    return score_transcripts(
        [clips[number].text for number in numbers],
        [transcripts[number].text for number in numbers],
        normalise,
        groups=[str(clips[number].group) for number in numbers],
        resampling=Resampling(),
    ).wer


def _transcribe(
    materials: SpeechMaterials, clips: Sequence[Utterance], cache: TranscriptCache, attempt: Attempt, device: str
) -> dict[str, Transcript]:
    """Transcribe and keep, batch by batch, longest first: a run that is stopped keeps what it had."""
    recipe = materials.recipe
    place = place_teacher(recipe.teacher, device)
    speech = load_teacher(materials.teachers[0], place, recipe.teacher.dtype)
    require_language(speech.model.generation_config, recipe.data.language)
    codec = LabelCodec(speech.processor.tokenizer, recipe.data.language, recipe.data.task)
    encode = from_audio(FrozenEncoder(speech.model, speech.processor.feature_extractor))
    ordered, size = sorted(clips, key=lambda clip: -clip.duration), recipe.evaluation.batch_size
    found: dict[str, Transcript] = {}
    with attempt.progress("pseudo-label", total=len(ordered), unit="clip") as advance:
        for start in range(0, len(ordered), size):
            some = ordered[start : start + size]
            written = transcribe(speech.model, some, encode, codec, cap=_CAP, batch_size=size)
            cache.add(some, written)
            found |= {clip.sha256: transcript for clip, transcript in zip(some, written, strict=True)}
            advance(len(some))
    return found


def key_of(materials: SpeechMaterials) -> str:
    """Everything that a transcript depends on beside the clip."""
    recipe = materials.recipe
    return sha256_json(
        {
            "layout": LAYOUT,
            "teacher": answer_sha256(recipe.teacher, materials.teachers),
            "language": recipe.data.language,
            "task": recipe.data.task,
            "beams": 1,
            "cap": asdict(_CAP),
        }
    )
