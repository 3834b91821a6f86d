"""Whether a model's probabilities mean what they say: reliability, calibration error beside its null, Brier scores.

The expected calibration error (guo2017) is never 0 on finite data, even for a perfect model, and grows with the number
of bins: here it stands beside what the same confidences give when labels are drawn from them (vaicenavicius2019). Two
models are compared on proper scores, loss and Brier, and never on it: it can be lowered by knowing less. Not here:
recalibration, and the per-position parts themselves (`predictions`).

Decided cases:
- Bins are open below and closed above, as in guo2017; confidence 0 is in the first.
- Bins of equal mass are cut at quantiles, and equal confidences stay together: there may be fewer bins than asked for.
- An empty bin is in the table with its count of 0, without means, and adds nothing.
- The null takes positions as independent, given the confidences: a group's positions may vary more together.

Legend: M bins, N positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import Resampling, group_interval, stack_seeds
from tutelage.evaluation.compare import Comparison, compare_sums
from tutelage.evaluation.predictions import Part, Predictions
from tutelage.records.estimate import Estimate

Floats = npt.NDArray[np.float64]
Binning = Literal["equal-width", "equal-mass"]
BINNINGS: tuple[Binning, ...] = ("equal-width", "equal-mass")
PROPER: dict[str, Part] = {"nats_per_token": "nats", "brier": "brier"}
"""The scores in which models are compared, and the parts they are made of."""

NULL_LEVEL = 0.9
"""Of the null's interval, so that its upper end is what 95 % of the draws stay under."""


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, bin by bin.

    Args:
        binning: How the bins were cut.
        edges: M + 1 edges from 0 to 1.
        counts_M: Positions in each bin.
        confidence_M: Mean confidence; NaN in an empty bin.
        accuracy_M: Share of right guesses; NaN in an empty bin.
    """

    binning: Binning
    edges: Floats
    counts_M: npt.NDArray[np.int64]
    confidence_M: Floats
    accuracy_M: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: the bins' mean |accuracy - confidence|, weighted by their counts."""
        return float(np.nansum(self.counts_M * np.abs(self.accuracy_M - self.confidence_M)) / self.counts_M.sum())

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: one row a bin, which holds confidences above `low` up to `high`."""
        rows = zip(self.edges, self.edges[1:], self.counts_M, self.confidence_M, self.accuracy_M, strict=False)
        names = ("low", "high", "count", "confidence", "accuracy")
        return {"binning": self.binning, "bins": [dict(zip(names, row, strict=True)) for row in rows]}


@dataclass(frozen=True)
class CalibrationError:
    """The expected calibration error, with what a perfectly calibrated model of these confidences would show.

    Args:
        value: The error; a point, since resampling it would add to its bias.
        null: Mean of the error over labels drawn from the confidences; `high` is what 95 % of the draws stay under.
        reliability: The bins behind it.
    """

    value: Estimate
    null: Estimate
    reliability: Reliability

    @property
    def exceeds_null(self) -> bool:
        """Whether the error is more than a calibrated model's would be, one time in twenty by chance."""
        return self.null.high is not None and self.value.value > self.null.high

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "ece": self.value.to_dict(),
            "ece_null": {**self.null.to_dict(), "exceeded": self.exceeds_null},
            "bins": self.reliability.to_dict()["bins"],
        }


@dataclass(frozen=True)
class BrierParts:
    """The top label's Brier score in parts: reliability - resolution + uncertainty + within_bins.

    Args:
        reliability: Mean squared distance of the bins' confidence from their accuracy (0 is best).
        resolution: Variance of the bins' accuracy (more is better).
        uncertainty: Variance of being right at all, acc (1 - acc).
        within_bins: What the bins hide: variance of the confidence within bins, less twice its covariance with being
            right.

    Source: murphy1973, with the last part as in stephenson2008.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float

    @property
    def total(self) -> float:
        """The Brier score of the top label."""
        return self.reliability - self.resolution + self.uncertainty + self.within_bins


@dataclass(frozen=True)
class Calibration:
    """How one model's probabilities fare on held-out positions.

    Args:
        positions: Supervised positions; nothing else was counted.
        nats_per_token: Loss.
        brier: Mean over positions of sum over v of (p_v - y_v)^2, from 0 to 2.
        top_brier: Mean of (confidence - correct)^2, from 0 to 1.
        gap: Mean confidence less accuracy: positive for a model that is too sure.
        errors: Expected calibration error under each binning.
    """

    positions: int
    nats_per_token: Estimate
    brier: Estimate
    top_brier: Estimate
    gap: Estimate
    errors: dict[Binning, CalibrationError]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: the error and the bins of equal width, and those of equal mass under their name."""
        return {
            "positions": self.positions,
            **self.errors["equal-width"].to_dict(),
            **{name: getattr(self, name).to_dict() for name in ("brier", "top_brier", "gap")},
            "equal_mass": self.errors["equal-mass"].to_dict(),
        }


