"""Recipes for text: read with every fault at once, and what identifies a run is what it names, not where it lies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tiny_text import shared_tiny_text, tiny_text
from tiny_text_run import write_text_run
from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError
from tutelage.runs.tasks import gather_materials
from tutelage.runs.text.recipe import TextRecipe


def test_a_recipe_reads_back_as_it_was_written(tmp_path: Path) -> None:
    recipe = load_recipe(write_text_run(tmp_path, student="layers: [0, 2]"))
    assert isinstance(recipe, TextRecipe)
    assert recipe.student.layers == (0, 2)
    again = tmp_path / "again.yaml"
    again.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe


def test_all_faults_come_at_once_and_an_unknown_task_by_itself(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path, student="layrs: 2", data="length: 1\n  packing: dense", extra="seed: -1")
    recipe.write_text(recipe.read_text().replace("  length: 24\n", ""))
    with pytest.raises(InputError) as refused:
        load_recipe(recipe)
    for place in ("student.layrs: unknown key; did you mean 'layers'?", "data.packing: 'dense' should be"):
        assert place in str(refused.value)
    recipe.write_text(recipe.read_text().replace("task: text", "task: vision"))
    with pytest.raises(InputError, match="'vision' should be one of speech, text"):
        load_recipe(recipe)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("model: a\n  config: b", "give model or config"),
        ("config: b\n  layers: 2", "has the layers that its config says"),
        ("config: b\n  lora: {rank: 2}", "nothing to adapt"),
        ("layers: [2, 1]", "rising order"),
        ("budget_share: 2", "in \\(0, 1\\]"),
    ],
)
def test_students_that_cannot_be(tmp_path: Path, student: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(write_text_run(tmp_path, student=student))


def test_without_a_teacher_nothing_compares_with_one_and_the_student_begins_somewhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Term kl compares with a teacher"):
        load_recipe(write_text_run(tmp_path, teacher=False))
    with pytest.raises(InputError, match="must begin somewhere"):
        load_recipe(write_text_run(tmp_path, teacher=False, objective=""))


def test_a_run_is_identified_by_what_it_names_not_by_where_it_lies(tmp_path: Path) -> None:
    def hashed(folder: str, model: Path) -> str:
        (tmp_path / folder).mkdir()
        recipe = write_text_run(tmp_path / folder)
        recipe.write_text(recipe.read_text().replace(str(shared_tiny_text()), str(model)))
        return gather_materials(load_recipe(recipe)).recipe_hash

    first, other = tiny_text(tmp_path / "model"), tiny_text(tmp_path / "other", seed=1)
    moved = shutil.copytree(first, tmp_path / "moved")
    assert hashed("one", first) == hashed("two", moved)
    assert hashed("three", other) != hashed("four", first)


def test_a_document_in_both_sets_is_refused_and_a_repeated_one_is_said(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path)
    train, held_out = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    first = train.read_text().splitlines()[0]
    train.write_text(train.read_text() + json.dumps({"id": "twin", "text": json.loads(first)["text"]}) + "\n")
    materials = gather_materials(load_recipe(recipe))
    assert [caution.code for caution in materials.cautions] == ["repeated-documents"]
    held_out.write_text(held_out.read_text() + first.replace("the dog runs", "the  dog\\n runs") + "\n")
    with pytest.raises(InputError, match=r"1 held-out documents are among the training .* text0 \(also "):
        gather_materials(load_recipe(recipe))


def test_a_tokenizer_must_come_from_somewhere(tmp_path: Path) -> None:
    bare = tiny_text(tmp_path / "bare", weights=False)
    write = {"student": f"config: {bare}", "objective": "", "teacher": False}
    with pytest.raises(InputError, match=r"name data\.tokenizer"):
        gather_materials(load_recipe(write_text_run(tmp_path, **write)))
    with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
        gather_materials(load_recipe(write_text_run(tmp_path, data="tokenizer: .", **write)))
    recipe = write_text_run(tmp_path, data=f"tokenizer: {bare}", **write)
    assert gather_materials(load_recipe(recipe)).teacher is None
