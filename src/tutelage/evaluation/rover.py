"""One transcript out of several by voting word by word (ROVER).

Covers aligning transcripts one after the other into slots and the vote in each, for one recording and for many. Does
not cover averaging probabilities during decoding, which asks the models themselves, or scoring (`wer`).

Source: fiscus1997: iterative alignment into a word transition network, then a vote by frequency, here with a weight a
transcript in place of confidences. Costs as in NIST's scoring: 0 for a word that the slot knows, 4 for another word, 3
for a slot or a word that is left alone. A tie goes to the transcript that comes first, so name the best one first.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

FEWEST = 3
"""Systems that a vote is worth: of two the first would win wherever they differ."""

_OTHER, _ALONE = 4, 3
_NOTHING = ""
"""The vote of a transcript that has no word in a slot."""


@dataclass
class _Slot:
    """What was written in one place: weight by the word's key, and each key's first spelling."""

    votes: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    spellings: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, word: str, weight: float) -> None:
        self.votes[key] += weight
        self.spellings.setdefault(key, word)

    @property
    def winner(self) -> str:
        """The spelling with the most votes; the earliest where several have as many."""
        most = max(self.votes.values())
        return next(self.spellings[key] for key, votes in self.votes.items() if math.isclose(votes, most))


def vote(
    transcripts: Sequence[str], weights: Sequence[float] | None = None, key: Callable[[str], str] = str.casefold
) -> str:
    """Combine transcripts of one recording.

    Args:
        transcripts: One a system, the one that decides ties first.
        weights: Votes of each; None gives one each.
        key: What makes two words the same; the winner keeps the spelling that came first.

    Raises:
        ValueError: No transcript, or not as many weights.

    Example:
        >>> vote(["the cat sat", "a cat sat", "the cat sad today"])
        'the cat sat'
    """
    weights = [1.0] * len(transcripts) if weights is None else list(weights)
    if not transcripts or len(weights) != len(transcripts):
        raise ValueError(f"{len(transcripts)} transcripts and {len(weights)} weights; at least one, and one each")
    slots: list[_Slot] = []
    past = 0.0
    for transcript, weight in zip(transcripts, weights, strict=True):
        words = transcript.split()
        merged = []
        for slot, word in _align(slots, [key(word) for word in words]):
            here = slots[slot] if slot is not None else _Slot()
            if slot is None and past > 0:
                here.add(_NOTHING, _NOTHING, past)
            if word is None:
                here.add(_NOTHING, _NOTHING, weight)
            else:
                here.add(key(words[word]), words[word], weight)
            merged.append(here)
        slots, past = merged, past + weight
    return " ".join(winner for slot in slots if (winner := slot.winner))


def vote_each(systems: Sequence[Sequence[str]], normalise: Callable[[str], str]) -> list[str]:
    """Combine what several systems wrote of the same recordings.

    Args:
        systems: Transcripts of each in the order of the recordings, the system that decides ties first.
        normalise: Words that it makes equal are one word; a word of which it leaves nothing is itself.

    Raises:
        ValueError: No system, or some of other recordings than others.
    """
    return [vote(said, key=lambda word: normalise(word) or word) for said in zip(*systems, strict=True)]


def _align(slots: Sequence[_Slot], keys: Sequence[str]) -> Iterator[tuple[int | None, int | None]]:
    """Pairs (slot, word) of a cheapest alignment, in order; None where one of them stands alone."""
    rows, columns = len(slots) + 1, len(keys) + 1
    cost = [[0] * columns for _ in range(rows)]
    for slot in range(rows):
        for word in range(columns):
            if slot or word:
                cost[slot][word] = min(price for price, _, _ in _steps(slots, keys, cost, slot, word))
    path = []
    slot, word = len(slots), len(keys)
    while slot or word:
        _, before_slot, before_word = min(_steps(slots, keys, cost, slot, word), key=lambda step: step[0])
        path.append((before_slot if before_slot < slot else None, before_word if before_word < word else None))
        slot, word = before_slot, before_word
    yield from reversed(path)


def _steps(
    slots: Sequence[_Slot], keys: Sequence[str], cost: Sequence[Sequence[int]], slot: int, word: int
) -> Iterator[tuple[int, int, int]]:
    """(cost, slot before, word before) of every way to come to a place."""
    if slot and word:
        known = keys[word - 1] in slots[slot - 1].votes
        yield cost[slot - 1][word - 1] + (0 if known else _OTHER), slot - 1, word - 1
    if slot:
        alone = 0 if _NOTHING in slots[slot - 1].votes else _ALONE
        yield cost[slot - 1][word] + alone, slot - 1, word
    if word:
        yield cost[slot][word - 1] + _ALONE, slot, word - 1
