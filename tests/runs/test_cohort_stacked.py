"""A cohort's members in one pass, from recipe to result: the key, what the result says, the same student in the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tiny_run import write_run
from tiny_text_run import write_text_run
from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError
from tutelage.runs.attempt import Attempt
from tutelage.runs.cohort.settings import enrol
from tutelage.runs.distil import distil
from tutelage.runs.tasks import gather_materials

PLAIN = "layers: 3\n  lora: {rank: 2, targets: [q_proj, v_proj], first_block: 1}\n  budget_share: 0.5"
MEMBERS = "members:\n  - {name: low, lora: {rank: 1}}\n  - {name: gold, objective: [{kind: cross_entropy}]}\n"
LOSSES = 1e-4  # nats; the adapters differ in the last digits, which Adam magnifies
WEIGHTS = 1e-4  # likewise, after three steps


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))


def run(recipe: Path, out: str, *overrides: str) -> dict[str, Any]:
    loaded, said = load_recipe(recipe, overrides), []
    attempt = Attempt(recipe.parent / out, dump_recipe(loaded), device="cpu", talk=said.append)
    document: dict[str, Any] = json.loads(distil(gather_materials(loaded), attempt).read_text(encoding="utf-8"))
    document["said"] = said
    return document


def test_a_stacked_run_ends_as_one_in_turn_and_says_which_it_was(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path, student=PLAIN, extra=MEMBERS)
    stacked, in_turn = run(recipe, "stacked", "members_step=stacked"), run(recipe, "in_turn")
    assert stacked["cohort"]["members_step"] == {"used": "stacked", "why": "The recipe says so."}
    assert in_turn["cohort"]["members_step"]["used"] == "in_turn"
    assert in_turn["cohort"]["members_step"]["why"].startswith("On a CPU")
    for name in ("low", "gold"):
        mine, expected = (
            load_file(tmp_path / out / "members" / name / "adapter" / "adapter_model.safetensors")
            for out in ("stacked", "in_turn")
        )
        for key, value in expected.items():
            assert torch.allclose(mine[key], value, rtol=0, atol=WEIGHTS), key
    scores = [{row["name"]: row["metrics"] for row in document["systems"]} for document in (stacked, in_turn)]
    for name, metrics in scores[1].items():
        found = scores[0][name]["nats_per_token"]["value"]
        assert found == pytest.approx(metrics["nats_per_token"]["value"], abs=LOSSES)


def test_a_speech_run_that_cannot_be_stacked_says_why_and_goes_on(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, steps=2, extra="students: 2\nmembers: [{name: bag, bagging: true}]\n")
    document = run(recipe, "run", "members_step=stacked", "evaluation.speed_clips=0")
    found = document["cohort"]["members_step"]
    assert found["used"] == "in_turn"
    assert "bag does not take every sample once" in found["why"]
    assert f"members take their steps in turn. {found['why']}" in document["said"]


def test_one_student_has_no_members_that_could_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="members_step is stacked, and one student alone has no members"):
        load_recipe(write_run(tmp_path), ("members_step=stacked",))
    with pytest.raises(InputError, match="members_step"):
        load_recipe(write_run(tmp_path, extra="students: 2\n"), ("members_step=sideways",))


def test_a_member_alone_is_the_recipe_without_the_key(tmp_path: Path) -> None:
    cohort = load_recipe(write_run(tmp_path, extra="students: 2\n"), ("members_step=stacked",))
    assert {one.recipe.members_step for one in enrol(cohort)} == {"auto"}
