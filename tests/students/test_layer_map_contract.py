"""Every layer map: pairs that exist, by rising block; a student that is its teacher meets itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import InputError
from tutelage.students.design import Design
from tutelage.students.layer_map import describe, map_layers
from tutelage.students.layer_maps import layer_maps

KINDS = list(layer_maps())
BLOCKS = st.integers(min_value=1, max_value=48)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, tuple[int, ...]]:
    """A student that was cut out of its teacher: blocks of each, and where the student's came from, from 0."""
    teacher = draw(BLOCKS)
    origins = sorted(draw(st.sets(st.integers(0, teacher - 1), min_size=1)))
    return len(origins), teacher, tuple(origins)


@pytest.mark.parametrize("kind", KINDS)
@given(cut=cuts())
def test_pairs_exist_and_rise(kind: str, cut: tuple[int, int, tuple[int, ...]]) -> None:
    student, teacher, origins = cut
    pairs = map_layers(kind, student, teacher, origins)
    assert pairs
    assert all(1 <= pair.student <= student and 1 <= pair.teacher <= teacher for pair in pairs)
    blocks = [pair.student for pair in pairs]
    assert blocks == sorted(set(blocks))
    assert [pair.teacher for pair in pairs] == sorted(pair.teacher for pair in pairs)
    raw = layer_maps()[kind].pairs(student, teacher, tuple(origin + 1 for origin in origins))
    assert [(pair.student, pair.teacher) for pair in pairs] == list(raw)  # in order already
    assert map_layers(kind, student, teacher, origins) == pairs


@pytest.mark.parametrize("kind", KINDS)
@given(blocks=BLOCKS)
def test_a_student_that_is_its_teacher_meets_itself(kind: str, blocks: int) -> None:
    pairs = map_layers(kind, blocks, blocks, range(blocks))
    assert all(pair.student == pair.teacher for pair in pairs)
    assert "last to last" in describe(pairs, blocks, blocks)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_of_its_own_is_mapped_or_refused_as_the_map_says(kind: str) -> None:
    if layer_maps()[kind].needs_origins:
        with pytest.raises(InputError, match=f'"{kind}" needs a student whose blocks were copied'):
            map_layers(kind, 2, 6)
    else:
        assert map_layers(kind, 2, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_recipes_may_name_it(kind: str) -> None:
    assert Design(layer_map=kind).layer_map == kind


def test_the_kinds_are_in_the_order_of_their_files_and_one_of_a_name() -> None:
    assert {"last", "origin", "uniform"} <= set(KINDS)
