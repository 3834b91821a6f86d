"""Word and character error rates: align every utterance once, then count, pool and give intervals.

A corpus rate is the sum of errors over the sum of reference words, never a mean of per-utterance rates. Raw (white
space collapsed, nothing else) and normalised counts are both kept, and the normaliser is named in the result.

Decided cases:
- An utterance whose reference is empty after normalisation adds its inserted words to the errors and nothing to the
  words (as jiwer 4 does when it pools). In the capped rate it adds nothing at all.
- A corpus without one reference word has no rate: that is an `InputError`.
- Characters are code points of the words joined by one space, spaces included (as in jiwer).

Not here: the normalisers of Whisper (`normalisers`), decoding, and comparisons (`compare`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tutelage.errors import InputError, MissingExtraError
from tutelage.evaluation.bootstrap import GroupSums, Resampling, group_intervals, judge_sample, sum_by_group
from tutelage.evaluation.repetition import repeats_itself
from tutelage.records.document import Status
from tutelage.records.estimate import Estimate

Metric = Literal["wer", "cer", "capped_wer", "loop_rate", "raw_wer", "raw_cer"]
METRICS: tuple[Metric, ...] = ("wer", "cer", "capped_wer", "loop_rate", "raw_wer", "raw_cer")
KINDS = ("substitutions", "deletions", "insertions")


@dataclass(frozen=True)
class Normaliser:
    """A named function from text to text, applied to references and hypotheses alike.

    Args:
        name: What a result calls it, for example "whisper-basic".
        function: The function; white space is collapsed after it.
    """

    name: str
    function: Callable[[str], str] = field(repr=False)

    def __call__(self, text: str) -> str:
        """The normalised text, words separated by one space."""
        return " ".join(self.function(text).split())


RAW = Normaliser("raw", lambda text: text)
"""Collapses white space and nothing else."""


@dataclass(frozen=True)
class Edits:
    """Counts of one alignment. The split into kinds is one of several optimal ones; `errors` is unique."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def length(self) -> int:
        """Units (words or characters) of the reference."""
        return self.hits + self.substitutions + self.deletions

    def __add__(self, other: Edits) -> Edits:
        """Counts of both."""
        return Edits(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


@dataclass(frozen=True)
class View:
    """One utterance as one normaliser sees it: the two texts and their alignments."""

    reference: str
    hypothesis: str
    words: Edits
    characters: Edits


@dataclass(frozen=True)
class ScoredUtterance:
    """Every count of one utterance.

    Args:
        id: Name of the utterance.
        group: Its group in the bootstrap.
        raw: Counts on the texts as they are.
        normalised: Counts after the normaliser.
        repeats: The hypothesis repeats itself as `repetition.repeats_itself` defines, more than the reference does.
        hit_cap: Decoding ended at the cap on new tokens; None where the caller did not say.
    """

    id: str
    group: str
    raw: View
    normalised: View
    repeats: bool
    hit_cap: bool | None

    @property
    def loops(self) -> bool:
        """The hypothesis repeats itself, or decoding had to be stopped."""
        return self.repeats or bool(self.hit_cap)

    def count(self, metric: Metric) -> tuple[int, int]:
        """What this utterance adds to the numerator and the denominator of a metric."""
        view = self.raw if metric in ("raw_wer", "raw_cer") else self.normalised
        if metric == "loop_rate":
            return int(self.loops), 1
        if metric in ("cer", "raw_cer"):
            return view.characters.errors, view.characters.length
        if metric == "capped_wer":
            return min(view.words.errors, view.words.length), view.words.length
        return view.words.errors, view.words.length


@dataclass(frozen=True)
class TranscriptScore:
    """Error rates of one system on one held-out set.

    Args:
        normaliser: Name of the normaliser behind `wer`, `cer`, `capped_wer` and `loop_rate`.
        utterances: Every utterance's counts, in the order given.
        wer: Word errors over reference words (can pass 1).
        cer: Character errors over reference characters.
        capped_wer: As `wer`, each utterance's errors capped at its words: a loop counts as one lost utterance.
        loop_rate: Share of utterances that loop.
        raw_wer: `wer` without the normaliser.
        raw_cer: `cer` without the normaliser.
        resampling: How the intervals were made.
        status: "done", or "few-groups" with a remedy where the intervals are rough.
    """

    normaliser: str
    utterances: tuple[ScoredUtterance, ...]
    wer: Estimate
    cer: Estimate
    capped_wer: Estimate
    loop_rate: Estimate
    raw_wer: Estimate
    raw_cer: Estimate
    resampling: Resampling
    status: Status

    @property
    def words(self) -> Edits:
        """Pooled word counts, normalised."""
        return sum((utterance.normalised.words for utterance in self.utterances), Edits())

    @property
    def raw_words(self) -> Edits:
        """Pooled word counts of the texts as they are."""
        return sum((utterance.raw.words for utterance in self.utterances), Edits())

    def sums(self) -> dict[str, GroupSums]:
        """Errors and units within groups, by metric."""
        return {metric: sum_by_group(*self.counts(metric), self.groups) for metric in METRICS}

    def kind_sums(self) -> dict[str, GroupSums]:
        """Substitutions, deletions and insertions within groups, named as in `kinds`."""
        views: dict[str, list[Edits]] = {
            "": [utterance.normalised.words for utterance in self.utterances],
            "raw_": [utterance.raw.words for utterance in self.utterances],
            "character_": [utterance.normalised.characters for utterance in self.utterances],
            "raw_character_": [utterance.raw.characters for utterance in self.utterances],
        }
        return {
            prefix + kind: sum_by_group(
                [getattr(edits, kind) for edits in edited], [edits.length for edits in edited], self.groups
            )
            for prefix, edited in views.items()
            for kind in KINDS
        }

    def kinds(self) -> dict[str, Estimate]:
        """Substitutions, deletions and insertions over reference words or characters, normalised and as they are.

        `substitutions`, `deletions` and `insertions` sum to `wer`; with `raw_` before them to `raw_wer`, with
        `character_` to `cer`, with `raw_character_` to `raw_cer`. How errors split into kinds is one of several optimal
        ways, the same for all.
        """
        sums = self.kind_sums()
        return dict(zip(sums, group_intervals(list(sums.values()), self.resampling), strict=True))

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of every utterance."""
        return tuple(utterance.group for utterance in self.utterances)

    def counts(self, metric: Metric) -> tuple[list[int], list[int]]:
        """Numerator and denominator of a metric, one entry an utterance."""
        pairs = [utterance.count(metric) for utterance in self.utterances]
        return [errors for errors, _ in pairs], [units for _, units in pairs]

    def metrics(self) -> dict[str, Estimate]:
        """The six metrics by name, as shares (0.35 is 35 %)."""
        return {metric: getattr(self, metric) for metric in METRICS}

    def to_dict(self, utterances: bool = False) -> dict[str, Any]:
        """The JSON form; with `utterances`, every utterance's texts and counts too."""
        words, raw_words = self.words, self.raw_words
        body: dict[str, Any] = {
            "normaliser": self.normaliser,
            "metrics": {name: estimate.to_dict() for name, estimate in self.metrics().items()},
            "kinds": {name: estimate.to_dict() for name, estimate in self.kinds().items()},
            "utterances": len(self.utterances),
            "groups": len(set(self.groups)),
            "words": {**asdict(words), "errors": words.errors, "reference": words.length},
            "raw_words": {**asdict(raw_words), "errors": raw_words.errors, "reference": raw_words.length},
            "repeating": sum(utterance.repeats for utterance in self.utterances),
            "hit_cap": _count_known([utterance.hit_cap for utterance in self.utterances]),
            "empty_references": sum(not utterance.normalised.reference for utterance in self.utterances),
            "resampling": asdict(self.resampling),
            "status": asdict(self.status),
        }
        if utterances:
            body["by_utterance"] = [{**asdict(utterance), "loops": utterance.loops} for utterance in self.utterances]
        return body


def score_transcripts(
    references: Sequence[str],
    hypotheses: Sequence[str],
    normalise: Normaliser,
    *,
    groups: Sequence[str] | None = None,
    hit_cap: Sequence[bool] | None = None,
    ids: Sequence[str] | None = None,
    resampling: Resampling | None = None,
) -> TranscriptScore:
    """Score one system's transcripts.

    Args:
        references: What was said.
        hypotheses: What the system wrote, in the same order.
        normalise: Applied to both; `RAW` for none.
        groups: The bootstrap's group of each utterance (default: each its own).
        hit_cap: True where decoding ended at the cap on new tokens (default: not known).
        ids: Names of the utterances (default: their positions).
        resampling: How intervals are made (default: 2000 draws, 95 %, seed 0).

    Raises:
        InputError: There is nothing to score: no utterance, or no reference word after normalisation.
        MissingExtraError: jiwer is not installed.
        ValueError: The sequences differ in length.

    Example:
        >>> score = score_transcripts(["one two three"], ["one too three four"], RAW)
        >>> score.words.errors, score.words.length
        (2, 3)
    """
    resampling = resampling or Resampling()
    count = len(references)
    for name, sequence in (("hypotheses", hypotheses), ("groups", groups), ("hit_cap", hit_cap), ("ids", ids)):
        if sequence is not None and len(sequence) != count:
            raise ValueError(f"{count} references but {len(sequence)} {name}")
    raw = _align(references, hypotheses, RAW)
    normalised = _align(references, hypotheses, normalise)
    for views, name in ((raw, RAW.name), (normalised, normalise.name)):
        if not any(view.reference for view in views):
            raise InputError(
                f"none of the {count} references has a word left after the normaliser {name!r}, so that there is no "
                "error rate. Give transcripts with words, or another normaliser."
            )
    utterances = tuple(
        ScoredUtterance(
            id=str(ids[i]) if ids is not None else str(i),
            group=str(groups[i]) if groups is not None else str(i),
            raw=raw[i],
            normalised=normalised[i],
            repeats=repeats_itself(normalised[i].hypothesis, normalised[i].reference),
            hit_cap=bool(hit_cap[i]) if hit_cap is not None else None,
        )
        for i in range(count)
    )
    return _pool(utterances, normalise.name, resampling)


def _pool(utterances: tuple[ScoredUtterance, ...], normaliser: str, resampling: Resampling) -> TranscriptScore:
    group_names = [utterance.group for utterance in utterances]
    sums = []
    for metric in METRICS:
        errors, units = zip(*(utterance.count(metric) for utterance in utterances), strict=True)
        sums.append(sum_by_group(errors, units, group_names))
    estimates = dict(zip(METRICS, group_intervals(sums, resampling), strict=True))
    status = judge_sample(len(set(group_names)))
    return TranscriptScore(normaliser, utterances, **estimates, resampling=resampling, status=status)


def _align(references: Sequence[str], hypotheses: Sequence[str], normalise: Normaliser) -> list[View]:
    views = []
    for reference_text, hypothesis_text in zip(references, hypotheses, strict=True):
        reference, hypothesis = normalise(reference_text), normalise(hypothesis_text)
        words = count_edits(reference, hypothesis, "words")
        views.append(View(reference, hypothesis, words, count_edits(reference, hypothesis, "characters")))
    return views


def count_edits(reference: str, hypothesis: str, unit: Literal["words", "characters"]) -> Edits:
    """Counts of one optimal alignment of two texts whose words are separated by one space.

    Raises:
        MissingExtraError: jiwer is not installed.
    """
    # jiwer 3 refuses an empty reference, jiwer 4 takes it: the decided case is ours, the same under both.
    if not reference:
        return Edits(insertions=len(hypothesis.split()) if unit == "words" else len(hypothesis))
    try:
        import jiwer
    except ImportError as error:
        raise MissingExtraError("jiwer", "speech") from error
    process = jiwer.process_words if unit == "words" else jiwer.process_characters
    out = process(reference, hypothesis)
    return Edits(out.hits, out.substitutions, out.deletions, out.insertions)


def _count_known(values: Sequence[bool | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
