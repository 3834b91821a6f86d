"""A recipe for speech: what it adds to every recipe. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tutelage.records.hashing import sha256_json
from tutelage.runs.recipe import Recipe
from tutelage.students.design import Design
from tutelage.teachers.settings import Teacher, require_states


@dataclass(frozen=True)
class SpeechData:
    """Recorded speech with its transcripts.

    Args:
        train: Manifest (JSON lines) of the clips to learn from.
        held_out: Manifest of the clips to be judged on; no recording or transcript may be in both.
        dev: Manifest of the clips that `training.early_stop` and `keep_best` look at; no recording may be in another.
        language: Language code as in Whisper's tokens; None for an English-only model.
        task: What the model is asked for.
        overlong: What a clip longer than the student's window is: an error, or a row that is dropped and counted.
    """

    train: Path
    held_out: Path
    dev: Path | None = None
    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    overlong: Literal["error", "drop"] = "error"


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
    """

    batch_size: int = 16
    bootstrap_draws: int = 2000
    stock_clips: int = 32
    speed_clips: int = 8
    speed_repeats: int = 3
    show_clips: int = 3

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("bootstrap_draws", 100),
            ("stock_clips", 0),
            ("speed_clips", 0),
            ("speed_repeats", 2),
            ("show_clips", 0),
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

    def identity(self, train_sha256: str, held_out_sha256: str, dev_sha256: str | None = None) -> dict[str, Any]:
        """What makes two runs the same but for their seed."""
        return self.identify({"data": {"train": train_sha256, "held_out": held_out_sha256, "dev": dev_sha256}})

    def hash(self, train_sha256: str, held_out_sha256: str) -> str:
        """SHA-256 of `identity`."""
        return sha256_json(self.identity(train_sha256, held_out_sha256))
