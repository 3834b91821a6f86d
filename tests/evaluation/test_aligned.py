from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluation.aligned import AlignedWord, ErrorExample, align_words, error_examples
from tutelage.evaluation.wer import Normaliser, count_edits, score_transcripts
from tutelage.records.document import jsonable

LOWER = Normaliser("lower", str.lower)
texts = st.lists(st.sampled_from(["uno", "dos", "tres", "y"]), max_size=9).map(" ".join)


def test_every_kind_of_difference() -> None:
    assert align_words("uno dos tres cuatro", "uno dos y trece") == (
        AlignedWord("equal", "uno", "uno"),
        AlignedWord("equal", "dos", "dos"),
        AlignedWord("substituted", "tres", "y"),
        AlignedWord("substituted", "cuatro", "trece"),
    )
    assert align_words("uno dos", "dos") == (AlignedWord("deleted", "uno", None), AlignedWord("equal", "dos", "dos"))
    assert align_words("dos", "uno dos")[0] == AlignedWord("inserted", None, "uno")


@given(texts, texts)
def test_an_alignment_spells_both_texts_and_has_the_counts_of_the_rate(reference: str, hypothesis: str) -> None:
    words = align_words(reference, hypothesis)
    assert " ".join(word.said for word in words if word.said is not None) == reference
    assert " ".join(word.written for word in words if word.written is not None) == hypothesis
    assert all((word.said == word.written) == (word.kind == "equal") for word in words)
    assert ErrorExample("a", "a", words, loops=False).edits == count_edits(reference, hypothesis, "words")


def test_nothing_said_and_nothing_written() -> None:
    assert align_words("", "uno dos") == tuple(AlignedWord("inserted", None, word) for word in ("uno", "dos"))
    assert align_words("uno", "") == (AlignedWord("deleted", "uno", None),)
    assert align_words("", "") == ()


def test_examples_are_the_worst_and_none_is_right() -> None:
    said = ["Uno dos", "uno dos tres", "uno", "dos tres"]
    score = score_transcripts(said, ["uno dos", "x y z", "dos", "tres"], LOWER, ids=["d", "c", "b", "a"])
    found = error_examples(score)
    assert [(example.id, example.edits.errors) for example in found] == [("c", 3), ("a", 1), ("b", 1)]
    assert [example.id for example in error_examples(score, 1)] == ["c"]
    assert error_examples(score, 0) == ()
    assert {example.id for example in error_examples(score, normalised=False)} == {"a", "b", "c", "d"}
    with pytest.raises(ValueError, match="-1 examples"):
        error_examples(score, -1)


def test_the_document() -> None:
    score = score_transcripts(["uno dos"], ["uno"], LOWER, ids=["clip"])
    (example,) = json.loads(json.dumps(jsonable(error_examples(score))))
    assert (example["id"], example["loops"]) == ("clip", False)
    assert example["words"][1] == {"kind": "deleted", "said": "dos", "written": None}
    assert example["edits"] == {"hits": 1, "substitutions": 0, "deletions": 1, "insertions": 0, "errors": 1}
