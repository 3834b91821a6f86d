"""Judging language models that exist on documents: the same rows for all, each compared with the first.

Covers folders and hub names. Models of one tokenizer are compared in nats per token; where tokenizers differ, in bits
per byte, which do not depend on them. Does not cover a run's own rows (`classroom`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import Resampling
from tutelage.models.resolve import ResolvedModel, resolve_model
from tutelage.progress import Progress, Talk, no_progress, say_nothing
from tutelage.records.document import Document
from tutelage.records.provenance import collect_provenance
from tutelage.runs.text.recipe import TextData
from tutelage.tasks.text.documents import Corpus, read_documents

if TYPE_CHECKING:
    from tutelage.runs.text.judge import TextVerdict


@dataclass(frozen=True)
class TextExamination:
    """What is judged, and on what.

    Args:
        models: Folders or hub names; the first is what the others are compared with.
        documents: The held-out documents.
        length: Positions of a row.
        packing: As in `TextData`.
        device: torch device; "auto" takes a GPU where there is one.
        seed: Of the bootstrap.
        draws: Resamples behind each interval.
        batch_size: Rows at once.
    """

    models: tuple[str, ...]
    documents: Path
    length: int = 512
    packing: Literal["documents", "stream"] = "documents"
    device: str = "auto"
    seed: int = 0
    draws: int = 2000
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("There is no model to evaluate; name a folder or a hub name.")
        twice = sorted({name for name in self.models if self.models.count(name) > 1})
        if twice:
            raise InputError(f"{', '.join(twice)} is named more than once; each model is judged once.")
        if self.length < 2:
            raise InputError(f"The length of a row is {self.length}; it must be a whole number from 2.")


def evaluate_text(
    examination: TextExamination, *, progress: Progress = no_progress, talk: Talk = say_nothing
) -> Document:
    """Judge every model, then compare each with the first, paired by document.

    Raises:
        InputError: Bad documents or model.
        TutelageError: A model could not be fetched.
    """
    corpus = read_documents(examination.documents)
    found = [resolve_model(reference, talk=talk, task="text") for reference in examination.models]
    from tutelage.runs.text.judge import compare  # loads torch: only after data and folders were checked

    verdicts, rows = _judge(examination, corpus, found, progress, talk)
    metric = "nats_per_token" if len(set(rows)) == 1 else "bits_per_byte"
    comparisons = [
        {
            "baseline_name": verdicts[0].name,
            "candidate_name": verdict.name,
            **compare(verdicts[0], verdict, metric).to_dict(),
        }
        for verdict in verdicts[1:]
    ]
    return Document(
        "evaluate",
        {
            "task": "text",
            "models": [{**verdict.to_dict(), "rows_sha256": row} for verdict, row in zip(verdicts, rows, strict=True)],
            "comparisons": comparisons,
            "data": {
                "documents": len(corpus.documents),
                "length": examination.length,
                "packing": examination.packing,
                "sha256": corpus.sha256,
            },
            "provenance": collect_provenance().to_dict(),
        },
    )


def _judge(
    examination: TextExamination, corpus: Corpus, found: Sequence[ResolvedModel], progress: Progress, talk: Talk
) -> tuple[list[TextVerdict], list[str]]:
    """Every model's row, and the hash of the rows of tokens that it was shown."""
    from tutelage.models.causal import load_text_model
    from tutelage.runs.text.corpus import tokenise
    from tutelage.runs.text.judge import TextBench, judge
    from tutelage.tasks.text.codec import TextCodec
    from tutelage.training.device import open_accelerator

    device = str(open_accelerator(examination.device).device)
    data = TextData(Path(), examination.documents, length=examination.length, packing=examination.packing)
    resampling = Resampling(draws=examination.draws, seed=examination.seed)
    verdicts, rows = [], []
    for model in found:
        text = load_text_model(model.path, device)
        tokens = tokenise(corpus, "held_out", TextCodec(text.tokenizer), data, text.positions, talk)
        bench = TextBench(tokens.examples, resampling, examination.batch_size, progress)
        verdicts.append(judge(model.reference, text.model, bench))
        rows.append(tokens.sha256)
    return verdicts, rows
