"""A recipe for speech: what it adds to every recipe. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tutelage.records.hashing import sha256_json
from tutelage.runs.cohort.settings import name_learners
from tutelage.runs.recipe import Recipe
from tutelage.students.design import Design
from tutelage.tasks.sources import AudioSource
from tutelage.tasks.speech.augment import Augment
from tutelage.teachers.settings import Teacher, require_states


@dataclass(frozen=True)
class PseudoLabels:
    """Training on what the teacher hears instead of on given transcripts (Distil-Whisper).

    Args:
        max_wer: Clips whose transcript by the teacher departs from a given one by more than this normalised word error
            rate (0.1 is 10 %) are left out; None keeps them. Clips without a given transcript are not filtered by it.
    """

    max_wer: float | None = 0.1

    def __post_init__(self) -> None:
        if self.max_wer is not None and self.max_wer < 0:
            raise ValueError(f"max_wer must be a share from 0 (0.1 is 10 %), or null, not {self.max_wer!r}.")


@dataclass(frozen=True)
class SpeechData:
    """Recorded speech with its transcripts.

    Args:
        train: Manifest (JSON lines) of the clips to learn from, or a dataset's columns.
        held_out: The clips to be judged on; no recording or transcript may be in both.
        dev: The clips that `training.early_stop` and `keep_best` look at; no recording may be in another.
        language: Language code as in Whisper's tokens; None for an English-only model.
        task: What the model is asked for.
        overlong: What a clip longer than the student's window is: an error, or a row that is dropped and counted.
        augment: Changed copies of the training clips; None hears every clip as it is.
        pseudo_labels: The teacher's transcripts as training labels; None takes the given ones.
    """

    train: Path | AudioSource
    held_out: Path | AudioSource
    dev: Path | AudioSource | None = None
    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    overlong: Literal["error", "drop"] = "error"
    augment: Augment | None = None
    pseudo_labels: PseudoLabels | None = None


@dataclass(frozen=True)
class Judging:
    """How the result is measured.

    Args:
        batch_size: Clips decoded together.
        bootstrap_draws: Resamples of groups behind each interval.
        stock_clips: Held-out clips that the teacher also transcribes with its own window, which is slow; 0 for none.
        speed_clips: Held-out clips whose processing time is measured, one at a time; 0 measures no speed.
        speed_repeats: Passes over those clips for each system, in alternation.
        show_clips: Held-out clips whose transcripts are shown beside their references.
        beams: Transcripts that the search keeps; 1 is greedy.
    """

    batch_size: int = 16
    bootstrap_draws: int = 2000
    stock_clips: int = 32
    speed_clips: int = 8
    speed_repeats: int = 3
    show_clips: int = 3
    beams: int = 1

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("bootstrap_draws", 100),
            ("stock_clips", 0),
            ("speed_clips", 0),
            ("speed_repeats", 2),
            ("show_clips", 0),
            ("beams", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be a whole number from {least}, not {getattr(self, name)!r}.")


@dataclass(frozen=True, kw_only=True)
class SpeechRecipe(Recipe):
    """One run on speech.

    Args:
        teacher: Who teaches.
        student: Who learns.
        data: What from.
        evaluation: How it is judged.
    """

    teacher: Teacher
    student: Design
    data: SpeechData
    task: Literal["speech"] = "speech"
    evaluation: Judging = field(default_factory=Judging)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_dev(self.data.dev, ("loss", "wer"))
        require_states(self.teacher, [term.kind for term in self.objective if term.compares_states])
        if self.data.pseudo_labels is not None and self.teacher.is_committee:
            raise ValueError("data.pseudo_labels transcribes with one teacher, and the recipe names a committee.")
        if self.student.feedback and (self.is_cohort or not self.projects):
            raise ValueError(
                "student.feedback needs an alignment that projects the encoder's states, and one student: the blocks "
                "that a cohort shares would hear something else in each member."
            )
        if self.evaluation.beams > 1 and (self.teacher.is_committee or self.is_cohort):
            raise ValueError("evaluation.beams searches with one model; committees and cohorts take beams: 1 (greedy).")
        if self.data.augment is not None and self.is_cohort:
            raise ValueError(
                "data.augment changes which clip a sample is, and the members of a cohort choose samples by clip; "
                "leave out one of the two."
            )
        if self.teacher.cache is not None and cache_faults(self):
            raise ValueError(" ".join(cache_faults(self)))

    def identity(self, train_sha256: str, held_out_sha256: str, dev_sha256: str | None = None) -> dict[str, Any]:
        """What makes two runs the same but for their seed."""
        found = self.identify({"data": {"train": train_sha256, "held_out": held_out_sha256, "dev": dev_sha256}})
        for part, name, unset in (
            ("data", "augment", None),
            ("data", "pseudo_labels", None),
            ("evaluation", "beams", 1),
        ):
            if found[part][name] == unset:
                del found[part][name]  # as before there were any: runs without them stay comparable
        return found

    def hash(self, train_sha256: str, held_out_sha256: str) -> str:
        """SHA-256 of `identity`."""
        return sha256_json(self.identity(train_sha256, held_out_sha256))


def cache_faults(recipe: SpeechRecipe) -> list[str]:
    """Why a recipe cannot learn from its teacher's cached answers, a line each."""
    data = recipe.data
    changes = "the clips as they are, and data.augment changes them"
    relabels = "the given transcripts, and data.pseudo_labels takes others"
    found = {
        changes: data.augment is not None,
        relabels: data.pseudo_labels is not None,
    }
    faults = [
        f"teacher.cache holds the teacher's answers to {why}; leave out one of the two."
        for why, applies in found.items()
        if applies
    ]
    if any(one.aligns for one in name_learners(recipe).values()) and recipe.student.align != "decoder":
        faults.append(
            f'student.align is "{recipe.student.align}", and teacher.cache keeps no encoder states; set it to '
            '"decoder", or run the teacher live.'
        )
    return faults
