"""Where a transcript differs from what was said, word by word: aligned examples for reports.

The alignment is the one whose counts `wer` gives, one of several with as few errors. Not here: error rates (`wer`) and
how marks are drawn (`reports`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from tutelage.errors import MissingExtraError
from tutelage.evaluation.wer import Edits, ScoredUtterance, TranscriptScore

Kind = Literal["equal", "substituted", "inserted", "deleted"]


@dataclass(frozen=True)
class AlignedWord:
    """One step of an alignment.

    Args:
        kind: What became of the word.
        said: The reference's word; None where one was inserted.
        written: The hypothesis's word; None where one was deleted.
    """

    kind: Kind
    said: str | None
    written: str | None


@dataclass(frozen=True)
class ErrorExample:
    """One utterance with its differences.

    Args:
        id: The utterance.
        group: Its group.
        words: The alignment, in the order of the speech.
        loops: Whether the hypothesis loops.
    """

    id: str
    group: str
    words: tuple[AlignedWord, ...]
    loops: bool

    @property
    def edits(self) -> Edits:
        """Counts of the alignment."""
        kinds = [word.kind for word in self.words]
        return Edits(*(kinds.count(kind) for kind in ("equal", "substituted", "deleted", "inserted")))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "edits": {**asdict(self.edits), "errors": self.edits.errors}}


def align_words(reference: str, hypothesis: str) -> tuple[AlignedWord, ...]:
    """One optimal alignment of two texts whose words are separated by one space.

    Raises:
        MissingExtraError: jiwer is not installed.

    Example:
        >>> [word.kind for word in align_words("one two three", "one too three four")]
        ['equal', 'substituted', 'equal', 'inserted']
    """
    said, written = reference.split(), hypothesis.split()
    if not said:  # decided as in `wer.count_edits`
        return tuple(AlignedWord("inserted", None, word) for word in written)
    try:
        import jiwer
    except ImportError as error:
        raise MissingExtraError("jiwer", "speech") from error
    words: list[AlignedWord] = []
    for chunk in jiwer.process_words(reference, hypothesis).alignments[0]:
        of_said = said[chunk.ref_start_idx : chunk.ref_end_idx]
        of_written = written[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type == "insert":
            words += [AlignedWord("inserted", None, word) for word in of_written]
        elif chunk.type == "delete":
            words += [AlignedWord("deleted", word, None) for word in of_said]
        else:
            kind: Kind = "equal" if chunk.type == "equal" else "substituted"
            words += [AlignedWord(kind, *pair) for pair in zip(of_said, of_written, strict=True)]
    return tuple(words)


def error_examples(score: TranscriptScore, most: int = 20, *, normalised: bool = True) -> tuple[ErrorExample, ...]:
    """The utterances with the most word errors, most first and by name where equal; those without errors are left out.

    Args:
        score: One system's score.
        most: How many.
        normalised: Align the normalised texts; False for the texts as they are.

    Raises:
        MissingExtraError: jiwer is not installed.
        ValueError: `most` is negative.
    """
    if most < 0:
        raise ValueError(f"{most} examples cannot be given")

    def view(utterance: ScoredUtterance) -> tuple[str, str, int]:
        seen = utterance.normalised if normalised else utterance.raw
        return seen.reference, seen.hypothesis, seen.words.errors

    wrong = [utterance for utterance in score.utterances if view(utterance)[2]]
    wrong.sort(key=lambda utterance: (-view(utterance)[2], utterance.id))
    return tuple(
        ErrorExample(one.id, one.group, align_words(view(one)[0], view(one)[1]), one.loops) for one in wrong[:most]
    )