def measure_reliability(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15, binning: Binning = "equal-width"
) -> Reliability:
    """Confidence against accuracy in bins.

    Args:
        confidence: Probability of the guess at every position, in [0, 1].
        correct: True where the guess was right.
        bins: How many.
        binning: Bins of equal width, or of about equal numbers of positions (nixon2019).

    Raises:
        ValueError: Lengths differ, there is no position or no bin, or a confidence is not in [0, 1].

    Example:
        >>> table = measure_reliability([0.6, 0.7, 0.9, 0.8], [True, False, True, True], bins=2)
        >>> table.counts_M.tolist(), round(table.error, 6)
        ([0, 4], 0.0)
    """
    confidence_N, correct_N = _check(confidence, correct, bins)
    edges = _edges(confidence_N, bins, binning)
    index_N = _place(confidence_N, edges)
    counts_M, sure_M, right_M = _bin_sums(index_N, edges.size - 1, confidence_N, correct_N)
    with np.errstate(invalid="ignore"):
        return Reliability(binning, edges, counts_M.astype(np.int64), sure_M / counts_M, right_M / counts_M)


def measure_calibration_error(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    bins: int = 15,
    binning: Binning = "equal-width",
    *,
    draws: int = 200,
    seed: int = 0,
) -> CalibrationError:
    """The expected calibration error and its null: the same bins and confidences, labels drawn from them.

    Args:
        confidence: Probability of the guess at every position, in [0, 1].
        correct: True where the guess was right.
        bins: How many.
        binning: As in `measure_reliability`.
        draws: Draws of the null, 20 or more.
        seed: Of these draws.

    Raises:
        ValueError: As in `measure_reliability`, or there are too few draws.
    """
    if draws < 20:
        raise ValueError(f"{draws} draws do not tell what 95 % of them stay under; take 20 or more, 200 to report it")
    table = measure_reliability(confidence, correct, bins, binning)
    # In order, so that the draws do not depend on the order of the data.
    confidence_N = np.sort(np.asarray(confidence, dtype=np.float64))
    index_N = _place(confidence_N, table.edges)
    count = table.edges.size - 1
    sure_M = np.bincount(index_N, confidence_N, count)
    generator = np.random.default_rng(seed)
    errors_B = np.empty(draws)
    for draw in range(draws):
        right_M = np.bincount(index_N, generator.random(confidence_N.size) < confidence_N, count)
        errors_B[draw] = np.abs(right_M - sure_M).sum() / confidence_N.size
    low, high = np.quantile(errors_B, [(1 - NULL_LEVEL) / 2, (1 + NULL_LEVEL) / 2])
    method = f"{draws} draws of labels from the confidences"
    null = Estimate(float(errors_B.mean()), float(low), float(high), NULL_LEVEL, method)
    return CalibrationError(
        Estimate(table.error, method="point: biased upwards, to be read beside its null"), null, table
    )


def measure_calibration(
    predictions: Predictions, bins: int = 15, *, draws: int = 200, resampling: Resampling | None = None
) -> Calibration:
    """Everything about one model's calibration.

    Args:
        predictions: At the supervised positions.
        bins: Of each reliability table.
        draws: Of the null of the calibration error.
        resampling: How the scores' intervals are made, over groups; its seed is the null's too.
    """
    resampling = resampling or Resampling()
    confidence_N = np.clip(predictions.confidence_N, 0, 1)
    errors: dict[Binning, CalibrationError] = {
        binning: measure_calibration_error(
            confidence_N, predictions.correct, bins, binning, draws=draws, seed=resampling.seed
        )
        for binning in BINNINGS
    }
    return Calibration(
        positions=predictions.positions,
        nats_per_token=group_interval(predictions.by_group("nats"), resampling),
        brier=group_interval(predictions.by_group("brier"), resampling),
        top_brier=group_interval(predictions.by_group("top_brier"), resampling),
        gap=group_interval(predictions.by_group("gap"), resampling, signed=True),
        errors=errors,
    )


