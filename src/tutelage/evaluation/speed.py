"""How long systems take: timed alternately in one run, compared by ratios with intervals.

Every system handles the same items (clips). In every round, item by item, each system is timed once, in an order that
rotates, so that a machine that slows down slows all of them. An item's time is the median over rounds; a system's
time is their sum. Ratios and shares are of such sums, and their intervals come from resampling the items, paired over
systems (`bootstrap`): they are for other items on this machine, with this load. Where there is one item, the rounds
are resampled in its place.

What is timed is what the callable does. Decoding time depends on what is decoded: a system whose transcripts loop
pays for it. On an accelerator the callable must wait for the device before it returns. Not here: memory, energy, and
throughput of large batches.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tutelage.evaluation.bootstrap import GroupSums, Resampling, group_interval
from tutelage.progress import Progress, no_progress
from tutelage.records.document import Status
from tutelage.records.estimate import Estimate

Item = TypeVar("Item")

BUSY_SHARE = 0.1
"""Other processes using more than this share of the processors make timings doubtful."""


@dataclass(frozen=True)
class Timings:
    """Seconds of every system on every item in every round.

    Args:
        seconds: System name to an array (rounds, items), read-only.
        others_share: Share of the machine's processors that other processes used meanwhile; None where the system
            does not tell.
    """

    seconds: Mapping[str, npt.NDArray[np.float64]]
    others_share: float | None = None

    @property
    def status(self) -> Status:
        """Either "done", or "busy" where other processes were running."""
        if self.others_share is not None and self.others_share > BUSY_SHARE:
            return Status(
                "busy",
                f"other processes used {self.others_share:.0%} of the processors during the timing.",
                "Stop them and time again.",
            )
        return Status()

    def per_unit(self, system: str) -> npt.NDArray[np.float64]:
        """Seconds of each resampled unit: each item's median over rounds; each round where there is one item."""
        rounds_items = self.seconds[system]
        if rounds_items.shape[1] == 1:
            return rounds_items[:, 0]
        return np.asarray(np.median(rounds_items, axis=0))

    def total(self, system: str) -> float:
        """Seconds for all the items once: the sum of their medians over rounds."""
        return float(np.median(self.seconds[system], axis=0).sum())

    def spread(self, system: str) -> float | None:
        """Interquartile range, over rounds, of the seconds for all the items; None for fewer than three rounds."""
        passes = self.seconds[system].sum(axis=1)
        if passes.size < 3:
            return None
        low, high = np.quantile(passes, [0.25, 0.75])
        return float(high - low)

    def ratio(self, system: str, baseline: str, resampling: Resampling | None = None) -> Estimate:
        """Seconds of `system` over seconds of `baseline`, on the same items."""
        return _ratio(self.per_unit(system), self.per_unit(baseline), resampling)

    def real_time_factor(
        self, system: str, audio_seconds: Sequence[float], resampling: Resampling | None = None
    ) -> Estimate:
        """Processing time over the duration of the audio (0.1: ten times faster than speech).

        Args:
            system: Name of the system.
            audio_seconds: Duration of every item.
            resampling: How the interval is made.

        Raises:
            ValueError: There is not one duration an item, or one is not positive.
        """
        audio = np.asarray(audio_seconds, dtype=np.float64)
        items = self.seconds[system].shape[1]
        if audio.shape != (items,) or not (audio > 0).all():
            raise ValueError(f"{items} items were timed; give a positive duration for each, not {audio_seconds!r}")
        times = self.per_unit(system)
        return _ratio(times, np.broadcast_to(audio, times.shape) if items == 1 else audio, resampling)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: totals and spreads in seconds, not every single time."""
        first = next(iter(self.seconds.values()))
        return {
            "rounds": first.shape[0],
            "items": first.shape[1],
            "seconds": {name: {"total": self.total(name), "spread": self.spread(name)} for name in self.seconds},
            "others_share": self.others_share,
            "status": asdict(self.status),
        }


def time_alternately(
    systems: Mapping[str, Callable[[Item], object]],
    items: Sequence[Item],
    *,
    rounds: int = 3,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress = no_progress,
) -> Timings:
    """Time every system on every item, `rounds` times, with the systems taking turns.

    Args:
        systems: Name to callable of one item.
        items: What the systems are given.
        rounds: Timed passes over the items.
        warm_up: Items that every system handles once before the timing, untimed.
        clock: Seconds that only grow.
        progress: Opens a bar with one step an item.

    Raises:
        ValueError: There is no system, no item or no round.
    """
    if not systems or not items or rounds < 1:
        raise ValueError(f"nothing to time: {len(systems)} systems, {len(items)} items, {rounds} rounds")
    names = list(systems)
    seconds = {name: np.empty((rounds, len(items))) for name in names}
    for item in items[:warm_up]:
        for name in names:
            systems[name](item)
    watch = _MachineWatch()
    with progress("time", total=rounds * len(items), unit="clip") as advance:
        for turn in range(rounds):
            for position, item in enumerate(items):
                shift = (turn + position) % len(names)
                for name in names[shift:] + names[:shift]:
                    start = clock()
                    systems[name](item)
                    seconds[name][turn, position] = clock() - start
                advance()
    for array in seconds.values():
        array.flags.writeable = False
    return Timings(seconds, watch.others_share())


@dataclass(frozen=True)
class Split:
    """The time that a small student saves, attributed to its shorter window and its fewer layers.

    Args:
        saving: Share of the stock model's time that the student saves: 1 - t(both) / t(stock).
        window: The window's share of the saving.
        layers: The layers' share; the two sum to 1.
        status: "done"; "no-saving" where the student saves nothing, so that shares mean nothing; or "busy".
    """

    saving: Estimate
    window: Estimate
    layers: Estimate
    status: Status

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class FourCorners:
    """Names of the four timed systems of a two-factor split."""

    stock: str
    window_only: str
    layers_only: str
    both: str


def split_saving(timings: Timings, corners: FourCorners, resampling: Resampling | None = None) -> Split:
    """Attribute the saving to the window and to the layers.

    Each factor is credited with the mean of what it saves when it comes first and when it comes second (the Shapley
    value of two players), so that the credits sum to the whole saving t(stock) - t(both) exactly:

        window = ((t(stock) - t(window)) + (t(layers) - t(both))) / 2
        layers = ((t(stock) - t(layers)) + (t(window) - t(both))) / 2

    The shares are these over the whole saving. Which came first can matter: the shorter window makes the encoder and
    the cross-attention of every remaining layer cheaper.
    """
    stock = timings.per_unit(corners.stock)
    window_only, layers_only = timings.per_unit(corners.window_only), timings.per_unit(corners.layers_only)
    both = timings.per_unit(corners.both)
    whole = stock - both
    saving = _ratio(whole, stock, resampling)
    window_credit = ((stock - window_only) + (layers_only - both)) / 2
    if saving.value <= 0 or (saving.low is not None and saving.low <= 0):
        status = Status(
            "no-saving", f"the student saves {saving.value:.1%} of the stock model's time.", "Shares mean nothing here."
        )
        unknown = Estimate(float("nan"), method="undefined: no saving")
        return Split(saving, unknown, unknown, status)
    window = _ratio(window_credit, whole, resampling)
    return Split(saving, window, _complement(window), timings.status)


def _complement(share: Estimate) -> Estimate:
    if share.low is None or share.high is None:
        return Estimate(1 - share.value, method=share.method)
    return Estimate(1 - share.value, 1 - share.high, 1 - share.low, share.level, share.method)


def _ratio(
    numerator: npt.NDArray[np.float64], denominator: npt.NDArray[np.float64], resampling: Resampling | None
) -> Estimate:
    return group_interval(GroupSums(numerator[None, :], denominator), resampling or Resampling(), signed=True)


class _MachineWatch:
    """What other processes did since this was made, by Linux's accounts; other systems give None."""

    def __init__(self) -> None:
        self._start = self._read()

    def others_share(self) -> float | None:
        end = self._read()
        if self._start is None or end is None:
            return None
        (busy_0, whole_0, own_0), (busy_1, whole_1, own_1) = self._start, end
        if whole_1 - whole_0 < 1:  # a second of processor time: less is too coarse to say anything
            return None
        return float(min(1.0, max(0.0, (busy_1 - busy_0) - (own_1 - own_0)) / (whole_1 - whole_0)))

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """Processor seconds of the machine that were busy, those that passed, and those of this process."""
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
            ticks = [int(value) for value in fields[1:9]]
        except (OSError, ValueError, IndexError):
            return None
        user, nice, system, idle, waiting, *interrupts = ticks
        second = os.sysconf("SC_CLK_TCK")
        busy = user + nice + system + sum(interrupts)
        own = time.process_time()
        return busy / second, (busy + idle + waiting) / second, own
