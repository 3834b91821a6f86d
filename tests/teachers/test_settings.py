"""Who teaches, as a recipe says it: one model or a committee, every fault at once, paths from the recipe's folder."""

from __future__ import annotations

import pytest

from tiny_text import shared_tiny_text
from tiny_text_run import write_text_run
from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError
from tutelage.teachers.settings import ALONE, MemberSettings, Teacher

MEMBERS = "teacher.members=[{name: a, model: m, adapter: ad}, {name: b, model: openai/whisper-base}]"


@pytest.fixture
def recipe(tmp_path):
    return write_text_run(tmp_path)


def load(recipe, *overrides):
    return load_recipe(recipe, ["teacher.model=null", *overrides])


def test_a_committee_reads_back_as_itself_with_paths_from_its_folder(recipe, tmp_path):
    (tmp_path / "m").mkdir()
    found = load(recipe, MEMBERS, "teacher.states_from=b", "teacher.weights=entropy", "teacher.space=logit-average")
    teacher = found.teacher
    assert teacher.is_committee
    assert [member.name for member in teacher.everyone] == ["b", "a"]  # who leads comes first
    assert [member.name for member in teacher.members] == ["a", "b"]
    assert teacher.members[0].model == str(tmp_path / "m")
    assert teacher.members[0].adapter == tmp_path / "ad"
    assert teacher.members[1].model == "openai/whisper-base"
    assert teacher.shares == "entropy"
    assert teacher.described == "logit-average, entropy weights"
    again = tmp_path / "resolved.yaml"
    again.write_text(dump_recipe(found), encoding="utf-8")
    assert load_recipe(again) == found


def test_a_model_is_a_teacher_of_one(recipe):
    teacher = load_recipe(recipe).teacher
    assert teacher.everyone == (MemberSettings(name=ALONE, model=str(shared_tiny_text())),)
    assert not teacher.is_committee


def test_weights_of_every_member_take_the_place_of_a_rule():
    members = (MemberSettings(name="a", model="m", weight=3.0), MemberSettings(name="b", model="m", weight=1.0))
    teacher = Teacher(members=members)
    assert teacher.shares == {"a": 3.0, "b": 1.0}
    assert teacher.described == "probability-average, given weights"


@pytest.mark.parametrize(
    ("overrides", "faults"),
    [
        ([], ["teacher: Name a model (a folder or a hub name), or the members of a committee."]),
        (["teacher.members=[]"], ["A committee has at least one member."]),
        ([MEMBERS, "teacher.model=x", "teacher.adapter=y"], ["model is each member's own", "adapter is each member's"]),
        ([MEMBERS, "teacher.states_from=c"], ["states_from is 'c', which is no member (a, b)."]),
        ([MEMBERS, "teacher.members.1.name=a"], ["More than one member is called a."]),
        ([MEMBERS, "teacher.members.0.weight=2"], ["Member b has no weight; give every member one, or none."]),
        ([MEMBERS, "teacher.members.0.weight=0"], ["teacher.members.0: A weight is a finite number above 0, not 0"]),
        (
            [MEMBERS, "teacher.members.0.weight=2", "teacher.members.1.weight=1", "teacher.weights=entropy"],
            ["weights is entropy, and the members have weights of their own; choose one."],
        ),
        (
            ["teacher.model=x", "teacher.space=logit-average", "teacher.states_from=x"],
            ["space is for a", "states_from i"],
        ),
        (
            [MEMBERS, "teacher.space=average", "teacher.dtype=int8"],
            ["teacher.space: 'average' should", "teacher.dtype:"],
        ),
        ([MEMBERS, "teacher.members.0.nmae=x"], ["teacher.members.0.nmae: unknown key; did you mean 'name'?"]),
        (
            [MEMBERS, "objective=[{kind: cross_entropy}, {kind: angle}]"],
            ["Term angle compares states, and a committee has none of its own: set teacher.states_from to the member"],
        ),
    ],
)
def test_what_has_no_meaning_is_refused_at_its_place(recipe, overrides, faults):
    with pytest.raises(InputError) as caught:
        load(recipe, *overrides)
    for fault in faults:
        assert fault in str(caught.value)
