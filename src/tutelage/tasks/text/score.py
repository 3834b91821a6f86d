"""What a language model makes of held-out documents, position by position, with the document of each.

Covers the pass over every row. Does not cover sums, means or intervals (`evaluation`, `runs`).

Shape letters: B batch, T positions, N supervised positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.errors import InputError
from tutelage.progress import Progress, no_progress
from tutelage.tasks.positions import Answers, answer, join_answers
from tutelage.tasks.text.batch import TextBatch, TextExamples
from tutelage.tasks.text.forward import read


@dataclass(frozen=True)
class DocumentAnswers:
    """One model's answers, in the order of the rows.

    Args:
        answers: At every supervised position.
        owners_N: Number of the document that the position is of.
    """

    answers: Answers
    owners_N: NDArray[np.int64]


@torch.no_grad()
def score_documents(
    model: Any,
    examples: TextExamples,
    batch_size: int,
    teacher: Callable[[TextBatch], Tensor] | None = None,
    progress: Progress = no_progress,
) -> DocumentAnswers:
    """Run a model over every row.

    Args:
        model: A causal language model; put in evaluation mode.
        examples: The held-out rows.
        batch_size: Rows at once.
        teacher: The teacher's logits (B, T, V) of a batch, over the same vocabulary, to be compared with.
        progress: Opens a bar.

    Raises:
        InputError: No position is supervised, or a label has probability zero.
        TutelageError: The model's logits are not numbers.
    """
    model.eval()
    device = next(model.parameters()).device
    groups = np.asarray([document.group for document in examples.documents], dtype=str)
    answers: list[Answers] = []
    owners: list[NDArray[np.int64]] = []
    with progress("judge", len(examples), "row") as advance:
        for start in range(0, len(examples), batch_size):
            count = min(batch_size, len(examples) - start)
            batch = examples.batch(range(start, start + count)).to(device)
            owners_BT = _owners(examples, start, count, batch.pieces_BT.cpu())
            told_BTV = None if teacher is None else teacher(batch)
            logits_BTV = read(model, batch).logits_BTV
            if batch.supervised_tokens:
                answers.append(answer(logits_BTV, batch.labels_BT, batch.keep_BT, groups[owners_BT], told_BTV))
                owners.append(owners_BT[batch.keep_BT.cpu().numpy()])
            advance(count)
    if not answers:
        raise InputError("No position of the documents is supervised, so that there is nothing to judge.")
    return DocumentAnswers(join_answers(answers), np.concatenate(owners))


def _owners(examples: TextExamples, start: int, count: int, pieces_BT: Tensor) -> NDArray[np.int64]:
    """The document of every position; padding gets the row's first, and is not kept."""
    rows = examples.packed.rows[start : start + count]
    return np.stack(
        [np.asarray((row.owners[0], *row.owners))[pieces.numpy()] for row, pieces in zip(rows, pieces_BT, strict=True)]
    )
