"""What a model predicts at the supervised positions of a batch, from its logits on any device, a few at a time.

Covers the parts that losses, calibration and agreement are made of (`evaluation.predictions`, which does the same in
float64 from arrays), and how far a teacher's distributions are away. Does not cover the pass itself (`forward`).

Shape letters: B batch, T positions, V vocabulary, N supervised positions, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import Predictions, join
from tutelage.objectives.likelihood import log_probabilities

AT_ONCE = 1024
"""Positions whose distributions are in memory together."""


@dataclass(frozen=True)
class Answers:
    """One model's answers at supervised positions.

    Args:
        predictions: Guesses, losses, confidence and Brier scores.
        divergence_N: KL divergence of the model from the teacher, in nats, at least 0; None without a teacher.
    """

    predictions: Predictions
    divergence_N: npt.NDArray[np.float64] | None = None


@torch.no_grad()
def answer(
    logits_BTV: Tensor,
    labels_BT: Tensor,
    keep_BT: Tensor,
    groups: npt.ArrayLike,
    teacher_BTV: Tensor | None = None,
) -> Answers:
    """What logits say at the supervised positions, in float32.

    Args:
        logits_BTV: At temperature 1; anything where not kept.
        labels_BT: Token ids; anything where not kept.
        keep_BT: True where a position is supervised.
        groups: The bootstrap's group of every row (B), or of every position (B, T).
        teacher_BTV: The teacher's logits over the same vocabulary.

    Raises:
        InputError: No position is kept, or a label has probability zero.
        TutelageError: A supervised position has a logit that is not a number.
    """
    row_N, place_N = keep_BT.nonzero(as_tuple=True)
    labels_N = labels_BT[row_N, place_N]
    parts: dict[str, list[Tensor]] = {name: [] for name in ("guesses", "nats", "confidence", "brier", "divergence")}
    for start in range(0, labels_N.numel(), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        logits_NV = logits_BTV[row_N[some], place_N[some]].float()
        if bool(torch.isnan(logits_NV).any()):
            raise TutelageError(
                "The model's logits are not numbers (NaN) at a supervised position, so that it has no loss. Its "
                "weights are broken, or its precision is too low."
            )
        log_p_NV = torch.log_softmax(logits_NV, dim=-1)
        p_NV = log_p_NV.exp()
        confidence_N, guesses_N = p_NV.max(dim=-1)
        log_label_N = log_p_NV.gather(-1, labels_N[some, None])[:, 0]
        parts["guesses"].append(guesses_N)
        parts["nats"].append(-log_label_N)
        parts["confidence"].append(confidence_N)
        parts["brier"].append(1 - 2 * log_label_N.exp() + p_NV.square().sum(-1))
        if teacher_BTV is not None:
            parts["divergence"].append(_divergence(logits_NV, teacher_BTV[row_N[some], place_N[some]]))
    keep = keep_BT.cpu().numpy()
    names = np.asarray(groups, dtype=str)
    predictions = Predictions(
        labels_N=labels_N.cpu().numpy().astype(np.int64),
        guesses_N=_array(parts["guesses"]).astype(np.int64),
        nats_N=np.maximum(_array(parts["nats"]), 0),
        confidence_N=_array(parts["confidence"]),
        brier_N=_array(parts["brier"]),
        groups_N=np.broadcast_to(names[:, None] if names.ndim == 1 else names, keep.shape)[keep],
    )
    divergence_N = None if teacher_BTV is None else np.maximum(_array(parts["divergence"]), 0)
    return Answers(predictions, divergence_N)


def join_answers(parts: Sequence[Answers]) -> Answers:
    """The answers of several batches, one after the other."""
    apart = [part.divergence_N for part in parts if part.divergence_N is not None]
    divergence_N = np.concatenate(apart) if len(apart) == len(parts) else None
    return Answers(join([part.predictions for part in parts]), divergence_N)


def _divergence(student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """KL(teacher || student), nats, position by position."""
    log_p_NV, log_q_NV = log_probabilities(teacher_NV), log_probabilities(student_NV)
    return (log_p_NV.exp() * (log_p_NV - log_q_NV)).sum(-1)


def _array(parts: Sequence[Tensor]) -> npt.NDArray[np.float64]:
    if not parts:
        return np.zeros(0)
    return np.asarray(torch.cat(list(parts)).double().cpu().numpy(), dtype=np.float64)
