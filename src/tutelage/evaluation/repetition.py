"""Whether a transcript loops: what a decoder writes that repeats a phrase until it is stopped.

Not here: whether decoding hit its cap on new tokens, which only the decoder knows.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_BLOCK_WORDS = 8
LONGEST_BLOCK_CHARACTERS = 4
LEAST_TURNS = 3
LEAST_WORDS = 6
LEAST_CHARACTERS = 12


def repeats_itself(hypothesis: str, reference: str) -> bool:
    """True when the hypothesis holds a repetition that is longer than any in the reference.

    A repetition is a block of 1 to 8 words that is written at least 3 times in a row and covers at least 6 words in
    all ("thank you thank you thank you", "no" six times); or, inside one word, a block of 1 to 4 characters at least
    3 times in a row that covers at least 12 characters ("jajajajajaja"). A part of the block at the end, where the
    decoder was stopped, counts towards what is covered. Speech that really repeats is in the reference, hence the
    comparison.

    Args:
        hypothesis: Normalised text, words separated by white space.
        reference: Likewise.
    """
    words, spoken = hypothesis.split(), reference.split()
    covered = longest_repetition(words, LONGEST_BLOCK_WORDS)
    if covered >= LEAST_WORDS and covered > longest_repetition(spoken, LONGEST_BLOCK_WORDS):
        return True
    covered = max((longest_repetition(word, LONGEST_BLOCK_CHARACTERS) for word in words), default=0)
    in_speech = max((longest_repetition(word, LONGEST_BLOCK_CHARACTERS) for word in spoken), default=0)
    return covered >= LEAST_CHARACTERS and covered > in_speech


def longest_repetition(units: Sequence[str], longest_block: int) -> int:
    """Units covered by the longest stretch of one block repeated at least `LEAST_TURNS` times; 0 where there is none.

    A stretch with period n is a run in which every unit equals the one n before it.
    """
    longest = 0
    for size in range(1, min(longest_block, len(units) // LEAST_TURNS) + 1):
        run = 0
        for position in range(size, len(units)):
            run = run + 1 if units[position] == units[position - size] else 0
            if run + size >= LEAST_TURNS * size:
                longest = max(longest, run + size)
    return longest
