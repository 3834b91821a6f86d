"""Layer maps: values, coverage of the last block, refusals."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import InputError
from tutelage.students.layer_map import LayerPair, describe, map_layers

BLOCKS = st.integers(min_value=1, max_value=64)


def plain(pairs: tuple[LayerPair, ...]) -> list[tuple[int, int]]:
    return [(pair.student, pair.teacher) for pair in pairs]


@pytest.mark.parametrize(
    ("kind", "n_student", "n_teacher", "expected"),
    [
        ("last", 2, 6, [(2, 6)]),
        ("uniform", 2, 6, [(1, 3), (2, 6)]),
        ("uniform", 4, 6, [(1, 2), (2, 3), (3, 5), (4, 6)]),  # 1.5 and 4.5 go up; round() would say 2 and 4
        ("uniform", 2, 5, [(1, 3), (2, 5)]),  # 2.5 goes up; round() would say 2
        ("uniform", 24, 32, [(layer, math.floor(layer * 4 / 3 + 0.5)) for layer in range(1, 25)]),
        ("uniform", 3, 1, [(1, 1), (2, 1), (3, 1)]),  # never 0, the embedding output
    ],
)
def test_values(kind: str, n_student: int, n_teacher: int, expected: list[tuple[int, int]]) -> None:
    assert plain(map_layers(kind, n_student, n_teacher)) == expected


@given(BLOCKS, BLOCKS)
def test_uniform_rounds_halves_up_rises_and_covers_the_last_block(n_student: int, n_teacher: int) -> None:
    pairs = map_layers("uniform", n_student, n_teacher)
    exact = [Fraction(layer * n_teacher, n_student) for layer in range(1, n_student + 1)]
    assert plain(pairs) == [
        (layer, max(1, math.floor(value + Fraction(1, 2)))) for layer, value in enumerate(exact, start=1)
    ]
    assert pairs[-1] == LayerPair(n_student, n_teacher)
    assert [p.teacher for p in pairs] == sorted(p.teacher for p in pairs)


@given(BLOCKS)
def test_student_like_teacher_maps_every_block_to_itself(blocks: int) -> None:
    itself = [(layer, layer) for layer in range(1, blocks + 1)]
    assert plain(map_layers("uniform", blocks, blocks)) == itself
    assert plain(map_layers("origin", blocks, blocks, range(blocks))) == itself


def test_origin_maps_to_the_block_it_was_copied_from() -> None:
    assert plain(map_layers("origin", 3, 6, (0, 2, 5))) == [(1, 1), (2, 3), (3, 6)]


def test_explicit_pairs_are_kept_and_sorted() -> None:
    assert plain(map_layers(((2, 6), (1, 2)), 2, 6)) == [(1, 2), (2, 6)]


def test_all_faults_of_a_map_are_listed_with_the_valid_blocks() -> None:
    with pytest.raises(InputError) as caught:
        map_layers(((0, 3), (3, 7), (1, 1), (1, 1)), 2, 6)
    zero = "0 (0 is the embedding output, which no adapter can move)"
    assert caught.value.faults == (
        f"layer pair (0, 3): the student has no block {zero}; valid blocks: 1, 2",
        "layer pair (3, 7): the student has no block 3; valid blocks: 1, 2",
        "layer pair (3, 7): the teacher has no block 7; valid blocks: 1, 2, 3, 4, 5, 6",
        "layer pair (1, 1) is listed more than once",
    )


@pytest.mark.parametrize(
    ("layer_map", "origins", "message"),
    [
        ((), None, "empty"),
        ("origin", None, "copied from the teacher"),
        ("origin", (0,), "origins of 1"),
        ("origin", (3, 6), r"count from 0 to 5"),
    ],
)
def test_maps_that_cannot_be_made_are_refused(layer_map: object, origins: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        map_layers(layer_map, 2, 6, origins)


def test_a_pair_of_encoders_is_described_as_one() -> None:
    lines = describe((LayerPair(2, 6), LayerPair(4, 5, "encoder")), 2, 6).splitlines()
    assert lines[1:] == [
        "  student 2 of 2 -> teacher 6 of 6, last to last",
        "  encoder: student 4 -> teacher 5, last to last, where sound is heard",
    ]


def test_description_names_the_convention_and_covers_the_last_block() -> None:
    text = describe(map_layers("uniform", 2, 6), 2, 6)
    assert text.splitlines() == [
        "layer map (decoder blocks counted from 1; the last one is read after the final layer norm):",
        "  student 1 of 2 -> teacher 3 of 6",
        "  student 2 of 2 -> teacher 6 of 6, last to last",
    ]