def pool_calibrations(runs: Sequence[Calibration], brier: Estimate) -> dict[str, Any]:
    """Several runs' calibration in the form of one: means of their errors and nulls, bins of all their positions.

    Args:
        runs: At least one, over the same bins of equal width.
        brier: Their Brier score, pooled.
    """
    found = [run.errors["equal-width"] for run in runs]
    method = f"mean of {len(runs)} runs"
    means = {
        "ece": Estimate(float(np.mean([one.value.value for one in found])), method=method),
        "ece_null": Estimate(float(np.mean([one.null.value for one in found])), method=method),
    }
    tables = [one.reliability for one in found]
    counts_M = np.sum([table.counts_M for table in tables], axis=0)
    with np.errstate(invalid="ignore"):
        sure_M, right_M = (
            np.sum([table.counts_M * np.nan_to_num(getattr(table, name)) for table in tables], axis=0) / counts_M
            for name in ("confidence_M", "accuracy_M")
        )
    pooled = Reliability("equal-width", tables[0].edges, counts_M, sure_M, right_M)
    exceeded = sum(one.exceeds_null for one in found)
    return {
        "positions": sum(run.positions for run in runs),
        "ece": means["ece"].to_dict(),
        "ece_null": {**means["ece_null"].to_dict(), "exceeded": 2 * exceeded > len(runs), "runs_exceeding": exceeded},
        "bins": pooled.to_dict()["bins"],
        "brier": brier.to_dict(),
    }


def decompose_brier(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15, binning: Binning = "equal-width"
) -> BrierParts:
    """The top label's Brier score as reliability - resolution + uncertainty + within_bins, exact for any bins.

    Raises:
        ValueError: As in `measure_reliability`.
    """
    table = measure_reliability(confidence, correct, bins, binning)
    confidence_N, correct_N = _check(confidence, correct, bins)
    index_N = _place(confidence_N, table.edges)
    share_M = table.counts_M / confidence_N.size
    accuracy = float(correct_N.mean())
    sure_N, right_N = confidence_N - table.confidence_M[index_N], correct_N - table.accuracy_M[index_N]
    return BrierParts(
        reliability=float(np.nansum(share_M * (table.confidence_M - table.accuracy_M) ** 2)),
        resolution=float(np.nansum(share_M * (table.accuracy_M - accuracy) ** 2)),
        uncertainty=accuracy * (1 - accuracy),
        within_bins=float((sure_N**2).mean() - 2 * (sure_N * right_N).mean()),
    )


def compare_calibration(
    baseline: Sequence[Predictions], candidate: Sequence[Predictions], resampling: Resampling | None = None
) -> dict[str, Comparison]:
    """Compare two arms, one entry a seed, in loss and Brier score; both are proper, less is better.

    Differences are paired by position, then summed within groups; with several seeds the seeds are drawn too. One
    model on either side against several seeds is held fixed (`compare.compare_sums`).

    Raises:
        InputError: The models were not judged at the same positions, or an arm is empty.
    """
    if not baseline or not candidate:
        raise InputError(f"{len(baseline)} baseline and {len(candidate)} candidate models cannot be compared.")
    for predictions in (*baseline, *candidate):
        baseline[0].check_same_positions(predictions)
    resampling = resampling or Resampling()
    return {
        metric: compare_sums(
            metric,
            stack_seeds([predictions.by_group(part) for predictions in baseline]),
            stack_seeds([predictions.by_group(part) for predictions in candidate]),
            resampling,
        )
        for metric, part in PROPER.items()
    }


def _check(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int) -> tuple[Floats, Floats]:
    confidence_N, correct_N = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if confidence_N.ndim != 1 or confidence_N.shape != correct_N.shape or not confidence_N.size or bins < 1:
        raise ValueError(f"confidences {confidence_N.shape} and guesses {correct_N.shape} do not fill {bins} bins")
    if not ((confidence_N >= 0) & (confidence_N <= 1)).all() or not np.isin(correct_N, (0, 1)).all():
        raise ValueError("confidences must lie in [0, 1], and a guess is right (1) or not (0)")
    return confidence_N, correct_N


def _edges(confidence_N: Floats, bins: int, binning: Binning) -> Floats:
    shares = np.linspace(0, 1, bins + 1)
    if binning == "equal-width":
        return shares
    # A quantile that was observed closes its bin, so that equal confidences are never parted.
    inner = np.unique(np.quantile(confidence_N, shares[1:-1], method="inverted_cdf"))
    return np.concatenate([[0.0], inner[(inner > 0) & (inner < confidence_N.max())], [1.0]])


def _place(confidence_N: Floats, edges: Floats) -> npt.NDArray[np.int64]:
    return np.searchsorted(edges[1:-1], confidence_N, side="left").astype(np.int64)


def _bin_sums(index_N: npt.NDArray[np.int64], count: int, *values: Floats) -> tuple[Floats, ...]:
    weights = (np.ones(index_N.size), *values)
    return tuple(np.bincount(index_N, weight_N, count).astype(np.float64) for weight_N in weights)
