"""What a model makes of held-out text: loss, perplexity, bits per byte and character, accuracy, agreement, intervals.

Everything is a ratio of sums over the corpus, never a mean of documents' means, and intervals resample groups of
documents (`bootstrap`). Losses per token can be compared between models of one tokenizer only; bits per byte or
character do not depend on it. Not here: running a model (`tasks`), and calibration (`calibration`).

Decided cases:
- A metric whose counts were not given (bytes, a teacher's guesses) is left out; one whose units sum to nothing (text
  without a byte) is NaN with the reason, null in JSON. A corpus without a token is an `InputError`.
- A label of probability zero has an infinite loss: that is an `InputError` that counts such documents.
- A perplexity too large for a float is infinite, null in JSON.
- Two models whose losses are equal in every group differ by 0, without an interval: a loss has no bound to give one.

Legend: U documents (or utterances, or groups).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import GroupSums, Resampling, group_interval, stack_seeds, sum_by_group
from tutelage.evaluation.compare import Comparison, compare_sums
from tutelage.evaluation.predictions import Predictions
from tutelage.records.estimate import Estimate

Floats = npt.NDArray[np.float64]
Ratio = Literal["nats_per_token", "bits_per_byte", "bits_per_character", "accuracy", "agreement"]
LessIsBetter = Literal["nats_per_token", "bits_per_byte", "bits_per_character", "error_rate", "disagreement"]


@dataclass(frozen=True)
class Likelihood:
    """One model's sums over the supervised tokens of every document.

    Args:
        nats_U: Negative log-probability of the labels, at least 0.
        tokens_U: Supervised tokens.
        groups: The bootstrap's group of each document; None makes each its own.
        bytes_U: UTF-8 bytes of the supervised text; None where not counted, as below.
        characters_U: Code points of the supervised text.
        right_U: Tokens that the model would have guessed.
        agreeing_U: Tokens where its guess is the teacher's.

    Raises:
        InputError: There is no token, or a loss is infinite.
        ValueError: A loss is negative or NaN, or more tokens are right or agreeing than there are.
    """

    nats_U: Floats
    tokens_U: Floats
    groups: Sequence[str] | None = None
    bytes_U: Floats | None = None
    characters_U: Floats | None = None
    right_U: Floats | None = None
    agreeing_U: Floats | None = None

    def __post_init__(self) -> None:
        if not np.sum(self.tokens_U):
            raise InputError("no token is supervised, so that there is no loss. Give documents with text.")
        endless = int(np.isposinf(self.nats_U).sum())
        if endless:
            raise InputError(
                f"{endless} of {self.nats_U.size} documents hold a label of probability zero, so that their loss is "
                "infinite. Leave the tokens that the model cannot write out of the labels."
            )
        if not (self.nats_U >= 0).all():
            raise ValueError("losses must be numbers from 0")
        for name in ("right_U", "agreeing_U"):
            counts_U = getattr(self, name)
            if counts_U is not None and not ((counts_U >= 0) & (counts_U <= self.tokens_U)).all():
                raise ValueError(f"{name} must lie between 0 and the number of tokens")

    @classmethod
    def of(cls, predictions: Predictions, teacher: Predictions | None = None) -> Likelihood:
        """The same from positions, summed within groups.

        Raises:
            InputError: The teacher was not judged at the same positions.
        """
        nats = predictions.by_group("nats")
        agreeing = None
        if teacher is not None:
            agreeing = predictions.sum_within_groups(predictions.agreeing(teacher)).errors_SG[0]
        return cls(
            nats_U=np.maximum(nats.errors_SG[0], 0),
            tokens_U=nats.units_G,
            groups=predictions.group_names,
            right_U=predictions.by_group("right").errors_SG[0],
            agreeing_U=agreeing,
        )

    def by_group(self, metric: Ratio | LessIsBetter) -> GroupSums | None:
        """Sums within groups whose ratio is the metric; None where its counts were not given or sum to nothing.

        `error_rate` and `disagreement` are what `accuracy` and `agreement` leave.
        """
        bits_U = self.nats_U / math.log(2)
        numerators: dict[str, Floats | None] = {
            "nats_per_token": self.nats_U,
            "bits_per_byte": bits_U,
            "bits_per_character": bits_U,
            "accuracy": self.right_U,
            "agreement": self.agreeing_U,
            "error_rate": None if self.right_U is None else self.tokens_U - self.right_U,
            "disagreement": None if self.agreeing_U is None else self.tokens_U - self.agreeing_U,
        }
        units = {"bits_per_byte": self.bytes_U, "bits_per_character": self.characters_U}
        numerator_U, units_U = numerators[metric], units.get(metric, self.tokens_U)
        if numerator_U is None or units_U is None or not np.sum(units_U):
            return None
        bounded = metric in ("accuracy", "agreement", "error_rate", "disagreement")
        return sum_by_group(numerator_U, units_U, self.groups, bounded=bounded)

    def estimates(self, resampling: Resampling | None = None) -> dict[str, Estimate]:
        """Every metric whose counts were given, with its interval, and the perplexity exp(nats per token)."""
        resampling = resampling or Resampling()
        given: dict[Ratio, Floats | None] = {
            "nats_per_token": self.nats_U,
            "bits_per_byte": self.bytes_U,
            "bits_per_character": self.characters_U,
            "accuracy": self.right_U,
            "agreement": self.agreeing_U,
        }
        found: dict[str, Estimate] = {}
        for metric, counts_U in given.items():
            if counts_U is not None:
                sums = self.by_group(metric)
                unit = metric.rpartition("_")[2]
                undefined = Estimate(math.nan, method=f"undefined: the text has no {unit}")
                found[metric] = undefined if sums is None else group_interval(sums, resampling)
        return with_perplexity(found)


def to_perplexity(loss: Estimate) -> Estimate:
    """Perplexity, exp of a loss in nats per token, ends included: the exponential keeps the order of the draws.

    Example:
        >>> to_perplexity(Estimate(0.0, method="point")).value
        1.0
    """
    low, high = (None if end is None else _exp(end) for end in (loss.low, loss.high))
    return Estimate(_exp(loss.value), low, high, loss.level, loss.method)


def with_perplexity(metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The same metrics with the perplexity behind the loss, where there is one."""
    loss = metrics.get("nats_per_token")
    if loss is None:
        return dict(metrics)
    return {"nats_per_token": loss, "perplexity": to_perplexity(loss), **metrics}


