from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluation.repetition import longest_repetition, repeats_itself

SPEECH = "una niña come una manzana roja"


@pytest.mark.parametrize(
    "hypothesis",
    [
        "no no no no no no",
        "thank you thank you thank you",
        "one two three four one two three four one two three four",
        "a b c d e f g h " * 3,
        "the cat sat on the sat on the sat on the",
        "jajajajajaja",
        "una niña come aaaaaaaaaaaa",
    ],
)
def test_a_loop(hypothesis: str) -> None:
    assert repeats_itself(hypothesis, SPEECH)


@pytest.mark.parametrize(
    "hypothesis",
    [
        "",
        SPEECH,
        "no no no",
        "no no no no no",
        "thank you thank you thank",
        "one two three four one two three four",
        "a b c d e f g h i " * 3,
        "jajajaja",
        "1000000",
    ],
)
def test_no_loop(hypothesis: str) -> None:
    assert not repeats_itself(hypothesis, SPEECH)


def test_what_was_said_is_no_loop() -> None:
    song = "la la la la la la la"
    assert not repeats_itself(song, song)
    assert repeats_itself(song + " la", song)
    assert not repeats_itself("jajajajajaja", "jajajajajaja")


def test_a_cut_block_at_the_end_counts() -> None:
    assert longest_repetition(["x", "a", "b", "a", "b", "a", "b", "a", "y"], 8) == 7
    assert longest_repetition(["a", "b", "c", "a", "b", "c", "a", "b"], 8) == 0, "not yet three times"


@given(st.lists(st.sampled_from("ab"), max_size=30), st.integers(1, 8))
def test_against_a_slow_definition(units: list[str], longest_block: int) -> None:
    slow = 0
    for start in range(len(units)):
        for end in range(start + 1, len(units) + 1):
            stretch = units[start:end]
            for size in range(1, longest_block + 1):
                if len(stretch) >= 3 * size and all(stretch[i] == stretch[i % size] for i in range(len(stretch))):
                    slow = max(slow, len(stretch))
    assert longest_repetition(units, longest_block) == slow
