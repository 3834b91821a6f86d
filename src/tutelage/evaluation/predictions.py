"""What a model predicts at every supervised position: the parts that losses, calibration and agreement are made of.

Positions that are not supervised (padding, prompts) are dropped before anything is computed, so that no later part can
count them. Logits are taken as the model gives them: calibration is a property of the model at temperature 1, and
there is no temperature to set here. Not here: running a model (`tasks`), and what is made of the parts (`calibration`,
`likelihood`).

Shape letters: B rows, T positions, V vocabulary, N supervised positions, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import GroupSums, sum_by_group

Floats = npt.NDArray[np.float64]
Part = Literal["nats", "brier", "top_brier", "right", "gap"]

ROUNDING = 1e-5
"""How far a probability or a loss may be off its range: float32 sums over a vocabulary."""


@dataclass(frozen=True)
class Predictions:
    """One model's predictions at the supervised positions of held-out data, in the data's order.

    Args:
        labels_N: Token ids that were right.
        guesses_N: The model's most probable token ids.
        nats_N: Negative log-probability of the labels, at least 0, finite.
        confidence_N: Probability of the guesses, in [0, 1].
        brier_N: Squared distance of the distribution from the label's, sum over v of (p_v - y_v)^2, in [0, 2].
        groups_N: The bootstrap's group of every position (document, recording).

    Raises:
        InputError: A label has probability zero, so that the loss is infinite, or there is no position.
        ValueError: Lengths differ, or a value is out of its range.
    """

    labels_N: npt.NDArray[np.int64]
    guesses_N: npt.NDArray[np.int64]
    nats_N: Floats
    confidence_N: Floats
    brier_N: Floats
    groups_N: npt.NDArray[np.str_]

    def __post_init__(self) -> None:
        shapes = {item.name: getattr(self, item.name).shape for item in fields(self)}
        if len(set(shapes.values())) != 1 or self.labels_N.ndim != 1:
            raise ValueError(f"the parts of predictions must have one entry a position: {shapes}")
        if not self.labels_N.size:
            raise InputError("no position is supervised, so that there is nothing to judge. Give documents with text.")
        if np.isposinf(self.nats_N).any():
            raise InputError(
                f"{int(np.isposinf(self.nats_N).sum())} of {self.nats_N.size} labels have probability zero, so that "
                "the loss is infinite. Leave the tokens that the model cannot write out of the labels."
            )
        for name, low, high in (("nats_N", 0, np.inf), ("confidence_N", 0, 1), ("brier_N", 0, 2)):
            values_N = getattr(self, name)
            if not ((values_N >= low - ROUNDING) & (values_N <= high + ROUNDING)).all():  # NaN fails too
                raise ValueError(f"{name} has values that are not from {low} to {high}")

    @property
    def positions(self) -> int:
        """Number of supervised positions."""
        return int(self.labels_N.size)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """True where the guess is the label."""
        return np.asarray(self.guesses_N == self.labels_N)

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """The groups, in order of their names."""
        return tuple(np.unique(self.groups_N).tolist())

    def by_group(self, part: Part) -> GroupSums:
        """Sums within groups, over positions: loss in nats, Brier scores, right guesses, confidence less accuracy."""
        correct_N = self.correct.astype(np.float64)
        values_N = {
            "nats": self.nats_N,
            "brier": self.brier_N,
            "top_brier": (self.confidence_N - correct_N) ** 2,
            "right": correct_N,
            "gap": self.confidence_N - correct_N,
        }[part]
        return self.sum_within_groups(values_N, bounded=part not in ("nats", "brier"))

    def sum_within_groups(self, values_N: npt.ArrayLike, bounded: bool = True) -> GroupSums:
        """Sums of any numbers that there is one of for every position."""
        return sum_by_group(values_N, np.ones(self.positions), self.groups_N.tolist(), bounded=bounded)

    def same_positions(self, other: Predictions) -> bool:
        """Whether two models were judged on the same labels and groups in one order, so that they can be paired."""
        return np.array_equal(self.labels_N, other.labels_N) and np.array_equal(self.groups_N, other.groups_N)

    def check_same_positions(self, other: Predictions) -> None:
        """Two models can be paired only on the same labels and groups in one order.

        Raises:
            InputError: They are not.
        """
        if not self.same_positions(other):
            raise InputError(
                f"the models were not judged at the same {self.positions} and {other.positions} positions (labels and "
                "groups, in one order), so they cannot be paired. Judge both on the same tokens."
            )

    def agreeing(self, teacher: Predictions) -> npt.NDArray[np.bool_]:
        """True where the guess is the teacher's.

        Raises:
            InputError: The two were not judged at the same positions.
        """
        self.check_same_positions(teacher)
        return np.asarray(self.guesses_N == teacher.guesses_N)


def read_logits(
    logits_BTV: npt.ArrayLike, labels_BT: npt.ArrayLike, keep_BT: npt.ArrayLike, groups: npt.ArrayLike
) -> Predictions:
    """What logits say at the supervised positions; call it chunk by chunk and `join` the parts.

    Args:
        logits_BTV: Logits that predict the labels of the same position, at temperature 1; anything where not kept.
        labels_BT: Token ids; anything where not kept.
        keep_BT: True where a position is supervised.
        groups: The group of every row (B), or of every position (B, T) where a row holds several documents.

    Raises:
        InputError: No position is kept, or a label has probability zero.
        ValueError: Shapes differ, a kept label is outside the vocabulary, or a kept logit is NaN or positive infinity.

    Example:
        >>> logits = np.log([[[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [np.nan, 1.0, 1.0]]])
        >>> found = read_logits(logits, [[0, 2, 9]], [[True, True, False]], ["a"])
        >>> found.confidence_N.round(6).tolist(), found.correct.tolist(), found.brier_N.round(6).tolist()
        ([0.7, 0.5], [True, False], [0.14, 0.875])
    """
    keep = np.asarray(keep_BT, dtype=bool)
    logits_NV = np.asarray(logits_BTV)[keep].astype(np.float64)
    labels_N = np.asarray(labels_BT)[keep].astype(np.int64)
    names = np.asarray(groups, dtype=str)
    groups_N = np.broadcast_to(names[:, None] if names.ndim == 1 else names, keep.shape)[keep]
    if ((labels_N < 0) | (labels_N >= logits_NV.shape[-1])).any():
        raise ValueError(f"labels must be ids of a vocabulary of {logits_NV.shape[-1]}")
    if not (logits_NV < np.inf).all():
        raise ValueError("a supervised position has a logit that is NaN or positive infinity")
    places = np.arange(labels_N.size)
    highest_N1 = logits_NV.max(axis=-1, keepdims=True) if labels_N.size else np.zeros((0, 1))
    weights_NV = np.exp(logits_NV - highest_N1)
    sums_N = weights_NV.sum(axis=-1)
    chances_NV = weights_NV / sums_N[:, None]
    guesses_N = logits_NV.argmax(axis=-1)
    return Predictions(
        labels_N=labels_N,
        guesses_N=guesses_N,
        nats_N=np.log(sums_N) - (logits_NV[places, labels_N] - highest_N1[:, 0]),
        confidence_N=chances_NV[places, guesses_N],
        brier_N=1 - 2 * chances_NV[places, labels_N] + (chances_NV**2).sum(axis=-1),
        groups_N=groups_N,
    )


def join(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several chunks, one after the other."""
    return Predictions(
        **{item.name: np.concatenate([getattr(p, item.name) for p in parts]) for item in fields(Predictions)}
    )
