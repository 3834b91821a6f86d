"""Recipe files: YAML 1.2, every fault at once, overrides, and what identifies a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError
from tutelage.objectives.terms import TERM_FAMILIES

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
        "teacher: Name a model (a folder or a hub name), or the members of a committee.",
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


EVERY_KIND = """[
  {kind: cross_entropy, schedule: {kind: stages, stages: [[0, 1.0], [100, 0.5]]}},
  {kind: kl, weight: 0.8, temperature: 2.0, standardise: true, schedule: {kind: linear, start: 0, end: 1, to_step: 50}},
  {kind: reverse_kl, weight: 0.1}, {kind: jsd, mix: 0.3}, {kind: skew_kl}, {kind: skew_reverse_kl, mix: 0},
  {kind: angle, centre: true}, {kind: angle2}, {kind: cosine}, {kind: mse},
  {kind: linear_cka}, {kind: gram, centre: true}, {kind: procrustes, schedule: {kind: constant, end: 0.5}},
  {kind: infonce, temperature: 0.1}, {kind: curve, weight: 0.2},
]"""


def test_a_recipe_line_selects_every_kind_and_option(write_recipe: Write, tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(), [f"objective={EVERY_KIND}"])
    assert [term.kind for term in recipe.objective] == sorted(
        TERM_FAMILIES, key=[t.kind for t in recipe.objective].index
    )
    weights = {term.kind: [term.weight_at(step) for step in (1, 26, 101)] for term in recipe.objective}
    assert weights["cross_entropy"] == [1.0, 1.0, 0.5]
    assert weights["kl"] == [0.0, 0.4, 0.8]
    assert weights["procrustes"] == [0.5, 0.5, 0.5]
    mixes = {term.kind: term.mixing_weight for term in recipe.objective if term.mixing_weight is not None}
    assert mixes == {"jsd": 0.3, "skew_kl": 0.1, "skew_reverse_kl": 0.0}
    assert recipe.aligns
    assert recipe.projects
    again = tmp_path / "resolved.yaml"
    again.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(
    ("terms", "faults"),
    [
        ("[{kind: cka}]", ["objective.0.kind: 'cka' should be 'cross_entropy', ", "'linear_cka'"]),
        ("[{kind: jsd, mix: 1}]", ["objective.0: term jsd is 0 at mix 1 whatever the student says"]),
        ("[{kind: kl, mixx: 1}]", ["objective.0.mixx: unknown key; did you mean 'mix'?"]),
        ("[{kind: kl, schedule: {kind: linear}}]", ["objective.0.schedule: a linear schedule needs 0 <= from_step"]),
        ("[{kind: kl, schedule: {kind: linear, too_step: 3}}]", ["objective.0.schedule.too_step: unknown key"]),
        ("[{kind: angle, standardise: true}]", ["objective.0: term angle compares no logits to standardise"]),
    ],
)
def test_a_term_that_means_nothing_is_refused_at_its_place(write_recipe: Write, terms: str, faults: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(write_recipe(), [f"objective={terms}"])
    assert all(fault in str(caught.value) for fault in faults)


def test_states_that_are_not_projected_need_a_layer_map_and_no_projector(write_recipe: Write) -> None:
    recipe = load_recipe(write_recipe(), ["objective=[{kind: cross_entropy}, {kind: procrustes}]"])
    assert (recipe.aligns, recipe.projects) == (True, False)


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
