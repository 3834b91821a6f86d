"""What a run's language models are worth on held-out documents: losses and agreement, each with its interval.

Covers one system's row and paired comparisons. Intervals resample groups of documents. Does not cover running the model
(`tasks.text.score`) or the statistics themselves (`evaluation`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tutelage.evaluation.bootstrap import GroupSums, Resampling, group_interval, judge_sample, sum_by_group
from tutelage.evaluation.compare import Comparison, compare_sums
from tutelage.models.load import count_params
from tutelage.progress import Advance, Progress, no_progress
from tutelage.records.estimate import Estimate
from tutelage.tasks.text.batch import TextExamples
from tutelage.tasks.text.score import DocumentSums, score_documents

LOSSES = ("nats_per_token", "bits_per_byte")
"""Metrics of which less is better, in which systems are compared."""


@dataclass(frozen=True)
class TextBench:
    """What every system of a run is judged with, so that rows can be compared.

    Args:
        examples: The held-out rows.
        resampling: How intervals are made.
        batch_size: Rows at once.
        progress: Opens bars.
    """

    examples: TextExamples
    resampling: Resampling
    batch_size: int
    progress: Progress = no_progress

    @property
    def groups(self) -> list[str]:
        """The group of every document."""
        return [document.group for document in self.examples.documents]


@dataclass(frozen=True)
class TextVerdict:
    """One system's row.

    Args:
        name: The system.
        params: Its parameters.
        sums: What it makes of every document.
        bench: What it was judged with.
    """

    name: str
    params: int
    sums: DocumentSums
    bench: TextBench

    def by_group(self, metric: str) -> GroupSums:
        """Sums within groups whose ratio is the metric."""
        sums = self.sums
        parts = {
            "nats_per_token": (sums.nats, sums.tokens),
            "bits_per_byte": (sums.nats / math.log(2), sums.bytes),
            "accuracy": (sums.right, sums.tokens),
            "agreement": (sums.agreeing, sums.tokens),
        }
        errors, units = parts[metric]
        if errors is None:
            raise ValueError(f"{self.name} was compared with no teacher, so it has no agreement")
        return sum_by_group(errors, units, self.bench.groups)

    def estimates(self) -> dict[str, Estimate]:
        """Loss in nats per token, its perplexity, bits per byte of text, share of tokens guessed right and, beside a
        teacher, share of positions where the most probable token is the teacher's.
        """
        names = [*LOSSES, "accuracy", *(["agreement"] if self.sums.agreeing is not None else [])]
        found = {name: group_interval(self.by_group(name), self.bench.resampling) for name in names}
        return {"nats_per_token": found["nats_per_token"], "perplexity": _exp(found["nats_per_token"]), **found}

    def to_dict(self) -> dict[str, Any]:
        """The row as `result.json` has it."""
        return {
            "name": self.name,
            "params": self.params,
            "documents": int(self.sums.tokens.size),
            "groups": len(set(self.bench.groups)),
            "tokens": int(self.sums.tokens.sum()),
            "bytes": int(self.sums.bytes.sum()),
            "metrics": {name: estimate.to_dict() for name, estimate in self.estimates().items()},
            "status": judge_sample(len(set(self.bench.groups))).__dict__,
        }

    def lines(self) -> Iterator[dict[str, Any]]:
        """One JSON line a document: enough to compare it with another run's."""
        for number, document in enumerate(self.bench.examples.documents):
            agreeing = None if self.sums.agreeing is None else int(self.sums.agreeing[number])
            yield {
                "system": self.name,
                "id": document.id,
                "group": document.group,
                "tokens": int(self.sums.tokens[number]),
                "bytes": int(self.sums.bytes[number]),
                "nats": float(self.sums.nats[number]),
                "right": int(self.sums.right[number]),
                "agreeing": agreeing,
            }


def judge(name: str, model: Any, bench: TextBench, teacher: Sequence[Tensor] | None = None) -> TextVerdict:
    """Run one system over the held-out rows.

    Args:
        name: The system.
        model: Left in evaluation mode.
        bench: The common conditions.
        teacher: The teacher's guesses, where there is one.
    """

    def progress(title: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Advance]:  # noqa: ARG001
        return bench.progress(f"judge {name}", total, unit, done)

    sums = score_documents(model, bench.examples, bench.batch_size, teacher, progress)
    return TextVerdict(name, count_params(model), sums, bench)


def compare(baseline: TextVerdict, candidate: TextVerdict, metric: str = "nats_per_token") -> Comparison:
    """Candidate minus baseline, paired by document.

    Raises:
        InputError: The two were not measured on the same documents.
    """
    return compare_sums(metric, baseline.by_group(metric), candidate.by_group(metric), baseline.bench.resampling)


def _exp(loss: Estimate) -> Estimate:
    low, high = (None if end is None else math.exp(end) for end in (loss.low, loss.high))
    return Estimate(math.exp(loss.value), low, high, loss.level, loss.method)
