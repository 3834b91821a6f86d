"""What a language model makes of held-out documents, summed within each, which is what intervals are made from.

Covers loss, right guesses and agreement with another model's guesses. Does not cover means or intervals (`runs`).

Shape letters: B batch, T positions, D documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.progress import Progress, no_progress
from tutelage.tasks.text.batch import TextExamples
from tutelage.tasks.text.forward import read

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DocumentSums:
    """Sums over the supervised positions of every document, in the corpus's order.

    Args:
        nats: Negative log-probability of the labels.
        tokens: Supervised positions.
        bytes: UTF-8 bytes of the supervised text.
        right: Positions whose most probable token is the label.
        agreeing: Positions whose most probable token is the other model's; None where there is none.
        guesses: The most probable token at every position, batch by batch, for others to be compared with.
    """

    nats: Floats
    tokens: Floats
    bytes: Floats
    right: Floats
    agreeing: Floats | None
    guesses: tuple[Tensor, ...]


@torch.no_grad()
def score_documents(
    model: Any,
    examples: TextExamples,
    batch_size: int,
    other: Sequence[Tensor] | None = None,
    progress: Progress = no_progress,
) -> DocumentSums:
    """Run a model over every row.

    Args:
        model: A causal language model; put in evaluation mode.
        examples: The held-out rows.
        batch_size: Rows at once; equal for models that are compared.
        other: `guesses` of another model over the same rows and batch size.
        progress: Opens a bar.
    """
    model.eval()
    device = next(model.parameters()).device
    count = len(examples.documents)
    sums = {name: np.zeros(count) for name in ("nats", "tokens", "right", "agreeing")}
    guesses: list[Tensor] = []
    starts = range(0, len(examples), batch_size)
    with progress("judge", len(examples), "row") as advance:
        for number, start in enumerate(starts):
            rows = examples.packed.rows[start : start + batch_size]
            batch = examples.batch(range(start, start + len(rows))).to(device)
            logits_BTV = read(model, batch).logits_BTV.float()
            nats_BT = torch.logsumexp(logits_BTV, -1) - logits_BTV.gather(-1, batch.labels_BT[..., None])[..., 0]
            guesses.append(logits_BTV.argmax(-1).to(torch.int32).cpu())
            keep_BT = batch.keep_BT.cpu()
            found = {"nats": nats_BT.cpu(), "tokens": torch.ones_like(keep_BT)}
            found["right"] = guesses[-1] == batch.labels_BT.cpu()
            if other is not None:
                found["agreeing"] = guesses[-1] == other[number]
            owners_N = _owners(examples, start, len(rows), batch.pieces_BT.cpu())[keep_BT.numpy()]
            for name, values_BT in found.items():
                sums[name] += np.bincount(owners_N, weights=values_BT[keep_BT].double().numpy(), minlength=count)
            advance(len(rows))
    sizes = np.asarray([document.bytes for document in examples.documents], dtype=np.float64)
    agreeing = sums["agreeing"] if other is not None else None
    return DocumentSums(sums["nats"], sums["tokens"], sizes, sums["right"], agreeing, tuple(guesses))


def _owners(examples: TextExamples, start: int, count: int, pieces_BT: Tensor) -> NDArray[np.int64]:
    """The document of every position; padding gets the row's first, and is not kept."""
    rows = examples.packed.rows[start : start + count]
    return np.stack(
        [np.asarray((row.owners[0], *row.owners))[pieces.numpy()] for row, pieces in zip(rows, pieces_BT, strict=True)]
    )
