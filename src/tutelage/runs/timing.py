"""Time and memory of judged systems: one item at a time, systems in alternation, memory in a process of its own.

Covers what both tasks have: latency and rates of each system, its share of the baseline's time, its peak memory and its
size on disk. Times are of this machine under its load: ratios inside one run carry over, seconds do not. Does not cover
what an item is (the tasks' `evaluate`) or the statistics (`evaluation.speed`, `evaluation.latency`).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from tutelage.evaluation.bootstrap import Resampling
from tutelage.evaluation.footprint import measure_folder, measure_peak_memory
from tutelage.evaluation.latency import measure_latency
from tutelage.evaluation.speed import time_alternately
from tutelage.progress import Progress, no_progress
from tutelage.records.document import Caution, jsonable
from tutelage.records.estimate import Estimate
from tutelage.runs.alone import PROGRAM

Item = TypeVar("Item")


@dataclass(frozen=True)
class Timed(Generic[Item]):
    """What is timed, and how.

    Args:
        items: What every system handles, one at a time.
        systems: From an item to whatever is made of it, by system.
        tokens: Tokens that a system writes for each item, by system.
        baseline: Whose time the others' are shares of.
        rounds: Timed passes over the items.
        audio_seconds: Duration of each item; None where there is no audio.
        resampling: How intervals are made.
    """

    items: Sequence[Item]
    systems: Mapping[str, Callable[[Item], object]]
    tokens: Mapping[str, Sequence[int]]
    baseline: str
    rounds: int
    audio_seconds: Sequence[float] | None = None
    resampling: Resampling = field(default_factory=Resampling)


@dataclass(frozen=True)
class Speeds:
    """What timing found.

    Args:
        rows: "latency" (with rates) and "share_of_baseline_time" of every system.
        section: What the document says of the timing as a whole.
        cautions: That the machine was busy.
    """

    rows: Mapping[str, Mapping[str, Any]]
    section: Mapping[str, Any]
    cautions: tuple[Caution, ...]


def time_systems(timed: Timed[Item], threads: int, progress: Progress = no_progress) -> Speeds:
    """Time every system on every item in alternation, after one untimed item each."""
    timings = time_alternately(timed.systems, timed.items, rounds=timed.rounds, progress=progress)
    rows: dict[str, dict[str, Any]] = {}
    for name in timed.systems:
        tokens = timed.tokens[name]
        latency = measure_latency(
            timings,
            name,
            tokens=tokens if sum(tokens) else None,
            audio_seconds=timed.audio_seconds,
            resampling=timed.resampling,
        )
        share = None if name == timed.baseline else timings.ratio(name, timed.baseline, timed.resampling)
        rows[name] = {
            "latency": latency.to_dict(),
            "share_of_baseline_time": None if share is None else share.to_dict(),
        }
    status = timings.status
    cautions = (
        () if status.kind == "done" else (Caution(status.kind, "speed", timings.others_share, None, status.text),)
    )
    section = {**timings.to_dict(), "baseline": timed.baseline, "threads": threads}
    return Speeds(rows, section, cautions)


def measure_footprint(order: Mapping[str, Any] | None, folder: Path) -> dict[str, Any]:
    """Size on disk of a model's folder and, by an order of `alone`, its peak memory in a process of its own.

    Args:
        order: What the process does, as `alone.handle` reads it; None does not measure memory.
        folder: The model.

    Raises:
        TutelageError: The process failed.
    """
    size = measure_folder(folder).to_dict()
    if order is None:
        return {"size": size, "peak_memory": None, "gpu_peak_memory": None}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "order.json")
        path.write_text(json.dumps(jsonable(order)), encoding="utf-8")
        peak = measure_peak_memory([sys.executable, "-c", PROGRAM, str(path)])
        on_gpu = json.loads(path.with_suffix(".gpu").read_bytes())
    said = f"{peak.method}: interpreter, libraries, weights, one item at a time"
    memory = Estimate(peak.value, method=said if peak.method.startswith("largest") else peak.method)
    return {"size": size, "peak_memory": memory.to_dict(), "gpu_peak_memory": on_gpu}
