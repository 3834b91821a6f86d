"""Rows and comparisons of systems that were judged: pooled over seeds, every two on the same data.

Covers what both tasks have: one row a system, differences in chosen metrics with intervals over groups and, where a
system has several runs, over seeds. Does not cover judging (the tasks' `judge`) or time and memory (`timing`). Nothing
here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import GroupSums, Resampling, seed_interval, stack_seeds
from tutelage.evaluation.calibration import Calibration, pool_calibrations
from tutelage.evaluation.compare import compare_sums
from tutelage.evaluation.likelihood import with_perplexity
from tutelage.evaluation.predictions import Predictions
from tutelage.records.document import Caution

OF_TOKENS = ("nats_per_token", "brier")
"""Metrics that can be compared only where both models read the same tokens."""
_OF_ONE_RUN = ("words", "raw_words", "repeating", "hit_cap", "status")  # counts that are not pooled


class Judged(Protocol):
    """One model's row, before it is a row."""

    @property
    def predictions(self) -> Predictions | None:
        """Its answers at supervised positions."""

    @property
    def calibration(self) -> Calibration | None:
        """Whether its probabilities mean what they say."""

    def parts(self) -> Mapping[str, Mapping[str, GroupSums]]:
        """Sums within groups by the row's key and name."""

    def to_dict(self) -> dict[str, Any]:
        """The row."""


@dataclass(frozen=True)
class JudgedSystem:
    """A system with the verdict on each of its runs.

    Args:
        name: The system.
        runs: At least one.
        seeds: Seed of each run, where known.

    Raises:
        InputError: The runs read other tokens than each other, so that they are no seeds of one recipe.
    """

    name: str
    runs: tuple[Judged, ...]
    seeds: tuple[int | None, ...]

    def __post_init__(self) -> None:
        if len(self.runs) > 1 and not _same_tokens(self, self):
            raise InputError(
                f"The runs of {self.name} read other tokens than each other, so their losses cannot be pooled. Name "
                "runs of one recipe."
            )

    def pooled(self, key: str = "metrics") -> dict[str, GroupSums]:
        """Sums of every metric that all runs have, one row a seed."""
        parts = [run.parts()[key] for run in self.runs]
        return {name: stack_seeds([part[name] for part in parts]) for name in parts[0] if all(name in p for p in parts)}

    def row(self, resampling: Resampling) -> dict[str, Any]:
        """The row: of one model its own; of several runs their means, with intervals over groups and seeds."""
        if len(self.runs) == 1:
            return {**self.runs[0].to_dict(), "name": self.name}
        rows = [run.to_dict() for run in self.runs]
        shared = {name: value for name, value in rows[0].items() if name not in _OF_ONE_RUN}
        estimates = {
            key: {name: seed_interval(sums, resampling) for name, sums in self.pooled(key).items()}
            for key in self.runs[0].parts()
        }
        metrics = with_perplexity(estimates["metrics"])
        calibrations = [run.calibration for run in self.runs if run.calibration is not None]
        return {
            **shared,
            "name": self.name,
            **{key: {name: one.to_dict() for name, one in found.items()} for key, found in estimates.items()},
            "metrics": {name: one.to_dict() for name, one in metrics.items()},
            "agreement": metrics["agreement"].to_dict() if "agreement" in metrics else None,
            "calibration": pool_calibrations(calibrations, metrics["brier"]) if calibrations else None,
            "seeds": list(self.seeds),
            "runs": rows,
        }


@dataclass(frozen=True)
class Examined:
    """What examining found.

    Args:
        systems: The verdicts, by system, in the order of the rows.
        extras: Further parts of every system's row: time, memory, size.
        timing: Of the document; None where nothing was timed.
        cautions: Soft faults.
    """

    systems: Mapping[str, JudgedSystem]
    extras: Mapping[str, Mapping[str, Any]]
    timing: Mapping[str, Any] | None
    cautions: Sequence[Caution]

    def rows(self, resampling: Resampling) -> list[dict[str, Any]]:
        """One row a system."""
        return [{**system.row(resampling), **self.extras[name]} for name, system in self.systems.items()]


def compare_systems(
    systems: Mapping[str, JudgedSystem],
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str],
    resampling: Resampling,
) -> tuple[list[dict[str, Any]], list[Caution]]:
    """Candidate minus baseline in every metric that both have, paired by group and by seed.

    Metrics of tokens (`OF_TOKENS`) are compared only where both read the same tokens; a caution says where not.

    Raises:
        InputError: Two systems were not measured on the same data.
    """
    rows: list[dict[str, Any]] = []
    cautions: list[Caution] = []
    for one, other in pairs:
        baseline, candidate = systems[one], systems[other]
        first, second = baseline.pooled(), candidate.pooled()
        alike = _same_tokens(baseline, candidate)
        for metric in metrics:
            if metric in first and metric in second and (alike or metric not in OF_TOKENS):
                compared = compare_sums(metric, first[metric], second[metric], resampling)
                rows.append({"baseline_name": one, "candidate_name": other, **compared.to_dict()})
        if not alike and all(run.predictions is not None for run in (*baseline.runs, *candidate.runs)):
            text = f"{one} and {other} read other tokens, so their losses per token and Brier scores are not compared."
            cautions.append(Caution("other-tokens", other, None, None, text))
    return rows, cautions


def _same_tokens(one: JudgedSystem, other: JudgedSystem) -> bool:
    first = one.runs[0].predictions
    rest = [run.predictions for run in (*one.runs, *other.runs)]
    return first is not None and all(
        found is not None and np.array_equal(first.labels_N, found.labels_N) for found in rest
    )
