"""A recipe for text: what it adds to every recipe. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tutelage.runs.recipe import Recipe
from tutelage.students.design import TextDesign
from tutelage.tasks.sources import DatasetSource
from tutelage.teachers.settings import Teacher, require_states


@dataclass(frozen=True)
class TextData:
    """Documents of text, or conversations.

    Args:
        train: Documents to learn from: .txt, .jsonl (both also .gz), .parquet, a folder of .txt files, or a dataset's
            column.
        held_out: Documents to be judged on; no document may be in both.
        dev: Documents that `training.early_stop` and `keep_best` look at; no document may be in another.
        tokenizer: Folder of the tokenizer; None takes the teacher's, or the student's where there is no teacher.
        length: Positions of a row.
        packing: "documents": documents share rows, and no position attends to another document. "stream": one after
            the other, cut where a row ends, and positions attend to all that came before in their row.
        chat_template: File with a chat template (Jinja) for conversations; None takes the tokenizer's own.
        overlong: What a conversation longer than a row is: an error, or dropped and counted. Texts are cut.
    """

    train: Path | DatasetSource
    held_out: Path | DatasetSource
    dev: Path | DatasetSource | None = None
    tokenizer: Path | None = None
    length: int = 512
    packing: Literal["documents", "stream"] = "documents"
    chat_template: Path | None = None
    overlong: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ValueError(f"length must be a whole number from 2, not {self.length!r}.")


@dataclass(frozen=True)
class TextJudging:
    """How the result is measured.

    Args:
        batch_size: Held-out rows at once.
        bootstrap_draws: Resamples of groups behind each interval.
        show_documents: Held-out documents whose beginning every model continues.
        prompt_tokens: Tokens of that beginning, at most half of the document.
        new_tokens: Tokens of the continuation.
    """

    batch_size: int = 8
    bootstrap_draws: int = 2000
    show_documents: int = 3
    prompt_tokens: int = 32
    new_tokens: int = 48

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("bootstrap_draws", 100),
            ("show_documents", 0),
            ("prompt_tokens", 1),
            ("new_tokens", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be a whole number from {least}, not {getattr(self, name)!r}.")


@dataclass(frozen=True, kw_only=True)
class TextRecipe(Recipe):
    """One run on text.

    Args:
        student: Who learns.
        data: What from.
        teacher: Who teaches; None for a model that learns from text alone.
        evaluation: How it is judged.
    """

    student: TextDesign
    data: TextData
    teacher: Teacher | None = None
    task: Literal["text"] = "text"
    evaluation: TextJudging = field(default_factory=TextJudging)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_dev(self.data.dev, ("loss",))
        if self.student.cache_prefix and self.training.gradient_checkpointing:
            raise ValueError(
                "student.cache_prefix keeps what frozen blocks put out, and training.gradient_checkpointing runs them "
                "again; leave one of them out."
            )
        if self.teacher is not None:
            require_states(self.teacher, [term.kind for term in self.objective if term.compares_states])
            return
        compared = [term.kind for term in self.objective if term.family != "likelihood"]
        if compared:
            raise ValueError(f"Term {', '.join(compared)} compares with a teacher, and the recipe names none.")
        if self.student.model is None and self.student.config is None:
            raise ValueError(
                "Without a teacher the student must begin somewhere: name student.model or student.config."
            )
