"""Recipe files: YAML 1.2, every fault at once, overrides, and what identifies a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError

Write = Callable[..., Path]


def test_numbers_are_yaml_1_2_and_defaults_are_resolved(write_recipe: Write) -> None:
    recipe = load_recipe(write_recipe())
    assert recipe.training.learning_rate == 0.01
    assert recipe.training.final_learning_rate == 1e-6
    assert recipe.student.decoder_layers == 2
    assert recipe.objective[1].temperature == 2.0


def test_every_fault_of_a_file_is_reported_at_once_with_suggestions(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        """
name: x
teacher: {modl: a}
student: {decoder_layers: foo, window_seconds: .nan, lora: {targets: 3}}
objective: [{kind: ce}, {kind: kl, wieght: 2}]
data: {train: 1, held_out: b}
training: {steps: 1.5, learning_rate: .inf}
sede: 3
""",
        encoding="utf-8",
    )
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    text = str(caught.value)
    for part in (
        "teacher.modl: unknown key; did you mean 'model'?",
        "sede: unknown key; did you mean 'seed'?",
        "objective.1.wieght: unknown key; did you mean 'weight'?",
        "teacher.model: this key is required",
        "student.decoder_layers: 'foo' should be",
        "student.window_seconds: nan is not a finite number",
        "training.learning_rate: inf is not a finite number",
        "student.lora.targets: 3 should be",
        "objective.0.kind: 'ce' should be",
        "training.steps: 1.5 should be",
        "data.train: 1 should be",
    ):
        assert part in text
    assert len(caught.value.faults) == 11  # one line a fault, and nothing twice


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("training.steps=-3", "steps must be a whole number from 1"),
        ("training.steps='3'", "training.steps: '3' should be"),
        ("student.budget_share=0", "share of the teacher's parameters in (0, 1]"),
        ("seed=-1", "seed must be a whole number"),
        ("objective=[]", "needs at least one term"),
        ("objective=[{kind: cross_entropy, weight: 0}]", "every term of the objective has weight 0"),
        ("evaluation.bootstrap_draws=1", "bootstrap_draws must be a whole number from 100"),
        ("name=a b", "must begin with a letter or digit"),
        ("objective.7.weight=1", "there is no '7'"),
        ("objective.0.weight=[", "not YAML"),
        ("nonsense", "not of the form a.b=value"),
        ("trainin.steps=3", "did you mean 'training'?"),
    ],
)
def test_an_override_is_checked_like_the_file(write_recipe: Write, line: str, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(write_recipe(), [line])
    assert fault.lower() in str(caught.value).lower()


def test_overrides_reach_nested_values_and_list_items(write_recipe: Write) -> None:
    recipe = load_recipe(write_recipe(), ["training.learning_rate=1e-4", "objective.1.weight=0.25"], seed=7)
    assert recipe.training.learning_rate == 1e-4
    assert recipe.objective[1].weight == 0.25
    assert recipe.seed == 7


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"name: \xff", "not UTF-8"),
        (b"- a\n- b\n", "must be a mapping"),
        (b"a: [1", "not YAML"),
        (b"name: a\nname: b\n", "not YAML"),
        (b"", "must be a mapping"),
    ],
)
def test_an_unreadable_file_is_one_line(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert fault in str(caught.value)
    assert len(caught.value.faults) == 1


def test_a_missing_file_says_where_ready_made_ones_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="recipes/"):
        load_recipe(tmp_path / "none.yaml")


def test_a_resolved_recipe_reads_back_as_itself(write_recipe: Write, tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe())
    again = tmp_path / "resolved.yaml"
    again.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe


def test_identity_is_blind_to_seed_name_and_place_of_the_data(write_recipe: Write) -> None:
    recipe = load_recipe(write_recipe())
    moved = replace(recipe, seed=5, name="other", data=replace(recipe.data, train=Path("/elsewhere")))
    assert moved.hash("t", "h") == recipe.hash("t", "h")
    assert recipe.hash("t", "h") != recipe.hash("t2", "h")
    faster = replace(recipe, training=replace(recipe.training, learning_rate=0.5))
    assert faster.hash("t", "h") != recipe.hash("t", "h")
