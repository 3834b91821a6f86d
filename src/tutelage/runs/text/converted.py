"""A converted language model beside the student it was made from, on the same documents.

Covers the loss, and how often both find the same token most likely, of a CTranslate2 generator on the CPU. Does not
cover sampling, long contexts, speed or memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.errors import TutelageError
from tutelage.evaluation.bootstrap import Resampling, sum_by_group
from tutelage.evaluation.compare import compare_sums
from tutelage.models.causal import load_text_model
from tutelage.progress import Progress
from tutelage.students.ctranslate2_export import open_converted
from tutelage.tasks.text.codec import TextCodec
from tutelage.tasks.text.documents import TextDocument

EXACT = 1e-3
"""Largest difference, of the largest value, that float32 arithmetic in another order may make (seen: 1e-6)."""
NOT_COMPARED = ("sampling and generation", "texts longer than a training row", "speed and memory")


@torch.no_grad()
def compare_converted(
    student: Path,
    converted: Path,
    quantization: str,
    documents: Sequence[TextDocument],
    length: int,
    progress: Progress,
) -> dict[str, Any]:
    """Both models' losses on the first `length` positions of each document, and how far their logits are apart.

    Args:
        student: The student's folder.
        converted: The folder made from it.
        quantization: How its weights are stored.
        documents: What both read; at least one.
        length: Positions read of each.
        progress: Told of each document.

    Raises:
        TutelageError: float32 weights were converted, and the logits differ by more than `EXACT`.
    """
    text = load_text_model(student)
    generator = open_converted(converted, quantization, "text")
    encoded = TextCodec(text.tokenizer).encode_all(documents)
    nats = np.zeros((2, len(encoded)))
    counts, same, positions, distance = [], 0, 0, 0.0
    with progress("compare", total=len(encoded), unit="document") as advance:
        for number, document in enumerate(encoded):
            ids = document.inputs[:length].tolist()
            before_TV = text.model(torch.tensor([ids])).logits[0].float()
            after_TV = torch.from_numpy(np.array(generator.forward_batch([ids]), dtype=np.float32)[0])
            distance = max(distance, float((before_TV - after_TV).abs().max() / before_TV.abs().max()))
            same += int((before_TV.argmax(-1) == after_TV.argmax(-1)).sum())
            positions += len(ids)
            keep, labels = document.keep[:length], torch.as_tensor(document.labels[:length].astype(np.int64))
            counts.append(int(keep.sum()))
            for row, logits_TV in enumerate((before_TV, after_TV)):
                losses = torch.nn.functional.cross_entropy(logits_TV.double(), labels, reduction="none").numpy()
                nats[row, number] = losses[keep].sum()
            advance(1)
    if quantization == "float32" and distance > EXACT:
        raise TutelageError(
            f"the converted model's logits differ from the student's by {distance:.2g} of their largest, more than "
            f"{EXACT:g}: the conversion is wrong, and nothing was kept."
        )
    groups = [document.group for document in encoded]
    sums = [sum_by_group(row, counts, groups, bounded=False) for row in nats]
    return {
        "documents": len(encoded),
        "positions": positions,
        "same_most_likely": same,
        "logit_difference": distance,
        "compute_type": generator.compute_type,
        "nats_per_token": compare_sums("nats_per_token", sums[0], sums[1], Resampling()).to_dict(),
        "not_compared": list(NOT_COMPARED),
    }
