"""ROVER: the vote, its order, its weights, and what it is for: fewer errors than its members make."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.evaluation.rover import vote, vote_each
from tutelage.evaluation.wer import RAW, score_transcripts


def test_one_transcript_is_itself_and_equal_ones_are_that_one() -> None:
    assert vote(["uno  dos tres"]) == "uno dos tres"
    assert vote(["uno dos"] * 3) == "uno dos"
    assert vote(["", ""]) == ""


@pytest.mark.parametrize(
    ("transcripts", "expected"),
    [
        (["a b c", "a x c", "a b c"], "a b c"),
        (["a x c", "a b c", "a b c"], "a b c"),
        (["a c", "a b c", "a b c"], "a b c"),  # a word that the first one left out
        (["a b c", "a c", "a c"], "a c"),  # a word that only the first one has
        (["a b c d", "b c d", "a b c"], "a b c d"),
        (["x", "", ""], ""),
        (["a x b", "a b", "a c b"], "a b"),  # another word in a place that may be empty
        (["a b", "c d", "c e"], "c b"),  # every slot votes by itself; ties go to the first
    ],
)
def test_the_majority_wins_in_every_slot(transcripts: list[str], expected: str) -> None:
    assert vote(transcripts) == expected


def test_ties_go_to_the_transcript_that_comes_first() -> None:
    assert vote(["one two", "one three"]) == "one two"
    assert vote(["one three", "one two"]) == "one three"
    assert vote(["one", "one two"]) == "one"


def test_weights_are_votes() -> None:
    assert vote(["a", "b", "b"], [3.0, 1.0, 1.0]) == "a"
    assert vote(["a", "b", "b"], [1.5, 1.0, 1.0]) == "b"
    assert vote(["a b", "b"], [1.0, 2.0]) == "b"


def test_words_that_differ_in_case_are_one_and_keep_the_first_spelling() -> None:
    assert vote(["Madrid es", "madrid fue", "MADRID es"]) == "Madrid es"
    assert vote(["Toledo", "Madrid", "madrid"]) == "Madrid"
    assert vote(["Hola,", "hola"], key=lambda word: word.strip(",").casefold()) == "Hola,"


def test_recordings_are_voted_on_one_by_one_and_words_that_the_normaliser_makes_equal_are_one() -> None:
    normalise = whisper_normaliser("es")
    systems = [["Buenas, Ana!", "dos"], ["¡Hola, Eva", "doce"], ["hola eva.", "doce"]]
    assert vote_each(systems, normalise) == ["¡Hola, Eva", "doce"]
    assert vote_each([["a - b"], ["a b"], ["a b"]], normalise) == ["a b"], "a dash is no vote for nothing"
    assert vote_each([["- b"], ["- b"], ["b"]], normalise) == ["- b"]
    with pytest.raises(ValueError, match="shorter"):
        vote_each([["a", "b"], ["a"]], normalise)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="0 transcripts"):
        vote([])
    with pytest.raises(ValueError, match="1 weights"):
        vote(["a", "b"], [1.0])


def test_voting_makes_fewer_errors_than_its_members() -> None:
    """Five systems that err independently: 20 % substituted, 5 % left out, 5 % added."""
    draws = np.random.default_rng(0)
    truth = [[f"w{draws.integers(50)}" for _ in range(20)] for _ in range(30)]

    def write(words: list[str]) -> str:
        heard = []
        for word in words:
            fate = draws.random()
            if fate >= 0.05:
                heard.append(word if fate >= 0.25 else f"e{draws.integers(1000)}")
            if draws.random() < 0.05:
                heard.append(f"e{draws.integers(1000)}")
        return " ".join(heard)

    systems = [[write(words) for words in truth] for _ in range(5)]
    references = [" ".join(words) for words in truth]
    alone = [score_transcripts(references, system, RAW).wer.value for system in systems]
    voted = [vote(list(written)) for written in zip(*systems, strict=True)]
    together = score_transcripts(references, voted, RAW).wer.value
    assert min(alone) > 0.2, "the members err as they should"
    assert together < 0.25 * min(alone)
