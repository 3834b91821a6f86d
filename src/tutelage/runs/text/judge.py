"""What a run's language models are worth on held-out documents: losses, calibration and agreement, with intervals.

Covers one system's row and paired comparisons. Intervals resample groups of documents. Does not cover running the model
(`tasks.text.score`) or the statistics themselves (`evaluation`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tutelage.evaluation.bootstrap import GroupSums, Resampling, group_interval, judge_sample
from tutelage.evaluation.calibration import Calibration, measure_calibration
from tutelage.evaluation.compare import Comparison, compare_sums
from tutelage.evaluation.likelihood import Likelihood, Ratio, with_perplexity
from tutelage.evaluation.predictions import Predictions
from tutelage.models.load import count_params
from tutelage.progress import Advance, Progress, no_progress
from tutelage.records.estimate import Estimate
from tutelage.tasks.text.batch import TextBatch, TextExamples
from tutelage.tasks.text.score import DocumentAnswers, score_documents

RATIOS: tuple[Ratio, ...] = ("nats_per_token", "bits_per_byte", "accuracy", "agreement")


@dataclass(frozen=True)
class TextBench:
    """What every system of a run is judged with, so that rows can be compared.

    Args:
        examples: The held-out rows.
        resampling: How intervals are made.
        batch_size: Rows at once.
        progress: Opens bars.
        told: The teacher's logits of a batch, for a model's divergence from it; None does not measure it.
    """

    examples: TextExamples
    resampling: Resampling
    batch_size: int
    progress: Progress = no_progress
    told: Callable[[TextBatch], Tensor] | None = None

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
        found: What it answers at every supervised position.
        bench: What it was judged with.
        teacher: What the teacher answers; None where there is none. Of one with other tokens there is no agreement.
    """

    name: str
    params: int
    found: DocumentAnswers
    bench: TextBench
    teacher: Predictions | None = None

    @property
    def predictions(self) -> Predictions:
        """Its answers, without the documents."""
        return self.found.answers.predictions

    @cached_property
    def likelihood(self) -> Likelihood:
        """Its sums over every document, in the corpus's order."""
        mine, documents = self.predictions, self.bench.examples.documents
        comparable = self.teacher is not None and mine.same_positions(self.teacher)
        agreeing = self._by_document(mine.agreeing(self.teacher)) if self.teacher and comparable else None
        return Likelihood(
            nats_U=self._by_document(mine.nats_N),
            tokens_U=self._by_document(np.ones(mine.positions)),
            groups=self.bench.groups,
            bytes_U=np.asarray([document.bytes for document in documents], dtype=np.float64),
            right_U=self._by_document(mine.correct),
            agreeing_U=agreeing,
        )

    @cached_property
    def calibration(self) -> Calibration:
        """Whether its probabilities mean what they say."""
        return measure_calibration(self.predictions, resampling=self.bench.resampling)

    def sums(self) -> dict[str, GroupSums]:
        """Sums within groups, by metric: what the row's estimates and comparisons are ratios of."""
        found: dict[str, GroupSums] = {
            name: sums for name in RATIOS if (sums := self.likelihood.by_group(name)) is not None
        }
        found["brier"] = self.predictions.by_group("brier")
        if self.found.answers.divergence_N is not None:
            found["teacher_kl"] = self.predictions.sum_within_groups(self.found.answers.divergence_N, bounded=False)
        return found

    def by_group(self, metric: str) -> GroupSums:
        """Sums within groups whose ratio is the metric.

        Raises:
            ValueError: It was not measured.
        """
        sums = self.sums().get(metric)
        if sums is None:
            raise ValueError(f"{self.name} has no {metric}: what it is counted from was not measured")
        return sums

    def estimates(self) -> dict[str, Estimate]:
        """Loss in nats per token, its perplexity, bits per byte of text, share of tokens guessed right, Brier score
        and, beside a teacher, share of positions where the most probable token is the teacher's.
        """
        resampling = self.bench.resampling
        return with_perplexity({name: group_interval(sums, resampling) for name, sums in self.sums().items()})

    def parts(self) -> Mapping[str, Mapping[str, GroupSums]]:
        """What can be pooled over seeds and compared, by the row's key."""
        return {"metrics": self.sums()}

    def to_dict(self) -> dict[str, Any]:
        """The row as `result.json` has it."""
        groups, metrics = len(set(self.bench.groups)), self.estimates()
        return {
            "name": self.name,
            "params": self.params,
            "documents": int(self.likelihood.tokens_U.size),
            "groups": groups,
            "tokens": int(self.likelihood.tokens_U.sum()),
            "bytes": sum(document.bytes for document in self.bench.examples.documents),
            "metrics": {name: estimate.to_dict() for name, estimate in metrics.items()},
            "agreement": metrics["agreement"].to_dict() if "agreement" in metrics else None,
            "calibration": self.calibration.to_dict(),
            "status": asdict(judge_sample(groups)),
        }

    def lines(self) -> Iterator[dict[str, Any]]:
        """One JSON line a document: enough to compare it with another run's."""
        found = self.likelihood
        right_U = self._by_document(self.predictions.correct)
        for number, document in enumerate(self.bench.examples.documents):
            yield {
                "system": self.name,
                "id": document.id,
                "group": document.group,
                "tokens": int(found.tokens_U[number]),
                "bytes": document.bytes,
                "nats": float(found.nats_U[number]),
                "right": int(right_U[number]),
                "agreeing": None if found.agreeing_U is None else int(found.agreeing_U[number]),
            }

    def _by_document(self, values_N: NDArray[Any]) -> NDArray[np.float64]:
        count = len(self.bench.examples.documents)
        return np.bincount(self.found.owners_N, weights=values_N, minlength=count).astype(np.float64)


def judge(name: str, model: Any, bench: TextBench, teacher: TextVerdict | None = None) -> TextVerdict:
    """Run one system over the held-out rows.

    Args:
        name: The system.
        model: Left in evaluation mode.
        bench: The common conditions.
        teacher: The teacher's row on the same rows, for agreement; None where there is none.
    """

    def progress(title: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Advance]:  # noqa: ARG001
        return bench.progress(f"judge {name}", total, unit, done)

    found = score_documents(model, bench.examples, bench.batch_size, bench.told, progress)
    return TextVerdict(name, count_params(model), found, bench, None if teacher is None else teacher.predictions)


def compare(baseline: TextVerdict, candidate: TextVerdict, metric: str = "nats_per_token") -> Comparison:
    """Candidate minus baseline, paired by document.

    Raises:
        InputError: The two were not measured on the same documents.
    """
    return compare_sums(metric, baseline.by_group(metric), candidate.by_group(metric), baseline.bench.resampling)
