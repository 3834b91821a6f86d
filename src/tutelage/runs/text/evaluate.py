"""Judging language models that exist on documents: the same rows for all, any two compared.

Models are folders, runs' folders or hub names. Those of one tokenizer are compared in nats per token and Brier score;
where tokenizers differ, in bits per byte, which do not depend on them. Covers what is examined, its faults, and the
document. Does not cover loading and judging (`examine`) or a run's own rows (`classroom`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tutelage.errors import InputError
from tutelage.progress import Progress, Talk, no_progress, say_nothing
from tutelage.records.document import Document
from tutelage.records.provenance import collect_provenance
from tutelage.runs.scoreboard import compare_systems
from tutelage.runs.systems import Conditions, find_systems
from tutelage.runs.text.recipe import TextData
from tutelage.tasks.sources import DatasetSource
from tutelage.tasks.text.documents import read_documents


@dataclass(frozen=True, kw_only=True)
class TextExamination(Conditions):
    """What is judged, and on what.

    Args:
        documents: The held-out documents.
        length: Positions of a row.
        packing: As in `TextData`.
    """

    documents: Path | DatasetSource
    length: int = 512
    packing: Literal["documents", "stream"] = "documents"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 2:
            raise InputError(f"The length of a row is {self.length}; it must be a whole number from 2.")


def evaluate_text(
    examination: TextExamination, *, progress: Progress = no_progress, talk: Talk = say_nothing
) -> Document:
    """Judge every model, then compare, paired by document and by seed.

    Raises:
        InputError: Bad documents or model.
        TutelageError: A model could not be fetched.
    """
    corpus = read_documents(examination.documents)
    found, cautions = find_systems(examination.systems, "text", talk)
    from tutelage.runs.text.examine import TextExaminer  # loads torch: only after data and folders were checked

    data = TextData(Path(), examination.documents, length=examination.length, packing=examination.packing)
    examined = TextExaminer(examination, corpus, data, progress, talk).examine(found)
    resampling = examination.resampling
    rows = examined.rows(resampling)
    of_tokens = len({row["rows_sha256"] for row in rows}) == 1
    metrics = ("nats_per_token", "brier") if of_tokens else ("bits_per_byte", "brier")
    comparisons, doubts = compare_systems(examined.systems, examination.systems.pairs(), metrics, resampling)
    return Document(
        "evaluate",
        {
            "task": "text",
            "models": rows,
            "comparisons": comparisons,
            "teacher": examination.systems.taught_by,
            "timing": examined.timing,
            "data": {
                "documents": len(corpus.documents),
                "length": examination.length,
                "packing": examination.packing,
                "sha256": corpus.sha256,
            },
            "provenance": collect_provenance().to_dict(),
        },
        warnings=(*cautions, *examined.cautions, *doubts),
    )
