"""How long one item takes, and how much is done in a second: percentiles and rates of a timed system, with intervals.

An item's latency is its median over the timed rounds (`speed.Timings.per_unit`), so that percentiles tell slow items
from fast ones, not one call's hiccup from another's; where there is one item, the rounds stand in its place. A
percentile's interval is between two order statistics (hahn1991): no distribution is assumed, and where items are too
few to bound it there is none. Items count as independent there. Rates are ratios of sums, with bootstrapped intervals.
Not here: the timing itself and comparisons (`speed`), memory and size on disk (`footprint`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tutelage.evaluation.bootstrap import GroupSums, Resampling, group_interval
from tutelage.evaluation.speed import Timings
from tutelage.records.document import Status
from tutelage.records.estimate import Estimate


@dataclass(frozen=True)
class Latency:
    """One system's times.

    Args:
        items: Items behind the percentiles; rounds, where there was one item.
        p50: Seconds that half of the items stay within.
        p90: Seconds that 90 % stay within.
        p99: Seconds that 99 % stay within.
        tokens_per_second: Tokens written or read over seconds; None where tokens were not counted.
        real_time_factor: Seconds over seconds of audio; None where there is no audio.
        status: "done", or "busy" where other processes were running.
    """

    items: int
    p50: Estimate
    p90: Estimate
    p99: Estimate
    tokens_per_second: Estimate | None
    real_time_factor: Estimate | None
    status: Status

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; times in seconds."""
        return asdict(self)


def measure_latency(
    timings: Timings,
    system: str,
    *,
    tokens: Sequence[int] | None = None,
    audio_seconds: Sequence[float] | None = None,
    resampling: Resampling | None = None,
) -> Latency:
    """Percentiles and rates of one timed system.

    Args:
        timings: Of `speed.time_alternately`.
        system: Its name there.
        tokens: Tokens that the system wrote (or read) for every item.
        audio_seconds: Duration of every item.
        resampling: Level of all intervals, and the draws behind those of rates.

    Raises:
        ValueError: There is not one count or duration an item, or one is negative, or there are no tokens.
    """
    resampling = resampling or Resampling()
    times = timings.per_unit(system)
    p50, p90, p99 = (estimate_percentile(times, share, resampling.level) for share in (0.5, 0.9, 0.99))
    rate = None if tokens is None else _tokens_per_second(timings, system, tokens, resampling)
    factor = None if audio_seconds is None else timings.real_time_factor(system, audio_seconds, resampling)
    return Latency(times.size, p50, p90, p99, rate, factor, timings.status)


def estimate_percentile(values: npt.ArrayLike, share: float, level: float = 0.95) -> Estimate:
    """The value that a share of a population stays within, from independent draws of it.

    The point is an order statistic (a value that occurred). The interval is between those of ranks l and u with
    P(Bin(n, share) < l) and P(Bin(n, share) >= u) at most (1 - level) / 2, so that it covers at least `level`.

    Args:
        values: Finite numbers.
        share: In (0, 1): 0.99 for the 99th percentile.
        level: Coverage aimed at, in (0, 1).

    Raises:
        ValueError: There is no value, one is not finite, or share or level is out of range.

    Source: hahn1991.

    Example:
        >>> found = estimate_percentile(range(1, 101), 0.5)
        >>> found.value, found.low, found.high
        (50.0, 40.0, 61.0)
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if ordered.ndim != 1 or not ordered.size or not np.isfinite(ordered).all():
        raise ValueError(f"a percentile needs finite numbers, one an item, not {ordered.shape} values")
    if not (0 < share < 1 and 0 < level < 1):
        raise ValueError(f"share {share} and level {level} must lie between 0 and 1")
    from scipy.special import bdtr  # here and not at the top: see `bootstrap.expanded_tail`

    count, tail = ordered.size, (1 - level) / 2
    value = float(np.quantile(ordered, share, method="inverted_cdf"))
    up_to = bdtr(np.arange(count, dtype=np.float64), count, share)  # P(Bin <= 0), ..., P(Bin <= n - 1)
    low = int(np.searchsorted(up_to, tail, side="right"))
    high = int(np.searchsorted(up_to, 1 - tail, side="left")) + 1
    if low < 1 or high > count:
        enough = math.ceil(math.log(tail) / math.log(max(share, 1 - share)))
        return Estimate(value, method=f"point: {count} items are too few for an interval, {enough} bound it")
    method = f"order statistics {low} and {high} of {count}"
    return Estimate(value, float(ordered[low - 1]), float(ordered[high - 1]), level, method)


def _tokens_per_second(timings: Timings, system: str, tokens: Sequence[int], resampling: Resampling) -> Estimate:
    counts = np.asarray(tokens, dtype=np.float64)
    items = timings.seconds[system].shape[1]
    if counts.shape != (items,) or not (counts >= 0).all() or not counts.sum():
        raise ValueError(f"{items} items were timed; give each its number of tokens, not {tokens!r}")
    times = timings.per_unit(system)
    per_unit = np.broadcast_to(counts, times.shape) if items == 1 else counts
    return group_interval(GroupSums(per_unit[None, :], times, bounded=False), resampling)
