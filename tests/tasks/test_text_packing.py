"""Every label is in exactly one row, in both packings, whatever the lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import InputError
from tutelage.tasks.text.codec import Encoded
from tutelage.tasks.text.packing import Packed, pack

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=20)
PACKINGS = ("documents", "stream")


def documents_of(lengths: list[int]) -> list[Encoded]:
    """Documents whose labels are all different: a label is its place in the corpus."""
    ends = np.cumsum(lengths)
    return [
        Encoded(
            str(number),
            str(number),
            np.arange(end - size, end, dtype=np.int32) - 1,
            np.arange(end - size, end, dtype=np.int32),
            np.ones(size, dtype=np.bool_),
            size,
        )
        for number, (size, end) in enumerate(zip(lengths, ends, strict=True))
    ]


@given(lengths=LENGTHS, length=st.integers(2, 16), packing=st.sampled_from(PACKINGS))
def test_every_label_is_in_exactly_one_row_beside_its_own_input(lengths: list[int], length: int, packing: str) -> None:
    documents = documents_of(lengths)
    packed = pack(documents, length, packing)
    labels = np.concatenate([row.labels for row in packed.rows])
    assert sorted(labels.tolist()) == list(range(sum(lengths)))
    for row in packed.rows:
        assert len(row) <= length
        assert (row.inputs == row.labels - 1).all()
        for label, piece in zip(row.labels, row.pieces, strict=True):
            assert label in documents[row.owners[piece - 1]].labels
    assert packed.supervised == packed.tokens == sum(lengths)


@given(lengths=LENGTHS, length=st.integers(2, 16))
def test_documents_that_fit_a_row_are_not_cut(lengths: list[int], length: int) -> None:
    packed = pack(documents_of(lengths), length, "documents")
    assert packed.cut == sum(size > length for size in lengths)
    assert packed.isolated


@given(lengths=LENGTHS, length=st.integers(2, 16))
def test_best_fit_leaves_no_two_rows_that_would_fit_one(lengths: list[int], length: int) -> None:
    used = sorted(len(row) for row in pack(documents_of(lengths), length, "documents").rows)
    assert len(used) < 2 or used[0] + used[1] > length


def test_a_stream_pads_nothing_but_its_end() -> None:
    packed = pack(documents_of([5, 7, 9]), 4, "stream")
    assert [len(row) for row in packed.rows] == [4, 4, 4, 4, 4, 1]
    assert not packed.isolated
    assert np.concatenate([row.labels for row in packed.rows]).tolist() == list(range(21))


def test_the_key_of_a_row_follows_all_that_a_model_is_shown() -> None:
    def key(packed: Packed) -> str:
        return packed.rows[0].token_hash

    whole, apart = pack(documents_of([6]), 6, "documents"), pack(documents_of([3, 3]), 6, "documents")
    assert (whole.rows[0].labels == apart.rows[0].labels).all()
    assert key(whole) != key(apart)  # the same tokens in two pieces are seen differently
    dropped = documents_of([6])
    dropped[0].keep[2] = False
    assert key(pack(dropped, 6, "documents")) != key(whole)
    assert key(pack(documents_of([6]), 6, "documents")) == key(whole)


def test_what_was_done_is_said() -> None:
    assert pack(documents_of([5, 3]), 4, "documents").describe() == (
        "2 documents (1 cut) in 2 rows of 4, 8 of 8 tokens supervised, 0.0% padding; "
        "no position attends across documents"
    )


def test_data_without_a_supervised_position_is_refused() -> None:
    documents = documents_of([4])
    documents[0].keep[:] = False
    with pytest.raises(InputError, match="No position of the data is supervised"):
        pack(documents, 4, "stream")
