"""Whether one system is better than another on the same utterances: paired differences with intervals.

Differences are candidate minus baseline, so that a negative one is an improvement. Not here: the bootstrap itself
(`bootstrap`), other tests of significance, and which scores are worth comparing (`calibration`, `likelihood`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import (
    GroupSums,
    Resampling,
    group_interval,
    judge_sample,
    seed_interval,
    sum_by_group,
)
from tutelage.evaluation.wer import Metric, TranscriptScore
from tutelage.records.document import Status
from tutelage.records.estimate import Estimate


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same utterances.

    Args:
        metric: What was compared.
        baseline: The first system's value.
        candidate: The second system's value.
        difference: Candidate minus baseline, in the metric's unit (0.05 is five points).
        status: "done", or "few-groups" or "few-seeds" with a remedy.
    """

    metric: str
    baseline: Estimate
    candidate: Estimate
    difference: Estimate
    status: Status

    @property
    def verdict(self) -> str:
        """What the interval says of the candidate: "better", "worse", or "undecided" where it holds zero."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or low <= 0 <= high:
            return "undecided"
        return "better" if high < 0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "verdict": self.verdict}


def compare_scores(
    baseline: TranscriptScore, candidate: TranscriptScore, metric: Metric = "wer", resampling: Resampling | None = None
) -> Comparison:
    """Compare two runs, one seed each: the interval is for new utterances, not for new seeds.

    Raises:
        InputError: The two were not scored on the same references, groups and normaliser.
    """
    return compare_arms([baseline], [candidate], metric, resampling)


def compare_arms(
    baseline: Sequence[TranscriptScore],
    candidate: Sequence[TranscriptScore],
    metric: Metric = "wer",
    resampling: Resampling | None = None,
) -> Comparison:
    """Compare two arms of an experiment, each trained with the same seeds in the same order, or one model with an arm.

    The difference is taken seed by seed and utterance by utterance before anything is drawn; the interval is for new
    utterances and, with two seeds or more, for new seeds (`bootstrap.seed_interval`).

    Raises:
        InputError: The arms have different numbers of seeds, or were not scored on the same references, groups and
            normaliser.
    """
    resampling = resampling or Resampling()
    if not baseline or not candidate or (len(baseline) != len(candidate) and 1 not in (len(baseline), len(candidate))):
        raise InputError(
            f"{len(baseline)} baseline and {len(candidate)} candidate runs cannot be paired by seed. "
            "Train both arms with the same seeds."
        )
    first, second = _sums([*baseline], metric, baseline[0]), _sums([*candidate], metric, baseline[0])
    return compare_sums(metric, first, second, resampling)


def compare_sums(metric: str, baseline: GroupSums, candidate: GroupSums, resampling: Resampling) -> Comparison:
    """Compare two arms by their sums within the same groups, seed by seed; for metrics of which less is better.

    An arm of one row against several seeds is a model that has no seeds of its own, such as a teacher: it is held
    fixed, and the interval is for new utterances and for new seeds of the other arm.

    Raises:
        InputError: The units (words, tokens, bytes) of the two differ, or both have seeds and not as many.
    """
    paired = baseline.seeds == candidate.seeds or 1 in (baseline.seeds, candidate.seeds)
    if not np.array_equal(baseline.units_G, candidate.units_G) or not paired:
        raise InputError(f"the systems were not measured on the same data and seeds, so their {metric} is not paired.")
    between = GroupSums(candidate.errors_SG - baseline.errors_SG, baseline.units_G, baseline.bounded)
    return Comparison(
        metric,
        seed_interval(baseline, resampling),
        seed_interval(candidate, resampling),
        seed_interval(between, resampling, signed=True),
        judge_sample(between.groups, between.seeds if between.seeds > 1 else None),
    )


def pool_seeds(
    scores: Sequence[TranscriptScore], metric: Metric = "wer", resampling: Resampling | None = None
) -> Estimate:
    """One arm's mean over its seeds, with an interval for new utterances and new seeds.

    Raises:
        InputError: The runs were not scored on the same references, groups and normaliser, or there are none.
    """
    if not scores:
        raise InputError("there are no runs to pool")
    return seed_interval(_sums(scores, metric, scores[0]), resampling or Resampling())


def compare_values(
    baseline: Sequence[float],
    candidate: Sequence[float],
    groups: Sequence[str] | None = None,
    resampling: Resampling | None = None,
) -> Estimate:
    """Mean paired difference (candidate minus baseline) of one number an utterance, such as its loss in nats.

    Raises:
        ValueError: Lengths differ, or a value is not finite.
    """
    if len(baseline) != len(candidate):
        raise ValueError(f"{len(baseline)} baseline and {len(candidate)} candidate values cannot be paired")
    difference = np.asarray(candidate, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    sums = sum_by_group(difference, np.ones(len(difference)), groups)
    return group_interval(sums, resampling or Resampling(), signed=True)


def _sums(scores: Sequence[TranscriptScore], metric: Metric, like: TranscriptScore) -> GroupSums:
    for score in scores:
        _check_same_task(like, score)
    counts = [score.counts(metric) for score in scores]
    return sum_by_group([errors for errors, _ in counts], counts[0][1], like.groups)


def _check_same_task(one: TranscriptScore, other: TranscriptScore) -> None:
    """Two scores can be paired only if they share the normaliser, the utterances, their references and groups."""
    if one.normaliser != other.normaliser:
        raise InputError(
            f"one system was scored with the normaliser {one.normaliser!r}, the other with {other.normaliser!r}. "
            "Score both with one."
        )
    if len(one.utterances) != len(other.utterances):
        raise InputError(
            f"one system was scored on {len(one.utterances)} utterances, the other on {len(other.utterances)}. "
            "Score both on the same."
        )
    for a, b in zip(one.utterances, other.utterances, strict=True):
        if (a.id, a.group, a.raw.reference) != (b.id, b.group, b.raw.reference):
            raise InputError(
                f"the systems were scored on different utterances: {a.id!r} of group {a.group!r} stands where the "
                f"other has {b.id!r} of {b.group!r}, or their references differ. Score both on the same, in one order."
            )