def compare_likelihoods(
    baseline: Sequence[Likelihood],
    candidate: Sequence[Likelihood],
    metric: LessIsBetter = "nats_per_token",
    resampling: Resampling | None = None,
) -> Comparison:
    """Compare two arms, one entry a seed; differences are taken document by document and seed by seed.

    One model on either side against several seeds is held fixed (`compare.compare_sums`).

    Raises:
        InputError: An arm is empty, a model has no such metric, the groups differ, or the units do (tokens of two
            tokenizers: compare bits per byte).
    """
    if not baseline or not candidate:
        raise InputError(f"{len(baseline)} baseline and {len(candidate)} candidate models cannot be compared.")
    arms: list[GroupSums] = []
    for arm in (baseline, candidate):
        if any(_names(model) != _names(baseline[0]) for model in arm):
            raise InputError("the models were judged on different groups of documents. Judge them on the same.")
        found = [model.by_group(metric) for model in arm]
        sums = [one for one in found if one is not None]
        if len(sums) < len(found):
            raise InputError(f"a model has no {metric}: what it is counted from was not measured, or is nothing.")
        if not all(np.array_equal(one.units_G, sums[0].units_G) for one in sums):
            raise InputError(f"the seeds were not measured on the same data, so their {metric} cannot be pooled.")
        arms.append(stack_seeds(sums))
    return compare_sums(metric, arms[0], arms[1], resampling or Resampling())


def _names(model: Likelihood) -> Sequence[str] | int:
    return tuple(model.groups) if model.groups is not None else model.tokens_U.size


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
