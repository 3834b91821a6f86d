"""Groups of utterances that must stay on one side of a split and are resampled together.

Covers: joining utterances that share a recording or whose transcripts are nearly the same, transitively.
Does not cover: making the split, or telling two readings of one sentence apart by ear.

Torch-free: a manifest is grouped before any heavy import.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence

NEAR_DUPLICATE = 0.6
"""Two transcripts are near-duplicates from this Jaccard index of their word sets on."""

_WORD = re.compile(r"\w+")


class DisjointSets:
    """Union-find over 0 .. size-1 with path halving; the root of a set is its smallest member.

    Example:
        >>> sets = DisjointSets(3)
        >>> sets.join(2, 0)
        >>> [sets.find(i) for i in range(3)]
        [0, 1, 0]
    """

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, item: int) -> int:
        """Root (smallest member) of the set that holds `item`."""
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, one: int, other: int) -> None:
        """Make the sets of `one` and `other` one set."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low


def words_of(text: str) -> frozenset[str]:
    """The set of a transcript's words, case folded, punctuation left out.

    Example:
        >>> sorted(words_of("Un avión, ¡un AVIÓN!"))
        ['avión', 'un']
    """
    return frozenset(_WORD.findall(text.casefold()))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared words over all words of two sets, 0 to 1; two empty sets are equal (1)."""
    union = len(one | other)
    return len(one & other) / union if union else 1.0


def near_duplicates(texts: Sequence[str], threshold: float = NEAR_DUPLICATE) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, of transcripts whose word sets have a Jaccard index of at least `threshold`.

    Two sets of words can reach the threshold only when they share one of the first |s| - ceil(threshold |s|) + 1
    words of each, in any one order; with rare words first few pairs are left to compare. A transcript that repeats
    the words of an earlier one is paired with that one alone, which is enough for a union.

    Args:
        texts: Transcripts, in any order.
        threshold: Jaccard index, in (0, 1].

    Yields:
        Pairs of positions in `texts`.

    Raises:
        ValueError: `threshold` is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; a Jaccard index lies in (0, 1].")
    first_with: dict[frozenset[str], int] = {}
    sets = [words_of(text) for text in texts]
    frequency = Counter(word for words in sets for word in words)
    starts_with: dict[str, list[int]] = defaultdict(list)
    for j, words in enumerate(sets):
        if words in first_with:
            yield first_with[words], j
            continue
        first_with[words] = j
        rare_first = sorted(words, key=lambda word: (frequency[word], word))
        # The subtraction keeps rounding (0.6 * 5 = 3.0000000000000004) from shortening the prefix.
        prefix = rare_first[: len(words) - math.ceil(threshold * len(words) - 1e-9) + 1]
        for i in sorted({i for word in prefix for i in starts_with[word]}):
            if jaccard(sets[i], words) >= threshold:
                yield i, j
        for word in prefix:
            starts_with[word].append(j)


def group_utterances(
    texts: Sequence[str], recordings: Sequence[Hashable], threshold: float = NEAR_DUPLICATE
) -> tuple[int, ...]:
    """For each utterance the position of the first member of its group.

    Two utterances are in one group when they share a recording or have near-duplicate transcripts, directly or
    through others (`scikit-learn`'s GroupKFold meaning of a group).

    Args:
        texts: Transcripts.
        recordings: One key an utterance, equal for equal recordings (a hash of the samples, say).
        threshold: Jaccard index of word sets from which on two transcripts are near-duplicates.

    Returns:
        One group an utterance, named by the position of its first member.

    Raises:
        ValueError: The two sequences differ in length, or `threshold` is not in (0, 1].

    Example:
        >>> group_utterances(["Un perro.", "Un gato.", "un perro"], ["a", "b", "c"])
        (0, 1, 0)
    """
    if len(texts) != len(recordings):
        raise ValueError(f"{len(texts)} transcripts but {len(recordings)} recordings: one key an utterance is needed.")
    sets = DisjointSets(len(texts))
    first: dict[Hashable, int] = {}
    for j, recording in enumerate(recordings):
        sets.join(first.setdefault(recording, j), j)
    for i, j in near_duplicates(texts, threshold):
        sets.join(i, j)
    return tuple(sets.find(i) for i in range(len(texts)))
