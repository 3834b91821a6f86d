"""A recipe: everything that decides a run, as one frozen value.

Covers what a run is made of and what identifies it. Does not cover reading recipe files (`config`) or doing what they
say (`distil`). The settings of each part stand beside the code that obeys them; nothing here imports torch.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tutelage.objectives.terms import Term
from tutelage.records.document import jsonable
from tutelage.records.hashing import sha256_json
from tutelage.students.design import Design
from tutelage.training.optimisation import Optimisation

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Teacher:
    """The model that is learned from.

    Args:
        model: Folder, relative to the recipe, or hub name.
        revision: Commit on the hub; None takes the revision pinned by this package, if there is one, else "main".
    """

    model: str
    revision: str | None = None


@dataclass(frozen=True)
class SpeechData:
    """Recorded speech with its transcripts.

    Args:
        train: Manifest (JSON lines) of the clips to learn from.
        held_out: Manifest of the clips to be judged on; no recording or transcript may be in both.
        language: Language code as in Whisper's tokens; None for an English-only model.
        task: What the model is asked for.
        overlong: What a clip longer than the student's window is: an error, or a row that is dropped and counted.
    """

    train: Path
    held_out: Path
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


@dataclass(frozen=True)
class Recipe:
    """One run.

    Args:
        name: Letters, digits, dot, dash and underscore; names the run folder.
        teacher: Who teaches.
        student: Who learns.
        objective: The weighted terms.
        data: What from.
        training: How.
        task: The kind of model.
        evaluation: How it is judged.
        seed: Of every random draw.
    """

    name: str
    teacher: Teacher
    student: Design
    objective: tuple[Term, ...]
    data: SpeechData
    training: Optimisation
    task: Literal["speech"] = "speech"
    evaluation: Judging = field(default_factory=Judging)
    seed: int = 0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"The name {self.name!r} must begin with a letter or digit; the rest may be those and '.', '-', '_'."
            )
        if not self.objective:
            raise ValueError("The objective needs at least one term, for example {kind: cross_entropy}.")
        kinds = [term.kind for term in self.objective]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f"The objective lists {', '.join(twice)} more than once; give it one weight.")
        if not any(term.weight > 0 for term in self.objective):
            raise ValueError("Every term of the objective has weight 0, so nothing would be learned.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"The seed must be a whole number from 0 and below 2**32, not {self.seed!r}.")

    @property
    def aligns(self) -> bool:
        """Whether any term compares hidden states, so that a layer map is needed."""
        return any(term.compares_states for term in self.objective)

    @property
    def projects(self) -> bool:
        """Whether any term compares states through projectors."""
        return any(term.projected for term in self.objective)

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain JSON values, every default written out."""
        plain: dict[str, Any] = jsonable(asdict(self))
        return plain

    def identity(self, train_sha256: str, held_out_sha256: str) -> dict[str, Any]:
        """What makes two runs the same but for their seed: the resolved recipe with content hashes for data paths."""
        plain = self.to_dict()
        del plain["seed"], plain["name"]
        plain["data"] |= {"train": train_sha256, "held_out": held_out_sha256}
        return plain

    def hash(self, train_sha256: str, held_out_sha256: str) -> str:
        """SHA-256 of `identity`."""
        return sha256_json(self.identity(train_sha256, held_out_sha256))
