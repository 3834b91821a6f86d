"""Groups are the connected components of "same recording or near-duplicate transcript"."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.tasks.speech.groups import group_utterances, jaccard, near_duplicates, words_of

TEXTS = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=6).map(" ".join), max_size=12)


def components(texts: list[str], recordings: list[int], threshold: float) -> tuple[int, ...]:
    """By definition: spread the smallest index over all pairs until nothing changes."""
    label = list(range(len(texts)))
    changed = True
    while changed:
        changed = False
        for i, j in itertools.combinations(range(len(texts)), 2):
            joined = recordings[i] == recordings[j] or jaccard(words_of(texts[i]), words_of(texts[j])) >= threshold
            if joined and label[i] != label[j]:
                label[i] = label[j] = min(label[i], label[j])
                changed = True
    return tuple(label)


@given(TEXTS, st.sampled_from([0.2, 0.5, 0.6, 2 / 3, 0.75, 1.0]), st.data())
def test_equal_to_the_definition(texts: list[str], threshold: float, data: st.DataObject) -> None:
    recordings = data.draw(st.lists(st.integers(0, 8), min_size=len(texts), max_size=len(texts)))
    assert group_utterances(texts, recordings, threshold) == components(texts, recordings, threshold)


def test_the_threshold_itself_counts() -> None:
    assert list(near_duplicates(["a b c d", "a b c e"], 0.6)) == [(0, 1)]  # 3 of 5
    assert list(near_duplicates(["a b c", "a b d"], 0.6)) == []  # 2 of 4


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="threshold is 0"):
        group_utterances(["a"], ["a"], 0)
    with pytest.raises(ValueError, match="2 transcripts but 1 recordings"):
        group_utterances(["a", "b"], ["a"])
