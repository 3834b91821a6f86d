"""Runs on text that learn from a cache: the live run's losses, what is refused, what is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from run_folders import read_log
from tiny_text import shared_tiny_text, tiny_text
from tiny_text_run import write_text_run
from tutelage.cli.main import main
from tutelage.config import load_recipe
from tutelage.errors import InputError
from tutelage.runs.attempt import Attempt
from tutelage.runs.distil import distil
from tutelage.runs.tasks import forecast, gather_materials

STATES = 1e-3  # relative, of a term's loss: states are rounded to float16 (2^-11), and the student follows for 2 epochs
OBJECTIVE = "- {kind: kl, temperature: 2.0}\n  - {kind: angle, weight: 0.5}"


def cache(recipe: Path, *words: str) -> int:
    return main(["cache", str(recipe), "--out", str(recipe.parent / "cache"), "--quiet", *words])


def run(recipe: Path, out: str, *overrides: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    loaded = load_recipe(recipe, overrides)
    folder = recipe.parent / out
    document = json.loads(distil(gather_materials(loaded), Attempt(folder, "", device="cpu")).read_text())
    return document, read_log(folder)


def test_a_cached_run_has_the_losses_of_the_live_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_text_run(tmp_path, steps=12, objective=OBJECTIVE)
    live, wanted = run(recipe, "live")
    assert cache(recipe) == 0
    cached, found = run(recipe, "cached", "teacher.cache=cache")
    rows = live["data"]["train"]["rows"]
    assert len(wanted) * 2 >= 2 * rows  # steps of two rows: two epochs
    for one, other in zip(wanted, found, strict=True):
        assert other["terms"] == pytest.approx(one["terms"], rel=STATES)
    assert found[-1]["terms"] != wanted[-1]["terms"]  # rounded: it was read from the cache
    assert cached["cached_targets"]["kind"] == "hidden"
    assert cached["cached_targets"]["positions"] == live["data"]["train"]["supervised"]
    assert live["cached_targets"] is None
    assert live["training"]["flops"]["teacher"] > 0
    assert cached["training"]["flops"]["teacher"] == 0
    assert cached["training"]["flops"]["student"] == live["training"]["flops"]["student"]
    assert cached["alignment"].keys() == live["alignment"].keys()
    assert cached["recipe"]["sha256"] != live["recipe"]["sha256"]
    expected, _ = forecast(gather_materials(load_recipe(recipe, ["teacher.cache=cache"])))
    assert expected.body["expected"]["flops"] == cached["training"]["flops"]


def test_every_class_kept_teaches_what_the_model_does(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path, objective="- {kind: kl}")
    vocabulary = json.loads((Path(shared_tiny_text()) / "config.json").read_text())["vocab_size"]
    assert cache(recipe, "--kind", "topk", "--size", str(vocabulary)) == 0
    (_, wanted), (_, found) = run(recipe, "live"), run(recipe, "cached", "teacher.cache=cache")
    for one, other in zip(wanted, found, strict=True):
        assert other["terms"] == pytest.approx(one["terms"], rel=1e-2)  # |ln p| 2^-11, here |ln p| up to 10
    softened = write_text_run(tmp_path)
    with pytest.raises(InputError, match="Term kl has temperature 2, and topk"):
        run(softened, "softened", "teacher.cache=cache")
    assert cache(softened, "--kind", "topk", "--size", "4", "--dry-run") == 2
    with pytest.raises(InputError, match="Term reverse_kl compares the teacher's whole distribution, and topk"):
        run(write_text_run(tmp_path, objective="- {kind: reverse_kl}"), "softened", "teacher.cache=cache")
    with pytest.raises(InputError, match="Term kl compares standardised logits, and topk"):
        run(write_text_run(tmp_path, objective="- {kind: kl, standardise: true}"), "softened", "teacher.cache=cache")
    assert not (tmp_path / "softened").exists()


def changed(folder: Path, what: str) -> list[str]:
    """Change one thing behind the cache's back; returns overrides."""
    if what == "model":
        return [f"teacher.model={tiny_text(folder / 'other', seed=5)}"]
    if what == "data":
        file = folder / "train.jsonl"
        file.write_text(file.read_text().replace("garden", "house"))
        return []
    other = tiny_text(folder / "other")
    file = other / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "note": 1}))
    return [f"data.tokenizer={other}"]


@pytest.mark.parametrize("what", ["model", "data", "tokenizer"])
def test_a_cache_of_something_else_is_refused_by_the_field(tmp_path: Path, what: str) -> None:
    recipe = write_text_run(tmp_path)
    assert cache(recipe) == 0
    overrides = [*changed(tmp_path, what), "teacher.cache=cache"]
    with pytest.raises(InputError) as refused:
        run(recipe, "run", *overrides)
    fields = [line for line in refused.value.faults if " in the cache and " in line]
    assert [f"({what}) is" in line for line in fields] == [True], fields
    assert not (tmp_path / "run").exists()


def test_blocks_that_the_cache_does_not_keep_are_named(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path)
    assert cache(recipe) == 0
    write_text_run(tmp_path, objective=OBJECTIVE)
    with pytest.raises(InputError, match=r"Term angle compares states, and teacher.cache .* keeps none"):
        run(recipe, "run", "teacher.cache=cache")
    assert cache(recipe, "--force") == 0
    with pytest.raises(InputError, match=r"tiny-text: .* keeps the states of blocks \[4\].*those of \[2\]"):
        run(recipe, "run", "teacher.cache=cache", "student.layer_map=uniform")
    assert not (tmp_path / "run").exists()
