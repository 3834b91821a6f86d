"""How a report names and writes the metrics and terms of runs.

Covers: names, units, digits. Does not cover: sentences about runs (`run_report`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.records.estimate import Estimate
from tutelage.reports import words

_LARGE = 1000.0
"""From here on decimals say nothing, as of the perplexity of an untrained model."""


@dataclass(frozen=True)
class Metric:
    """How one metric is written.

    Args:
        label: Its name, with its unit.
        scale: What it is multiplied with before it is written.
        digits: Decimals.
        unit: What a difference is in.
    """

    label: str
    scale: float = 100.0
    digits: int = 1
    unit: str = "points"

    def write(self, found: Estimate | None) -> str:
        """A cell: the number, its interval on a line below."""
        if found is None:
            return words.NONE
        cell = self.number(found.value)
        ends = words.between(found.low, found.high, self.number)
        return cell if ends == words.NONE else f"{cell}\n{ends}"

    def said(self, found: Estimate) -> str:
        """The number and its interval in a sentence."""
        if found.low is None or found.high is None:
            return self.number(found.value)
        return f"{self.number(found.value)} [{self.number(found.low)}, {self.number(found.high)}]"

    def number(self, value: float) -> str:
        """One number in the metric's unit."""
        if abs(self.scale * value) >= _LARGE:
            return words.number(self.scale * value)
        return f"{self.scale * value:.{self.digits}f}".replace("-", "−")

    def difference(self, found: Estimate) -> str:
        """A signed difference with its interval and unit, in a sentence."""
        ends = ""
        if found.low is not None and found.high is not None:
            ends = f" [{self._signed(found.low)}, {self._signed(found.high)}]"
        return f"{self._signed(found.value)}{ends} {self.unit}"

    def _signed(self, value: float) -> str:
        return words.signed(self.scale * value, self.digits)


METRICS = {
    "wer": Metric("WER, normalised, %", unit="points of WER"),
    "raw_wer": Metric("WER, as written, %", unit="points of WER as written"),
    "capped_wer": Metric("WER, each clip capped, %", unit="points of capped WER"),
    "cer": Metric("CER, normalised, %", unit="points of CER"),
    "raw_cer": Metric("CER, as written, %", unit="points of CER as written"),
    "loop_rate": Metric("Transcripts that loop, %", unit="points of loop rate"),
    "substitutions": Metric("Substituted words, %"),
    "deletions": Metric("Deleted words, %"),
    "insertions": Metric("Inserted words, %"),
    "nats_per_token": Metric("Loss, nats per token", 1.0, 3, "nats per token"),
    "perplexity": Metric("Perplexity", 1.0, 2, "of perplexity"),
    "bits_per_byte": Metric("Bits per byte", 1.0, 3, "bits per byte"),
    "accuracy": Metric("Next token right, %", unit="points of accuracy"),
    "agreement": Metric("Agreement with the teacher, %", unit="points of agreement"),
    "brier": Metric("Brier score", 1.0, 3, "of the Brier score"),
    "ece": Metric("Calibration error (ECE), %", unit="points of ECE"),
    "ece_null": Metric("ECE of a calibrated model (null), %"),
}
"""In the order of a table's rows."""

_TERMS = {
    "cross_entropy": "Cross-entropy",
    "kl": "KL",
    "reverse_kl": "Reverse KL",
    "jsd": "JSD",
    "angle": "Angle",
    "angle2": "Squared angle",
    "mse": "MSE",
    "cka": "CKA",
}


def term_name(kind: str) -> str:
    """A term of the objective as words."""
    return _TERMS.get(kind, words.sentence(words.label(kind)))


def in_sentence(name: str) -> str:
    """A name inside a sentence: without its capital, unless it is an abbreviation."""
    head = name.partition(",")[0]
    return head if head[:2].isupper() else head[:1].lower() + head[1:]


def metric_of(name: str) -> Metric:
    """How a metric is written, by its key; one that is not known as a plain number."""
    return METRICS.get(name, Metric(words.sentence(words.label(name)), 1.0, 4, words.label(name)))
